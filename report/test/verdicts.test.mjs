// Verdicts over two servers, against those that the harness reaches: `bench/src/page/verdicts.rs` writes the file.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { load } from "./modules.mjs";

const rounds = JSON.parse(readFileSync(join(import.meta.dirname, "verdicts.json"), "utf8"));
const differing = rounds.flatMap(({ pairs }) => pairs.flatMap(({ lines }) => lines.filter((line) => line.differs)));

/** Calls back with every pair of servers, and what the harness says of each of their metrics. */
function eachPair(check) {
  for (const page of rounds) for (const { first, second, lines } of page.pairs) check(page, first, second, lines);
}

test("two servers differ in the report where they differ by the harness, in the same direction", async () => {
  const { lines } = await load("compare.ts");
  for (const kind of ["ratio", "from_zero", "ratio_at_least", "ratio_at_most"]) assert.ok(differing.some(({ change }) => change[kind] !== undefined), kind);
  for (const kind of ["no_longer_reached", "reached_now"]) assert.ok(differing.some(({ change }) => change === kind), kind);
  const wrong = [];
  eachPair((page, first, second, wanted) => {
    const found = new Map(lines(page, first, second).map((line) => [line.metric, line.verdict]));
    assert.equal(found.size, wanted.length, `${first} and ${second}`);
    for (const { metric, differs, order } of wanted) {
      const isMoreBetter = page.metrics.find((one) => one.name === metric).is_more_better;
      const verdict = differs ? (order > 0 === isMoreBetter ? "better" : "worse") : "cannot be told apart";
      if (!found.get(metric).startsWith(verdict)) wrong.push(`${second} against ${first}, ${metric}: ${found.get(metric)}, not ${verdict}`);
    }
  });
  assert.deepEqual(wrong, []);
});

test("a change, its p-value, and whether the data can show one are those of the harness", async () => {
  const { judge } = await load("verdict.ts");
  const same = (found, wanted, what) => {
    if (typeof wanted === "string") return assert.equal(found, wanted, what);
    const [kind] = Object.keys(wanted);
    assert.ok(typeof found === "object" && Math.abs(found[kind] - wanted[kind]) <= 1e-6 * wanted[kind], `${what}: ${JSON.stringify(found)} is not ${JSON.stringify(wanted)}`);
  };
  eachPair((page, first, second, wanted) => {
    const found = new Map(judge(page, first, second).map((one) => [one.metric.name, one]));
    for (const { metric, change, p, can_differ: canDiffer } of wanted) {
      const [one, what] = [found.get(metric), `${second} against ${first}, ${metric}`];
      same(one.change, change, what);
      assert.ok(Math.abs(one.p - p) < 1e-9, `${what}: p = ${one.p}, not ${p}`);
      assert.equal(one.canDiffer, canDiffer, what);
    }
  });
});

test("a server that never freezes, or freezes before a step, is told as such and stands first", async () => {
  const { lines } = await load("compare.ts");
  const said = (first, second, metric) => lines(rounds[0], first, second).find((line) => line.metric.startsWith(metric)).verdict;
  assert.equal(said("64", "never", "freeze_k"), "better: it does not freeze");
  assert.equal(said("never", "two", "freeze_k"), "worse: it freezes");
  assert.equal(said("two", "frozen", "p99_ms"), "worse: it is frozen");
  assert.equal(said("frozen", "two", "p99_ms"), "better: it is not frozen");
  assert.equal(said("two", "without an answer", "p99_ms"), "worse at least x 2.48");
  assert.equal(said("never", "mostly never", "freeze_k"), "cannot be told apart");
  assert.match(lines(rounds[0], "64", "never")[0].verdict, /it does not freeze/);
});
