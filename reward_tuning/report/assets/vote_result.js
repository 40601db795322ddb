// The result of a blind vote in words and a table; sides are named here for the first time.
(() => {
  "use strict";
  const report = window.report;
  const { element } = report;
  const percent = (share) => `${(100 * share).toFixed(0)} %`;
  const range = ({ low, high }) => `${percent(low)} to ${percent(high)}`;
  const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

  const sentence = (side, reference) => {
    const { rate } = side;
    if (!rate) return `No vote between ${side.name} and ${reference} tells a preference.`;
    const won = `${side.name} won ${side.wins}, lost ${side.losses} and tied ${side.ties} against ${reference}`;
    const said = {
      preferred: `${side.name} is preferred`,
      "reference preferred": `${reference} is preferred`,
      "no preference seen": "no preference can be told from chance",
      "may be chance": "this may be chance, since several sides were compared",
    }[side.verdict];
    return `You: ${won}. Win rate ${percent(rate.share)}, 95 % interval ${range(rate)}: ${said}.`;
  };

  const noise = ({ votes, decided }) => {
    if (!votes) return "There was no control pair, so your own noise is not known.";
    const few = votes < 5 ? " So few pairs measure little." : "";
    const meaning = decided ? "As much preference among the other pairs may be noise." : "A preference among the other pairs is therefore not mere habit.";
    return `Control pairs showed the base twice, the same clip left and right: you preferred one of the two in ${decided} of ${counted(votes, "pair")}.${few || ` ${meaning}`}`;
  };

  const table = (found) => {
    const head = ["", "won", "lost", "tied", "both bad", "win rate", "95 % interval", "Bradley-Terry score", "95 % interval"];
    const row = (side) => [
      side.wins, side.losses, side.ties, side.bad,
      side.rate ? percent(side.rate.share) : "\u2013",
      side.rate ? range(side.rate) : "\u2013",
      side.score ? report.signed(side.score.score, 3) : "\u2013",
      side.score ? `${report.signed(side.score.low, 3)} to ${report.signed(side.score.high, 3)}` : "\u2013",
    ];
    return element("div", { class: "scroll vote-result-table", tabindex: "0", role: "region", "aria-label": "Result of your votes" },
      element("table", {},
        element("thead", {}, element("tr", {}, ...head.map((text) => text ? element("th", { scope: "col" }, text) : element("td", {})))),
        element("tbody", {}, ...found.sides.map((side) =>
          element("tr", { "data-side": side.name }, element("th", { scope: "row" }, side.name), ...row(side).map((value) => element("td", {}, String(value))))))));
  };

  const WORDS = { tie: "equally good", bad: "both bad" };
  const each = (votes, questions) =>
    element("details", {}, element("summary", {}, "Every vote"),
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Every vote" },
        element("table", {},
          element("thead", {}, element("tr", {}, ...["prompt", "left", "right", "your choice"].map((text) => element("th", { scope: "col", class: "left" }, text)))),
          element("tbody", {}, ...votes.map((vote) =>
            element("tr", {},
              element("td", { class: "prompt-cell" }, questions[vote.prompt].prompt),
              element("td", { class: "left" }, vote.left),
              element("td", { class: "left" }, vote.control ? `${vote.right} (control)` : vote.right),
              element("td", { class: "left" }, WORDS[vote.choice] || `${vote[vote.choice]}, ${vote.choice}`)))))));

  // Elements to show, for one reader's votes.
  report.voteResult = (votes, questions) => {
    const found = window.voteTable(votes);
    const told = found.sides.map((side) => sentence(side, found.reference));
    const people = document.getElementById("people");
    if (people && found.votes) {
      people.textContent = "";
      people.append(`Whether people prefer the clips; ${told.join(" ").replace("You:", "in your votes")} `, element("a", { href: "#vote", class: "to-vote" }, "Vote"));
    }
    if (!votes.length) return [element("p", { class: "vote-result-head" }, "No votes yet.")];
    const bias = found.left && found.left.votes >= 8 && (found.left.low > 0.5 || found.left.high < 0.5);
    return [
      element("h3", { class: "vote-result-head" }, "Your result"),
      ...told.map((text) => element("p", {}, text)),
      element("p", { class: "muted" }, noise(found.control)),
      bias ? element("p", { class: "muted" }, `You chose left in ${percent(found.left.share)} of your choices (${range(found.left)}), although chance decided what stood there.`) : null,
      found.sides.length ? table(found) : null,
      element("p", { class: "small muted" }, "The score is in natural log odds against the base: 0 is even, 1.1 is three to one. Intervals speak of other prompts, not of other voters."),
      each(votes, questions),
    ].filter(Boolean);
  };
})();
