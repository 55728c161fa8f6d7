// The report in a real browser: what is drawn is what was measured, every control works, and nothing is out of reach.

import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { closed, drawAll, launch, missedByKeyboard, open, saved, screens } from "./browser.mjs";
import { copy, large, recorded, report, withTimelines } from "./rounds.mjs";

const AXE = join(import.meta.dirname, "../node_modules/axe-core/axe.min.js");
const ROUND = recorded(process.env.ROUND ?? "2026-11-23-vm.6");

let browser;
let full;

before(async () => {
  browser = await launch();
  full = withTimelines(report(ROUND));
});
after(() => browser?.close());

test("a round opens from disk without an error or a request", async () => {
  const { page, troubles } = await open(browser, full.path);
  await drawAll(page);
  assert.equal(await page.$eval("h1", (one) => one.textContent), full.numbers.sentence);
  await closed(page, troubles);
});

test("all servers, seven trials and the state experiment make a report of at most 1.5 MB, in at most 300 MB of memory", async () => {
  const { path, numbers } = report(large());
  assert.ok(numbers.order.length >= 64 && numbers.header.settings.trials === 7 && numbers.figures.some((one) => one.name.startsWith("state")));
  assert.ok(statSync(path).size <= 1.5e6, `${statSync(path).size} bytes`);
  const { page, troubles } = await open(browser, path);
  await drawAll(page);
  assert.equal(await page.$$eval("table.servers tbody tr[data-server]", (all) => all.length), numbers.order.length);
  await closed(page, troubles);
});

test("the sentence counts the servers of each group", () => {
  const count = (group) => full.numbers.order.filter(([, own]) => own === group).length;
  const sentence = full.numbers.sentence;
  for (const group of ["freezes at once", "freezes late", "never freezes"]) assert.ok(sentence.includes(String(count(group))), `${sentence} lacks ${count(group)} (${group})`);
});

test("the first screen says what never means, in a round about freezing alone", async () => {
  const about = async (path) => {
    const { page, troubles } = await open(browser, path);
    const text = await page.$eval("header .about", (one) => one.textContent);
    await closed(page, troubles);
    return text;
  };
  const most = full.numbers.figures[0].x.ticks.at(-1)[1];
  assert.match(await about(full.path), new RegExp(`Never: not with up to ${most} slow requests, and more were not tried\\.$`));
  assert.doesNotMatch(await about(report(recorded("2026-11-28-vm-state")).path), /Never/);
});

test("each figure holds the numbers of the round as a table", async () => {
  const { page, troubles } = await open(browser, full.path);
  for (const figure of full.numbers.figures) {
    const rows = await page.$eval(`#figure-${figure.name} details`, async (details) => {
      details.open = true;
      await new Promise((done) => setTimeout(done, 0));
      return [...details.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent));
    });
    const shown = new Map(rows.map(([name, ...cells]) => [name, cells]));
    assert.equal(shown.size, figure.series.length, figure.name);
    for (const line of figure.series) {
      const cells = shown.get(line.name);
      figure.x.ticks.forEach(([at], number) => {
        const point = line.points.find(([x]) => x === at);
        if (!point) return assert.equal(cells[number], "–");
        assert.equal(Boolean(point[4]), cells[number].startsWith(">="), `${figure.name} ${line.name}`);
        // Where the trials fall into two heaps, both are named; the first one is looked at here.
        const [shown, second] = cells[number].replace(">= ", "").replace(/\*$/, "").split(" or ");
        assert.equal(second !== undefined, typeof point[5] === "number", `${figure.name} ${line.name}`);
        assert.equal(cells[number].endsWith("*"), point[7] < point[8], `${figure.name} ${line.name}`);
        const read = Number.parseFloat(shown) * (shown.endsWith(" s") ? 1000 : 1);
        const value = figure.y.unit === "%" ? point[1] * 100 : (point[5] ?? point[1]);
        assert.ok(Math.abs(read - value) <= Math.max(0.006 * Math.abs(value), 0.51 * (figure.y.unit === "%" ? 1 : 0.01)), `${figure.name} ${line.name}: ${cells[number]} is not ${value}`);
      });
    }
  }
  await closed(page, troubles);
});

test("the drawn line stands where its numbers are", async () => {
  const { page, troubles } = await open(browser, full.path);
  const figure = full.numbers.figures[0];
  const name = full.numbers.shown.find((one) => figure.series.some((line) => line.name === one));
  const { text } = await saved(page, `#figure-${figure.name}`, "SVG");
  const points = figure.series.find((line) => line.name === name).points;
  const drawn = await page.evaluate((svg, own) => {
    const root = new DOMParser().parseFromString(svg, "image/svg+xml");
    return [...root.querySelectorAll("circle")].filter((one) => one.dataset.line === own).map((one) => [Number(one.getAttribute("cx")), Number(one.getAttribute("cy"))]);
  }, text, name);
  assert.equal(drawn.length, points.length);
  // On a logarithmic axis equal ratios are equal distances: three points give the scale, the others must follow it.
  const heights = points.map(([, y]) => Math.log10(y));
  const [low, high] = [heights.indexOf(Math.min(...heights)), heights.indexOf(Math.max(...heights))];
  if (heights[high] - heights[low] > 0.1) {
    const scale = (drawn[low][1] - drawn[high][1]) / (heights[high] - heights[low]);
    drawn.forEach(([, y], at) => assert.ok(Math.abs(drawn[low][1] - scale * (heights[at] - heights[low]) - y) < 1.5, `point ${at} of ${name}`));
  }
  await closed(page, troubles);
});

test("the waterfall's bars are as long as the tabs took", async () => {
  const { page, troubles } = await open(browser, full.path);
  const falls = full.numbers.shown.flatMap((name) => full.numbers.moments.waterfalls.filter((one) => one.server === name));
  assert.ok(falls.length > 0 && falls.every((one) => one.finished_ms.length > 0), "the round has tabs of the servers that are shown");
  const figures = await page.$$eval(".fall", (all) =>
    all.map((one) => [one.dataset.server, [...one.querySelectorAll("rect[data-ms]")].map((bar) => ({ kind: bar.getAttribute("class"), ms: Number(bar.dataset.ms), width: Number(bar.getAttribute("width")) }))]),
  );
  assert.deepEqual(figures.map(([server]) => server), falls.map((one) => one.server));
  // Everything is on one scale, which the longest bar of all gives.
  const longest = figures.flatMap(([, own]) => own).reduce((a, b) => (a.ms > b.ms ? a : b));
  for (const [at, { server, finished_ms: finished, length_ms: length }] of falls.entries()) {
    const [, bars] = figures[at];
    const wanted = finished.flatMap((end) => [["waiting", Math.max(0, end - length)], ["working", Math.min(end, length)]]);
    assert.deepEqual(bars.map((bar) => bar.kind), wanted.map(([kind]) => kind), server);
    wanted.forEach(([, ms], number) => {
      const bar = bars[number];
      assert.ok(Math.abs(bar.ms - ms) <= 0.051, `${server}: bar ${number} stands for ${bar.ms} ms, not ${ms}`);
      // Half a point is the least that is drawn.
      const width = Math.max(0.5, (ms / longest.ms) * longest.width);
      assert.ok(Math.abs(bar.width - width) < 0.1, `${server}: bar ${number} of ${ms} ms is ${bar.width} wide, not ${width}`);
    });
  }
  await closed(page, troubles);
});

test("zooming stretches the waterfalls that are in sight, others once they are, and leaves an opened table open", async () => {
  const { page, troubles } = await open(browser, full.path);
  const axis = () => page.$$eval(".fall", ([fall]) => [...fall.querySelectorAll("text.quiet")].map((one) => one.textContent).join(" to "));
  const becomes = (isWhole) => page.waitForFunction((whole, same) => ([...document.querySelector(".fall").querySelectorAll("text.quiet")].map((one) => one.textContent).join(" to ") === whole) === same, {}, whole, isWhole);
  const whole = await axis();
  await page.$eval("#method", (one) => one.scrollIntoView({ behavior: "instant" }));
  await page.keyboard.press("w");
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  assert.equal(await axis(), whole, "nothing is drawn that nobody sees");
  await page.$eval(".fall", (one) => one.scrollIntoView({ behavior: "instant" }));
  await becomes(false);
  await page.click(".fall summary");
  await page.keyboard.press("f");
  await becomes(true);
  assert.equal(await page.$eval(".fall details", (one) => one.open), true);
  await closed(page, troubles);
});

test("every control can be used, and the address brings the view back", async () => {
  const { page, troubles } = await open(browser, full.path);
  const buttons = await page.$$eval("button", (all) => all.length);
  assert.ok(buttons > 20);
  for (const head of await page.$$("table.servers thead button")) await head.evaluate((one) => one.click());
  const [, group] = full.numbers.order[full.numbers.order.length - 1];
  const inGroup = new Set(full.numbers.order.filter(([, own]) => own === group).map(([name]) => name));
  // A choice of each facet that some server has, and the last option of everything else.
  const { runtime, model } = full.numbers.header.servers.find((one) => inGroup.has(one.name) && one.runtime === "tokio");
  for (const select of await page.$$("select")) {
    await select.evaluate((one, chosen) => {
      const facet = one.closest("#servers") && one.parentElement.querySelector("span").textContent;
      one.value = chosen[facet] ?? one.options[one.options.length - 1].value;
      one.dispatchEvent(new Event("change", { bubbles: true }));
    }, { group, runtime, model, "slowest grade": "" });
  }
  await page.evaluate(() => {
    const set = (selector, value) => {
      const input = document.querySelector(selector);
      input.value = value;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    };
    set('input[type="search"]', "tokio(");
    set('input[type="search"]', "tokio");
  });
  for (const key of ["w", "d", "a", "s", "w"]) await page.keyboard.press(key);
  const hash = await page.evaluate(() => location.hash);
  for (const part of [/filter=tokio/, /runtime=tokio/, /model=/, /zoom=/]) assert.match(hash, part);
  await page.keyboard.press("?");
  assert.equal(await page.$eval("dialog", (one) => one.open), true);
  await page.keyboard.press("Escape");
  assert.equal(await page.$eval("dialog", (one) => one.open), false);
  const rows = await page.$$eval("table.servers tbody tr[data-server]", (all) => all.map((one) => one.dataset.server));
  const wanted = full.numbers.header.servers.filter((one) => inGroup.has(one.name) && one.runtime === runtime && one.model === model).map((one) => one.name);
  assert.deepEqual([...rows].sort(), wanted.sort());
  await closed(page, troubles);
  const again = await open(browser, full.path, { hash });
  assert.deepEqual(await again.page.$$eval("table.servers tbody tr[data-server]", (all) => all.map((one) => one.dataset.server)), rows);
  await again.page.keyboard.press("f");
  assert.doesNotMatch(await again.page.evaluate(() => location.hash), /zoom=/);
  await closed(again.page, again.troubles);
});

test("a part of the time axis that makes no sense is not taken from the address, and all of the axis is drawn", async () => {
  const tiny = ["zoom=300.0-300.1", "zoom=1e17-1.0000000000000002e17", "zoom=100000000000000000-100000000000000016", "zoom=0-1e308", `zoom=0-${"9".repeat(400)}`];
  const strange = ["zoom=NaN-Infinity", "zoom=500-200", "zoom=200-200", "zoom=-5", "zoom=--5", "zoom=-100-200", "zoom=1-2-3", "zoom=", "zoom=%00-%ff", "zoom=0x10-0x100", "zoom=5000000-6000000"];
  for (const part of [...tiny, ...strange]) {
    const { page, troubles } = await open(browser, full.path, { hash: `#${part}` });
    await page.waitForFunction(() => Number(document.querySelector(".panes").dataset.frames) > 0);
    // Whatever was asked for, the labels of the axis are within the measured time.
    const labels = await page.$$eval(".fall svg text.quiet", (all) => all.slice(0, 2).map((one) => one.textContent));
    assert.equal(labels[0], "0.00 ms", part);
    const longest = Math.max(...full.numbers.moments.waterfalls.map((one) => Math.max(...one.finished_ms, one.length_ms * one.finished_ms.length)), ...full.numbers.moments.timelines.map((one) => one.end_ms));
    const last = Number.parseFloat(labels[1]) * (labels[1].endsWith(" s") ? 1000 : 1);
    assert.ok(last <= longest * 1.01, `${part}: the axis ends at ${labels[1]}`);
    await page.keyboard.press("w");
    assert.match(await page.evaluate(() => location.hash), /zoom=\d+\.\d-\d+\.\d/, part);
    await closed(page, troubles);
  }
});

test("other parts of the address that make no sense leave a page that works", async () => {
  for (const part of ["sort=999d", "sort=-1a", "step=nothing-9", "servers=,,nobody", "pair=nobody,nothing", "group=no%20such", "runtime=none", "model=%00", "grade=slow", "filter=(", "theme=none", "%", "=&&=", "__proto__=1"]) {
    const { page, troubles } = await open(browser, full.path, { hash: `#${part}` });
    assert.equal(await page.$eval("h1", (one) => one.textContent), full.numbers.sentence, part);
    assert.equal(await page.$$eval(".broken", (all) => all.length), 0, part);
    await closed(page, troubles);
  }
});

test("the keyboard alone reaches everything that can be used", async () => {
  const { page, troubles } = await open(browser, full.path);
  assert.deepEqual(await missedByKeyboard(page), []);
  await closed(page, troubles);
});

for (const theme of ["light", "dark"]) {
  for (const width of [380, 1280]) {
    test(`axe finds nothing wrong, and nothing is cut off: ${theme}, ${width} pixels`, async () => {
      const { page, troubles } = await open(browser, full.path, { theme, width });
      await drawAll(page);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(over <= 0, `the page is ${over} pixels wider than the screen`);
      await page.screenshot({ path: join(screens, `report-${theme}-${width}.png`), fullPage: false });
      for (const id of ["servers", "tabs", "stalls", "compare", "method"]) {
        await page.$eval(`#${id}`, (one) => one.scrollIntoView({ behavior: "instant" })).catch(() => {});
        await page.screenshot({ path: join(screens, `report-${theme}-${width}-${id}.png`) });
      }
      // The page's policy lets no script in, so the checker runs as the browser's own.
      await page.evaluate(readFileSync(AXE, "utf8"));
      // The checker itself has to see what is wrong.
      const broken = await page.evaluate(async () => {
        const image = document.createElement("img");
        document.body.append(image);
        const { violations } = await globalThis.axe.run(image);
        image.remove();
        return violations.map((one) => one.id);
      });
      assert.ok(broken.includes("image-alt"), broken.join());
      const found = await page.evaluate(async () => (await globalThis.axe.run()).violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html).join(" ")}`));
      assert.deepEqual(found, []);
      await closed(page, troubles);
    });
  }
}

test("on a narrow screen numbers have room beside the names, and no mark lies under the words of a waterfall", async () => {
  const { page, troubles } = await open(browser, full.path, { width: 380 });
  const seen = await page.$eval("table.servers", (table) => {
    const [name, number] = table.querySelector("tr[data-server]").children;
    return { name: name.getBoundingClientRect().width, end: number.getBoundingClientRect().right, screen: innerWidth };
  });
  assert.ok(seen.name <= seen.screen / 2 && seen.end <= seen.screen, JSON.stringify(seen));
  const covered = await page.$$eval(".fall svg", (all) =>
    all.flatMap((one) => {
      const marks = [...one.querySelectorAll(".fifo")].map((mark) => mark.getBoundingClientRect());
      const isUnder = (box) => marks.some((mark) => mark.left < box.right && mark.right > box.left && mark.top < box.bottom - 2 && mark.bottom > box.top + 2);
      return [...one.querySelectorAll("text.end")].filter((words) => isUnder(words.getBoundingClientRect())).map((words) => words.textContent);
    }),
  );
  assert.deepEqual(covered, []);
  await closed(page, troubles);
});

test("on a narrow screen every caption can be read without scrolling sideways, and no table is wider than the page", async () => {
  const { page, troubles } = await open(browser, full.path, { width: 380 });
  await drawAll(page);
  const cut = await page.evaluate(async () => {
    for (const details of document.querySelectorAll("details")) {
      details.open = true;
      await new Promise((done) => details.addEventListener("toggle", done, { once: true }));
    }
    const { clientWidth: screen, scrollWidth: whole } = document.documentElement;
    const isCut = (one) => one.scrollWidth > one.clientWidth || one.getBoundingClientRect().right > screen;
    const captions = [...document.querySelectorAll("h1, h2, h3, figcaption, caption, summary, .legend li, .notes li, .source")].filter((one) => one.checkVisibility());
    return { pixels: whole - screen, captions: captions.filter(isCut).map((one) => one.textContent) };
  });
  assert.deepEqual(cut, { pixels: 0, captions: [] });
  await closed(page, troubles);
});

test("the legend says of each server whether it freezes", async () => {
  const { page, troubles } = await open(browser, full.path);
  await drawAll(page);
  const { name, series } = full.numbers.figures[0];
  const drawn = full.numbers.shown.filter((server) => series.some((line) => line.name === server));
  const groups = new Map();
  const told = await page.$$eval(`#figure-${name} .legend li`, (all) => all.map((one) => [one.className, one.textContent]));
  for (const [kind, words] of told) {
    if (kind === "group") groups.set(words.replace(/:$/, ""), []);
    else [...groups.values()].at(-1).push(words);
  }
  assert.deepEqual([...groups.values()].flat().sort(), [...drawn].sort());
  for (const [group, servers] of groups) for (const server of servers) assert.ok(full.numbers.order.some(([own, its]) => own === server && its === group), `${server} ${group}`);
  await closed(page, troubles);
});

test("lines of one colour are told apart in the legend", async () => {
  const names = full.numbers.figures[0].series.slice(0, 12).map((line) => line.name);
  const { page, troubles } = await open(browser, full.path, { hash: `#servers=${names.join(",")}` });
  await drawAll(page);
  const samples = await page.$$eval(`#figure-${full.numbers.figures[0].name} .legend .swatch`, (all) => all.map((one) => getComputedStyle(one).background));
  assert.equal(samples.length, names.length);
  assert.equal(new Set(samples).size, samples.length, samples.join("\n"));
  await closed(page, troubles);
});

test("two rounds beside one another say why they differ", async () => {
  const { path, numbers } = report(ROUND, recorded("2026-11-23-vm.3"));
  const { page, troubles } = await open(browser, path);
  const first = await page.$eval("#rounds tbody tr", (row) => row.textContent);
  assert.match(first, /\d+ of \d+ pairs of trials apart/);
  assert.ok(numbers.beside.lines.some((line) => line.differs));
  await closed(page, troubles);
});

test("names are text, a round with one server, an unavailable one, or an invalid cell is drawn", async () => {
  const wild = '<img src=x onerror="alert(1)">|"\'&';
  const rounds = {
    "one server": (header, trials) => {
      header.servers = header.servers.filter((one) => one.name === "tokio-multi-thread");
      return trials.filter((one) => one.server === "tokio-multi-thread");
    },
    "an unavailable server": (header, trials) => {
      const name = header.servers[0].name;
      header.servers[0].unavailable = "the kernel has no io_uring";
      header.servers[0].receipt = null;
      return trials.filter((one) => one.server !== name);
    },
    "an invalid cell": (header, trials) => {
      const one = trials.find((trial) => trial.experiment === "collateral");
      one.outcome = { experiment: "invalid", reason: "lag: the driver was 3.00 ms behind its plan at p99" };
      trials.filter((trial) => trial.server === one.server && trial.experiment === "collateral").forEach((trial) => {
        trial.outcome = one.outcome;
      });
    },
    "a wild name": (header, trials) => {
      const name = header.servers[0].name;
      header.servers[0].name = wild;
      trials.filter((one) => one.server === name).forEach((one) => {
        one.server = wild;
      });
    },
  };
  for (const [what, change] of Object.entries(rounds)) {
    const { path, numbers } = report(copy(ROUND, change));
    const { page, troubles } = await open(browser, path);
    await drawAll(page);
    assert.equal(await page.$$eval("table.servers tbody tr[data-server]", (all) => all.length), numbers.header.servers.length, what);
    assert.equal(await page.$$eval("img", (all) => all.length), 0, what);
    const text = await page.$eval("main", (main) => main.textContent);
    if (what === "an unavailable server") assert.match(text, /the kernel has no io_uring/);
    if (what === "an invalid cell") assert.match(text, /3\.00 ms behind its plan/);
    if (what === "a wild name") assert.ok(text.includes(wild));
    await closed(page, troubles);
  }
});

test("Firefox opens it from disk", async () => {
  const firefox = await launch("firefox");
  try {
    const { page, troubles } = await open(firefox, full.path);
    assert.equal(await page.$eval("h1", (one) => one.textContent), full.numbers.sentence);
    await drawAll(page);
    await page.screenshot({ path: join(screens, "report-firefox.png") });
    await closed(page, troubles);
  } finally {
    await firefox.close();
  }
});
