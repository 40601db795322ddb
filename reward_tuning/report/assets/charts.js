// Plotly's charts in the colours of the page. Each is drawn when it comes near the screen.
(() => {
  "use strict";
  const report = window.report;
  const { element } = report;
  const drawn = new Map(); // element of a chart -> its figure
  const NAME = /^var\((--[\w-]+)\)$/;

  const coloured = (value, colours) => {
    if (typeof value === "string") {
      const found = NAME.exec(value);
      if (!found) return value;
      if (!colours.has(found[1])) colours.set(found[1], report.colour(found[1]));
      return colours.get(found[1]);
    }
    if (Array.isArray(value)) {
      // numbers, which are most of a figure, have no colour
      const numbers = typeof value[0] === "number" && typeof value[value.length - 1] === "number";
      return numbers ? value : value.map((one) => coloured(one, colours));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, colours)]));
    }
    return value;
  };

  const axis = {
    gridcolor: "var(--line)",
    zerolinecolor: "var(--line)",
    linecolor: "var(--strong-line)",
    automargin: true,
    title: { font: { size: 12 }, standoff: 8 },
    tickfont: { size: 11 },
    fixedrange: true,
    ...report.TICKS,
  };
  const theme = (layout) => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 46, r: 10, t: 26, b: 40 },
    showlegend: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: "var(--surface)", bordercolor: "var(--line)", font: { color: "var(--ink)" } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
    dragmode: false,
    ...layout,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "var(--muted)" },
    xaxis: { ...axis, ...layout.xaxis, title: { ...axis.title, ...(layout.xaxis || {}).title } },
    yaxis: { ...axis, ...layout.yaxis, title: { ...axis.title, ...(layout.yaxis || {}).title } },
  });

  const draw = (place, figure) => {
    const colours = new Map();
    const layout = theme({ showlegend: figure.traces.length > 1, ...figure.layout });
    const traces = coloured(figure.traces, colours);
    drawn.set(place, figure);
    return Plotly.react(place, traces, coloured(layout, colours), { displayModeBar: false, responsive: true });
  };

  const near = new IntersectionObserver(
    (entries) =>
      entries
        .filter((entry) => entry.isIntersecting)
        .forEach((entry) => {
          near.unobserve(entry.target);
          draw(entry.target, entry.target.figure);
        }),
    { rootMargin: "400px" },
  );

  // Plotly's script is the last of the page.
  const whenLoaded = (act) =>
    document.readyState === "loading" ? addEventListener("DOMContentLoaded", act) : act();

  // A figure of the page's data as an element; figure.title is its heading.
  report.chart = (figure, level = "h4") => {
    const plot = element("div", { class: "plot", role: "img", "aria-label": figure.text });
    plot.figure = figure;
    whenLoaded(() => near.observe(plot));
    return element(
      "figure",
      { class: "chart card" },
      element(level, {}, figure.title),
      plot,
      figure.caption ? element("figcaption", {}, figure.caption) : null,
    );
  };
  // Replace what a chart shows, as when new rows have come.
  report.redraw = (chart, figure) => {
    const plot = chart.querySelector(".plot");
    plot.figure = figure;
    plot.setAttribute("aria-label", figure.text);
    if (drawn.has(plot)) draw(plot, figure);
  };
  report.onTheme(() => drawn.forEach((figure, place) => draw(place, figure)));
  addEventListener("beforeprint", () =>
    document.querySelectorAll(".plot").forEach((plot) => drawn.has(plot) || draw(plot, plot.figure)),
  );

  // The report's own charts, in groups.
  const HEADS = { strength: "Change by strength", sampling: "Does it hold with other steps and guidance?" };
  const NOTES = { strength: "95 % intervals over prompts; strength 0 is the base, 1 the strength of the training." };
  const fill = (id, part, wanted) => {
    const place = document.getElementById(id);
    if (!place) return;
    const figures = (report.data.figures || []).filter(wanted);
    for (const group of new Set(figures.map((figure) => figure.group))) {
      place.append(
        element("h3", { class: "charts-head" }, HEADS[group] || group),
        NOTES[group] ? element("p", { class: "small muted" }, NOTES[group]) : "",
        element("div", { class: "charts" }, ...figures.filter((f) => f.group === group).map((f) => report.chart(f))),
      );
    }
    if (!figures.length) {
      document.querySelectorAll(`[data-part="${part}"], [data-needs="${part}"]`).forEach((one) => {
        one.hidden = true;
      });
    }
  };
  const dial = (figure) => figure.group in HEADS;
  fill("training-charts", "training", (figure) => !dial(figure));
  fill("dial-charts", "dials", dial);
})();
