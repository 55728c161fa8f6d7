// The page's own arithmetic, against published numbers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { buildSync } from "esbuild";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

async function load(entry) {
  const outfile = join(mkdtempSync(join(tmpdir(), "stallbench-")), "module.mjs");
  buildSync({ entryPoints: [join(import.meta.dirname, "../src", entry)], bundle: true, format: "esm", outfile });
  return import(pathToFileURL(outfile));
}

test("the rank-sum test has the critical values of the published tables", async () => {
  const { rankSum } = await load("compare.ts");
  // Mann and Whitney (1947): for n = 4 and m = 3, U <= 0 has probability 0.029 and U <= 1 has 0.057.
  assert.ok(Math.abs(rankSum(0, 3, 4) - 2 * 0.0286) < 1e-3);
  assert.ok(Math.abs(rankSum(1, 3, 4) - 2 * 0.0571) < 1e-3);
  // Critical values at 5 %, two-sided: 5 for six against six, 8 for seven against seven.
  assert.ok(rankSum(5, 6, 6) < 0.05 && rankSum(6, 6, 6) > 0.05);
  assert.ok(rankSum(8, 7, 7) < 0.05 && rankSum(9, 7, 7) > 0.05);
});

test("pairs are apart only where bounds leave no doubt", async () => {
  const { apart } = await load("compare.ts");
  assert.deepEqual(apart([1, 2], [3, 1.5]), { above: 3, below: 1, of: 4 });
  assert.deepEqual(apart([1, { at_least: 9 }], [{ at_least: 5 }, "not reached"]), { above: 2, below: 0, of: 4 });
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

test("what a tab's time exceeds its own work by is waiting", async () => {
  const { parts } = await load("waterfall.ts");
  assert.deepEqual(parts(600, 300), { waiting: 300, working: 300 });
  assert.deepEqual(parts(299, 300), { waiting: 0, working: 299 });
});

test("numbers have three digits and their unit", async () => {
  const { amount, words } = await load("format.ts");
  assert.deepEqual([0.123, 98.24, 1604.2].map((ms) => amount(ms, "ms")), ["0.12 ms", "98.2 ms", "1.60 s"]);
  assert.equal(amount(0.5, "%"), "50 %");
  assert.equal(words({ at_least: 504 }, "ms"), ">= 504 ms");
  assert.equal(words({ never_up_to: 64 }, ""), "never (64 tried)");
  assert.equal(words("not reached", "ms"), "frozen");
});
