// A card for each run of the live page: what it does, the time left, its orders.
(() => {
  "use strict";

  const { element, number } = window.report;
  const watch = (window.watch = window.watch || {});
  const box = document.getElementById("run-cards");
  const cards = new Map();
  const STATES = {
    running: "running",
    paused: "paused",
    silent: "no sign of life",
    stopped: "stopped",
    failed: "failed",
    finished: "finished",
    unknown: "not running",
  };

  // 75 -> 1:15, 3725 -> 1:02:05
  watch.clock = (seconds) => {
    const whole = Math.max(0, Math.round(seconds));
    const two = (value) => String(value).padStart(2, "0");
    const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
    return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
  };

  const give = async (run, name, given, card) => {
    card.trouble.textContent = "";
    try {
      const answer = await fetch(`runs/${run.id}/orders/${name}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ given }),
      });
      if (!answer.ok) card.trouble.textContent = await answer.text();
      else window.report.announce(`${run.name}: ${name} ${given ? "asked for" : "taken back"}`);
    } catch (error) {
      card.trouble.textContent = "The server does not answer; the order was not given.";
    }
    watch.poll();
  };

  const button = (name, order) => {
    const made = element("button", { type: "button", "data-order": order }, name);
    return made;
  };

  const openRecipe = async (run, card) => {
    if (!card.details.open || card.recipe.textContent) return;
    try {
      const answer = await fetch(`runs/${run.id}/recipe`);
      card.recipe.textContent = (await answer.text()) || "The run has not begun yet.";
    } catch (error) {
      card.recipe.textContent = "The server does not answer.";
    }
  };

  const add = (run) => {
    const card = {
      check: element("input", { type: "checkbox", checked: run.wanted, "aria-label": `Show ${run.name} in curves and clips` }),
      state: element("span", { class: "badge" }),
      what: element("span", {}),
      left: element("span", { class: "muted" }),
      bar: element("progress", { max: "1", "aria-label": `Progress of ${run.name}` }),
      numbers: element("p", { class: "small muted" }),
      message: element("p", { class: "small" }),
      command: element("code", {}),
      copy: element("button", { type: "button", class: "quiet" }, "Copy"),
      pause: button("Pause", "pause"),
      stop: button("Stop after this step", "stop"),
      sample: button("Sample now", "sample"),
      trouble: element("p", { class: "trouble", role: "alert" }),
      fired: element("ul", { class: "fired" }),
      recipe: element("pre", { class: "text", tabindex: "0" }),
    };
    card.check.checked = run.wanted;
    card.details = element("details", {}, element("summary", {}, "Recipe"), card.recipe);
    card.orders = element("div", { class: "orders", role: "group", "aria-label": `Orders to ${run.name}` }, card.pause, card.stop, card.sample);
    card.resume = element("div", { class: "command" }, card.command, card.copy);
    card.root = element(
      "article",
      { class: "run-card card", "data-run": run.name },
      element("header", {}, card.check, element("span", { class: "swatch", "aria-hidden": "true" }), element("h3", {}, run.name), card.state),
      element("div", { class: "facts" }, card.what, card.left),
      card.bar, card.numbers, card.message, card.resume, card.orders, card.trouble, card.fired, card.details,
    );
    card.root.style.setProperty("--run-colour", `var(${watch.colourOf(run.place)})`);
    card.check.addEventListener("change", () => {
      run.wanted = card.check.checked;
      watch.drawCharts();
      watch.drawClips();
    });
    for (const order of ["pause", "stop", "sample"]) {
      card[order].addEventListener("click", () => give(run, order, !run.orders[order], card));
    }
    card.copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(run.resume);
        card.copy.textContent = "Copied";
      } catch (error) {
        card.copy.textContent = "Select it";
        getSelection().selectAllChildren(card.command);
      }
      setTimeout(() => (card.copy.textContent = "Copy"), 2000);
    });
    card.details.addEventListener("toggle", () => openRecipe(run, card));
    cards.set(run.id, card);
    return card;
  };

  const facts = (run) => {
    const status = run.status || {};
    const running = ["running", "paused", "silent"].includes(run.state);
    const training = status.steps > 0 && status.step < status.steps;
    const parts = [];
    if (status.steps > 0) parts.push(`step ${status.step} of ${status.steps}`);
    else if (run.rows.length) parts.push(`step ${run.rows.at(-1).step}`);
    if (run.state === "paused") parts.push("waits");
    else if (running && status.stage) parts.push(status.phase ? `${status.stage} (${status.phase})` : status.stage);
    if (running && !training && status.total > 0) parts.push(`${status.done} of ${status.total}`);
    return { status, running, training, text: parts.join(" \u00b7 ") };
  };

  const draw = (run) => {
    const card = cards.get(run.id) || add(run);
    const { status, running, training, text } = facts(run);
    card.state.textContent = STATES[run.state] || run.state;
    card.state.className = `badge state-${run.state in STATES ? run.state : "unknown"}`;
    card.what.textContent = text;
    card.left.textContent =
      running && run.state !== "paused" && Number.isFinite(status.left)
        ? `${watch.clock(status.left)} left${training ? "" : " in this stage"}`
        : "";
    const share = training || !running ? status.step / status.steps : status.done / status.total;
    card.bar.hidden = !Number.isFinite(share);
    if (Number.isFinite(share)) card.bar.value = Math.min(1, share);
    const last = run.rows.at(-1) || {};
    const rewards = Object.keys(last).filter((key) => key.startsWith("reward/"));
    const shown = rewards.length ? rewards : ["loss"].filter((key) => key in last);
    const words = shown.slice(0, 4).map((key) => `${key.replace("reward/", "")} ${number(last[key])}`);
    if (Number.isFinite(status.seconds_per_step)) words.push(`${number(status.seconds_per_step)} s a step`);
    card.numbers.textContent = words.join(" \u00b7 ");
    card.numbers.hidden = !words.length;
    const trouble = [...run.faults];
    if (run.damaged) trouble.push(`${run.damaged} lines of its files are damaged and left out.`);
    if (run.state === "silent") {
      trouble.push(`No sign of life for ${watch.clock(watch.serverTime - status.time)}: it was killed, or runs on another machine whose files arrive late.`);
    }
    card.message.textContent = [run.state === "failed" || run.state === "stopped" ? status.message : "", ...trouble].filter(Boolean).join(" ");
    card.message.hidden = !card.message.textContent;
    card.resume.hidden = !["stopped", "failed", "silent", "unknown"].includes(run.state);
    card.command.textContent = run.resume;
    card.orders.hidden = !run.obeys;
    card.pause.textContent = run.orders.pause ? "Start" : "Pause";
    card.pause.classList.toggle("primary", run.orders.pause);
    card.stop.setAttribute("aria-pressed", String(run.orders.stop));
    card.stop.textContent = run.orders.stop ? "Stops after this step" : "Stop after this step";
    card.sample.setAttribute("aria-pressed", String(run.orders.sample));
    card.sample.textContent = run.orders.sample ? "Samples after this step" : "Sample now";
    const fired = run.guards.flatMap((row) => row.fired.map((one) => `Step ${row.numbers.step}, ${one.rule} (${one.action}): ${one.text}`));
    if (card.fired.children.length !== fired.length) {
      card.fired.replaceChildren(...fired.map((line) => element("li", {}, line)));
    }
    return card;
  };

  watch.drawRuns = (runs) => {
    document.getElementById("no-runs").hidden = runs.length > 0;
    runs.forEach((run, place) => {
      const card = draw(run);
      if (box.children[place] !== card.root) box.insertBefore(card.root, box.children[place] || null);
    });
    for (const [id, card] of cards) {
      if (runs.some((run) => run.id === id)) continue;
      card.root.remove();
      cards.delete(id);
    }
  };
})();
