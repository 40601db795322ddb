// The metrics at a glance, the table of every prompt, what each column means, copy buttons.
(() => {
  "use strict";
  const report = window.report;
  const { data, element } = report;
  const { shown, change } = window.reportData;

  const explain = ({ text }) =>
    text
      ? [
          text.what,
          text.unit && `Unit: ${text.unit}`,
          text.better && `Better: ${text.better}`,
          text.healthy && `Healthy: ${text.healthy}`,
          text.remedy && `If not: ${text.remedy}`,
        ].filter(Boolean)
      : [];

  // One tooltip for all heads: on hover and focus, gone with Escape.
  const tip = element("div", { class: "tip", role: "tooltip", id: "tip", hidden: true });
  document.body.append(tip);
  const showTip = (anchor, metric) => {
    const lines = explain(metric);
    if (!lines.length) return;
    tip.replaceChildren(element("strong", {}, metric.label), ...lines.map((one) => element("p", {}, ...report.prose(one))));
    tip.hidden = false;
    const box = anchor.getBoundingClientRect();
    const width = tip.offsetWidth;
    tip.style.left = `${Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8))}px`;
    const above = box.top - tip.offsetHeight - 8;
    tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  };
  const hideTip = () => {
    tip.hidden = true;
  };
  const withTip = (node, metric) => {
    const lines = explain(metric);
    if (!lines.length) return node;
    node.setAttribute("aria-description", report.unmarked(lines.join(" ")));
    node.addEventListener("mouseenter", () => showTip(node, metric));
    node.addEventListener("mouseleave", hideTip);
    node.addEventListener("focus", () => showTip(node, metric));
    node.addEventListener("blur", hideTip);
    return node;
  };
  document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
  document.addEventListener("scroll", hideTip, { passive: true, capture: true });

  const number = (value, metric) => {
    if (typeof value !== "number") return "\u2013";
    return metric.share ? `${report.number(100 * value)} %` : report.number(value);
  };
  const signed = (value, metric) => {
    if (typeof value !== "number") return "\u2013";
    return metric.share ? report.signed(100 * value, 3) : report.signed(value);
  };

  // The mean of a metric over the prompts that another side answered too: a strength may have fewer
  // prompts than its base, and the means of other prompts do not differ by the change
  const meanOn = (one, other, name) => {
    const [own, others] = [one.scores[name], other.scores[name]];
    if (!own || !others) return one.means[name];
    const values = own.filter((value, i) => typeof value === "number" && typeof others[i] === "number");
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : one.means[name];
  };

  // Overview: means, change and interval of every metric of the side that is shown
  const overview = document.getElementById("overview");
  const drawOverview = () => {
    const { base, side } = shown();
    const now = data.sides[side];
    const before = data.sides[base];
    const known = now && before && Object.keys(now.difference).length > 0;
    document.querySelectorAll('[data-part="metrics"], [data-needs="metrics"]').forEach((one) => (one.hidden = !known));
    if (!known) return;
    const rows = [];
    // narrow screens show each row as a card: cells name their column, and roles keep it a table
    const cell = (head, text, about) => element("td", { role: "cell", "data-head": head, ...about }, text);
    let group = null;
    for (const metric of data.metrics) {
      const found = now.difference[metric.name];
      if (!found) continue;
      if (metric.group !== group) {
        group = metric.group;
        rows.push(element("tr", { class: "group", role: "row" }, element("th", { colspan: 6, scope: "colgroup", role: "rowheader" }, group)));
      }
      const decides = metric.name === data.primary;
      const word = now.verdicts[metric.name];
      const name = withTip(element("span", { tabindex: explain(metric).length ? 0 : null, class: "hint" }, metric.label), metric);
      rows.push(
        element(
          "tr",
          { class: decides ? "decides" : null, role: "row" },
          element("th", { scope: "row", role: "rowheader" }, name, decides ? element("span", { class: "badge" }, "decides") : null),
          cell("base", number(meanOn(before, now, metric.name), metric)),
          cell("tuned", number(meanOn(now, before, metric.name), metric)),
          cell("change", signed(found.mean, metric), { class: window.reportData.tone(found.mean, metric.name) }),
          cell("95 % interval", `${signed(found.low, metric)} to ${signed(found.high, metric)}`, { class: "wide-cell" }),
          cell("verdict", decides ? word : element("span", { class: "muted" }, word), { class: "left" }),
        ),
      );
    }
    const heads = ["", "base", "tuned", "change", "95 % interval", "verdict"];
    const prompts = Math.max(...Object.values(now.difference).map((found) => found.prompts || 0));
    const several = new Set(data.sides.map(({ adapter }) => adapter).filter(Boolean)).size > 1;
    const on = prompts ? `, on ${prompts} prompts` : "";
    document.getElementById("metrics-lead").textContent =
      `Base against ${several ? now.name : "tuned"} at strength ${now.strength}${on}, as chosen above the clips.`;
    overview.replaceChildren(
      element(
        "table",
        { role: "table" },
        element(
          "thead",
          { role: "rowgroup" },
          element("tr", { role: "row" }, ...heads.map((head, i) => (head ? element("th", { scope: "col", role: "columnheader", class: i === 5 ? "left" : null }, head) : element("td", { role: "cell" })))),
        ),
        element("tbody", { role: "rowgroup" }, ...rows),
      ),
    );
  };
  drawOverview();
  window.reportData.onShown(drawOverview);

  // Every prompt
  const place = document.getElementById("table");
  if (place) {
    const state = { key: "prompt", down: false, values: "change" };
    const columns = data.metrics.filter(({ name }) => data.sides.some((side) => side.scores[name]));
    const of = (prompt, metric) => {
      if (state.values === "change") return change(prompt, metric.name);
      const { base, side } = shown();
      const scores = (data.sides[state.values === "base" ? base : side] || { scores: {} }).scores[metric.name];
      return scores ? scores[prompt] : null;
    };
    const body = element("tbody");
    const heads = new Map();
    const head = (key, label, metric) => {
      const sort = element("button", { type: "button", class: "sort", onclick: () => by(key) }, label);
      const cell = element("th", { scope: "col", "aria-sort": "none" }, metric ? withTip(sort, metric) : sort);
      heads.set(key, cell);
      return cell;
    };
    const by = (key) => {
      state.down = state.key === key ? !state.down : key !== "prompt" && key !== "category";
      state.key = key;
      draw();
    };
    const categories = data.questions.some(({ category }) => category);
    const draw = () => {
      const order = data.questions.map((_, i) => i);
      const metric = columns.find(({ name }) => `m:${name}` === state.key);
      const value = (i) =>
        metric ? of(i, metric) : state.key === "category" ? data.questions[i].category || "" : i;
      order.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const none = (one) => one === null || one === undefined;
        if (none(x) || none(y)) return none(x) - none(y) || a - b;
        const by = typeof x === "string" ? x.localeCompare(y) : x - y;
        return (state.down ? -by : by) || a - b;
      });
      heads.forEach((cell, key) =>
        cell.setAttribute("aria-sort", key !== state.key ? "none" : state.down ? "descending" : "ascending"),
      );
      const clips = new Set(data.sides.flatMap((side) => Object.keys(side.clips).map(Number)));
      body.replaceChildren(
        ...order.map((i) => {
          const question = data.questions[i];
          const text = clips.has(i)
            ? element("a", { href: `#prompt-${i}`, onclick: (event) => report.goToPrompt(i) && event.preventDefault() }, question.prompt)
            : question.prompt;
          return element(
            "tr",
            {},
            element("th", { scope: "row", class: "prompt-cell" }, element("span", { class: "muted" }, `${i + 1} `), text),
            categories ? element("td", { class: "left" }, question.category || "") : null,
            ...columns.map((one) => {
              const found = of(i, one);
              const tone = state.values === "change" ? window.reportData.tone(found, one.name) : null;
              return element("td", { class: tone }, state.values === "change" ? signed(found, one) : number(found, one));
            }),
          );
        }),
      );
    };
    const unit = (metric) => `${metric.label}${metric.share ? " (%)" : ""}`;
    place.append(
      element(
        "table",
        { class: "prompts" },
        element(
          "thead",
          {},
          element("tr", {}, head("prompt", "prompt"), categories ? head("category", "category") : null, ...columns.map((one) => head(`m:${one.name}`, unit(one), one))),
        ),
        body,
      ),
    );
    if (columns.length) {
      document.getElementById("table-tools").append(
        report.field(
          "Values",
          report.choice([["change", "Change against the base"], ["tuned", "Tuned"], ["base", "Base"]], "change", (value) => {
            state.values = value;
            draw();
          }),
        ),
      );
    }
    draw();
    window.reportData.onShown(() => state.values !== "base" && draw());
    const glossary = document.querySelector("#glossary dl");
    const told = data.metrics.filter((metric) => explain(metric).length);
    glossary.append(
      ...told.flatMap((metric) => [element("dt", {}, metric.label), element("dd", {}, ...explain(metric).map((one) => element("p", {}, ...report.prose(one))))]),
    );
    document.getElementById("glossary").hidden = !told.length;
  }

  document.querySelectorAll("[data-copy]").forEach((button) =>
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        report.announce("Copied");
        button.textContent = "Copied";
      } catch (error) {
        // without permission the text is selected, so that one key copies it
        getSelection().selectAllChildren(source);
        report.announce("Selected; copy it with your keyboard");
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    }),
  );
  if (!document.getElementById("vote")) document.querySelectorAll(".to-vote").forEach((link) => link.remove());
})();
