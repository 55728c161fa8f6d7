// Times in which the driver was late, and what is said of them: a person looks for seconds, a frame lasts 50 ms.

import { h } from "../dom";
import { type Band, SIGHT } from "./pane";
import type { Frame } from "./protocol";

/** The interval between frames, in ms. A frame covers what became due since the previous one. */
const TICK = 50;

export class Late {
  readonly element = h("p", { class: "late", role: "status" });
  /** The times that are in sight. */
  bands: Band[] = [];
  private count = 0;
  private longest = 0;

  /** Takes a frame. The words stay as long as the band is in sight. */
  take({ t, late, lag }: Frame): void {
    if (late) {
      const last = this.bands.at(-1);
      const start = t - TICK - lag;
      this.count += 1;
      this.longest = Math.max(this.longest, lag);
      if (last && start <= last.end) Object.assign(last, { end: t, lag: Math.max(lag, last.lag) });
      else this.bands.push({ start, end: t, lag });
    }
    this.bands = this.bands.filter(({ end }) => end > t - SIGHT);
    const text = this.words();
    // Whoever listens hears only what changes.
    if (this.element.textContent !== text) this.element.textContent = text;
  }

  private words(): string {
    if (this.count === 0) return "";
    const times = this.count === 1 ? "one frame" : `${this.count} frames`;
    const worst = Math.max(...this.bands.map((band) => band.lag));
    const now = this.bands.length > 0 ? `The driver was up to ${worst.toFixed(1)} ms late: what the marked times show may be its fault, not the servers'. ` : "";
    return `${now}So far it was late in ${times}, by up to ${this.longest.toFixed(1)} ms.`;
  }
}
