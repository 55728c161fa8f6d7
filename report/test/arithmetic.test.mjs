// The page's own arithmetic, against published numbers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { load } from "./modules.mjs";

/** Two samples of which this many pairs have the second value below the first: every other pair is the other way round. */
function samples(below, first, second) {
  const values = Array.from({ length: second }, (_, at) => at);
  const passed = Array.from({ length: first }, (_, at) => Math.min(second, Math.max(0, below - at * second)));
  return [passed.map((count, at) => count - 0.5 + at / 100), values];
}

test("the rank-sum test has the critical values of the published tables", async () => {
  const { rankSum } = await load("stats.ts");
  const p = (...all) => rankSum(...samples(...all)).p;
  // Mann and Whitney (1947): for n = 4 and m = 3, U <= 0 has probability 0.029 and U <= 1 has 0.057.
  assert.ok(Math.abs(p(0, 3, 4) - 2 * 0.0286) < 1e-3);
  assert.ok(Math.abs(p(1, 3, 4) - 2 * 0.0571) < 1e-3);
  // Critical values at 5 %, two-sided: 5 for six against six, 8 for seven against seven.
  assert.ok(p(5, 6, 6) < 0.05 && p(6, 6, 6) > 0.05);
  assert.ok(p(8, 7, 7) < 0.05 && p(9, 7, 7) > 0.05);
});

test("six trials against six that tie have the p-values that scipy gives", async () => {
  const { rankSum } = await load("stats.ts");
  // scipy.stats.mannwhitneyu(a, b, method=PermutationMethod(n_resamples=100000)), which goes through all 924 choices.
  const cases = [
    [[1, 2, 2, 3, 3, 3], [2, 3, 3, 4, 4, 5], 0.10822510822510822],
    [[16, 16, 16, 64, 64, 64], [16, 16, 64, 64, 64, 128], 0.6753246753246753],
    [[10, 10, 11, 12, 12, 13], [12, 13, 13, 14, 15, 15], 0.021645021645021644],
    [[1, 2, 3, 4, 5, 6], [4, 5, 6, 7, 8, 9], 0.03463203463203463],
    [[2, 2, 2, 2, 4, 4], [4, 4, 4, 4, 4, 4], 0.06060606060606061],
  ];
  for (const [a, b, p] of cases) assert.ok(Math.abs(rankSum(a, b).p - p) < 1e-9, `${a} against ${b}: ${rankSum(a, b).p} is not ${p}`);
});

test("the rank-sum test agrees with the table that the harness is tested against", async () => {
  const { rankSum } = await load("stats.ts");
  const table = readFileSync(join(import.meta.dirname, "../../bench/tests/oracles/rank_sum.csv"), "utf8");
  const lines = table.trimEnd().split("\n").filter((line) => /^\d/.test(line));
  assert.ok(lines.length >= 40, `${lines.length} rows`);
  for (const line of lines) {
    const [a, b, [p], [leastP]] = line.split(",").map((text) => text.split(" ").map(Number));
    const found = rankSum(a, b);
    assert.ok(Math.abs(found.p - p) < 1e-9 && Math.abs(found.leastP - leastP) < 1e-9, `${line}: ${JSON.stringify(found)}`);
  }
});

test("bounds tie with one another in the rank-sum test, and lie above what is below them", async () => {
  const { rankSum } = await load("stats.ts");
  const bounds = (at_least) => Array(6).fill({ at_least });
  assert.equal(rankSum(bounds(504), bounds(510)).p, 1);
  assert.ok(rankSum(Array(6).fill(100), bounds(510)).p < 0.01);
  assert.ok(rankSum(Array(6).fill({ never_up_to: 64 }), Array(6).fill(4)).p < 0.01);
});

test("a median is what the tables show: a mean of the middle two, but not of thresholds, bounds, or two heaps", async () => {
  const { summary } = await load("stats.ts");
  const [threshold, never] = [true, { never_up_to: 64 }];
  // The same cases as in `bench/src/metrics/cell.rs`.
  assert.deepEqual(summary([1, 2], false), { median: 1.5, heaps: null });
  assert.deepEqual(summary([4, 1, 3, 2], false), { median: 2.5, heaps: null });
  assert.deepEqual(summary([2, 4], threshold), { median: 2, heaps: null });
  assert.deepEqual(summary([602, 300, 601, 302, 301, 600], false), { median: 302, heaps: [301, 601] });
  assert.deepEqual(summary([300, { at_least: 504 }, 600], false)?.median, { at_least: 504 });
  assert.deepEqual(summary([{ at_least: 504 }, 600, 700], false)?.median, { at_least: 600 });
  assert.deepEqual(summary([1, 2, { at_least: 3 }], false)?.median, 2);
  assert.deepEqual(summary([16, never, never], threshold)?.median, never);
  assert.deepEqual(summary([16, 16, never], threshold)?.median, 16);
  assert.equal(summary(["not reached", "not reached"], false)?.median, "not reached");
  assert.equal(summary([], false), null);
});

test("one wide heap, an outlier, or equal values are not two heaps", async () => {
  const { summary } = await load("stats.ts");
  for (const values of [[300, 310, 330, 360, 400, 450, 500], [300, 301, 299, 302, 900], [1, 1, 2, 2], [5, 5, 5, 5, 5, 5, 5]]) {
    assert.equal(summary(values, false)?.heaps, null, values.join());
  }
  assert.deepEqual(summary([300, 301, 600, 602, 300, 601, 299], false)?.heaps, [300, 601]);
});

test("two servers are compared by the medians of the tables, and two heaps are shown as such", async () => {
  const { lines } = await load("compare.ts");
  const metric = (name) => ({ name, family: name, experiment: "collateral", unit: "ms", is_threshold: false, is_more_better: false, least: 0 });
  const page = {
    metrics: [metric("p99"), metric("tabs")],
    values: {
      a: { 0: { values: [1, 2, 3, 4, 5, 6], noise: 1.1 }, 1: { values: [300, 301, 302, 600, 601, 602], noise: 1.1 } },
      b: { 0: { values: [21, 22, 23, 24, 25, 26], noise: 1.1 }, 1: { values: [300, 301, 302, 303, 304, 305], noise: 1.1 } },
    },
  };
  const [first, second] = lines(page, "a", "b").sort((one, other) => one.metric.localeCompare(other.metric));
  assert.deepEqual([first.before, first.after, first.verdict], ["3.50 ms", "23.5 ms", "worse x 6.71"]);
  assert.equal(first.why, "36 of 36 pairs of trials apart; p = 0.0022; noise x 1.10", "with as many digits as `stallbench compare` prints");
  assert.deepEqual([second.before, second.after], ["301 ms or 601 ms", "303 ms"]);
});

test("two heaps that are closer than what is claimed are shown as one number, the one of the tables", async () => {
  const { lines } = await load("compare.ts");
  const { summary } = await load("stats.ts");
  const values = [0.2, 0.2, 0.2, 0.4, 0.4, 0.4];
  assert.deepEqual(summary(values, false, 2), { median: 0.2, heaps: null });
  assert.deepEqual(summary(values, false)?.heaps, [0.2, 0.4]);
  const metric = { name: "p99", family: "p99", experiment: "latency", unit: "ms", is_threshold: false, is_more_better: false, least: 2 };
  const [line] = lines({ metrics: [metric], values: { a: { 0: { values, noise: 1.1 } }, b: { 0: { values, noise: 1.1 } } } }, "a", "b");
  assert.deepEqual([line.before, line.after], ["0.20 ms", "0.20 ms"]);
});

test("pairs are apart only where bounds leave no doubt", async () => {
  const { apart } = await load("stats.ts");
  assert.deepEqual(apart([1, 2], [3, 1.5]), { above: 3, below: 1, of: 4 });
  assert.deepEqual(apart([1, { at_least: 9 }], [{ at_least: 5 }, "not reached"]), { above: 2, below: 0, of: 4 });
});

test("requests are read as the harness writes them", async () => {
  const { requestsOf } = await load("stalls.ts");
  const { packed } = await import("./rounds.mjs");
  // The same bytes as in `bench/src/page/moments.rs`.
  const text = packed([100, 100, 100, 100, 0x90, 0x99, 1, 4, 0xc2, 0x92, 1, 0xe9, 2, 0, 1, 2, 3]);
  const { blockers } = await requestsOf({ probes: packed([]), blockers: text }, 0.01);
  const read = [...blockers.at.keys()].map((one) => [blockers.at[one], Number(blockers.took[one].toFixed(2)), blockers.answered[one], blockers.connection[one]]);
  assert.deepEqual(read, [[1, 49, 1, 0], [2, 48.01, 1, 1], [3, 0.12, 1, 2], [4, 0.9, 0, 3]]);
});

test("a stall is what was answered at one moment, and the blocker that ended then held it", async () => {
  const { requestsOf, stalls } = await load("stalls.ts");
  const { requests } = await import("./rounds.mjs");
  const timeline = { probes: requests([100, 100, 100, 100], [4000, 3900, 10, 9700]), blockers: requests([0, 1000], [4050, 9000], [0, 1]) };
  const { probes, blockers } = await requestsOf(timeline, 0.01);
  const found = stalls("a", probes, blockers);
  assert.deepEqual(found.map(({ count, held, worst }) => ({ count, held, worst })), [
    { count: 1, held: [1, 10], worst: 97 },
    { count: 2, held: [0, 0], worst: 40 },
  ]);
});

test("probes without an answer are a stall of their own, as old as they were at the end, that no blocker let go", async () => {
  const { requestsOf, stalls } = await load("stalls.ts");
  const { requests } = await import("./rounds.mjs");
  // Due at 1, 2, 3 and 4 ms. The first is answered at 50 ms, when a blocker ends; the load ends there too, and the others have no answer.
  const probes = requests([100, 100, 100, 100], [4900, 4800, 4700, 4600], [], [1, 2, 3]);
  const read = await requestsOf({ probes, blockers: requests([0], [5000], [3]) }, 0.01);
  assert.deepEqual(stalls("a", read.probes, read.blockers), [
    { server: "a", from: 1, to: 50, worst: 49, count: 1, isAnswered: true, held: [3, 0] },
    { server: "a", from: 2, to: 50, worst: 48, count: 3, isAnswered: false, held: null },
  ]);
});

test("a probe without an answer counts however young it was at the end: nobody knows how long it would have taken", async () => {
  const { requestsOf, stalls } = await load("stalls.ts");
  const { requests } = await import("./rounds.mjs");
  const read = await requestsOf({ probes: requests([100, 100], [10, 500], [], [1]), blockers: requests([], []) }, 0.01);
  assert.deepEqual(stalls("a", read.probes, read.blockers).map(({ worst, isAnswered }) => ({ worst, isAnswered })), [{ worst: 5, isAnswered: false }]);
});

test("what a tab's time exceeds its own work by is waiting, and queued until the server has read it", async () => {
  const { phases } = await load("tabs.ts");
  const split = (...all) => Object.fromEntries(phases(...all).map(({ name, ms }) => [name, ms]));
  assert.deepEqual(split(600, 300), { waiting: 300, working: 300 });
  assert.deepEqual(split(299, 300), { waiting: 0, working: 299 });
  assert.deepEqual(split(600, 300, 290), { queued: 290, waiting: 10, working: 300 });
  assert.deepEqual(split(600, 300, 0), { queued: 0, waiting: 300, working: 300 });
  // Both are only known to the millisecond: what has begun has been read.
  assert.deepEqual(split(600, 300, 301), { queued: 300, waiting: 0, working: 300 });
  assert.deepEqual(split(299, 300, 1), { queued: 0, waiting: 0, working: 299 });
});

/** How people see a colour who lack one kind of cones (Machado, Oliveira and Fernandes, 2009, severity 1). */
const SEEN = {
  all: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deuteranopia: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  tritanopia: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};
const linear = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
const luminance = (hex) => linear(hex).reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};

/** A colour in CIELAB, as it is seen. */
function lab(hex, eyes) {
  const rgb = SEEN[eyes].map((row) => Math.min(1, Math.max(0, linear(hex).reduce((sum, part, at) => sum + part * row[at], 0))));
  const white = [0.95047, 1, 1.08883];
  const xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]].map((row, to) => rgb.reduce((sum, part, at) => sum + part * row[at], 0) / white[to]);
  const [x, y, z] = xyz.map((part) => (part > 0.008856 ? Math.cbrt(part) : 7.787 * part + 16 / 116));
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/** The least distance of two colours, whoever looks (CIE 1976; 2.3 can just be noticed). */
function closest(colors) {
  const pairs = colors.flatMap((one, at) => colors.slice(0, at).map((other) => [one, other]));
  return Math.min(...Object.keys(SEEN).flatMap((eyes) => pairs.map(([one, other]) => Math.hypot(...lab(one, eyes).map((part, at) => part - lab(other, eyes)[at])))));
}

test("lines and grades are told apart with every kind of colour-blindness, and stand out from the page", async () => {
  const { LIGHT, DARK } = await load("palette.ts");
  const sheet = readFileSync(join(import.meta.dirname, "../src/style.css"), "utf8");
  const values = (name) => [...sheet.matchAll(new RegExp(`--${name}: (#[0-9a-f]{6})`, "g"))].map((found) => found[1]);
  for (const [theme, lines] of [LIGHT, DARK].entries()) {
    const grades = ["instant", "flow", "attention", "lost"].map((name) => values(name)[theme]);
    const pages = [values("page")[theme], values("panel")[theme]];
    assert.ok(closest(lines) >= 20, `lines: ${closest(lines)}`);
    assert.ok(closest(grades) >= 12, `grades: ${closest(grades)}`);
    for (const page of pages) {
      for (const color of lines) assert.ok(contrast(color, page) >= 3, `${color} on ${page}`);
      for (const color of grades) assert.ok(contrast(color, page) >= 4.5, `${color} on ${page}`);
    }
  }
});

test("numbers have three digits and their unit", async () => {
  const { amount, words } = await load("format.ts");
  assert.deepEqual([0.123, 98.24, 1604.2].map((ms) => amount(ms, "ms")), ["0.12 ms", "98.2 ms", "1.60 s"]);
  assert.equal(amount(0.5, "%"), "50 %");
  assert.deepEqual([1, 64, 1.5].map((count) => amount(count, "")), ["1", "64", "1.50"], "counts are whole");
  assert.equal(words({ at_least: 504 }, "ms"), ">= 504 ms");
  assert.equal(words({ never_up_to: 64 }, ""), "never (64 tried)");
  assert.equal(words("not reached", "ms"), "frozen");
});

test("a part of the time axis is cut to the axis, and none is left of what lies outside, is too small, turned round, or no number", async () => {
  const { within } = await load("state.ts");
  const end = 1100;
  assert.deepEqual(within([200, 300], end), [200, 300]);
  assert.deepEqual(within([200.04, 300.06], end), [200, 300.1], "as the address holds it");
  assert.deepEqual(within([-50, 1e300], end), [0, end]);
  assert.deepEqual(within([299.8, 300.3], end), [299.8, 300.3]);
  for (const zoom of [[300, 200], [200, 200], [200, 200.4], [5e6, 6e6], [-20, -10], [1e17, 1.0000000000000002e17], [0, Infinity], [NaN, 5], [-Infinity, Infinity]]) {
    assert.equal(within(zoom, end), null, String(zoom));
  }
});
