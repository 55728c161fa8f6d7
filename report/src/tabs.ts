// Tabs: what they waited for, and how much room their times need.

import type { Waterfall } from "./data";

/** The end of the axis on which all of them have room, also one after another. */
export function longest(falls: Waterfall[]): number {
  return Math.max(1, ...falls.map((fall) => Math.max(...fall.finished_ms, fall.length_ms * fall.finished_ms.length)));
}

/** A part of a tab's time, in ms. */
export interface Phase {
  name: "queued" | "waiting" | "working";
  ms: number;
}

/** Splits a tab's time: all but its own work is waiting, and until the server has read the request it is queued, if the round says when that was. */
export function phases(finished: number, length: number, read?: number): Phase[] {
  const start = Math.max(0, finished - length);
  const working: Phase = { name: "working", ms: finished - start };
  if (read === undefined) return [{ name: "waiting", ms: start }, working];
  const queued = Math.min(Math.max(0, read), start);
  return [{ name: "queued", ms: queued }, { name: "waiting", ms: start - queued }, working];
}
