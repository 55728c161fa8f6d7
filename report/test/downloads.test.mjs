// What can be taken along from the report: each figure names the command that made it, and its files hold what was measured.

import assert from "node:assert/strict";
import { test } from "node:test";
import { closed, drawAll, open, saved } from "./browser.mjs";
import { browser, full } from "./full.mjs";
import { changed, recorded, report, requests, timeline } from "./rounds.mjs";

/** The elements of an SVG by their names, with their attributes; and what is wrong with it as a file of its own. */
function read(page, text) {
  return page.evaluate((svg) => {
    const root = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
    const attributes = (one) => Object.fromEntries([...one.attributes].map(({ name, value }) => [name, value]));
    const all = (name) => [...root.querySelectorAll(name)].map((one) => ({ ...attributes(one), text: one.textContent }));
    return { name: root.localName, space: root.namespaceURI, rects: all("rect"), texts: all("text"), lines: all("line") };
  }, text);
}

const table = (text) => text.trimEnd().split("\n").map((line) => line.split(","));

test("every figure names the command that made it, and offers SVG and CSV", async () => {
  const { page, troubles } = await open(browser, full.path);
  await drawAll(page);
  await page.waitForSelector(".pane");
  const figures = await page.$$eval("figure, .pane", (all) => all.map((one) => [one.querySelector("figcaption, h3").textContent, one.querySelector(".source code")?.textContent, ...[...one.querySelectorAll(".source button")].map((button) => button.textContent)]));
  assert.ok(figures.length > full.numbers.figures.length + full.numbers.shown.length, `${figures.length} figures`);
  for (const [title, ...rest] of figures) assert.deepEqual(rest, [full.numbers.header.command.join(" "), "SVG", "CSV"], title);
  await closed(page, troubles);
});

test("a comparison names the command that judges it, and its file holds what is shown", async () => {
  const { page, troubles } = await open(browser, full.path);
  const [a, b] = await page.$$eval("#compare select", (all) => all.map((one) => one.value));
  const shown = await page.$$eval("#compare tr", (all) => all.map((row) => [...row.children].map((cell) => cell.textContent)));
  const { name, text } = await saved(page, "#compare", "CSV");
  assert.equal(name, `${b}-against-${a}.csv`);
  const quoted = (cell) => (/[",]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  assert.deepEqual(text.trimEnd().split("\n"), shown.map((row) => row.map(quoted).join(",")));
  assert.equal(await page.$eval("#compare .source code", (one) => one.textContent), `stallbench report ${full.numbers.name}`);
  await closed(page, troubles);
  const both = report(recorded("2026-11-29-vm"), recorded("2026-11-23-vm.6"));
  const beside = await open(browser, both.path);
  const commands = await beside.page.$$eval(".source code", (all) => all.map((one) => one.textContent));
  assert.ok(commands.includes("stallbench compare 2026-11-29-vm 2026-11-23-vm.6"), JSON.stringify(commands));
  await closed(beside.page, beside.troubles);
});

test("the tables of one experiment are told apart by the names of their files", async () => {
  const { name } = full.numbers.tables.at(-1);
  const { page, troubles } = await open(browser, changed(full.path, ({ tables }) => tables.push({ ...tables.at(-1), title: "Another one" })));
  const files = [];
  for (const id of [name, `${name}-2`]) files.push((await saved(page, `#table-${id}`, "CSV")).name);
  assert.deepEqual(files, [`table-${name}.csv`, `table-${name}-2.csv`]);
  // A figure may have the name of a table.
  const { name: figure } = full.numbers.figures[0];
  const names = [(await saved(page, `#figure-${figure}`, "CSV")).name, (await saved(page, `#table-${figure}`, "CSV")).name];
  assert.deepEqual(names, [`${figure}.csv`, `table-${figure}.csv`]);
  assert.equal(await page.$eval(`#table-${name}-2 summary`, (one) => one.textContent), "Another one");
  await closed(page, troubles);
});

test("a waterfall's files hold each tab's time, and its drawing needs no style sheet", async () => {
  const { page, troubles } = await open(browser, full.path);
  const fall = full.numbers.moments.waterfalls.find((one) => full.numbers.shown.includes(one.server));
  const within = `.fall[data-server="${fall.server}"]`;
  const csv = await saved(page, within, "CSV");
  assert.equal(csv.name, `tabs-${fall.finished_ms.length}-${fall.server}.csv`);
  const [head, ...rows] = table(csv.text);
  assert.deepEqual(head, ["server", "tab", "waiting ms", "working ms", "done ms", "one after another ms"]);
  assert.equal(rows.length, fall.finished_ms.length);
  rows.forEach(([server, tab, ...times], at) => {
    const end = fall.finished_ms[at];
    assert.deepEqual([server, tab], [fall.server, String(at + 1)]);
    [Math.max(0, end - fall.length_ms), Math.min(end, fall.length_ms), end, fall.length_ms * (at + 1)].forEach((ms, column) => assert.ok(Math.abs(Number(times[column]) - ms) < 0.01, `${head[column + 2]}: ${times[column]} is not ${ms}`));
  });
  const svg = await saved(page, within, "SVG");
  assert.equal(svg.name, `tabs-${fall.finished_ms.length}-${fall.server}.svg`);
  const drawn = await read(page, svg.text);
  assert.deepEqual([drawn.name, drawn.space], ["svg", "http://www.w3.org/2000/svg"]);
  assert.ok(drawn.texts.some((one) => one.text.startsWith(fall.server)), "it says of which server it is");
  const bars = drawn.rects.filter((one) => one["data-ms"]);
  assert.equal(bars.length, 2 * fall.finished_ms.length);
  const colors = new Set(bars.map((one) => one.fill));
  assert.ok(colors.size === 2 && [...colors].every((color) => /^rgb/.test(color)), [...colors].join());
  assert.ok(drawn.lines.length === fall.finished_ms.length && drawn.lines.every((one) => /^rgb/.test(one.stroke)), "the red marks");
  await closed(page, troubles);
});

test("where a round says when the server read a request, a tab is queued, then waiting, then working, in the drawing, the table and the files", async () => {
  const server = full.numbers.shown[0];
  const path = changed(full.path, (page) => {
    page.moments.waterfalls = [{ server, length_ms: 200, finished_ms: [200, 400, 610], read_ms: [0, 50, 400] }];
  });
  const wanted = [["queued", 0, 0], ["waiting", 0, 0], ["working", 0, 200], ["queued", 0, 50], ["waiting", 50, 150], ["working", 200, 200], ["queued", 0, 400], ["waiting", 400, 10], ["working", 410, 200]];
  const { page, troubles } = await open(browser, path);
  const legend = await page.$$eval("#tabs .legend li", (all) => all.map((one) => one.textContent.split(":")[0]));
  assert.deepEqual(legend.slice(0, 3), ["queued", "waiting", "working"]);
  const bars = await page.$$eval(".fall rect[data-ms]", (all) => all.map((one) => ({ kind: one.getAttribute("class"), ms: Number(one.dataset.ms), x: Number(one.getAttribute("x")), width: Number(one.getAttribute("width")) })));
  assert.deepEqual(bars.map(({ kind, ms }) => [kind, ms]), wanted.map(([kind, , ms]) => [kind, ms]));
  // The last tab's work gives the scale.
  const { x: last, width } = bars[8];
  const origin = last - (410 * width) / 200;
  wanted.forEach(([kind, start], at) => assert.ok(Math.abs(bars[at].x - (origin + (start * width) / 200)) < 0.1, `${kind} ${at} begins at ${bars[at].x}`));
  const heads = await page.$$eval(".fall thead th", (all) => all.map((one) => one.textContent));
  assert.deepEqual(heads, ["", "queued", "waiting", "working", "done", "one after another"]);
  const csv = await saved(page, ".fall", "CSV");
  assert.deepEqual(table(csv.text), [
    ["server", "tab", "queued ms", "waiting ms", "working ms", "done ms", "one after another ms"],
    [server, "1", "0.00", "0.00", "200.00", "200.00", "200.00"],
    [server, "2", "50.00", "150.00", "200.00", "400.00", "400.00"],
    [server, "3", "400.00", "10.00", "200.00", "610.00", "600.00"],
  ]);
  const drawn = await read(page, (await saved(page, ".fall", "SVG")).text);
  assert.equal(new Set(drawn.rects.filter((one) => one["data-ms"]).map((one) => one.fill)).size, 3, "three colours");
  await closed(page, troubles);
});

test("a timeline's CSV holds each probe and each blocker, those without an answer too", async () => {
  const name = 'a "server", of sorts';
  const path = changed(full.path, (page) => {
    const probes = requests([10_000, 100, 100], [10, 250, 20_000], [], [2]);
    page.moments.timelines = [{ ...timeline(page.shown[0], 2, 1000), server: name, probes, blockers: requests([5000, 0], [10_000, 30_000], [0, 7], [1]) }];
    page.shown = [name];
  });
  const { page, troubles } = await open(browser, path);
  await page.waitForSelector(".pane");
  const { name: file, text } = await saved(page, ".pane", "CSV");
  assert.equal(file, `stalls-sleep-2-${name}.csv`);
  const quoted = '"a ""server"", of sorts"';
  assert.deepEqual(text.split("\n"), [
    "server,request,connection,due ms,response ms,answered",
    `${quoted},probe,,100.00,0.10,yes`,
    `${quoted},probe,,101.00,2.50,yes`,
    `${quoted},probe,,102.00,200.00,no`,
    `${quoted},blocker,0,50.00,100.00,yes`,
    `${quoted},blocker,7,50.00,300.00,no`,
    "",
  ]);
  await closed(page, troubles);
});

test("a timeline's SVG holds what is in sight: a mark for each probe where its axes say, a bar for each blocker", async () => {
  const path = changed(full.path, (page) => {
    const probes = requests([10_000, 40_000, 10_000], [10, 50_000, 20_000], [], [2]);
    page.moments.timelines = [{ ...timeline(page.shown[0], 2, 1000), probes, blockers: requests([5000], [95_000], [1]) }];
  });
  const { page, troubles } = await open(browser, path, { hash: "#zoom=400.0-1000.0" });
  await page.waitForSelector(".pane");
  const { text } = await saved(page, ".pane", "SVG");
  const drawn = await read(page, text);
  assert.ok(drawn.texts.some((one) => one.text.startsWith(full.numbers.shown[0])), "it says of which server it is");
  assert.ok(drawn.texts.some((one) => one.text === "500 ms") && !drawn.texts.some((one) => one.text === "1100 ms"), "the axis is the one in sight");
  const boxes = drawn.rects.map((one) => ({ ...one, ...Object.fromEntries(["x", "y", "width", "height"].map((key) => [key, Number(one[key])])) }));
  const across = (ms) => 64 + ((ms - 400) / 600) * (900 - 64 - 12);
  const up = (ms) => 2 * 5 + 6 + (1 - Math.log(ms / 0.03) / Math.log(3000 / 0.03)) * 130;
  const at = (x, y, size) => boxes.filter((one) => one.width === size && Math.abs(one.x + size / 2 - x) < 0.5 && Math.abs(one.y + size / 2 - y) < 0.5);
  const [answered, lost] = [at(across(500), up(500), 2.5), at(across(600), up(200), 3)];
  assert.equal(answered.length, 1, "the probe that was answered");
  assert.deepEqual(lost.map((one) => one.fill), ["none"], "the one without an answer is an empty square");
  assert.equal(at(across(100), up(0.1), 2.5).length, 0, "what is out of sight is left out");
  const bars = boxes.filter((one) => one.height === 4 && one.y === 5);
  assert.ok(bars.length === 1 && Math.abs(bars[0].x + bars[0].width + 1 - across(1000)) < 0.1, "the blocker, in the lane of its connection");
  await closed(page, troubles);
});
