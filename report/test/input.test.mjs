// Keys, pointers and the address: what is meant for the page reaches it, and nothing else does.

import assert from "node:assert/strict";
import { test } from "node:test";
import { closed, open } from "./browser.mjs";
import { browser, full } from "./full.mjs";
import { changed } from "./rounds.mjs";

const zoom = async (page) => /zoom=[\d.]+-[\d.]+/.exec(await page.evaluate(() => location.hash))?.[0];

test("keys work after a box is ticked, but neither while words are typed nor behind a dialog", async () => {
  const { page, troubles } = await open(browser, full.path);
  await page.waitForSelector(".pane canvas");
  await page.$eval("table.servers tbody input", (box) => box.click());
  await page.$eval("table.servers tbody input", (box) => box.focus());
  await page.keyboard.press("w");
  assert.ok(await zoom(page));
  await page.keyboard.press("f");
  await page.focus("#servers input[type=search]");
  await page.keyboard.press("w");
  assert.equal(await zoom(page), undefined);
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("?");
  await page.keyboard.press("w");
  assert.equal(await zoom(page), undefined, "the dialog covers the page");
  await page.keyboard.press("?");
  await page.keyboard.press("Escape");
  await page.keyboard.press("w");
  assert.ok(await zoom(page));
  await closed(page, troubles);
});

test("in a round without timelines the keys zoom the waterfalls", async () => {
  const path = changed(full.path, ({ moments }) => {
    moments.timelines = [];
  });
  const { page, troubles } = await open(browser, path);
  await page.keyboard.press("w");
  assert.ok(await zoom(page));
  await page.keyboard.press("f");
  assert.equal(await zoom(page), undefined);
  await closed(page, troubles);
});

test("neither the right mouse button nor a finger that scrolls zooms, and the main button does", async () => {
  const { page, troubles } = await open(browser, full.path);
  await page.waitForSelector(".pane canvas");
  const canvas = await page.$(".pane canvas");
  await canvas.evaluate((one) => one.scrollIntoView({ block: "center", behavior: "instant" }));
  const { x, y, width, height } = await canvas.boundingBox();
  const drag = async (button, end) => {
    await page.mouse.move(x + 0.3 * width, y + height / 2);
    await page.mouse.down({ button });
    await page.mouse.move(x + 0.6 * width, y + height / 2);
    await end();
    await page.mouse.up({ button });
  };
  await drag("right", () => {});
  assert.equal(await zoom(page), undefined);
  await drag("left", () => canvas.evaluate((one) => one.dispatchEvent(new PointerEvent("pointercancel"))));
  assert.equal(await zoom(page), undefined);
  await drag("left", () => {});
  assert.ok(await zoom(page));
  await closed(page, troubles);
});

test("the address shows in every choice, and what a page does not have falls back to what it shows at first", async () => {
  const { page, troubles } = await open(browser, full.path);
  const [steps, groups] = await page.evaluate(() => ["#stalls select", "#servers select"].map((one) => [...document.querySelector(one).options].map((option) => option.value)));
  const chosen = () => page.evaluate(() => ["#stalls select", "#servers select"].map((one) => document.querySelector(one).value));
  const first = await chosen();
  const other = [steps.find((one) => one !== first[0]), groups.at(-1)];
  const go = async (hash, wanted) => {
    await page.evaluate((text) => {
      location.hash = text;
    }, hash);
    await page.waitForFunction((values) => ["#stalls select", "#servers select"].every((one, at) => document.querySelector(one).value === values[at]), {}, wanted);
  };
  await go(`step=${other[0]}&group=${encodeURIComponent(other[1])}`, other);
  await page.evaluate(() => history.back());
  await page.waitForFunction((value) => document.querySelector("#stalls select").value === value, {}, first[0]);
  await page.evaluate(() => history.forward());
  await page.waitForFunction((value) => document.querySelector("#stalls select").value === value, {}, other[0]);
  await go("step=nothing-9&group=nobody&servers=no-such&sort=99a", first);
  assert.deepEqual(await page.$$eval("table.servers tbody input:checked", (all) => all.length), full.numbers.shown.length);
  await page.waitForSelector(".pane");
  await closed(page, troubles);
});

/** Whether an element begins where the window does, or as near to it as the end of the page lets it. */
const isReached = (id) => {
  const top = document.getElementById(id).getBoundingClientRect().top;
  const isEnd = scrollY + innerHeight >= document.documentElement.scrollHeight - 1;
  return Math.abs(top) < 40 || (isEnd && top >= 0 && top < innerHeight);
};

test("the address holds the section that was gone to and the tables that were opened", async () => {
  const { page, troubles } = await open(browser, full.path);
  const sections = await page.$$eval("nav a", (all) => all.map((one) => one.getAttribute("href").slice(1)));
  assert.ok(sections.length > 6);
  const goes = async (hash, id) => {
    const sent = await open(browser, full.path, { hash });
    await sent.page.waitForFunction(isReached, {}, id);
    await closed(sent.page, sent.troubles);
  };
  for (const id of sections) {
    await page.$eval(`nav a[href="#${id}"]`, (one) => one.click());
    const hash = await page.evaluate(() => location.hash);
    assert.equal(hash, `#at=${id}`);
    await goes(hash, id);
  }
  await goes("#method", "method");
  const [table] = await page.$$eval("#tables details", (all) => all.map((one) => one.id));
  for (const id of [table, "values-sleep"]) {
    await page.$eval(`#${id} summary`, (one) => one.click());
    await page.waitForFunction((name) => location.hash.includes(`at=${name}`), {}, id);
  }
  const hash = await page.evaluate(() => location.hash);
  const sent = await open(browser, full.path, { hash });
  assert.deepEqual(await sent.page.$$eval("details[open]", (all) => all.map((one) => one.id).sort()), [table, "values-sleep"]);
  await sent.page.waitForFunction(() => document.querySelectorAll("#values-sleep tbody tr").length > 0);
  await sent.page.waitForFunction(isReached, {}, "values-sleep");
  await sent.page.$eval("#values-sleep summary", (one) => one.click());
  await sent.page.waitForFunction((name) => location.hash.endsWith(`open=${name}`), {}, table);
  await closed(sent.page, sent.troubles);
  await closed(page, troubles);
});
