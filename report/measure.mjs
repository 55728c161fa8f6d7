// Measures the report and the lab in a real browser. These are figures, not checks, since the machine is shared.

import { pathToFileURL } from "node:url";
import { drivers } from "./measure-drivers.mjs";
import { launch } from "./test/browser.mjs";
import { end, isGone, lab, open as openLab, pids, press, serving } from "./test/labs.mjs";
import { changed, recorded, report, requests } from "./test/rounds.mjs";

const round = process.argv[2] ?? recorded("2026-12-01-vm.2");
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Opens a page, and collects its first paint and its long tasks. */
async function open(browser, path) {
  const page = await browser.newPage();
  await page.evaluateOnNewDocument(() => {
    globalThis.long = [];
    new PerformanceObserver((list) => globalThis.long.push(...list.getEntries().map((entry) => [entry.startTime, entry.duration]))).observe({ type: "longtask", buffered: true });
  });
  await page.setViewport({ width: 1280, height: 900 });
  await page.goto(pathToFileURL(path).href);
  return page;
}

/** Writes the report of the round. */
function writing() {
  const started = process.hrtime.bigint();
  const { path } = report(round);
  console.log(`report written in ${(Number(process.hrtime.bigint() - started) / 1e9).toFixed(2)} s`);
  return path;
}

/** Loads a report, and scrolls through it. */
async function loading(browser, path) {
  const page = await open(browser, path);
  await page.waitForSelector("html[data-ready]");
  const loaded = await page.evaluate(() => performance.now());
  for (let step = 0; step < 60; step += 1) {
    await page.evaluate(() => scrollBy({ top: 400, behavior: "instant" }));
    await wait(50);
  }
  const { paint, long } = await page.evaluate(() => ({ paint: performance.getEntriesByName("first-contentful-paint")[0].startTime, long: globalThis.long }));
  const late = long.filter(([at]) => at > loaded).map(([, duration]) => duration);
  console.log(`first contentful paint after ${paint.toFixed(0)} ms; the longest task after load: ${Math.max(0, ...late).toFixed(0)} ms`);
  await page.close();
}

/** Zooms and pans over 20,000 dots: eight servers with 2,500 each. */
async function zooming(browser, path) {
  const many = changed(path, (numbers) => {
    const since = Array.from({ length: 2500 }, (_, at) => (at === 0 ? 10_000 : 40));
    const took = Array.from({ length: 2500 }, (_, at) => 10 + ((at * 7919) % 9000));
    const names = numbers.order.slice(0, 8).map(([name]) => name);
    numbers.shown = names;
    numbers.moments.timelines = names.map((server) => ({ server, kind: "sleep", k: 4, block_ms: 100, start_ms: 100, end_ms: 1100, probes: requests(since, took), blockers: requests([0], [10_000], [0]) }));
  });
  const page = await open(browser, many);
  await page.waitForFunction(() => Number(document.querySelector(".panes")?.dataset.frames) > 0);
  await page.$eval("#stalls", (one) => one.scrollIntoView({ behavior: "instant" }));
  const frames = await page.evaluate(async () => {
    const stack = document.querySelector(".panes");
    const [first, from] = [Number(stack.dataset.frames), performance.now()];
    const keys = ["w", "d", "d", "a", "a", "s"];
    for (let press = 0; performance.now() - from < 4000; press += 1) {
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key: keys[press % keys.length], bubbles: true }));
      await new Promise((done) => requestAnimationFrame(done));
    }
    return ((Number(stack.dataset.frames) - first) / (performance.now() - from)) * 1000;
  });
  console.log(`20,000 dots: ${frames.toFixed(0)} frames a second while zooming and panning (${await page.$eval(".panes", (one) => one.dataset.mode)})`);
  await page.close();
}

/** Shows two servers with 64 slow requests each in the lab, and closes its tab. */
async function showing(browser) {
  const running = await lab();
  const opened = performance.now();
  const { page } = await openLab(browser, running);
  await page.waitForSelector(".stage-panes .tabs > *");
  console.log(`lab: a tab's bar is there ${((performance.now() - opened) / 1000).toFixed(1)} s after the page was opened`);
  await serving(page, 2);
  await wait(3000);
  await press(page, "slow requests: start");
  const drawn = () => page.evaluate(() => ({ ...document.documentElement.dataset, now: performance.now() }));
  const before = await drawn();
  await wait(20_000);
  const { age, frames, now } = await drawn();
  console.log(`lab: a frame is drawn ${age} ms after the load at p99, over ${frames} frames, ${(((frames - before.frames) / (now - before.now)) * 1000).toFixed(1)} of them a second`);
  const own = (await pids(page)).flat();
  const closed = performance.now();
  await page.close();
  while (!own.every(isGone)) await wait(10);
  console.log(`lab: its ${own.length} processes are gone ${((performance.now() - closed) / 1000).toFixed(1)} s after its tab was closed`);
  await end(running);
}

const browser = await launch();
const path = writing();
await loading(browser, path);
await zooming(browser, path);
await showing(browser);
await drivers(browser);
await browser.close();
