// Every control of the report is used, and does what it says. One that is not in the list below fails the test.

import assert from "node:assert/strict";
import { test } from "node:test";
import { closed, drawAll, open } from "./browser.mjs";
import { browser, full } from "./full.mjs";
import { report } from "./rounds.mjs";

/** Elements that a person can use. */
const CONTROLS = "a[href], button, input, select, textarea, summary, canvas";

const hash = (page) => page.evaluate(() => location.hash);
/** The element at a position among those of a selector. */
const all = async (page, selector, at) => (await page.$$(selector))[at];
const click = async (page, selector, at) => (await all(page, selector, at)).evaluate((one) => one.click());
const text = async (page, selector, at) => (await all(page, selector, at)).evaluate((one) => one.textContent);
const ticked = (page) => page.$$eval("table.servers tbody input:checked", (boxes) => boxes.map((box) => box.closest("tr").dataset.server));
const rows = (page) => page.$$eval("table.servers tbody tr[data-server]", (lines) => lines.map((line) => line.dataset.server));

/** Chooses each option of a select in turn, and ends at the first one. */
async function eachOption(page, selector, at, check) {
  const options = await (await all(page, selector, at)).evaluate((one) => [...one.options].map((option) => option.value));
  for (const value of [...options.slice(1), options[0]]) {
    await (await all(page, selector, at)).evaluate((one, wanted) => {
      one.value = wanted;
      one.dispatchEvent(new Event("change", { bubbles: true }));
    }, value);
    await check(value);
  }
}

/** What a download button offers: the name of the file, and its text. */
const offered = (page, selector, at) =>
  page.evaluate(
    (wanted, number) =>
      new Promise((done) => {
        const [create, press] = [URL.createObjectURL, HTMLAnchorElement.prototype.click];
        let blob;
        URL.createObjectURL = (one) => create.call(URL, (blob = one));
        HTMLAnchorElement.prototype.click = function () {
          blob.text().then((content) => done({ name: this.download, content }));
        };
        document.querySelectorAll(wanted)[number].click();
        [URL.createObjectURL, HTMLAnchorElement.prototype.click] = [create, press];
      }),
    selector,
    at,
  );

/** Each control by its selector: it is used, its effect is looked at, and the view is left as it was. */
const REGISTRY = {
  "nav a": async (page, at) => {
    await click(page, "nav a", at);
    const [title, goal] = [await text(page, "nav a", at), await page.evaluate(() => document.activeElement.textContent)];
    assert.equal(goal, title);
  },
  ".themes button": async (page, at) => {
    const word = await text(page, ".themes button", at);
    await click(page, ".themes button", at);
    if (word === "keys (?)") {
      assert.ok(await page.$eval("dialog", (one) => one.open));
      await page.keyboard.press("Escape");
    } else {
      assert.equal(await page.$eval("html", (one) => one.dataset.theme), word === "dark" ? "dark" : "light", "the system is light here");
      assert.equal(/theme=(\w+)/.exec(await hash(page))?.[1] ?? "system", word);
    }
  },
  "dialog button": async (page, at) => {
    await page.keyboard.press("?");
    assert.ok(await page.$eval("dialog", (one) => one.open));
    await click(page, "dialog button", at);
    assert.ok(!(await page.$eval("dialog", (one) => one.open)));
  },
  "#servers input[type=search]": async (page) => {
    const type = (pattern) => page.$eval("#servers input[type=search]", (one, value) => {
      one.value = value;
      one.dispatchEvent(new Event("input", { bubbles: true }));
    }, pattern);
    const whole = await rows(page);
    await type("^tokio");
    const about = full.numbers.header.servers.filter((one) => [one.name, one.runtime, one.model].some((word) => /^tokio/i.test(word))).map((one) => one.name);
    assert.deepEqual((await rows(page)).sort(), about.sort());
    await type("");
    assert.deepEqual(await rows(page), whole);
  },
  "#servers select": async (page, at) => {
    const whole = await rows(page);
    const facet = await page.$$eval("#servers select", (all, at) => all[at].parentElement.querySelector("span").textContent, at);
    const { columns, rows: lines } = full.numbers.tables[0];
    const slowest = (name) => {
      const { cells } = lines.find((row) => row.cells[0].t.replace(/ \^$/, "") === name);
      return ["lost", "attention", "flow", "instant"].find((grade) => cells.some((one, number) => !columns[number].is_wide && one.g === grade));
    };
    const about = (name) => full.numbers.header.servers.find((one) => one.name === name);
    const of = { group: (name) => full.numbers.order.find(([other]) => other === name)[1], runtime: (name) => about(name).runtime, model: (name) => about(name).model, "slowest grade": slowest }[facet];
    await eachOption(page, "#servers select", at, async (wanted) => {
      const shown = await rows(page);
      assert.deepEqual(shown, wanted ? whole.filter((name) => of(name) === wanted) : whole, `${facet}: ${wanted}`);
      assert.ok(shown.length > 0, `${facet}: ${wanted} has no server`);
    });
  },
  "#servers .tick input": async (page, at) => {
    const columns = () => page.$$eval("table.servers thead th", (heads) => heads.length);
    const { columns: own } = full.numbers.tables[0];
    for (const count of [own.length, own.filter((one, number) => number === 0 || !one.is_wide).length]) {
      await click(page, "#servers .tick input", at);
      assert.equal(await columns(), count);
    }
  },
  "#servers .controls button": async (page, at) => {
    const word = await text(page, "#servers .controls button", at);
    await click(page, "#servers .controls button", at);
    const wanted = { "draw all shown": await rows(page), "draw none": [], reset: (await rows(page)).filter((name) => full.numbers.shown.includes(name)) };
    assert.deepEqual(await ticked(page), wanted[word], word);
    await click(page, "#servers .controls button", 2);
  },
  "table.servers thead button": async (page, at) => {
    const [selector, usual] = ["table.servers thead button", await rows(page)];
    const column = full.numbers.tables[0].columns.map((one, number) => ({ ...one, number })).filter((one) => one.number === 0 || !one.is_wide)[at].number;
    const keys = new Map(full.numbers.tables[0].rows.map(({ cells }) => [cells[0].t.replace(/ \^$/, ""), cells[column]]));
    for (const [order, sign] of [["ascending", 1], ["descending", -1]]) {
      await click(page, selector, at);
      assert.equal(await (await all(page, selector, at)).evaluate((one) => one.closest("th").ariaSort), order);
      const values = (await rows(page)).map((name) => keys.get(name));
      const numbers = values.map((cell) => cell.n).filter((n) => n !== undefined);
      assert.deepEqual(numbers, [...numbers].sort((a, b) => sign * (a - b)), `column ${column}, ${order}`);
      if (numbers.length === 0) assert.deepEqual(values.map((cell) => cell.t), values.map((cell) => cell.t).sort((a, b) => sign * a.localeCompare(b)));
    }
    await click(page, selector, at);
    assert.deepEqual(await rows(page), usual);
  },
  "table.servers tbody input": async (page, at) => {
    const [selector, first] = ["table.servers tbody input", full.numbers.figures[0]];
    const name = (await rows(page))[at];
    const isDrawn = () => page.$$eval(`#figure-${first.name} .legend li`, (items, own) => items.some((one) => one.textContent === own), name);
    for (let press = 0; press < 2; press += 1) {
      const was = (await ticked(page)).includes(name);
      await click(page, selector, at);
      assert.equal((await ticked(page)).includes(name), !was, name);
      if (first.series.some((line) => line.name === name)) assert.equal(await isDrawn(), !was, `${name} in the figure`);
      assert.equal(await page.evaluate((own) => document.activeElement.closest("tr")?.dataset.server === own, name), true, "the focus stays");
    }
  },
  ".source button": async (page, at) => {
    const word = await text(page, ".source button", at);
    const { name, content } = await offered(page, ".source button", at);
    assert.ok(name.endsWith(`.${word.toLowerCase()}`), name);
    if (word === "CSV") assert.ok(content.trimEnd().split("\n").length > 1, name);
    else assert.equal(await page.evaluate((svg) => new DOMParser().parseFromString(svg, "image/svg+xml").documentElement.localName, content), "svg", name);
  },
  summary: async (page, at) => {
    const summary = await all(page, "summary", at);
    const title = await summary.evaluate((one) => one.textContent);
    for (const isOpen of [true, false]) {
      await summary.evaluate((one) => new Promise((done) => {
        one.parentElement.addEventListener("toggle", () => done(), { once: true });
        one.click();
      }));
      const { open: found, seen } = await summary.evaluate((one) => ({ open: one.parentElement.open, seen: one.parentElement.querySelectorAll("td, th").length > 0 && one.nextElementSibling.checkVisibility() }));
      assert.deepEqual([found, seen], [isOpen, isOpen], title);
    }
  },
  "#stalls .controls button": async (page, at) => {
    const word = await text(page, "#stalls .controls button", at);
    const zoom = async () => (/zoom=([\d.]+)-([\d.]+)/.exec(await hash(page)) ?? []).slice(1).map(Number);
    // Something in the middle, from which there is a way in every direction.
    await page.evaluate(() => { location.hash = "zoom=300.0-700.0"; });
    await page.waitForFunction(() => document.querySelector(".fall svg text.quiet").textContent === "300 ms");
    await click(page, "#stalls .controls button", at);
    assert.deepEqual(await zoom(), { "zoom in": [400, 600], "zoom out": [100, 900], left: [200, 600], right: [400, 800], "all of it": [] }[word], word);
    await page.keyboard.press("f");
  },
  "#stalls select": async (page, at) => {
    await eachOption(page, "#stalls select", at, async (step) => {
      const k = step.split("-").at(-1);
      await page.waitForFunction((count) => document.querySelector(".pane canvas")?.ariaLabel.includes(` beside ${count} blockers`), {}, k);
      const names = full.numbers.shown.filter((name) => full.numbers.moments.timelines.some((one) => one.server === name && `${one.kind}-${one.k}` === step)).slice(0, 12);
      assert.deepEqual(await page.$$eval(".pane", (panes) => panes.map((pane) => pane.dataset.server)), names, step);
    });
    await page.evaluate(() => { location.hash = ""; });
  },
  ".stalls button": async (page, at) => {
    const told = await text(page, ".stalls button", at);
    await click(page, ".stalls button", at);
    const [, from, unit] = /from ([\d.]+) (m?s) on/.exec(told);
    const [, start, end] = /zoom=([\d.]+)-([\d.]+)/.exec(await hash(page)).map(Number);
    const at0 = Number(from) * (unit === "s" ? 1000 : 1);
    assert.ok(start <= at0 + 5 && at0 - 26 <= start && end > at0, `${told}: ${start} to ${end}`);
    await page.keyboard.press("f");
  },
  ".pane canvas": async (page, at) => {
    const canvas = await all(page, ".pane canvas", at);
    await canvas.evaluate((one) => one.scrollIntoView({ block: "center", behavior: "instant" }));
    const box = await canvas.boundingBox();
    const [x, y] = [(share) => box.x + 64 + share * (box.width - 64 - 12), box.y + box.height / 2];
    await page.mouse.move(x(0.25), y);
    await page.mouse.down();
    await page.mouse.move(x(0.5), y);
    await page.mouse.up();
    const end = Math.max(...full.numbers.moments.timelines.filter((one) => full.numbers.shown.includes(one.server)).map((one) => one.end_ms));
    const [, from, to] = /zoom=([\d.]+)-([\d.]+)/.exec(await hash(page)).map(Number);
    assert.ok(Math.abs((to - from) / end - 0.25) < 0.02, `a quarter of ${end} ms: ${from} to ${to}`);
    await page.mouse.click(x(0.5), y, { count: 2 });
    assert.doesNotMatch(await hash(page), /zoom=/);
    await page.mouse.move(0, 0);
  },
  "#compare select": async (page, at) => {
    await eachOption(page, "#compare select", at, async (name) => {
      assert.equal(await page.$$eval("#compare thead th", (heads, number) => heads[number + 1].textContent, at), name);
      assert.ok((await hash(page)).includes(encodeURIComponent(name)));
    });
    await page.evaluate(() => { location.hash = ""; });
  },
  ".chart canvas": async (page, at) => {
    await drawAll(page);
    const canvas = await all(page, ".chart canvas", at);
    await canvas.evaluate((one) => one.scrollIntoView({ block: "center", behavior: "instant" }));
    const figure = await canvas.evaluateHandle((one) => one.closest("figure"));
    const over = await figure.$(".u-over");
    const box = await over.boundingBox();
    // Somewhere there is a line.
    let said = "";
    for (let row = 1; row < 20 && !said; row += 1) {
      await page.mouse.move(box.x + box.width / 2, box.y + (box.height * row) / 20);
      said = await figure.$eval(".tip", (tip) => (tip.hidden ? "" : tip.textContent));
    }
    const name = (await figure.evaluate((one) => one.id)).replace("figure-", "");
    const { series } = full.numbers.figures.find((one) => one.name === name);
    assert.ok(series.some((line) => said.startsWith(`${line.name}, `)), `${name}: ${said}`);
    await page.mouse.move(0, 0);
  },
};

test("every control of the report is used and does what it says", async (context) => {
  const whole = await open(browser, full.path);
  await drawAll(whole.page);
  await whole.page.waitForSelector(".pane canvas");
  await whole.page.waitForSelector(".stalls button");
  const { unknown, counts } = await whole.page.evaluate((controls, selectors) => {
    const known = [...document.querySelectorAll(controls)].map((one) => [one, selectors.filter((selector) => one.matches(selector))]);
    return { unknown: known.filter(([, found]) => found.length !== 1).map(([one, found]) => `${one.outerHTML.slice(0, 100)}: ${found}`), counts: selectors.map((selector) => document.querySelectorAll(selector).length) };
  }, CONTROLS, Object.keys(REGISTRY));
  assert.deepEqual(unknown, [], "each control is in the list, once");
  await closed(whole.page, whole.troubles);
  // A page in which not every figure is drawn has less to draw anew.
  const { page, troubles } = await open(browser, full.path);
  await page.waitForSelector(".stalls button");
  for (const [number, [selector, use]] of Object.entries(REGISTRY).entries()) {
    await context.test(selector, async () => {
      assert.ok(counts[number] > 0, `nothing is ${selector}`);
      for (let at = 0; at < counts[number]; at += 1) await use(page, at);
      assert.deepEqual(troubles, []);
    });
  }
  await closed(page, troubles);
});
