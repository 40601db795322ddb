// The theme that the reader chose, set before the first paint; without a choice the system's.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("scripted");
  let chosen = null;
  try {
    chosen = localStorage.getItem("reward-tuning-theme");
  } catch (error) {
    // storage may be off, as in private windows: the system's theme stays
  }
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
})();
