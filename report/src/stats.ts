// Statistics over trials, by the rules of `bench/src/stats` and `bench/src/metrics/cell.rs`: the page says what the tables say.

import type { Value } from "./data";
import { number } from "./format";

/** A gap between two heaps is this many times wider than the widest gap inside either of them. */
const GAP = 3;
/** The upper heap starts this many times above the end of the lower one. */
const APART = 1.25;
/** A single value is an outlier, not a heap. */
const LEAST_HEAP = 2;

/** Pairs of trials that are apart. */
export interface Apart {
  /** Pairs in which the second is larger. */
  above: number;
  /** Pairs in which it is smaller. */
  below: number;
  /** All pairs. */
  of: number;
}

const isOpen = (value: Value): boolean => typeof value !== "number";

/** The order of two values where bounds leave no doubt: above zero if the second is larger. */
function order(a: Value, b: Value): number {
  const of = (value: Value) => number(value) ?? Number.POSITIVE_INFINITY;
  if (!isOpen(a) && !isOpen(b)) return Math.sign(of(b) - of(a));
  if (isOpen(a) && isOpen(b)) return 0;
  if (isOpen(b)) return of(a) <= of(b) ? 1 : 0;
  return of(b) <= of(a) ? -1 : 0;
}

/** Compares every trial of one with every trial of the other. */
export function apart(first: Value[], second: Value[]): Apart {
  const found = { above: 0, below: 0, of: first.length * second.length };
  for (const a of first) {
    for (const b of second) {
      const sign = order(a, b);
      if (sign > 0) found.above += 1;
      if (sign < 0) found.below += 1;
    }
  }
  return found;
}

/** The two-sided p-value of the rank-sum test, and the smallest one that any order of these values could have had. */
export interface RankSum {
  p: number;
  leastP: number;
}

/** The rank-sum test: p is the share of all choices of the first's members whose ranks are at least as far from the middle. */
export function rankSum(first: Value[], second: Value[]): RankSum {
  if (first.length === 0 || second.length === 0) return { p: 1, leastP: 1 };
  const all = [...first, ...second];
  // The number of values that each exceeds, less the number that exceed it. Ties, which are usual here, need no correction: all choices are counted.
  const scores = all.map((x) => all.reduce<number>((sum, y) => sum + order(y, x), 0));
  const observed = Math.abs(scores.slice(0, first.length).reduce((a, b) => a + b, 0));
  const most = scores.reduce((sum, score) => sum + Math.abs(score), 0);
  // ways[n][most + s]: choices of n of the values seen so far with the sum s.
  const ways = Array.from({ length: first.length + 1 }, () => new Float64Array(2 * most + 1));
  ways[0][most] = 1;
  for (const score of scores) {
    for (let n = first.length; n > 0; n -= 1) {
      const [from, to] = [Math.max(0, score), 2 * most + Math.min(0, score)];
      for (let at = from; at <= to; at += 1) ways[n][at] += ways[n - 1][at - score];
    }
  }
  const chosen = ways[first.length];
  const count = (least: number) => chosen.reduce((sum, some, at) => sum + (Math.abs(at - most) >= least ? some : 0), 0);
  const farthest = chosen.reduce((far, some, at) => (some > 0 ? Math.max(far, Math.abs(at - most)) : far), 0);
  return { p: count(observed) / count(0), leastP: count(farthest) / count(0) };
}

/** An order of all values, in which a bound stands right above its number. */
export function compareSorted(a: Value, b: Value): number {
  const key = (value: Value) => number(value) ?? Number.MAX_VALUE;
  return Math.sign(key(a) - key(b)) || Number(isOpen(a)) - Number(isOpen(b));
}

/** The median over trials, and the middles of two heaps if they fall into two that are at least so far apart; `null` without trials. Ordinal values are steps of a ladder, between which there is no mean. */
export function summary(values: Value[], isOrdinal: boolean, least = 0): { median: Value; heaps: [number, number] | null } | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort(compareSorted);
  const exact = sorted.filter((value) => typeof value === "number");
  const hasMean = exact.length === sorted.length && !isOrdinal;
  const heaps = hasMean ? twoHeaps(exact) : null;
  if (hasMean && !heaps) return { median: middle(exact), heaps };
  // Of an even number the lower one: a mean would be a state that no trial was in.
  const at = (sorted.length - 1) >> 1;
  const value = sorted[at];
  // Above a bound stands perhaps what that bound hides.
  const isBound = typeof value === "number" && sorted.slice(0, at).some(isOpen);
  return { median: isBound ? { at_least: value } : value, heaps: heaps && heaps[1] - heaps[0] >= least ? heaps : null };
}

/** The middle of sorted numbers, or the mean of the middle two. */
const middle = (sorted: number[]): number => (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;

function twoHeaps(sorted: number[]): [number, number] | null {
  if (sorted.length <= 2 * LEAST_HEAP) return null;
  const gaps = sorted.slice(1).map((value, at) => value - sorted[at]);
  // The gap at a cut lies below the first value of the upper heap.
  const widest = Math.max(...gaps.slice(LEAST_HEAP - 1, gaps.length - LEAST_HEAP + 1));
  const cut = gaps.indexOf(widest, LEAST_HEAP - 1) + 1;
  const others = Math.max(...gaps.filter((_, at) => at !== cut - 1));
  const isSplit = widest > GAP * others && sorted[cut] >= APART * sorted[cut - 1];
  return isSplit ? [middle(sorted.slice(0, cut)), middle(sorted.slice(cut))] : null;
}
