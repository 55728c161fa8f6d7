// Verdicts over two servers of a round, by the rules of `bench/src/verdict`: the page says what `stallbench compare` would say.

import type { Metric, Page, Value } from "./data";
import { type RankSum, compareSorted, rankSum, summary } from "./stats";

/** The share of false discoveries over a table, and the p-value below which data can show something. */
const RATE = 0.05;
/** The noise where none is known to be larger: ratios within it are none. */
const LEAST_NOISE = 1e-3;

/** The change of a median, each case by the name that the harness gives it. */
export type Change = { ratio: number } | { from_zero: number } | { ratio_at_least: number } | { ratio_at_most: number } | "no_longer_reached" | "reached_now" | "unknown";

/** The ways in which a metric of two servers is compared. */
export interface Verdict {
  metric: Metric;
  before: NonNullable<ReturnType<typeof summary>>;
  after: NonNullable<ReturnType<typeof summary>>;
  change: Change;
  p: number;
  /** The ratio that identical servers reach; `null` where there is none. */
  noise: number | null;
  /** The data could have shown a difference. */
  canDiffer: boolean;
  /** Chance does not explain it, among all that were compared. */
  isDiscovery: boolean;
  /** The change is large enough to be claimed. */
  isClaimed: boolean;
  differs: boolean;
  /** Above zero if the second median is larger. */
  order: number;
  /** The change in units of noise. */
  size: number;
}

const isWord = (value: Value): boolean => typeof value === "string" || (typeof value === "object" && "never_up_to" in value);

/** The number, or the bound; a threshold that was never reached has none. */
const known = (value: Value): number | null => (typeof value === "number" ? value : typeof value === "object" && "at_least" in value ? value.at_least : null);

/** The change from one median to another. */
export function change(before: Value, after: Value): Change {
  if (typeof before === "number") {
    if (isWord(after)) return "no_longer_reached";
    if (typeof after === "number") {
      if (before !== 0) return { ratio: after / before };
      return after === 0 ? { ratio: 1 } : { from_zero: after };
    }
    const bound = known(after) as number;
    return bound >= before && before > 0 ? { ratio_at_least: bound / before } : "unknown";
  }
  if (typeof after !== "number") return "unknown";
  if (isWord(before)) return "reached_now";
  const bound = known(before) as number;
  return bound >= after && bound > 0 ? { ratio_at_most: after / bound } : "unknown";
}

/** The ratio of a change, as far as it is known; `null` without one. */
export function ratioOf(found: Change): number | null {
  if (typeof found === "string") return null;
  return "ratio" in found ? found.ratio : "ratio_at_least" in found ? found.ratio_at_least : "ratio_at_most" in found ? found.ratio_at_most : null;
}

/** Which of these p-values are discoveries at the given rate of false ones (Benjamini and Hochberg, 1995). */
export function discoveries(values: number[], rate: number): boolean[] {
  const sorted = [...values].sort((a, b) => a - b);
  const threshold = Math.max(-1, ...sorted.filter((p, rank) => p <= ((rank + 1) / sorted.length) * rate));
  return values.map((p) => p <= threshold);
}

/** Whether a change exceeds noise: a half is as far from one as a double is. */
function exceeds(found: Change, noise: number | null): boolean {
  const ratio = ratioOf(found);
  return noise === null || ratio === null || ratio <= 0 || Math.abs(Math.log(ratio)) > Math.log(noise);
}

/** Judges every metric that both servers have, those of each family as one table. */
export function judge(page: Pick<Page, "metrics" | "values">, first: string, second: string): Verdict[] {
  const [ours, theirs] = [page.values[first] ?? {}, page.values[second] ?? {}];
  const pairs = page.metrics.flatMap((metric, at) => {
    const [x, y] = [ours[at], theirs[at]];
    return x && y && x.values.length > 0 && y.values.length > 0 ? [{ metric, x, y, test: rankSum(x.values, y.values) }] : [];
  });
  // What cannot be a discovery would only make the others harder to see.
  const tables = new Map<string, { test: RankSum }[]>();
  for (const pair of pairs.filter(({ test }) => test.leastP < RATE)) tables.set(pair.metric.family, [...(tables.get(pair.metric.family) ?? []), pair]);
  const found = new Set<RankSum>();
  for (const table of tables.values()) {
    const is = discoveries(table.map(({ test }) => test.p), RATE);
    for (const [at, { test }] of table.entries()) if (is[at]) found.add(test);
  }
  return pairs.map(({ metric, x, y, test }) => {
    const [before, after] = [x, y].map((cell) => summary(cell.values, metric.is_threshold, metric.least)) as [Verdict["before"], Verdict["after"]];
    const changed = change(before.median, after.median);
    const noise = x.noise ?? null;
    const [low, high] = [known(before.median), known(after.median)];
    const isClaimed = metric.is_threshold || low === null || high === null || Math.abs(high - low) >= metric.least;
    const ratio = ratioOf(changed);
    const isLarge =
      changed === "unknown" ? false : typeof changed === "string" ? true : metric.is_threshold && "ratio" in changed ? changed.ratio !== 1 : isClaimed && exceeds(changed, noise);
    const isDiscovery = found.has(test);
    const size = ratio === null || ratio <= 0 ? Number.POSITIVE_INFINITY : Math.abs(Math.log(ratio)) / Math.max(LEAST_NOISE, Math.log(noise ?? Math.E));
    const order = compareSorted(after.median, before.median);
    return { metric, before, after, change: changed, p: test.p, noise, canDiffer: test.leastP < RATE, isDiscovery, isClaimed, differs: isDiscovery && isLarge, order, size };
  });
}
