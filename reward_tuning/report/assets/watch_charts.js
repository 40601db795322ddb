// Curves of the live page: one chart a number, one line a run, drawn again as rows come.
(() => {
  "use strict";

  const { element, number } = window.report;
  const watch = (window.watch = window.watch || {});
  // In this order; of the guards' measures those of judges that are not trained on come first.
  const MEASURED = /^guards: measures\/(.+)\/mean$/;
  const MAIN = [/^reward\//, /^held_out/, MEASURED, /^guards: (motion|diversity|drift)$/, /^motion$/, /^drift$/, /^loss$/, /^grad_norm$/, /^seconds\/step$/];
  const NO_JUDGES = ["motion", "brightness", "contrast", "saturation", "diversity"];
  const HIDDEN = [/^measures\/[^/]+\/(base|now|low|high)$/, /^best$/];
  const MOST_POINTS = 1500; // of a line: more than a screen has pixels for

  watch.COLOURS = ["--accent", "--loss", "--third", "--fourth", "--muted"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  watch.colourOf = (place) => watch.COLOURS[place % watch.COLOURS.length];
  const dashOf = (place) => DASHES[Math.floor(place / watch.COLOURS.length) % DASHES.length];

  // Plotly reads some markup in names; a name of a run is text.
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  const box = document.getElementById("charts");
  const smoothing = document.getElementById("smoothing");
  const every = document.getElementById("all-numbers");
  const charts = new Map(); // key -> {figure, plot, caption, seen, due}
  const texts = new Map();

  // An exponential mean, corrected for its start, as TensorBoard draws it.
  watch.smooth = (values, weight) => {
    let mean = 0;
    let count = 0;
    return values.map((value) => {
      if (value === null) return null;
      mean = mean * weight + (1 - weight) * value;
      count += 1;
      return mean / (1 - weight ** count);
    });
  };

  const thinned = (list) => {
    const stride = Math.ceil(list.length / MOST_POINTS);
    return stride <= 1 ? list : list.filter((_, i) => i % stride === 0 || i === list.length - 1);
  };

  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const chart = charts.get(entry.target.dataset.key);
        if (!chart) continue;
        chart.seen = entry.isIntersecting;
        if (chart.seen && chart.due) draw(entry.target.dataset.key);
      }
    },
    { rootMargin: "200px" },
  );

  const series = (run, key) => {
    const inGuards = key.startsWith("guards: ");
    const name = inGuards ? key.slice(8) : key;
    const rows = inGuards ? run.guards.map((row) => row.numbers) : run.rows;
    const found = rows.filter((row) => Number.isFinite(row[name]));
    return { steps: found.map((row) => row.step), values: found.map((row) => row[name]), rows: found, name };
  };

  const lines = (key, shown) => {
    const weight = Number(smoothing.value);
    const traces = [];
    for (const run of shown) {
      const { steps, values, rows, name } = series(run, key);
      if (!steps.length) continue;
      const colour = window.report.colour(watch.colourOf(run.place));
      const line = { color: colour, dash: dashOf(run.place), width: 2 };
      const label = plain(run.name);
      const common = { type: "scatter", hovertemplate: "%{y:.4~g}", name: label, legendgroup: run.id };
      const [pairs, smoothed] = [steps.map((_, i) => i), watch.smooth(values, weight)];
      const kept = thinned(pairs);
      const at = (list) => kept.map((i) => list[i]);
      if (key.startsWith("guards: ")) {
        const [low, high] = ["low", "high"].map((end) => name.replace(/\/mean$/, `/${end}`));
        const error = name.endsWith("/mean") && {
          type: "data", symmetric: false, color: colour, thickness: 1.2, width: 3,
          array: rows.map((row) => row[high] - row[name]),
          arrayminus: rows.map((row) => row[name] - row[low]),
        };
        traces.push({ ...common, mode: "lines+markers", x: steps, y: values, line, marker: { color: colour, size: 6 }, ...(error ? { error_y: error } : {}) });
        continue;
      }
      if (weight > 0) {
        traces.push({ ...common, mode: "lines", x: at(steps), y: at(values), opacity: 0.28, line: { ...line, width: 1 }, showlegend: false, hoverinfo: "skip", hovertemplate: null });
      }
      traces.push({ ...common, mode: steps.length > 1 ? "lines" : "markers", x: at(steps), y: at(smoothed), line, marker: { color: colour } });
    }
    return traces;
  };

  // Steps at which a rule of the guards fired.
  const marks = (shown) =>
    shown.flatMap((run) =>
      run.guards
        .filter((row) => row.fired.length)
        .map((row) => ({
          type: "line", yref: "paper", y0: 0, y1: 1, x0: row.numbers.step, x1: row.numbers.step,
          line: { color: window.report.colour("--loss"), width: 1, dash: "dot" },
        })),
    );

  const draw = (key) => {
    const chart = charts.get(key);
    chart.due = false;
    const [ink, muted, grid] = ["--ink", "--muted", "--line"].map(window.report.colour);
    const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { color: muted }, automargin: true, ...window.report.TICKS };
    const shown = watch.shown();
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 12, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 48, r: 8, t: 8, b: 34 },
      xaxis: { ...axis, title: { text: "step", font: { color: muted, size: 11 } }, rangemode: "tozero" },
      yaxis: { ...axis },
      showlegend: false, // the cards of the runs have the colours
      hovermode: "x unified",
      hoverlabel: { bgcolor: window.report.colour("--surface"), font: { color: ink } },
      uirevision: key, // a zoom stays while rows come
      shapes: marks(shown),
    };
    Plotly.react(chart.plot, lines(key, shown), layout, { displayModeBar: false, responsive: true });
    const ends = shown
      .map((run) => [run, series(run, key).values.at(-1)])
      .filter(([, value]) => value !== undefined);
    const words = ends.map(([run, value]) => `${run.name} ${number(value)}`).join(", ");
    chart.plot.setAttribute("aria-label", `${chart.title.textContent} by step; now ${words || "nothing"}`);
    chart.now.textContent = ends.length === 1 ? number(ends[0][1]) : "";
  };

  const add = (key) => {
    const plot = element("div", { class: "plot", role: "img", "data-key": key });
    const now = element("span", { class: "muted" });
    const caption = element("figcaption", {});
    const title = element("span", {}, key); // until the server has told its title
    const figure = element("figure", { class: "chart card" }, element("h3", {}, title, " ", now), plot, caption);
    charts.set(key, { figure, plot, caption, title, now, seen: false, due: true });
    observer.observe(plot);
    return charts.get(key);
  };

  const explain = async (keys) => {
    const missing = keys.filter((key) => !texts.has(key));
    if (!missing.length) return;
    missing.forEach((key) => texts.set(key, null));
    const query = new URLSearchParams(missing.map((key) => ["name", key]));
    const answer = await fetch(`texts?${query}`);
    if (!answer.ok) return;
    const found = await answer.json();
    for (const key of missing) {
      const text = found[key];
      const chart = charts.get(key);
      texts.set(key, text);
      if (!text || !chart) continue;
      chart.title.textContent = text.title;
      chart.caption.replaceChildren(...window.report.prose(text.what));
      const label = chart.plot.getAttribute("aria-label");
      if (label) chart.plot.setAttribute("aria-label", label.replace(key, () => text.title));
      chart.figure.title = [text.unit && `Unit: ${text.unit}`, text.healthy && `Healthy: ${text.healthy}`, text.remedy && `If not: ${text.remedy}`].filter(Boolean).map(window.report.unmarked).join("\n");
    }
  };

  const rank = (key) => {
    const place = MAIN.findIndex((pattern) => pattern.test(key));
    return place < 0 ? MAIN.length : place;
  };
  // Judges never trained on, trained ones, then measures that are no judge's.
  const role = (key, trained) => {
    const measured = MEASURED.exec(key);
    if (!measured) return 0;
    if (NO_JUDGES.includes(measured[1]) || measured[1].startsWith("oracle")) return 2;
    return trained.has(`reward/${measured[1]}`) ? 1 : 0;
  };

  // Which charts there are follows from the numbers that the shown runs have.
  watch.drawCharts = () => {
    const all = every.getAttribute("aria-pressed") === "true";
    const keys = new Set();
    for (const run of watch.shown()) {
      for (const key of run.keys) keys.add(key);
    }
    const wanted = [...keys]
      .filter((key) => !HIDDEN.some((pattern) => pattern.test(key.replace(/^guards: /, ""))))
      .filter((key) => all || rank(key) < MAIN.length)
      .sort((a, b) => rank(a) - rank(b) || role(a, keys) - role(b, keys) || a.localeCompare(b));
    document.getElementById("curves").hidden = !keys.size;
    for (const [key, chart] of charts) {
      if (wanted.includes(key)) continue;
      observer.unobserve(chart.plot);
      Plotly.purge(chart.plot);
      chart.figure.remove();
      charts.delete(key);
      texts.delete(key);
    }
    wanted.forEach((key, place) => {
      const chart = charts.get(key) || add(key);
      if (box.children[place] !== chart.figure) box.insertBefore(chart.figure, box.children[place] || null);
      chart.due = true;
      if (chart.seen) draw(key);
    });
    explain(wanted).catch(() => {}); // the next poll tells that the server is gone
  };

  smoothing.addEventListener("input", () => {
    document.getElementById("smoothing-shown").textContent = smoothing.value;
    watch.drawCharts();
  });
  every.addEventListener("click", () => {
    every.setAttribute("aria-pressed", String(every.getAttribute("aria-pressed") !== "true"));
    watch.drawCharts();
  });
  window.report.onTheme(() => watch.drawCharts());
})();
