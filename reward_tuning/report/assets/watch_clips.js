// Sample clips of the live page: for each prompt the base and the newest of every shown run.
(() => {
  "use strict";

  const { element } = window.report;
  const watch = (window.watch = window.watch || {});
  const rows = document.getElementById("clip-rows");
  const slider = document.getElementById("clip-step");
  const shownStep = document.getElementById("clip-step-shown");
  const newest = document.getElementById("clip-newest");
  const play = document.getElementById("clip-play");
  const STILL = /\.(png|gif)$/;
  let steps = [];
  let playing = !window.report.still();

  const address = (run, step, file) => `runs/${run.id}/clips/step-${String(step).padStart(6, "0")}/${file}`;
  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  const stepsOf = (run) => Object.keys(run.samples).map(Number).sort((a, b) => a - b);

  const choose = () => {
    const all = new Set(watch.shown().flatMap(stepsOf));
    const before = steps[Number(slider.value)];
    steps = [...all].sort((a, b) => a - b);
    slider.max = String(Math.max(0, steps.length - 1));
    slider.disabled = steps.length < 2;
    const place = pressed(newest) ? steps.length - 1 : steps.indexOf(before);
    slider.value = String(place < 0 ? Math.max(0, steps.length - 1) : place);
    const step = steps[Number(slider.value)];
    shownStep.textContent = step === undefined ? "" : String(step);
    slider.setAttribute("aria-valuetext", `step ${step}`);
    return step;
  };

  // What stands in one row: the base of the first run, then each run's clip of the chosen step, or
  // of its last one before that.
  const wanted = (step) => {
    const prompts = new Map(); // text and file -> cells
    for (const run of watch.shown()) {
      const own = stepsOf(run);
      const at = own.filter((one) => one <= step).at(-1);
      if (at === undefined) continue;
      for (const file of run.samples[at]) {
        const prompt = run.prompts[file] || "";
        const key = `${file}\n${prompt}`;
        if (!prompts.has(key)) prompts.set(key, { file, prompt, cells: [] });
        const { cells } = prompts.get(key);
        if (own[0] === 0 && !cells.some((cell) => cell.step === 0) && (run.samples[0] || []).includes(file)) {
          cells.push({ run, step: 0, file, label: "base", colour: null });
        }
        if (at !== 0) cells.push({ run, step: at, file, label: watch.shown().length > 1 ? `${run.name}, step ${at}` : `step ${at}`, colour: watch.colourOf(run.place) });
      }
    }
    return [...prompts.values()].filter((row) => row.cells.length).sort((a, b) => a.file.localeCompare(b.file) || a.prompt.localeCompare(b.prompt));
  };

  const cell = (one, prompt) => {
    const source = address(one.run, one.step, one.file);
    const label = `${one.label}: ${prompt}`;
    const media = STILL.test(one.file)
      ? element("img", { src: source, alt: label })
      : element("video", { src: source, "aria-label": label, loop: true, playsinline: true, preload: "auto" });
    media.muted = true;
    const figure = element("figure", {}, media, element("figcaption", {}, one.label));
    if (one.colour) figure.style.setProperty("--run-colour", `var(${one.colour})`);
    figure.dataset.source = source;
    media.addEventListener("error", () => {
      figure.querySelector("figcaption").textContent = `${one.label}: this clip cannot be played`;
    });
    if (media.tagName === "VIDEO") media.addEventListener("canplay", () => inStep(figure.parentElement), { once: true });
    return figure;
  };

  // Clips of a prompt begin together, and again once another has come.
  const inStep = (set) => {
    if (!set) return;
    for (const video of set.querySelectorAll("video")) {
      video.currentTime = 0;
      if (playing) video.play().catch(() => {}); // another one has come in between
      else video.pause();
    }
  };

  watch.drawClips = () => {
    const found = wanted(choose());
    document.getElementById("clips").hidden = !found.length;
    found.forEach((row, place) => {
      let card = rows.children[place];
      const title = row.prompt || `Clip ${row.file}`;
      if (!card || card.dataset.title !== title) {
        const made = element("article", { class: "clip-row card" }, element("h3", {}, title), element("div", { class: "clip-set" }));
        made.dataset.title = title;
        if (card) card.replaceWith(made);
        else rows.append(made);
        card = made;
      }
      const set = card.querySelector(".clip-set");
      const there = new Map([...set.children].map((figure) => [figure.dataset.source, figure]));
      const figures = row.cells.map((one) => {
        const figure = there.get(address(one.run, one.step, one.file));
        return figure || cell(one, title);
      });
      if (figures.length !== set.children.length || figures.some((figure, i) => figure !== set.children[i])) set.replaceChildren(...figures);
    });
    while (rows.children.length > found.length) rows.lastElementChild.remove();
  };

  slider.addEventListener("input", () => {
    newest.setAttribute("aria-pressed", String(Number(slider.value) === steps.length - 1));
    watch.drawClips();
  });
  newest.addEventListener("click", () => {
    newest.setAttribute("aria-pressed", String(!pressed(newest)));
    watch.drawClips();
  });
  const shownPlay = () => {
    play.setAttribute("aria-pressed", String(playing));
    play.textContent = playing ? "Pause clips" : "Play clips";
  };
  play.addEventListener("click", () => {
    playing = !playing;
    shownPlay();
    for (const set of rows.querySelectorAll(".clip-set")) inStep(set);
  });
  shownPlay();
})();
