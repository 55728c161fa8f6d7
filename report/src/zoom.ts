// Zooming on a time axis by steps.

import type { State } from "./state";

export type Act = "in" | "out" | "left" | "right" | "fit";

/** Shows another part of a time axis of which `whole` is all. */
export function zoom(state: State, act: Act, whole: [number, number]): void {
  const [first, last] = whole;
  const [from, to] = state.view.zoom ?? whole;
  const width = to - from;
  if (act === "fit") return state.set({ zoom: null });
  const next: [number, number] = act === "in" ? [from + width / 4, to - width / 4] : act === "out" ? [from - width / 2, to + width / 2] : act === "left" ? [from - width / 4, to - width / 4] : [from + width / 4, to + width / 4];
  const size = Math.min(next[1] - next[0], last - first);
  const start = Math.min(Math.max(first, next[0]), last - size);
  state.set({ zoom: size >= last - first ? null : [start, start + size] });
}
