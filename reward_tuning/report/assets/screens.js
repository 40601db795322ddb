// Clips side by side that play by the page's clock. Only those on screen are videos; the others
// are stills. A new clip replaces the old one when its frame is there, so nothing flickers.
(() => {
  "use strict";
  const report = window.report;
  const { clock, element } = report;
  const HOLD = 0.35; // seconds that the last frame stays before a clip begins again
  const shown = new Set(); // groups on screen

  report.plays = document.createElement("video").canPlayType('video/mp4; codecs="avc1.640028"') !== "";

  // Seconds into a clip, and whether it rests on its last frame.
  const place = (facts, loop) => {
    const length = facts.frames / facts.fps;
    const time = ((clock.now() % loop) + loop) % loop;
    const last = (facts.frames - 0.5) / facts.fps;
    return { time: Math.min(time, last), resting: time >= length - 0.5 / facts.fps };
  };

  class Screen {
    constructor() {
      this.still = element("img", { alt: "", decoding: "async" });
      this.fault = element("p", { class: "fault", hidden: true });
      this.root = element("div", { class: "screen" }, this.still, this.fault);
      this.video = null; // what is seen
      this.next = null; // what is loading
      this.name = undefined;
      this.facts = null;
    }

    show(name, description) {
      this.still.alt = name ? `${description}, first frame` : "";
      this.root.dataset.clip = name || "";
      if (name === this.name) return false;
      this.name = name;
      this.facts = name ? report.data.clips[name] : null;
      this.fault.hidden = Boolean(name);
      this.fault.textContent = name ? "" : "No clip at this strength";
      if (this.facts) {
        this.still.src = this.facts.still;
        this.root.style.aspectRatio = `${this.facts.width} / ${this.facts.height}`;
      } else {
        this.still.removeAttribute("src");
      }
      return true;
    }

    load(loop) {
      this.drop(this.next);
      this.next = null;
      if (!this.facts) {
        this.drop(this.video);
        this.video = null;
        return;
      }
      const video = element("video", { playsinline: true, preload: "auto", "aria-hidden": "true", tabindex: "-1" });
      video.muted = true;
      video.disableRemotePlayback = true;
      this.next = video;
      video.addEventListener("error", () => {
        if (video !== this.next && video !== this.video) return;
        this.fault.textContent = "This clip cannot be played here";
        this.fault.hidden = false;
        this.drop(video);
        if (this.next === video) this.next = null;
        if (this.video === video) this.video = null;
      });
      video.addEventListener(
        "loadedmetadata",
        () => {
          video.currentTime = place(this.facts, loop).time;
        },
        { once: true },
      );
      video.addEventListener(
        "seeked",
        () => {
          if (video !== this.next) return;
          video.classList.add("ready");
          this.drop(this.video);
          this.video = video;
          this.next = null;
        },
        { once: true },
      );
      video.src = report.clip(this.name);
      this.root.append(video);
    }

    unload() {
      this.drop(this.video);
      this.drop(this.next);
      this.video = this.next = null;
    }

    drop(video) {
      if (!video) return;
      video.pause();
      video.removeAttribute("src");
      video.load();
      video.remove();
    }

    follow(loop) {
      const { video, facts } = this;
      if (!video || video.seeking) return;
      const { time, resting } = place(facts, loop);
      const frame = 1 / facts.fps;
      if (!clock.playing || resting) {
        if (!video.paused) video.pause();
        const middle = (Math.floor(time * facts.fps + 1e-6) + 0.5) * frame;
        if (Math.abs(video.currentTime - middle) > frame / 4) video.currentTime = middle;
        return;
      }
      // Half a frame each keeps two clips within one frame of each other.
      if (Math.abs(video.currentTime - time) > Math.max(0.45 * frame, 0.03)) video.currentTime = time;
      if (video.playbackRate !== clock.rate) video.playbackRate = clock.rate;
      if (video.paused) {
        video.play().catch((error) => {
          // pausing or removing a clip that is about to play is no fault
          if (error.name !== "AbortError") throw error;
        });
      }
    }
  }

  // new report.Screens(2): screens in one row, `root` is the element.
  report.Screens = class Screens {
    constructor(count) {
      this.screens = Array.from({ length: count }, () => new Screen());
      this.roots = this.screens.map((screen) => screen.root);
      this.visible = false;
    }

    // names: of clips in report.data.clips, null for none. descriptions: what a reader hears.
    show(names, descriptions) {
      const changed = this.screens.filter((screen, i) => screen.show(names[i], descriptions[i]));
      const lengths = this.screens.map(({ facts }) => (facts ? facts.frames / facts.fps : 0));
      this.loop = Math.max(...lengths, 0.1) + HOLD;
      if (this.visible && report.plays) changed.forEach((screen) => screen.load(this.loop));
    }

    get fps() {
      return Math.max(...this.screens.map(({ facts }) => (facts ? facts.fps : 0)), 1);
    }

    // Turn into videos, or back into stills.
    setVisible(visible) {
      if (visible === this.visible) return;
      this.visible = visible;
      if (visible) {
        shown.add(this);
        if (report.plays) this.screens.forEach((screen) => screen.load(this.loop));
        wake();
      } else {
        shown.delete(this);
        this.screens.forEach((screen) => screen.unload());
      }
    }
  };

  let waiting = false;
  const tick = () => {
    waiting = false;
    shown.forEach((group) => group.screens.forEach((screen) => screen.follow(group.loop)));
    if (shown.size) wake();
  };
  const wake = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(tick);
  };

  // Frames a second of what is on screen, for stepping.
  report.shownFps = () => Math.max(...[...shown].map((group) => group.fps), 1);
})();
