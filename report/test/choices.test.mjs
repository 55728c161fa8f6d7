// What a page leaves out where there is nothing to choose, and what follows when something is chosen.

import assert from "node:assert/strict";
import { test } from "node:test";
import { closed, drawAll, open } from "./browser.mjs";
import { browser, full } from "./full.mjs";
import { changed, recorded, report } from "./rounds.mjs";

test("one server alone is not compared, and a round without groups has none to choose", async () => {
  const path = changed(full.path, (page) => {
    const [[name]] = page.order;
    page.order = [[name, null]];
    page.shown = [name];
    page.tables[0].rows = page.tables[0].rows.filter(({ cells }) => cells[0].t.replace(/ \^$/, "") === name);
  });
  const { page, troubles } = await open(browser, path);
  assert.equal(await page.$("#compare"), null);
  assert.deepEqual(await page.$$eval("#servers .choice > span", (all) => all.map((one) => one.textContent)), ["name, runtime or model"]);
  await closed(page, troubles);
});

test("commands in notes are code, without the marks of another language", async () => {
  const path = changed(full.path, (page) => {
    page.noise_note = "noise: `stallbench check harness` records one";
    page.tables[0].notes = ["see `servers.toml`"];
  });
  const { page, troubles } = await open(browser, path);
  const code = (selector) => page.$eval(selector, (one) => [one.textContent.includes("`"), one.querySelector("code").textContent]);
  assert.deepEqual(await code("#compare .note"), [false, "stallbench check harness"]);
  assert.deepEqual(await code("#servers .notes li"), [false, "servers.toml"]);
  await closed(page, troubles);
});

test("an opened table of a figure follows what is ticked", async () => {
  const [figure] = full.numbers.figures;
  const { page, troubles } = await open(browser, full.path, { hash: `#open=values-${figure.name}` });
  const first = () => page.$eval(`#values-${figure.name} tbody th`, (one) => one.textContent);
  await page.waitForSelector(`#values-${figure.name} tbody th`);
  const last = figure.series.map((line) => line.name).findLast((name) => !full.numbers.shown.includes(name));
  assert.notEqual(await first(), last);
  await page.$$eval("#servers .controls button", (all) => all.find((one) => one.textContent === "draw none").click());
  await page.$eval(`table.servers tr[data-server="${last}"] input`, (one) => one.click());
  assert.equal(await first(), last);
  await closed(page, troubles);
});

test("thresholds are whole numbers in a comparison", async () => {
  const { page, troubles } = await open(browser, full.path);
  const cells = await page.$$eval("#compare tbody tr", (all) => all.map((row) => [...row.children].map((cell) => cell.textContent)).filter(([metric]) => metric.startsWith("freeze_k")));
  assert.ok(cells.length > 0 && cells.some(([, before]) => /^\d+$/.test(before)), JSON.stringify(cells));
  for (const [metric, ...medians] of cells) for (const median of medians.slice(0, 2)) assert.doesNotMatch(median, /\./, metric);
  await closed(page, troubles);
});

test("no more lines have colours than look different, and the count says so", async () => {
  const { path, numbers } = report(recorded("2026-11-29-vm"));
  const { page, troubles } = await open(browser, path);
  await drawAll(page);
  const count = () => page.$eval("#servers .count", (one) => one.textContent);
  assert.match(await count(), /drawn in colour$/);
  await page.$$eval("#servers .controls button", (all) => all.find((one) => one.textContent === "draw all shown").click());
  const looks = await page.$$eval(`#figure-${numbers.figures[0].name} .legend .swatch`, (all) => all.map((one) => getComputedStyle(one).background));
  assert.ok(looks.length > 16 && new Set(looks).size === looks.length, `${looks.length} lines, ${new Set(looks).size} styles`);
  assert.ok((await count()).endsWith(`, but ${numbers.order.length - 32} of them are not, since only 32 lines look different`), await count());
  assert.equal(await page.$$eval("table.servers tbody input:checked", (all) => all.length), numbers.order.length, "they are ticked all the same");
  await closed(page, troubles);
});

test("the dots and bars of the stalls are explained in words", async () => {
  const { page, troubles } = await open(browser, full.path);
  const words = await page.$$eval("#stalls .legend li", (all) => all.map((one) => one.textContent));
  assert.deepEqual(words.slice(0, 6), ["answered within 0.1 s", "within 1 s", "within 10 s", "later", "not answered", "slow request"]);
  await closed(page, troubles);
});
