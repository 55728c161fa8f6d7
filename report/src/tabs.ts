// Tabs: what they waited for, and how much room their times need.

import type { Waterfall } from "./data";

/** The end of the axis on which all of them have room, also one after another. */
export function longest(falls: Waterfall[]): number {
  return Math.max(1, ...falls.map((fall) => Math.max(...fall.finished_ms, fall.length_ms * fall.finished_ms.length)));
}

/** Splits a tab's time into waiting and working: all but its own work is waiting. */
export function parts(finished: number, length: number): { waiting: number; working: number } {
  const waiting = Math.max(0, finished - length);
  return { waiting, working: finished - waiting };
}
