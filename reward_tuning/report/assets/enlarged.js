// One prompt over the whole window: larger clips, its scores, the next prompt by arrow keys.
(() => {
  "use strict";
  const report = window.report;
  const dialog = document.getElementById("enlarged");
  if (!dialog || !document.getElementById("gallery")) return;
  const { data, clock, element } = report;
  const screens = new report.Screens(2);
  const head = element("h2", { id: "enlarged-head", class: "prompt" });
  const about = element("p", { class: "small muted" });
  const scores = element("dl", { class: "deltas" });
  const labels = [element("figcaption", {}, "base"), element("figcaption", {})];
  const dialPlace = element("div", { class: "dial-place" });
  let prompt = 0;
  let slider = null;

  const move = (by) => {
    const order = report.visibleCards.map((card) => card.prompt);
    const at = order.indexOf(prompt);
    if (order.length) show(order[(at + by + order.length) % order.length]);
  };
  const full = element("button", { type: "button", onclick: () => toggleFull() }, "Full screen");
  const toggleFull = () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else dialog.requestFullscreen();
  };
  full.hidden = !document.fullscreenEnabled;
  document.addEventListener("fullscreenchange", () => {
    full.textContent = document.fullscreenElement ? "Leave full screen" : "Full screen";
  });

  dialog.append(
    element(
      "div",
      { class: "enlarged-head row" },
      head,
      element(
        "div",
        { class: "row" },
        full,
        element("button", { type: "button", onclick: () => dialog.close(), "aria-label": "Close" }, "Close"),
      ),
    ),
    element(
      "div",
      { class: "pair-screens large" },
      ...screens.roots.map((screen, i) => element("figure", {}, screen, labels[i])),
    ),
    element(
      "div",
      { class: "transport flat" },
      dialPlace,
      element(
        "div",
        { class: "playback" },
        report.playButton(),
        ...report.stepButtons(),
        element("button", { type: "button", onclick: () => move(-1), "aria-label": "Previous prompt" }, "\u2190"),
        element("button", { type: "button", onclick: () => move(1), "aria-label": "Next prompt" }, "\u2192"),
      ),
    ),
    about,
    scores,
    element(
      "p",
      { class: "small muted keys" },
      ...[["space", "plays"], [", .", "a frame"], ["\u2190 \u2192", "other prompts"], ["\u2191 \u2193", "strength"], ["f", "full screen"], ["Esc", "closes"]].flatMap(
        ([key, text]) => [element("kbd", {}, key), ` ${text}\u2002`],
      ),
    ),
  );

  const show = (index) => {
    prompt = index;
    const question = data.questions[index];
    const { base, side, series } = window.reportData.shown();
    const strength = report.strengthText(data.sides[side]);
    head.textContent = question.prompt;
    const parts = [`Prompt ${index + 1} of ${data.questions.length}`];
    if (question.category) parts.push(question.category);
    if (question.seed !== null) parts.push(`seed ${question.seed}`);
    about.textContent = parts.join(" \u00b7 ");
    labels[1].textContent = `tuned, ${strength}`;
    const names = [base, side].map((one) => (window.reportData.clip(one, index) || {}).name);
    screens.show(names, [`Base: ${question.prompt}`, `Tuned, ${strength}: ${question.prompt}`]);
    scores.replaceChildren(
      ...data.metrics.flatMap((metric) => {
        const value = window.reportData.change(index, metric.name);
        if (value === null) return [];
        const tone = window.reportData.tone(value, metric.name);
        return [
          element("div", {}, element("dt", {}, metric.label), element("dd", { class: tone }, window.reportData.shownChange(value, metric.name))),
        ];
      }),
    );
    const sides = (data.series[series] || { sides: [] }).sides;
    if (!slider && sides.length > 1) {
      slider = report.strengthSlider(sides, window.reportData.dial(), (value) => window.reportData.select(value));
      slider.input.setAttribute("aria-label", "Strength");
      dialPlace.replaceChildren(slider.root);
    }
    if (slider) slider.update(window.reportData.dial());
  };

  report.enlarge = (index) => {
    slider = null;
    dialPlace.replaceChildren();
    show(index);
    dialog.showModal();
    screens.setVisible(true);
  };
  dialog.addEventListener("close", () => {
    screens.setVisible(false);
    if (document.fullscreenElement) document.exitFullscreen();
    report.goToPrompt(prompt);
  });
  report.onStrength = () => dialog.open && show(prompt);
  dialog.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select")) return;
    if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
    else if (event.key === "ArrowUp") window.reportData.select(window.reportData.dial() + 1);
    else if (event.key === "ArrowDown") window.reportData.select(window.reportData.dial() - 1);
    else if (event.key === "f" && document.fullscreenEnabled) toggleFull();
    else return;
    event.preventDefault();
  });
})();
