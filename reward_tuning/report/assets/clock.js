// One clock for every clip of the page: whatever plays, plays in step.
(() => {
  "use strict";
  const report = window.report;
  const listeners = [];
  let at = 0; // seconds of clip time
  let since = performance.now();
  let rate = 1;
  let playing = !report.still();

  const now = () => (playing ? at + ((performance.now() - since) / 1000) * rate : at);
  const set = (time) => {
    at = time;
    since = performance.now();
  };
  const changed = () => listeners.forEach((listener) => listener());

  report.clock = {
    now,
    get playing() {
      return playing;
    },
    get rate() {
      return rate;
    },
    set rate(value) {
      set(now());
      rate = value;
      changed();
    },
    play() {
      set(now());
      playing = true;
      changed();
    },
    pause() {
      set(now());
      playing = false;
      changed();
    },
    toggle() {
      if (playing) this.pause();
      else this.play();
    },
    seek(time) {
      set(time);
      changed();
    },
    // Pause, and move by whole frames; a clip shows the middle of its frame, so rounding is safe.
    step(frames, fps) {
      const frame = Math.floor(now() * fps + 1e-6);
      playing = false;
      set((frame + frames + 0.5) / fps);
      changed();
    },
    onChange(listener) {
      listeners.push(listener);
    },
  };
})();
