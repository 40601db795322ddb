// Base and tuned side by side for every prompt: strength, order, filter, playback.
//
// window.reportData is what other parts of the page may use:
//   questions, sides, series, metrics, primary: as in the page's JSON
//   clip(side, prompt) -> {name, still, frames, fps, width, height} or null
//   clipUrl(name) -> address of its video
//   shown() -> {series, base, side}: indices of what the gallery shows
//   onShown(listener): called when that changes
(() => {
  "use strict";
  const report = window.report;
  const { data, clock, element } = report;
  const series = data.series.length ? data.series : [];
  const metrics = new Map(data.metrics.map((metric) => [metric.name, metric]));
  const listeners = [];
  const state = { series: 0, dial: 0, order: "file", metric: data.primary, category: "", text: "", all: false };

  data.series.forEach((one, i) => {
    if (one.sides.includes(data.side)) [state.series, state.dial] = [i, one.sides.indexOf(data.side)];
  });

  const current = () => {
    const one = series[state.series];
    return one ? { series: state.series, base: one.base, side: one.sides[state.dial] } : { series: 0, base: 0, side: 0 };
  };
  const clipOf = (side, prompt) => {
    const name = data.sides[side] ? data.sides[side].clips[prompt] : undefined;
    return name ? { name, ...data.clips[name] } : null;
  };
  const change = (prompt, metric = state.metric, where = current()) => {
    const [base, tuned] = [where.base, where.side].map((side) => {
      const scores = data.sides[side] ? data.sides[side].scores[metric] : undefined;
      return scores ? scores[prompt] : null;
    });
    return typeof base === "number" && typeof tuned === "number" ? tuned - base : null;
  };
  // 1 where a change is for the better, -1 where it is for the worse, 0 where neither is known.
  const direction = (metric) => ({ higher: 1, lower: -1 })[((metrics.get(metric) || {}).text || {}).better] || 0;
  const tone = (value, metric, [good, bad] = ["up", "down"]) => {
    const sign = Math.sign(value || 0) * direction(metric);
    return sign > 0 ? good : sign < 0 ? bad : "";
  };
  const shownChange = (value, metric) => {
    const share = metrics.get(metric) && metrics.get(metric).share;
    return share ? `${report.signed(100 * value, 3)} points` : report.signed(value);
  };

  window.reportData = {
    questions: data.questions,
    sides: data.sides,
    series: data.series,
    metrics: data.metrics,
    primary: data.primary,
    clip: clipOf,
    clipUrl: report.clip,
    shown: current,
    // Listeners are called once for a drag of the slider: what it shows comes first.
    onShown: (listener) => listeners.push(listener),
    change,
    shownChange,
    tone,
    select(dial) {
      state.dial = Math.max(0, Math.min(series[state.series].sides.length - 1, dial));
      refresh();
    },
    dial: () => state.dial,
  };

  const gallery = document.getElementById("gallery");
  if (!gallery) return;
  if (!report.plays) document.getElementById("no-h264").hidden = false;

  // Cards, one a prompt that has a clip anywhere
  const strengthText = (side) => (data.sides[side] ? report.strengthText(data.sides[side]) : "");
  // Series that share the base of the shown one: what can stand next to it
  const peers = (of) => series.filter((one) => of && one.base === of.base);
  const most = Math.max(1, ...series.map((one) => peers(one).length));
  // Of a series, the side whose strength is nearest to a strength
  const nearest = ({ sides }, strength) => {
    const gaps = sides.map((side) => Math.abs(data.sides[side].strength - strength));
    return sides[gaps.indexOf(Math.min(...gaps))];
  };
  const makeCard = (question, prompt) => {
    const screens = new report.Screens(1 + most);
    const head = element("h3", { id: `prompt-${prompt}-head`, class: "prompt" }, question.prompt);
    const badge = element("span", { class: "badge" });
    const labels = screens.roots.map((_, i) => element("figcaption", {}, i ? "" : "base"));
    const root = element(
      "article",
      { class: "card pair", id: `prompt-${prompt}`, tabindex: "-1", "aria-labelledby": head.id },
      element(
        "div",
        { class: "pair-screens" },
        ...screens.roots.map((screen, i) => element("figure", {}, screen, labels[i])),
      ),
      head,
      element(
        "div",
        { class: "pair-foot" },
        badge,
        question.category ? element("span", { class: "badge" }, question.category) : null,
        element(
          "button",
          { type: "button", class: "quiet small", onclick: () => report.enlarge(prompt), "aria-label": `Enlarge prompt ${prompt + 1}` },
          "Enlarge",
        ),
      ),
    );
    screens.roots.forEach((screen) => screen.addEventListener("click", () => report.enlarge(prompt)));
    root.screens = screens;
    return { prompt, question, screens, root, badge, labels };
  };
  const wanted = new Set(data.sides.flatMap((side) => Object.keys(side.clips).map(Number)));
  const cards = data.questions.map((q, i) => (wanted.has(i) ? makeCard(q, i) : null)).filter(Boolean);
  const onScreen = new IntersectionObserver(
    (entries) => entries.forEach((entry) => entry.target.screens.setVisible(entry.isIntersecting)),
    { rootMargin: "80px" },
  );

  const place = (card) => {
    const where = current();
    const beside = state.all
      ? peers(series[where.series]).map((one) => [one.label, nearest(one, data.sides[where.side].strength)])
      : [["tuned", where.side]];
    const names = [where.base, ...beside.map(([, side]) => side)].map((side) => (clipOf(side, card.prompt) || {}).name);
    const spoken = `prompt ${card.prompt + 1}: ${card.question.prompt}`;
    const about = beside.map(([name, side]) => `${name}, ${strengthText(side)}`);
    card.screens.show(names, ["Base", ...about].map((one) => `${one.replace(/^tuned/, "Tuned")}, ${spoken}`));
    card.root.classList.toggle("all", state.all);
    card.labels.slice(1).forEach((label, i) => {
      label.parentElement.hidden = i >= beside.length;
      if (i >= beside.length) return;
      const of = state.all ? change(card.prompt, state.metric, { base: where.base, side: beside[i][1] }) : null;
      label.textContent = about[i] + (of === null ? "" : `: ${metrics.get(state.metric).label} ${shownChange(of, state.metric)}`);
    });
    const value = change(card.prompt);
    card.badge.hidden = value === null || state.all; // then each clip has its own
    if (value !== null) {
      card.badge.textContent = `${metrics.get(state.metric).label} ${shownChange(value, state.metric)}`;
      card.badge.className = `badge ${tone(value, state.metric, ["gain", "loss"])}`;
    }
  };

  const ORDERS = {
    file: ["In the order of the file", null],
    worst: ["Worst first", (a, b) => a - b],
    best: ["Greatest gain first", (a, b) => b - a],
    moved: ["Greatest change first", (a, b) => Math.abs(b) - Math.abs(a)],
  };
  const arrange = () => {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = ({ question }) =>
      (!state.category || question.category === state.category) &&
      words.every((word) => question.prompt.toLowerCase().includes(word));
    const compare = ORDERS[state.order][1];
    const sign = direction(state.metric) || 1;
    const values = new Map(
      cards.map((card) => {
        const value = change(card.prompt);
        return [card, value === null ? null : sign * value];
      }),
    );
    const order = [...cards];
    if (compare) {
      order.sort((a, b) => {
        const [x, y] = [values.get(a), values.get(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return compare(x, y) || a.prompt - b.prompt;
      });
    }
    const now = order.filter(fits);
    const seen = new Set(now);
    cards.forEach((card) => seen.has(card) || card.root.remove());
    const same = now.length === gallery.children.length && now.every((card, i) => gallery.children[i] === card.root);
    if (!same) gallery.append(...now.map((card) => card.root));
    document.getElementById("count").textContent =
      cards.length < data.questions.length
        ? `${cards.length} of ${data.questions.length} prompts have clips` +
          (now.length < cards.length ? `; ${now.length} of these ${cards.length} shown` : "")
        : `${now.length} of ${cards.length} prompts shown`;
    report.visibleCards = now;
  };

  // Move to a prompt from elsewhere in the page, whatever the filter hides.
  report.goToPrompt = (prompt) => {
    const card = cards.find((one) => one.prompt === prompt);
    if (!card) return false;
    if (!card.root.isConnected) {
      Object.assign(state, { category: "", text: "" });
      controls.reset();
      arrange();
    }
    card.root.scrollIntoView({ block: "center" });
    card.root.focus({ preventScroll: true });
    return true;
  };

  const controls = report.galleryControls({ state, series, several: most > 1, cards, orders: ORDERS, refresh: () => refresh(), arrange: () => arrange() });
  let waiting = 0;
  function refresh() {
    controls.update();
    if (report.onStrength) report.onStrength();
    cards.forEach(place);
    if (ORDERS[state.order][1]) arrange();
    clearTimeout(waiting);
    waiting = setTimeout(() => listeners.forEach((listener) => listener()), 150);
  }
  refresh();
  arrange();
  cards.forEach((card) => onScreen.observe(card.root));
  clock.onChange(() => controls.update());
})();
