// What every page shares: its data, safe elements, numbers as text, the theme, messages.
(() => {
  "use strict";

  const report = (window.report = window.report || {});
  report.data = JSON.parse(document.getElementById("report-data").textContent);

  // element("button", {class: "quiet", type: "button", onclick: f}, "text", child)
  // Texts become text nodes, never markup.
  report.element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value === true ? "" : String(value));
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };

  // A text in which `names` are code, as nodes; and the same without any marks, for attributes.
  report.prose = (text) => text.split("`").map((part, i) => (i % 2 ? report.element("code", {}, part) : part));
  report.unmarked = (text) => text.replaceAll("`", "");

  const MINUS = "\u2212";
  const typographic = (text) => text.replaceAll("-", MINUS);

  // A number with enough digits for its size: 0.0123, 1.23, 123.
  report.number = (value, digits = 3) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return "\u2013";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-4) return typographic(value.toExponential(digits - 1));
    const places = Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(size))));
    return typographic(value.toFixed(places));
  };

  report.signed = (value, digits = 2) => {
    const text = report.number(value, digits);
    return value > 0 ? `+${text}` : text;
  };

  // Ticks of Plotly's axes as plain numbers, or powers of ten: its own choice is 100\u00b5.
  report.TICKS = { exponentformat: "power", minexponent: 4 };

  // Clips lie in the page as base64, each in an element of its own. Their addresses are made when
  // they are first shown.
  const addresses = new Map();
  report.clip = (name) => {
    if (!addresses.has(name)) {
      const place = document.querySelector(`script[data-clip="${CSS.escape(name)}"]`);
      addresses.set(name, place ? `data:video/mp4;base64,${place.textContent.trim()}` : null);
    }
    return addresses.get(name);
  };

  // A colour of the style sheet as Plotly reads it, such as colour("--accent").
  report.colour = (name) => {
    const probe = report.element("span", { hidden: true });
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };

  report.still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  // Messages for screen readers, such as "12 prompts shown".
  let live = null;
  report.announce = (text) => {
    if (!live) {
      live = report.element("div", { class: "unseen", role: "status", "aria-live": "polite" });
      document.body.append(live);
    }
    live.textContent = text;
  };

  // The theme: system, light, dark. Listeners redraw what has no style sheet, such as charts.
  const root = document.documentElement;
  const listeners = [];
  report.onTheme = (listener) => listeners.push(listener);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  report.isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  const changed = () => {
    label();
    listeners.forEach((listener) => listener());
  };
  const button = document.querySelector("[data-theme-toggle]");
  const label = () => {
    if (button) button.textContent = report.isDark() ? "Light" : "Dark";
    if (button) button.setAttribute("aria-label", `Switch to the ${report.isDark() ? "light" : "dark"} theme`);
  };
  if (button) {
    button.addEventListener("click", () => {
      root.dataset.theme = report.isDark() ? "light" : "dark";
      try {
        localStorage.setItem("reward-tuning-theme", root.dataset.theme);
      } catch (error) {
        // storage is off: the choice lasts as long as the page
      }
      changed();
    });
  }
  dark.addEventListener("change", changed);
  label();
})();
