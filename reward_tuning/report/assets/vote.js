// The blind vote: pairs drawn by chance, keys, and the result at the end.
//
// Nothing on the page tells which side is which before the end: both clips are copies under random
// addresses, made, loaded and shown in the same order and at the same moment.
(() => {
  "use strict";
  const report = window.report;
  const { data, clock, element } = report;
  const page = window.reportData;
  const section = document.getElementById("vote");
  if (!section) return;
  const byId = (name) => document.getElementById(`vote-${name}`);
  const box = report.voteBox;
  const BLOCK = 8; // one pair of this many is a control pair
  const HOLD = 350; // milliseconds that the last frames stay

  // A number below `below`, each equally likely.
  const chance = (below) => {
    const limit = 2 ** 32 - (2 ** 32 % below);
    const drawn = new Uint32Array(1);
    do crypto.getRandomValues(drawn);
    while (drawn[0] >= limit);
    return drawn[0] % below;
  };

  // Names of sides in vote files: unique, and readable in a table.
  const labels = (() => {
    const tell = [
      (side) => side.name,
      (side) => (side.against === null ? side.name : `${side.name} at ${side.strength}`),
      (side) => `${side.against === null ? side.name : `${side.name} at ${side.strength}`}, ${side.steps} steps`,
      (side) => `${side.name} at ${side.strength}, ${side.steps} steps, guidance ${side.guidance}`,
      (side, i) => `${side.name} ${i}`,
    ];
    const found = [];
    data.sides.forEach((side, i) => {
      if (i === data.series[0]?.base) found[i] = "base";
    });
    data.sides.forEach((side, i) => {
      if (found[i]) return;
      const others = data.sides.map((other, k) => [other, k]).filter(([, k]) => k !== i);
      const unique = (way) => others.every(([other, k]) => way(other, k) !== way(side, i) && found[k] !== way(side, i));
      found[i] = (tell.find(unique) || tell.at(-1))(side, i).slice(0, 200);
    });
    return found;
  })();

  const promptsOf = (base, side) =>
    data.questions.map((_, i) => i).filter((i) => page.clip(base, i) && (side === null || page.clip(side, i)));
  const choices = data.series.flatMap(({ base, sides }) => sides.map((side) => ({ base, side })))
    .filter(({ base, side }) => side !== base && data.sides[side].strength !== 0 && promptsOf(base, side).length > 0);
  if (!choices.length) {
    document.querySelectorAll(".to-vote").forEach((link) => (link.hidden = true));
    return;
  }
  section.hidden = false;

  let chosen = choices[0];
  let pair = null; // {prompt, left, right, control}: indices of sides
  let undone = []; // pairs to show again, the last first
  let active = false;

  // What is still to be voted on, and how far we are.
  const about = () => {
    const { base, side } = chosen;
    const [a, b] = [labels[base], labels[side]];
    const real = box.votes.filter((vote) => !vote.control && [vote.left, vote.right].includes(a) && [vote.left, vote.right].includes(b));
    const controls = box.votes.filter((vote) => vote.control && vote.left === a);
    const done = new Set(real.map((vote) => vote.prompt));
    const all = promptsOf(base, side);
    const block = Math.max(3, Math.min(BLOCK, all.length));
    return { all, real, controls, block, waiting: all.filter((i) => !done.has(i)) };
  };

  const draw = () => {
    if (undone.length) return undone.pop();
    const { base, side } = chosen;
    const { real, controls, block, waiting } = about();
    if (!waiting.length) return null;
    // One control pair in each block of pairs, at a place drawn by chance.
    const made = real.length + controls.length;
    const left = block - (made % block);
    const due = controls.length <= Math.floor(made / block);
    const used = new Set(controls.map((vote) => vote.prompt));
    const fresh = promptsOf(base, null).filter((i) => !used.has(i));
    if (due && fresh.length && chance(left) === 0) {
      return { prompt: fresh[chance(fresh.length)], left: base, right: base, control: true };
    }
    const prompt = waiting[chance(waiting.length)];
    const swapped = chance(2) === 1;
    return { prompt, left: swapped ? side : base, right: swapped ? base : side, control: false };
  };

  // Screens
  const screens = byId("screens");
  let addresses = [];
  let players = [];
  let timer = 0;
  const copyOf = (name) => {
    const bytes = Uint8Array.from(atob(report.clip(name).split(",")[1]), (letter) => letter.charCodeAt(0));
    const address = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
    addresses.push(address);
    return address;
  };
  const drop = () => {
    clearTimeout(timer);
    screens.classList.remove("ready");
    const gone = players;
    players = [];
    gone.forEach((player) => {
      player.pause();
      player.removeAttribute("src");
      player.load();
    });
    screens.replaceChildren();
    const old = addresses;
    addresses = [];
    // later, since a player that was about to load would complain
    setTimeout(() => old.forEach((address) => URL.revokeObjectURL(address)), 5000);
  };
  const play = () => {
    if (!clock.playing) return;
    players.forEach((player) => {
      player.playbackRate = clock.rate;
      player.play().catch((error) => {
        if (error.name !== "AbortError") throw error;
      });
    });
  };
  const again = () => {
    if (!players.every((player) => player.ended)) return;
    const shown = players;
    timer = setTimeout(() => {
      if (shown !== players) return;
      players.forEach((player) => (player.currentTime = 0));
      play();
    }, HOLD);
  };
  const show = () => {
    drop();
    const clips = [pair.left, pair.right].map((side) => page.clip(side, pair.prompt));
    const made = clips.map((clip, i) => {
      const name = i ? "Right clip" : "Left clip";
      const media = report.plays
        ? element("video", { playsinline: true, preload: "auto", "aria-label": name })
        : element("img", { alt: name });
      media.muted = true;
      const place = element("div", { class: "vote-screen" }, media);
      // both places have the shape of the same clip, whichever side it is
      place.style.aspectRatio = `${clips[0].width} / ${clips[0].height}`;
      return { media, place, clip };
    });
    screens.append(...made.map(({ place }) => place));
    if (!report.plays) {
      made.forEach(({ media, clip }) => (media.src = clip.still));
      screens.classList.add("ready");
      return;
    }
    const shown = (players = made.map(({ media }) => media));
    let waiting = shown.length;
    shown.forEach((player) => {
      player.addEventListener("canplaythrough", () => {
        waiting -= 1;
        if (waiting || shown !== players) return;
        screens.classList.add("ready");
        play();
      }, { once: true });
      player.addEventListener("ended", again);
      player.addEventListener("error", () => {
        if (shown === players) tell("A clip of this pair cannot be played here. Vote on another one after Both bad, or in another browser.");
      });
    });
    made.forEach(({ media, clip }) => (media.src = copyOf(clip.name)));
  };
  clock.onChange(() => {
    if (clock.playing) play();
    else players.forEach((player) => player.pause());
  });

  // Voting
  const tell = (text) => {
    byId("trouble").textContent = text;
    byId("trouble").hidden = !text;
  };
  const update = () => {
    byId("storage").textContent = box.storage;
    byId("storage").hidden = !box.storage;
    byId("save").disabled = byId("clear").disabled = !box.votes.length;
    byId("undo").disabled = !box.votes.length;
    byId("voter").value = box.voter;
    const count = box.votes.length;
    byId("kept").textContent = count ? `${count} ${count === 1 ? "vote" : "votes"} so far.` : "";
    byId("start").textContent = count ? "Continue" : "Start voting";
    byId("begin").hidden = active;
    byId("booth").hidden = !active;
  };
  const next = () => {
    pair = draw();
    if (!pair) {
      finish();
      return;
    }
    const { all, real, controls, block } = about();
    const made = real.length + controls.length;
    const whole = Math.max(made + 1, all.length + Math.round(all.length / (block - 1)));
    byId("count").textContent = `Pair ${made + 1} of about ${whole}`;
    byId("progress").value = made / whole;
    byId("prompt").textContent = data.questions[pair.prompt].prompt;
    show();
    update();
  };
  const start = () => {
    tell("");
    box.voter = byId("voter").value.trim();
    box.keep();
    chosen = choices[Number(byId("side").value) || 0];
    undone = [];
    active = true;
    byId("result").hidden = true;
    next();
    if (active) byId("booth").focus({ preventScroll: true });
  };
  const vote = (choice) => {
    if (!active || !pair) return;
    const { prompt, control } = pair;
    box.add({ prompt, left: labels[pair.left], right: labels[pair.right], choice, control, at: new Date().toISOString() });
    next();
  };
  const undo = () => {
    if (!box.votes.length) return;
    const last = box.undo();
    const [left, right] = [last.left, last.right].map((name) => labels.indexOf(name));
    if (pair) undone.push(pair);
    if (left >= 0 && right >= 0) undone.push({ prompt: last.prompt, left, right, control: last.control });
    active = true;
    byId("result").hidden = true;
    next();
    report.announce("The last vote is taken back");
  };
  const finish = () => {
    active = false;
    pair = null;
    drop();
    update();
    const result = byId("result");
    result.replaceChildren(...report.voteResult(box.votes, data.questions));
    result.hidden = false;
    result.focus({ preventScroll: true });
  };

  const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", t: "tie", ArrowDown: "bad", b: "bad" };
  let seen = false;
  new IntersectionObserver(([entry]) => (seen = entry.intersectionRatio > 0.3), { threshold: [0, 0.3, 0.6] }).observe(byId("booth"));
  document.addEventListener("keydown", (event) => {
    if (!active || !(seen || section.contains(event.target)) || document.querySelector("dialog[open]")) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest("input, select, textarea")) return;
    if (event.key === "u" || event.key === "Backspace") undo();
    else if (event.key in KEYS) vote(KEYS[event.key]);
    else return;
    event.preventDefault();
  });

  const select = byId("side");
  choices.forEach(({ side }, i) => select.append(element("option", { value: i }, labels[side])));
  const deciding = choices.findIndex(({ side }) => side === data.side);
  select.value = String(Math.max(0, deciding));
  byId("side-field").hidden = choices.length < 2;
  byId("start").addEventListener("click", start);
  byId("undo").addEventListener("click", undo);
  byId("end").addEventListener("click", finish);
  section.querySelectorAll("[data-choice]").forEach((button) =>
    button.addEventListener("click", () => {
      vote(button.dataset.choice);
      if (active) byId("booth").focus({ preventScroll: true });
    }),
  );

  byId("save").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([box.text()], { type: "application/json" }));
    const safe = (text) => text.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 60);
    const name = ["votes", safe(data.report.title), safe(box.voter)].filter(Boolean).join("-");
    element("a", { href: address, download: `${name}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  byId("load").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", async () => {
    const [file] = byId("file").files;
    if (!file) return;
    try {
      if (file.size > 32e6) throw new Error("This file is larger than 32 MB, so it holds no votes.");
      const count = box.load(await file.text());
      tell("");
      report.announce(`${count} votes loaded`);
      active = false;
      pair = null;
      drop();
      update();
    } catch (error) {
      tell(error.message);
    }
    byId("file").value = "";
  });
  byId("clear").addEventListener("click", () => {
    if (!confirm(`Delete ${box.votes.length} votes from this browser?`)) return;
    box.clear();
    active = false;
    pair = null;
    undone = [];
    drop();
    byId("result").hidden = true;
    tell("");
    update();
  });
  // Votes from another window of the same report.
  addEventListener("storage", (event) => {
    if (event.key !== box.key) return;
    box.restore();
    update();
  });

  box.restore();
  update();
})();
