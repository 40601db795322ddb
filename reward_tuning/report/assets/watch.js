// The live page asks the server once a second for what has changed, and draws it.
(() => {
  "use strict";

  const watch = (window.watch = window.watch || {});
  const connection = document.getElementById("connection");
  const runs = new Map(); // id -> run
  const SECOND = 1000;
  const SHOWN_AT_FIRST = 6; // more lines than colours help nobody; the boxes add the others
  let order = [];
  let timer = 0;
  let asking = false;
  let again = false;

  watch.shown = () => order.map((id) => runs.get(id)).filter((run) => run.wanted);
  watch.serverTime = 0;

  // Colours stay with a run for as long as the page is open.
  let places = 0;
  const known = (view) => {
    if (!runs.has(view.id)) {
      runs.set(view.id, {
        id: view.id, name: view.name, place: places, wanted: places < SHOWN_AT_FIRST,
        rows: [], guards: [], keys: new Set(), generations: [-1, -1],
      });
      places += 1;
    }
    return runs.get(view.id);
  };

  // what is null in every row has no curve
  const numbers = (row) => Object.keys(row).filter((key) => key !== "step" && Number.isFinite(row[key]));

  // Add the new rows of one file; tell whether there were any.
  const take = (run, kind, place, answer) => {
    let changed = false;
    if (run.generations[place] !== answer.generation) {
      run[kind] = [];
      changed = run.generations[place] !== -1;
      run.generations[place] = answer.generation;
    }
    if (answer.first !== run[kind].length) return changed; // an answer that was overtaken
    run[kind].push(...answer.rows);
    for (const row of answer.rows) {
      const [prefix, own] = kind === "guards" ? ["guards: ", row.numbers] : ["", row];
      for (const key of numbers(own)) run.keys.add(prefix + key);
    }
    return changed || answer.rows.length > 0;
  };

  const apply = (state) => {
    watch.serverTime = state.time;
    let rows = false;
    let clips = false;
    let more = false;
    const before = order.join();
    order = state.runs.map((view) => view.id);
    for (const view of state.runs) {
      const run = known(view);
      rows = take(run, "rows", 0, view.metrics) || rows;
      rows = take(run, "guards", 1, view.guards) || rows;
      more = more || view.metrics.more || view.guards.more;
      const drawn = JSON.stringify([view.samples, view.prompts]);
      clips = clips || drawn !== run.drawn;
      Object.assign(run, {
        state: view.state, status: view.status, resume: view.resume, orders: view.orders, obeys: view.obeys,
        samples: view.samples, prompts: view.prompts, faults: view.faults, damaged: view.damaged, drawn,
      });
    }
    const others = before !== order.join();
    watch.drawRuns(order.map((id) => runs.get(id)));
    if (rows || others) watch.drawCharts();
    if (clips || others) watch.drawClips();
    return more;
  };

  const say = (state, text) => {
    if (connection.dataset.state === state) return;
    connection.dataset.state = state;
    connection.textContent = text;
  };

  watch.poll = async () => {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    clearTimeout(timer);
    let wait = document.hidden ? 10 * SECOND : SECOND;
    try {
      const have = {};
      for (const run of runs.values()) {
        have[run.id] = [[run.generations[0], run.rows.length], [run.generations[1], run.guards.length]];
      }
      const answer = await fetch(`state?${new URLSearchParams({ have: JSON.stringify(have) })}`, { signal: AbortSignal.timeout(20 * SECOND) });
      if (!answer.ok) throw new Error(await answer.text());
      if (apply(await answer.json())) wait = 0;
      say("live", "live");
    } catch (error) {
      if (!["TypeError", "TimeoutError", "AbortError"].includes(error.name)) console.error(error);
      say("lost", "no answer: `reward-tuning watch` has ended");
      wait = 3 * SECOND;
    }
    asking = false;
    if (again) wait = 0;
    again = false;
    timer = setTimeout(watch.poll, wait);
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) watch.poll();
  });
  // Plotly is the last script of the page: draw once it is there.
  document.addEventListener("DOMContentLoaded", () => watch.poll());
  if (document.readyState !== "loading") setTimeout(watch.poll, 0);
})();
