// The timelines in a real browser: where each dot stands, what it says, and which slow request is named for it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { closed, colorOf, open } from "./browser.mjs";
import { browser, full } from "./full.mjs";
import { load } from "./modules.mjs";
import { changed, requests, timeline } from "./rounds.mjs";

/** The room around the dots, and the range of response times. */
const [LEFT, RIGHT, LANE, GAP, DOTS, LOW, HIGH] = [64, 12, 5, 6, 130, 0.03, 3000];
const COLORS = Object.fromEntries(["instant", "flow", "attention", "lost"].map((name) => [name, colorOf(name)]));

/** Where a probe stands on a canvas of this width, below this many lanes of blockers. */
function spot({ at, took }, lanes, width, [from, to]) {
  return [LEFT + ((at - from) / (to - from)) * (width - LEFT - RIGHT), lanes * LANE + GAP + (1 - Math.log(took / LOW) / Math.log(HIGH / LOW)) * DOTS];
}

/** The canvas of a server, in the middle of the screen, and where it is. */
async function canvasOf(page, server) {
  await page.waitForFunction(() => Number(document.querySelector(".panes").dataset.frames) > 0);
  const canvas = await page.$(`.pane[data-server="${server}"] canvas`);
  await canvas.evaluate((one) => one.scrollIntoView({ block: "center", behavior: "instant" }));
  // One that comes into sight is drawn then: the browser tells of it in a frame, and the page draws in the next.
  await page.evaluate(async () => {
    for (let frame = 0; frame < 4; frame += 1) await new Promise((done) => requestAnimationFrame(done));
  });
  return { canvas, box: await canvas.boundingBox() };
}

test("dots stand where probes are, and a blocker is named for what it held", async () => {
  const { requestsOf, holder } = await load("stalls.ts");
  const { amount } = await load("format.ts");
  const first = await open(browser, full.path);
  await first.page.waitForSelector(".pane canvas");
  const [servers, step] = await first.page.evaluate(() => [[...document.querySelectorAll(".pane")].map((pane) => pane.dataset.server), document.querySelector("#stalls select").value]);
  const list = await first.page.$$eval(".stalls button", (all) => all.map((one) => one.textContent));
  const told = /^\S+: from .* on, \d+ probes? waited up to [\d.]+ m?s( without an answer|, until the slow request sent at .* on connection \d+ ended)?$/;
  assert.ok(list.every((one) => told.test(one)) && list.some((one) => /on connection \d+ ended$/.test(one)), list.join("\n"));
  await first.page.$eval(".stalls button", (one) => one.click());
  assert.match(await first.page.evaluate(() => location.hash), /zoom=/);
  await closed(first.page, first.troubles);

  // The first probe that was held, in a view in which it stands apart from its neighbours.
  const isHeld = ({ probes, blockers }) => (one) => probes.answered[one] && probes.took[one] > 20 && holder(probes, one, blockers) !== null;
  let found;
  for (const server of servers) {
    const own = await requestsOf(full.numbers.moments.timelines.find((one) => one.server === server && `${one.kind}-${one.k}` === step), full.numbers.moments.unit_ms);
    const index = [...own.probes.at.keys()].find(isHeld(own));
    if (index !== undefined) found ??= { server, index, ...own };
  }
  const { server, index, probes, blockers } = found;
  const probe = { at: probes.at[index], took: probes.took[index] };
  const view = [Math.max(0, Math.round(probe.at - 5)), Math.round(probe.at + 15)];
  const { page, troubles } = await open(browser, full.path, { hash: `#zoom=${view.map((ms) => ms.toFixed(1)).join("-")}` });
  const { canvas, box } = await canvasOf(page, server);
  const [x, y] = spot(probe, Math.max(...blockers.connection) + 1, box.width, view);
  const word = probe.took <= 100 ? "instant" : probe.took <= 1000 ? "flow" : "attention";
  const color = () => canvas.evaluate((one, x, y) => [...one.getContext("2d").getImageData(Math.round(x), Math.round(y), 1, 1).data].slice(0, 3), x, y);
  assert.deepEqual(await color(), COLORS[word], `an answer after ${probe.took} ms has the colour of '${word}'`);
  await page.mouse.move(box.x + x, box.y + y);
  await page.waitForFunction(() => !document.querySelector("#stalls .tip").hidden);
  const connection = blockers.connection[holder(probes, index, blockers)];
  assert.equal(await page.$eval("#stalls .tip", (tip) => tip.textContent), `due at ${amount(probe.at, "ms")}, answered after ${amount(probe.took, "ms")}, when the slow request on connection ${connection} ended`);
  await closed(page, troubles);
});

test("a server that never answers has a stall without an answer, and no blocker is said to have held it", async () => {
  const silent = changed(full.path, (page) => {
    // Each is due a millisecond after the one before, and all wait until 1,200 ms.
    const took = Array.from({ length: 1000 }, (_, at) => 110_000 - at * 100);
    const probes = requests(took.map((_, at) => (at === 0 ? 10_000 : 100)), took, [], [...took.keys()]);
    page.moments.timelines = [{ ...timeline(page.shown[0], 4, 1000), probes, blockers: requests([0], [120_000], [0]) }];
  });
  const { page, troubles } = await open(browser, silent);
  await page.waitForFunction(() => Number(document.querySelector(".panes").dataset.frames) > 0);
  const list = await page.$$eval(".stalls li", (all) => all.map((one) => one.textContent));
  assert.deepEqual(list, [`${full.numbers.shown[0]}: from 100 ms on, 1000 probes waited up to 1.10 s without an answer`]);
  const { box } = await canvasOf(page, full.numbers.shown[0]);
  const [x, y] = spot({ at: 600, took: 600 }, 1, box.width, [0, 1100]);
  await page.mouse.move(box.x + x, box.y + y);
  await page.waitForFunction(() => !document.querySelector("#stalls .tip").hidden);
  assert.match(await page.$eval("#stalls .tip", (tip) => tip.textContent), /^due at \d+ ms, not answered after \d+ ms$/);
  await closed(page, troubles);
});

test("more than 20,000 dots become a heat map", async () => {
  const many = changed(full.path, (page) => {
    page.moments.timelines = [timeline(page.shown[0], 4, 30_000)];
  });
  const { page, troubles } = await open(browser, many);
  await page.waitForFunction(() => document.querySelector(".panes").dataset.mode === "heat map");
  for (let press = 0; press < 3; press += 1) await page.keyboard.press("w");
  await page.waitForFunction(() => document.querySelector(".panes").dataset.mode === "dots");
  await closed(page, troubles);
});
