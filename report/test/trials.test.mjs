// What a number rests on: trials that are invalid, trials that are still missing, and the figures of what a file holds.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { closed, drawAll, open, saved } from "./browser.mjs";
import { browser, full } from "./full.mjs";
import { changed, copy, recorded, report } from "./rounds.mjs";

/** Opens what is folded, and waits until it is filled. */
const unfold = (page, selector) =>
  page.$eval(selector, async (details) => {
    details.open = true;
    await new Promise((done) => details.addEventListener("toggle", done, { once: true }));
  });

test("a number of which some trials are invalid is marked in the table, in the words at the pointer, and in the file", async () => {
  const server = full.numbers.shown[0];
  const path = changed(full.path, ({ figures: [first] }) => {
    const points = first.x.ticks.map(([at]) => [at, 599, null, null, null, null, null, 1, 6]);
    first.series = [{ name: server, points }];
  });
  const { page, troubles } = await open(browser, path, { hash: `#servers=${server}` });
  await drawAll(page);
  const figure = `#figure-${full.numbers.figures[0].name}`;
  await unfold(page, `${figure} details`);
  const cells = await page.$$eval(`${figure} tbody td`, (all) => all.map((one) => one.textContent));
  assert.deepEqual([...new Set(cells)], ["599 ms*"]);
  assert.match(await page.$eval(`${figure} details .note`, (one) => one.textContent), /^\*: some trials are invalid/);
  assert.match((await saved(page, figure, "CSV")).text, /,599,,,,,1 of 6\n/);
  await page.$eval(`${figure} .u-over`, (one) => one.scrollIntoView({ block: "center", behavior: "instant" }));
  const box = await (await page.$(`${figure} .u-over`)).boundingBox();
  let said = "";
  for (let row = 1; row < 40 && !said; row += 1) {
    await page.mouse.move(box.x + box.width / 2, box.y + (box.height * row) / 40);
    said = await page.$eval(`${figure} .tip`, (tip) => (tip.hidden ? "" : tip.textContent));
  }
  assert.match(said, /: 599 ms\* \(1 of 6 trials valid\)$/);
  await closed(page, troubles);
});

test("the first sentence quotes only servers whose trials are all valid, and says so", () => {
  const { numbers } = report(recorded("2026-11-29-vm.6"));
  const [figure] = numbers.figures;
  const places = new Map(figure.x.ticks.map(([at, word]) => [word, at]));
  const [, word, low, high] = / = (\S+): [^(]+\((\S+?)(?: and \d+ more)?\) to [^(]+\((\S+?)(?: and \d+ more)?\)\./.exec(numbers.sentence) ?? [];
  assert.ok(low && high, numbers.sentence);
  assert.match(numbers.sentence, /Of servers whose trials are all valid, the medians are furthest apart at/);
  for (const name of [low, high]) {
    const point = figure.series.find((line) => line.name === name).points.find(([x]) => x === places.get(word));
    assert.equal(point[7], undefined, `${name} at ${word}: all of its trials are valid`);
  }
  assert.doesNotMatch(numbers.sentence, /599 ms/, "one trial of six");
  assert.ok(figure.series.some((line) => line.points.some((point) => point[7] < point[8])), "the round has invalid trials");
});

test("every table with a marked cell explains the mark", () => {
  for (const round of ["2026-11-29-vm.6", "2026-11-29-vm"]) {
    for (const { title, rows, notes } of report(recorded(round)).numbers.tables) {
      const isMarked = rows.some(({ cells }) => cells.slice(1).some(({ t, n }) => n !== undefined && t.includes("*")));
      assert.equal(notes.some((note) => note.startsWith("*: some trials are invalid")), isMarked, title);
    }
  }
});

test("a round that is not finished says how many of its trials there are", async () => {
  const begun = copy(recorded("2026-11-29-vm.2"), (header, trials) => {
    header.finished = null;
    return trials.filter((one) => one.trial === 1);
  });
  const { path, numbers } = report(begun);
  assert.match(numbers.sentence, / 5 servers, 1 of 5 trials of each so far\.$/);
  assert.ok(numbers.tables.some(({ title }) => title.includes("1 of 5 trials so far")), numbers.tables.map(({ title }) => title).join());
  const { page, troubles } = await open(browser, path);
  assert.match(await page.$eval("header .about", (one) => one.textContent), /, 1 of 5 trials so far, /);
  await closed(page, troubles);
});

test("a file of shares holds them in per cent, as its head says", async () => {
  const { name, x, series } = full.numbers.figures.find((one) => one.y.unit === "%");
  const { page, troubles } = await open(browser, full.path);
  const [head, ...rows] = (await saved(page, `#figure-${name}`, "CSV")).text.trimEnd().split("\n");
  assert.match(head, /\(%\)/);
  const places = new Map(x.ticks);
  const wanted = series.flatMap((line) => line.points.map(([at, share]) => `${line.name},${places.get(at)},${Number((share * 100).toPrecision(6))}`));
  assert.deepEqual(rows.map((row) => row.split(",").slice(0, 3).join()), wanted);
  assert.ok(rows.some((row) => row.split(",")[2] === "100"));
  await closed(page, troubles);
});

test("the seed on the page has all of its digits", async () => {
  const round = recorded("2026-11-29-vm.6");
  const [, seed] = /"seed":\s*(\d+)/.exec(readFileSync(join(round, "round.json"), "utf8"));
  assert.notEqual(String(Number(seed)), seed, "a number of the script would have lost some");
  const { page, troubles } = await open(browser, report(round).path);
  const shown = await page.$$eval("#method tr", (rows) => rows.find((row) => row.children[0].textContent === "seed").children[1].textContent);
  assert.equal(shown, seed);
  await closed(page, troubles);
});

test("reasons that differ in their figures alone are one line, which has room on a narrow screen", async () => {
  const server = full.numbers.shown[0];
  const reason = (ms) => `lag: the driver sent ${ms} ms late, which is more than a tenth of what it measured, so that the number may be the driver's own`;
  const path = changed(full.path, (page) => {
    for (const cells of Object.values(page.values)) for (const cell of Object.values(cells)) delete cell.invalid;
    Object.values(page.values[server])[0].invalid = [reason("2.5"), reason("31"), "errors: 3 of 100 requests failed"];
  });
  const { page, troubles } = await open(browser, path, { width: 380 });
  const rows = await page.$$eval("table.reasons tbody tr", (all) => all.map((row) => ({ texts: [...row.children].map((cell) => cell.textContent), width: row.children[2].getBoundingClientRect().width })));
  assert.deepEqual(rows.map(({ texts }) => texts.slice(2)), [[reason("2.5"), "2"], ["errors: 3 of 100 requests failed", "1"]]);
  assert.ok(rows[0].width >= 250, `${rows[0].width} pixels`);
  await closed(page, troubles);
});
