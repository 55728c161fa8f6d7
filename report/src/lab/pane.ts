// A pane: one server under load, the last seconds as a picture that moves.

import { button, h } from "../dom";
import { amount } from "../format";
import { prepare } from "../canvas";
import { grade, ink } from "../colors";
import type { Ended, PaneFrame, Sent, Shown } from "./protocol";

/** The time that is in sight, in ms. */
export const SIGHT = 10_000;
/** The width of a band at least, so that it is seen. */
const BAND = 3;
const [LEFT, RIGHT, DOTS, GAP, LANES] = [56, 8, 150, 6, 16];
const [LOW, HIGH] = [0.05, 10_000];

const up = (took: number): number => 1 - Math.min(1, Math.max(0, Math.log(Math.max(took, LOW) / LOW) / Math.log(HIGH / LOW)));

/** A time in which the driver was late, in ms, and by how much. */
export interface Band {
  start: number;
  end: number;
  lag: number;
}

/** Who waits for longer is held up. */
const FELT = 100;

/** Returns whether all probes failed that ended in the last seconds, and none waits. */
const isFailing = (frame: PaneFrame): boolean => frame.failed > 0 && frame.per_s === 0 && frame.oldest < FELT;

export class Pane {
  readonly element: HTMLElement;
  private readonly canvas = h("canvas", { role: "img" });
  private readonly title = h("h2", { tabindex: -1 });
  private readonly about = h("p", { class: "about" });
  private readonly state = h("p", { class: "state", role: "status" });
  private readonly numbers = h("dl", { class: "numbers" });
  private readonly workers = h("p", { class: "workers" });
  private readonly launch = h("p", { class: "launch" });
  private readonly tabs = h("ol", { class: "tabs" });
  private readonly buttons = h("p", { class: "buttons" });
  private open = new Map<number, Sent>();
  private ended: Ended[] = [];
  private pids = new Map<number, number>();
  private lanes: number[] = [];
  private laneOf = new Map<number, number>();
  private last: PaneFrame | null = null;
  /** p99 and the lag as they moved: instant, p99, lag; null where there is none. */
  private course: [number, number | null, number | null][] = [];
  private isServing = false;
  private start = 0;
  /** The longest time, in ms, for which one request held one of the server's loops, as the server itself reports; null if it does not. */
  private own: number | null = null;
  private failed = 0;

  constructor(
    readonly number: number,
    act: { reload: () => void; kill: () => void; start: () => void },
  ) {
    this.buttons.append(button("reload", act.reload), " ", button("kill a worker", act.kill), " ", button("start again", act.start));
    this.element = h("section", { class: "pane", "data-pane": number }, this.title, this.about, this.state, this.canvas, this.numbers, this.workers, this.launch, this.tabs, this.buttons);
  }

  /** Shows the server and its status. */
  show(shown: Shown): void {
    // What an earlier start was asked says nothing of this one.
    if (this.start !== shown.start) this.clear();
    this.start = shown.start;
    this.title.textContent = shown.name;
    this.about.textContent = `${shown.about}${shown.runs_on ? `; a blocking call runs on ${shown.runs_on}` : ""}`;
    const pids = shown.pids.length > 0 ? `, ${shown.pids.length === 1 ? "process" : "processes"} ${shown.pids.join(", ")}` : "";
    this.state.textContent = `${shown.state}${shown.state === "building" ? " (a minute, the first time)" : ""}${pids}${shown.error ? `: ${shown.error}` : ""}`;
    this.state.dataset.state = shown.state;
    this.launch.textContent = shown.launch ?? "";
    this.canvas.setAttribute("aria-label", `${shown.name}: requests to / over the last ${SIGHT / 1000} s as dots, slow requests as bars; the numbers stand below`);
    const [reload, kill, start] = this.buttons.querySelectorAll("button");
    const focused = document.activeElement;
    reload.disabled = !shown.can_reload || shown.state !== "serving";
    kill.disabled = shown.state !== "serving" || !shown.can_kill;
    start.disabled = shown.state === "starting" || shown.state === "building";
    // A button that cannot be pressed now must not take the focus with it.
    if (focused instanceof HTMLButtonElement && focused.disabled && this.buttons.contains(focused)) this.title.focus({ preventScroll: true });
    const lags = shown.says.map((words) => /lag up to ([\d.]+) ms/.exec(words ?? "")?.[1]).filter((ms) => ms !== undefined);
    this.own = lags.length > 0 ? Math.max(...lags.map(Number)) : null;
    // What a server had on its way ends with it.
    if (["building", "starting", "failed", "stopped"].includes(shown.state)) {
      this.open.clear();
      this.lanes = [];
      this.laneOf.clear();
    }
    this.isServing = shown.state === "serving" || shown.state === "reloading";
  }

  private clear(): void {
    this.open.clear();
    this.ended = [];
    this.pids.clear();
    this.lanes = [];
    this.laneOf.clear();
    this.tabs.replaceChildren();
    this.course = [];
    this.failed = 0;
  }

  /** Frames are missing: what was open may have ended in them, and nobody knows how the lines went on. */
  miss(now: number): void {
    this.open.clear();
    this.lanes = [];
    this.course.push([now, null, null]);
  }

  /** Takes the events of a frame. */
  take(frame: PaneFrame, now: number): void {
    this.last = frame;
    const hasNumbers = frame.p99 !== null && !isFailing(frame);
    this.course.push([now, hasNumbers ? frame.p99 : null, hasNumbers ? frame.oldest : null]);
    if (this.course[0][0] < now - 2 * SIGHT) this.course = this.course.filter(([at]) => at >= now - SIGHT - 1000);
    for (const sent of frame.sent) {
      this.open.set(sent.at, sent);
      if (sent.load !== "probes") this.laneOf.set(sent.at, this.lane(sent.at));
    }
    for (const ended of frame.ended) {
      const wasOpen = this.open.delete(ended.at);
      this.ended.push(ended);
      if (ended.failed) this.failed += 1;
      if (ended.pid !== undefined) this.pids.set(ended.pid, now);
      const lane = this.laneOf.get(ended.at);
      // After missed frames, its row may be another's.
      if (wasOpen && lane !== undefined) this.lanes[lane] = ended.at + ended.took;
      if (ended.load === "tabs") this.tabs.append(h("li", {}, `tab sent at ${amount(ended.at, "ms")}: ${ended.failed ? "failed" : "done"} after ${amount(ended.took, "ms")}${ended.pid ? `, by process ${ended.pid}` : ""}`));
    }
    for (const at of frame.gone) this.forget(at, now);
    while (this.tabs.children.length > 8) this.tabs.firstElementChild?.remove();
    const before = now - SIGHT - 2000;
    if (this.ended.length > 0 && this.ended[0].at < before - 10_000) this.ended = this.ended.filter((one) => one.at + one.took > before);
    for (const [at, one] of this.open) if (one.load !== "probes" ? at < now - 120_000 : at < now - 60_000) this.open.delete(at);
    for (const [pid, seen] of this.pids) if (seen < now - 3000) this.pids.delete(pid);
  }

  /** Takes a request off the picture that nobody waits for any more. */
  private forget(at: number, now: number): void {
    this.open.delete(at);
    const lane = this.laneOf.get(at);
    if (lane !== undefined) this.lanes[lane] = now;
  }

  /** The first row that is free. */
  private lane(at: number): number {
    const free = this.lanes.findIndex((until) => until <= at);
    const lane = free >= 0 ? free : this.lanes.length;
    this.lanes[lane] = Number.POSITIVE_INFINITY;
    return lane;
  }

  /** The numbers, a few times a second: faster than that nobody reads. */
  write(): void {
    const frame = this.last;
    if (!frame) return;
    const graded = (name: string, ms: number | null): [string, string, string] => (ms === null ? [name, "–", ""] : [name, `${amount(ms, "ms")} ${grade(ms)}`, grade(ms)]);
    // Who refuses every request at once makes nobody wait, and is no better for it.
    const felt = (name: string, ms: number | null): [string, string, string] => (isFailing(frame) ? [name, "failing", ""] : graded(name, ms));
    const entries: [string, string, string][] = [
      felt("p99", frame.p99),
      felt("lag felt now", frame.p99 === null ? null : frame.oldest),
      graded("lag it reports", this.own),
      ["answered", `${Math.round(frame.per_s)} /s`, ""],
      ["failed so far", String(this.failed), ""],
      ["slow requests", String(frame.slow), ""],
    ];
    this.numbers.replaceChildren(...entries.map(([name, value, word]) => h("div", {}, h("dt", {}, name), h("dd", { class: word ? `grade ${word}` : undefined }, value))));
    const pids = [...this.pids.keys()];
    this.workers.textContent = pids.length > 0 ? `answered by ${pids.length === 1 ? "process" : "processes"} ${pids.join(", ")}` : !this.isServing ? "" : frame.per_s > 0 ? "the answers do not say which process they come from" : "answered by nobody in the last 3 s";
    this.element.dataset.p99 = String(frame.p99 ?? "");
    this.element.dataset.oldest = String(frame.oldest);
  }

  /** Draws the last seconds, and marks the times in which the driver was late. */
  draw(now: number, late: Band[]): void {
    const height = LANES * 5 + GAP + DOTS + 18;
    const ready = prepare(this.canvas, height);
    if (!ready) return;
    const { ctx, width } = ready;
    const base = LANES * 5 + GAP;
    const from = now - SIGHT;
    const across = (at: number) => LEFT + ((at - from) / SIGHT) * (width - LEFT - RIGHT);
    this.axes(ctx, width, base);
    ctx.save();
    ctx.beginPath();
    ctx.rect(LEFT, 0, width - LEFT - RIGHT, height);
    ctx.clip();
    for (const { start, end } of late) {
      const [left, wide] = [across(start), Math.max(BAND, across(end) - across(start))];
      ctx.fillStyle = ink("band");
      ctx.fillRect(left, 0, wide, base + DOTS);
      ctx.fillStyle = ink("flow");
      ctx.fillRect(left, base + DOTS - 3, wide, 3);
    }
    const bar = (at: number, took: number, isOver: boolean, failed = false) => {
      const lane = (this.laneOf.get(at) ?? 0) % LANES;
      ctx.fillStyle = ink(failed ? "lost" : isOver ? "blocker" : "held");
      ctx.fillRect(across(at), lane * 5, Math.max(1, across(at + took) - across(at) - 1), 4);
    };
    for (const one of this.ended) {
      if (one.at + one.took < from) continue;
      if (one.load !== "probes") {
        bar(one.at, one.took, true, one.failed);
        continue;
      }
      ctx.fillStyle = ink(one.failed ? "lost" : grade(one.took));
      ctx.fillRect(across(one.at) - 1, base + up(one.took) * DOTS - 1, 2.5, 2.5);
    }
    ctx.strokeStyle = ink("held");
    for (const [at, one] of this.open) {
      if (one.load !== "probes") bar(at, now - at, false);
      // Unanswered requests rise with their age.
      else if (now - at > 20) ctx.strokeRect(across(at) - 1.5, base + up(now - at) * DOTS - 1.5, 3, 3);
    }
    const line = (color: string, height: (one: [number, number | null, number | null]) => number | null) => {
      ctx.strokeStyle = ink(color);
      ctx.lineWidth = 1.5;
      ctx.beginPath();
      // Where there is nothing to show, the line ends and begins anew.
      let isOn = false;
      for (const one of this.course) {
        const ms = one[0] >= from - 1000 ? height(one) : null;
        if (ms !== null) ctx[isOn ? "lineTo" : "moveTo"](across(one[0]), base + up(ms) * DOTS);
        isOn = ms !== null;
      }
      ctx.stroke();
    };
    line("link", ([, p99]) => p99);
    line("text", ([, , lag]) => lag);
    ctx.restore();
    this.canvas.dataset.now = String(now);
  }

  private axes(ctx: CanvasRenderingContext2D, width: number, base: number): void {
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    ctx.textAlign = "right";
    for (const [ms, word] of [[0.1, "0.1 ms"], [1, "1 ms"], [10, "10 ms"], [100, "0.1 s"], [1000, "1 s"]] as const) {
      const y = base + up(ms) * DOTS;
      ctx.fillStyle = ink("quiet");
      ctx.fillText(word, LEFT - 6, y);
      ctx.fillStyle = ink(ms >= 100 ? "limit" : "grid");
      ctx.fillRect(LEFT, y, width - LEFT - RIGHT, 1);
    }
    ctx.fillStyle = ink("quiet");
    ctx.fillText("slow", LEFT - 6, LANES * 2.5);
    ctx.textAlign = "left";
    ctx.fillText(`${SIGHT / 1000} s ago`, LEFT, base + DOTS + 10);
    ctx.textAlign = "right";
    ctx.fillText("now", width - RIGHT, base + DOTS + 10);
  }
}
