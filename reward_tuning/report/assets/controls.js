// The controls above the gallery: order and filter, strength, playback, and their keys.
(() => {
  "use strict";
  const report = window.report;
  const { data, clock, element } = report;
  const SPEEDS = [0.25, 0.5, 1, 2];

  const field = (text, control) => {
    const id = `control-${text.toLowerCase().replace(/\W+/g, "-")}`;
    control.id = id;
    return element("div", { class: "field" }, element("label", { for: id }, text), control);
  };
  const options = (pairs) => pairs.map(([value, text]) => element("option", { value }, text));
  const choice = (pairs, value, act) => {
    const made = element("select", { onchange: (event) => act(event.target.value) }, ...options(pairs));
    made.value = value;
    return made;
  };
  report.field = field;
  report.choice = choice;

  report.playButton = () => {
    const button = element("button", { type: "button", class: "primary play", onclick: () => clock.toggle() });
    const update = () => {
      button.textContent = clock.playing ? "Pause" : "Play";
    };
    update();
    clock.onChange(update);
    return button;
  };
  report.stepButtons = () =>
    [
      [-1, "\u2039", "One frame back"],
      [1, "\u203a", "One frame forward"],
    ].map(([frames, sign, name]) =>
      element("button", { type: "button", "aria-label": name, title: name, onclick: () => clock.step(frames, report.shownFps()) }, sign),
    );

  // A slider over the strengths of a series, with a mark for each.
  report.strengthSlider = (sides, value, act) => {
    const input = element("input", {
      type: "range",
      min: 0,
      max: sides.length - 1,
      step: 1,
      value,
      oninput: () => act(Number(input.value)),
    });
    const marks = sides.map((side, i) =>
      element("button", { type: "button", class: "mark-button", tabindex: "-1", "aria-hidden": "true", onclick: () => act(i) }, String(data.sides[side].strength)),
    );
    const root = element("div", { class: "dial" }, input, element("div", { class: "dial-marks" }, ...marks));
    const update = (now) => {
      input.value = now;
      input.setAttribute("aria-valuetext", `strength ${data.sides[sides[now]].strength}`);
      marks.forEach((mark, i) => mark.classList.toggle("on", i === now));
    };
    update(value);
    return { root, input, update };
  };

  // A run that has not drawn clips after training yet has those of the base alone
  report.strengthText = (side) => (side.against === null ? "before its first step" : `strength ${side.strength}`);

  report.galleryControls = ({ state, series, several, cards, orders, refresh, arrange }) => {
    const filters = document.getElementById("filters");
    const transport = document.getElementById("transport");
    const scored = data.metrics.filter(({ name }) => data.sides.some((side) => side.scores[name]));
    const categories = [...new Set(data.questions.map(({ category }) => category).filter(Boolean))].sort();
    const later = (act) => (value) => {
      act(value);
      arrange();
    };

    const search = element("input", {
      type: "search",
      placeholder: "words of the prompt",
      oninput: (event) => later((value) => (state.text = value))(event.target.value),
    });
    const category = choice(
      [["", "All"], ...categories.map((one) => [one, one])],
      "",
      later((value) => (state.category = value)),
    );
    if (scored.length) {
      if (!scored.some(({ name }) => name === state.metric)) state.metric = scored[0].name;
      filters.append(
        field("Order", choice(Object.entries(orders).map(([key, [text]]) => [key, text]), state.order, later((v) => (state.order = v)))),
        field(
          "By",
          choice(scored.map(({ name, label }) => [name, label]), state.metric, (value) => {
            state.metric = value;
            refresh();
          }),
        ),
      );
    }
    if (categories.length) filters.append(field("Category", category));
    if (cards.length > 1) filters.append(field("Search", search));

    let slider = null;
    const dialPlace = element("div", { class: "dial-place" });
    const makeDial = () => {
      dialPlace.replaceChildren();
      slider = null;
      const one = series[state.series];
      if (!one || one.sides.length < 2) return;
      slider = report.strengthSlider(one.sides, state.dial, (value) => {
        state.dial = value;
        refresh();
      });
      slider.input.id = "strength";
      dialPlace.append(element("label", { for: "strength" }, "Strength"), slider.root);
    };
    if (series.length > 1) {
      transport.append(
        field(
          new Set(series.map(({ sides }) => data.sides[sides[0]].adapter)).size > 1 ? "Adapter" : "Sampling",
          choice(series.map((one, i) => [i, one.label]), state.series, (value) => {
            const strength = data.sides[series[state.series].sides[state.dial]].strength;
            state.series = Number(value);
            const strengths = series[state.series].sides.map((side) => data.sides[side].strength);
            const gaps = strengths.map((one) => Math.abs(one - strength));
            state.dial = gaps.indexOf(Math.min(...gaps));
            makeDial();
            refresh();
          }),
        ),
      );
    }
    if (several) {
      const all = element("button", { type: "button", "aria-pressed": "false" }, "Show all");
      all.addEventListener("click", () => {
        state.all = !state.all;
        all.setAttribute("aria-pressed", String(state.all));
        refresh();
      });
      transport.append(all);
    }
    makeDial();
    const speed = choice(SPEEDS.map((one) => [one, `${one}\u00d7`]), 1, (value) => (clock.rate = Number(value)));
    speed.setAttribute("aria-label", "Speed");
    transport.append(dialPlace, element("div", { class: "playback" }, report.playButton(), ...report.stepButtons(), speed));

    const typing = (target) => target.closest("input:not([type=range]), select, textarea, [contenteditable]");
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
      if (event.key === " " && !event.target.closest("button, a, summary")) clock.toggle();
      else if (event.key === ",") clock.step(-1, report.shownFps());
      else if (event.key === ".") clock.step(1, report.shownFps());
      else return;
      event.preventDefault();
    });

    return {
      update() {
        if (slider) slider.update(state.dial);
        speed.value = String(clock.rate);
      },
      reset() {
        search.value = "";
        category.value = "";
      },
    };
  };
})();
