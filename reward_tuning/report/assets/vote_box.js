// The votes of this reader: kept in the browser, saved and loaded as JSON, checked when they come in.
(() => {
  "use strict";
  const report = window.report;
  const FORMAT = "reward-tuning-votes";
  const CHOICES = ["left", "right", "tie", "bad"];
  const KEPT = `${FORMAT}:${report.data.report.id}`;

  const isText = (value) => typeof value === "string" && value.length > 0 && value.length <= 200;
  const isVote = (vote) =>
    vote !== null && typeof vote === "object" &&
    Number.isInteger(vote.prompt) && vote.prompt >= 0 && vote.prompt < report.data.questions.length &&
    isText(vote.left) && isText(vote.right) && CHOICES.includes(vote.choice) &&
    typeof vote.control === "boolean" && vote.control === (vote.left === vote.right) &&
    isText(vote.at) && Number.isFinite(Date.parse(vote.at));
  const pairOf = (vote) => JSON.stringify([vote.prompt, ...[vote.left, vote.right].sort(), vote.control]);

  // The votes in a file, or an error for people.
  const read = (text) => {
    let found;
    try {
      found = JSON.parse(text);
    } catch (error) {
      throw new Error("This file is no JSON. Choose one that a vote page has saved.");
    }
    if (found === null || typeof found !== "object" || found.format !== FORMAT) {
      throw new Error("This file holds no votes. Choose one that a vote page has saved.");
    }
    if (found.version !== 1) throw new Error(`This file is of version ${String(found.version).slice(0, 20)}; this page reads version 1.`);
    if (!found.report || found.report.id !== report.data.report.id) {
      const title = found.report && isText(found.report.title) ? ` (${found.report.title})` : "";
      throw new Error(`These votes are on another report${title}. Open them there.`);
    }
    if (typeof found.voter !== "string" || !Array.isArray(found.votes) || !found.votes.every(isVote)) {
      throw new Error("A vote in this file is damaged, so none of them were loaded.");
    }
    const keep = ({ prompt, left, right, choice, control, at }) => ({ prompt, left, right, choice, control, at });
    return { voter: found.voter.slice(0, 60), votes: found.votes.map(keep) };
  };

  const box = {
    voter: "",
    votes: [],
    storage: "", // why the browser does not keep votes; empty where it does
    text: () =>
      JSON.stringify({ format: FORMAT, version: 1, report: report.data.report, voter: box.voter, votes: box.votes }, null, 1),
    keep() {
      try {
        if (box.votes.length || box.voter) localStorage.setItem(KEPT, box.text());
        else localStorage.removeItem(KEPT);
        box.storage = "";
      } catch (error) {
        box.storage = "This browser does not keep votes for this page. Save them as a file before you close it.";
      }
    },
    restore() {
      try {
        const kept = localStorage.getItem(KEPT);
        if (kept !== null) Object.assign(box, read(kept));
        localStorage.setItem(`${KEPT}:try`, "");
        localStorage.removeItem(`${KEPT}:try`);
      } catch (error) {
        box.storage = "This browser does not keep votes for this page. Save them as a file before you close it.";
      }
    },
    add(vote) {
      box.votes = box.votes.filter((one) => pairOf(one) !== pairOf(vote));
      box.votes.push(vote);
      box.keep();
    },
    undo() {
      const last = box.votes.pop();
      box.keep();
      return last;
    },
    // Votes of a file join those that are there, if they are of the same person.
    load(text) {
      const found = read(text);
      if (box.votes.length && found.voter !== box.voter) {
        const name = found.voter || "somebody without a name";
        throw new Error(`These votes are of ${name}, and there are votes of ${box.voter || "somebody without a name"} here. Save and delete those first; \`reward-tuning votes\` adds several people up.`);
      }
      box.voter = found.voter;
      const last = new Map();
      for (const vote of [...box.votes, ...found.votes].sort((a, b) => Date.parse(a.at) - Date.parse(b.at))) {
        last.delete(pairOf(vote));
        last.set(pairOf(vote), vote);
      }
      box.votes = [...last.values()];
      box.keep();
      return found.votes.length;
    },
    clear() {
      box.votes = [];
      box.keep();
    },
    key: KEPT,
  };
  report.voteBox = box;
})();
