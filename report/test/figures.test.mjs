// Figures: each is about what its legend says, shows where nothing was measured and where only a bound is known, and its file shows the same.

import assert from "node:assert/strict";
import { test } from "node:test";
import { closed, drawAll, open, saved } from "./browser.mjs";
import { browser, full } from "./full.mjs";
import { load } from "./modules.mjs";
import { changed, recorded, report } from "./rounds.mjs";

/** The elements of an SVG, each with its attributes. */
const drawn = (page, text) =>
  page.evaluate((svg) => {
    const root = new DOMParser().parseFromString(svg, "image/svg+xml");
    return [...root.querySelectorAll("*")].map((one) => ({ ...Object.fromEntries([...one.attributes].map(({ name, value }) => [name, value])), kind: one.localName, text: one.textContent }));
  }, text);

/** The entries of a legend, by the heading above them. */
const legend = (page, figure) =>
  page.$$eval(`#figure-${figure} .legend li`, (all) => {
    const groups = {};
    let group = "";
    for (const one of all) {
      if (one.className === "group") group = one.textContent.replace(/:$/, "");
      else groups[group] = [...(groups[group] ?? []), one.textContent];
    }
    return groups;
  });

test("the first sentence names the kind of slow request that it counts, and those below it the others", () => {
  const { numbers } = report(recorded("2026-11-28-vm-launches"));
  assert.match(numbers.sentence, /^Beside clients that save launches in memory, 0 of 4 servers freeze .* and 4 never\.$/);
  assert.match(numbers.others.at(-1), /^Beside clients that save launches in PostgreSQL, 0 of 4 servers freeze with at most 2 at a time, 2 with more, and 2 never\.$/);
});

test("the legend of a figure groups servers by what they do beside its own kind of slow request, or not at all", async () => {
  const { page, troubles } = await open(browser, full.path);
  await drawAll(page);
  for (const { kind, groups } of full.numbers.freezing) {
    const told = await legend(page, kind);
    const wanted = groups.map(([group, servers]) => [group, full.numbers.figures.find((one) => one.name === kind).series.map((line) => line.name).filter((name) => servers.includes(name) && full.numbers.shown.includes(name))]);
    assert.deepEqual(told, Object.fromEntries(wanted.filter(([, servers]) => servers.length > 0)), kind);
  }
  assert.deepEqual(Object.keys(await legend(page, "footprint-idle")), [""], "memory freezes nobody");
  await closed(page, troubles);
});

test("a page about something else says what was measured and what came out, and shows all of a few servers", async () => {
  const { path, numbers } = report(recorded("2026-11-29-vm.5"));
  const { page, troubles } = await open(browser, path);
  assert.equal(await page.$eval("#freezes h2", (one) => one.textContent), "What was measured: reload");
  const text = await page.$eval("header", (one) => one.textContent);
  assert.match(numbers.sentence, /^The longest wait for an answer .* are furthest apart at worker killed: 2\.36 ms \(std-thread-per-connection\) to 8\.54 s \(express-pm2\)\. 4 servers, 1 trial of each\.$/);
  assert.doesNotMatch(text, /Frozen|1 trials/);
  assert.deepEqual([...numbers.shown].sort(), numbers.header.servers.map((one) => one.name).sort());
  await closed(page, troubles);
});

test("a line ends where nothing was measured, and a point alone is a marker, in the file too", async () => {
  const server = full.numbers.shown[0];
  const path = changed(full.path, ({ figures: [first] }) => {
    const line = first.series.find((one) => one.name === server);
    line.points = first.x.ticks.map(([at]) => [at, 1 + at]).filter((_, number) => number !== 1);
  });
  const { page, troubles } = await open(browser, path, { hash: `#servers=${server}` });
  const { name, x } = full.numbers.figures[0];
  const all = await drawn(page, (await saved(page, `#figure-${name}`, "SVG")).text);
  assert.deepEqual(all.filter((one) => one.kind === "polyline").map((one) => one.points.split(" ").length), [x.ticks.length - 2]);
  assert.equal(all.filter((one) => one.kind === "circle").length, x.ticks.length - 1);
  await closed(page, troubles);
});

test("a lower bound is an open marker that one sentence explains, and two heaps are both named", async () => {
  const server = full.numbers.shown[0];
  const path = changed(full.path, ({ figures: [first] }) => {
    first.series.find((one) => one.name === server).points = [[0, 1], [1, 462, 460, 702, null, 462, 700], [2, 1000, null, null, 1]];
  });
  const { page, troubles } = await open(browser, path, { hash: `#servers=${server}` });
  await drawAll(page);
  const [{ name }, other] = full.numbers.figures;
  const explained = (figure) => page.$eval(`#figure-${figure} .note`, (one) => (one.hidden ? "" : one.textContent));
  assert.match(await explained(name), /open marker with an arrow is a lower bound/);
  assert.equal(await explained("footprint-idle"), "", `${other.name} may have bounds, memory has none`);
  const all = await drawn(page, (await saved(page, `#figure-${name}`, "SVG")).text);
  const circles = all.filter((one) => one.kind === "circle");
  assert.deepEqual(circles.map((one) => one.fill === one.stroke), [true, true, false], "the last one is open");
  assert.ok(all.some((one) => one.kind === "text" && /lower bound/.test(one.text)));
  const cells = await page.$eval(`#figure-${name} details`, async (details) => {
    details.open = true;
    await new Promise((done) => details.addEventListener("toggle", done, { once: true }));
    return [...details.querySelector("tbody tr").children].map((cell) => cell.textContent);
  });
  assert.deepEqual(cells.slice(0, 4), [server, "1.00 ms", "462 ms or 700 ms", ">= 1.00 s"]);
  assert.match((await saved(page, `#figure-${name}`, "CSV")).text, /,462,460,702,,462 or 700,\n/);
  await closed(page, troubles);
});

test("the lines of a second round are left out of a figure that is about something else there, which one line says", async () => {
  const { path, numbers } = report(recorded("2026-11-29-vm"), recorded("2026-11-23-vm.6"));
  const { page, troubles } = await open(browser, path);
  await drawAll(page);
  const told = await legend(page, "sleep");
  assert.ok(!Object.entries(told).flat(2).some((words) => words.includes("2026-11-23-vm.6")), JSON.stringify(told));
  const { title } = numbers.beside.figures.find((one) => one.name === "sleep");
  assert.equal(await page.$eval("#figure-sleep .apart", (one) => one.textContent), `2026-11-23-vm.6 is not drawn here, since it measured something else: ${title}.`);
  // Memory is measured in both, whatever blocks.
  assert.ok(Object.keys(await legend(page, "footprint-idle")).includes("2026-11-23-vm.6"));
  assert.equal(await page.$("#figure-footprint-idle .apart"), null);
  const joined = numbers.figures.filter((one) => numbers.beside.figures.some((other) => other.name === one.name && other.title === one.title)).map((one) => one.name);
  assert.deepEqual(joined, ["footprint-idle", "footprint-connection"], "a title names all that a figure is about");
  await closed(page, troubles);
});

test("a second round has dashes of its own in the legend and in the file, its own groups, and its machine in the head", async () => {
  const { path, numbers } = report(recorded("2026-11-23-vm.6"), recorded("2026-11-23-vm.3"));
  const { page, troubles } = await open(browser, path);
  await drawAll(page);
  const about = await page.$$eval("header .about", (all) => all.at(-1).textContent);
  assert.ok(about.includes("round 2026-11-23-vm.3, started") && about.includes(numbers.beside.header.environment.processor), about);
  const told = await legend(page, "sleep");
  for (const [group, servers] of numbers.beside.freezing.find((one) => one.kind === "sleep").groups) {
    const own = told[`2026-11-23-vm.3, ${group}`] ?? [];
    assert.deepEqual([...own].sort(), servers.filter((name) => numbers.shown.includes(name)).map((name) => `${name} (2026-11-23-vm.3)`).sort(), group);
  }
  const swatches = await page.$$eval("#figure-sleep .swatch", (all) => all.map((one) => getComputedStyle(one).background));
  assert.equal(new Set(swatches).size, swatches.length, "each looks different");
  const all = await drawn(page, (await saved(page, "#figure-sleep", "SVG")).text);
  const looks = new Map(all.filter((one) => one.kind === "polyline").map((one) => [one["data-line"], `${one.stroke} ${one["stroke-dasharray"]}`]));
  assert.equal(new Set(looks.values()).size, looks.size, [...looks].join("\n"));
  // What was corrected is called so.
  assert.ok(numbers.beside.is_corrected);
  const [heads, caption] = await page.$eval("#rounds table", (table) => [[...table.querySelectorAll("thead th")].map((one) => one.textContent), table.caption.textContent]);
  assert.equal(heads[2], "2026-11-23-vm.3, corrected for the machine");
  assert.match(caption, /corrected for the machine/);
  // What does not differ is folded.
  const rows = await page.$eval("#rounds table", (table) => table.tBodies[0].rows.length);
  assert.equal(rows, numbers.beside.lines.filter((line) => line.differs).length);
  assert.equal(await page.$eval("#rounds details", (one) => one.open), false);
  await closed(page, troubles);
});

test("where no server is chosen, a file names every one of them", async () => {
  const { page, troubles } = await open(browser, full.path, { hash: "#servers=" });
  const { name, series } = full.numbers.figures[0];
  const { text } = await saved(page, `#figure-${name}`, "SVG");
  const all = await drawn(page, text);
  const [{ height }] = all;
  const names = all.filter((one) => one.kind === "text" && series.some((line) => line.name === one.text));
  assert.equal(names.length, series.length);
  assert.ok(names.every((one) => Number(one.y) < Number(height)), "all of them are inside");
  const looks = all.filter((one) => one.kind === "polyline").map((one) => one.stroke);
  assert.ok(new Set(looks).size > 1, "they have colours");
  await closed(page, troubles);
});

test("labels that have no room are slanted, and the words of marks do not lie upon one another, in a file", async () => {
  const dose = report(recorded("2026-11-23-vm.4"));
  const { page, troubles } = await open(browser, dose.path);
  const { name, x } = dose.numbers.figures[0];
  const boxes = await page.evaluate((svg, words) => {
    document.body.insertAdjacentElement("beforeend", document.importNode(new DOMParser().parseFromString(svg, "image/svg+xml").documentElement, true));
    return [...document.body.lastElementChild.querySelectorAll("text")].filter((one) => words.includes(one.textContent)).map((one) => one.getBoundingClientRect()).map(({ left, right, top, bottom }) => ({ left, right, top, bottom }));
  }, (await saved(page, `#figure-${name}`, "SVG")).text, x.marks.map(([, word]) => word));
  assert.equal(boxes.length, x.marks.length);
  boxes.forEach((one, at) => boxes.slice(0, at).forEach((other) => assert.ok(one.left >= other.right || one.right <= other.left || one.top >= other.bottom - 3 || one.bottom <= other.top + 3, JSON.stringify([one, other]))));
  await closed(page, troubles);
  const reload = report(recorded("2026-11-29-vm.5"));
  const second = await open(browser, reload.path);
  const ticks = reload.numbers.figures[0].x.ticks.map(([, word]) => word);
  const labels = (await drawn(second.page, (await saved(second.page, "#figure-reload", "SVG")).text)).filter((one) => ticks.includes(one.text));
  assert.ok(labels.length === ticks.length && labels.every((one) => /rotate/.test(one.transform)));
  await closed(second.page, second.troubles);
});

test("words beside marks stand in the first row with room, and on the other side before the end", async () => {
  const { areTight, besideMarks, steps } = await load("plot.ts");
  const marks = [10, 20, 60, 95].map((at) => ({ at, width: 30 }));
  assert.deepEqual(besideMarks(marks, 100), [{ isLeft: false, row: 0 }, { isLeft: false, row: 1 }, { isLeft: false, row: 0 }, { isLeft: true, row: 1 }]);
  assert.equal(areTight([{ at: 0, width: 30 }, { at: 50, width: 30 }]), false);
  assert.equal(areTight([{ at: 0, width: 30 }, { at: 30, width: 30 }]), true);
  assert.deepEqual(steps(1, 10), [1, 2, 5, 10]);
  assert.deepEqual(steps(0.01, 100), [0.01, 0.1, 1, 10, 100]);
});

test("everything is drawn before it is printed, whether or not it was in sight", async () => {
  const { page, troubles } = await open(browser, full.path);
  await page.waitForSelector(".pane canvas");
  const all = () => page.evaluate(() => ({ figures: [...document.querySelectorAll("figure.lines")].filter((one) => one.dataset.drawn !== "yes").length, panes: [...document.querySelectorAll(".pane canvas")].filter((one) => !one.style.height).length }));
  const before = await all();
  assert.ok(before.figures > 0 && before.panes > 0, JSON.stringify(before));
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
  assert.deepEqual(await all(), { figures: 0, panes: 0 });
  await page.emulateMediaType("print");
  assert.equal(await page.$$eval(".source button, .controls button, .themes", (found) => found.filter((one) => one.checkVisibility()).length), 0);
  await closed(page, troubles);
});
