// Measures the report and the lab in a real browser. These are figures, not checks, since the machine is shared.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { launch } from "./test/browser.mjs";
import { changed, recorded, report, requests } from "./test/rounds.mjs";

const root = join(import.meta.dirname, "..");
const round = process.argv[2] ?? recorded("2026-11-23-vm.6");
const browser = await launch();
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Opens a page, and collects its first paint and its long tasks. */
async function open(address) {
  const page = await browser.newPage();
  await page.evaluateOnNewDocument(() => {
    globalThis.long = [];
    new PerformanceObserver((list) => globalThis.long.push(...list.getEntries().map((entry) => [entry.startTime, entry.duration]))).observe({ type: "longtask", buffered: true });
  });
  await page.setViewport({ width: 1280, height: 900 });
  await page.goto(address);
  return page;
}

const started = process.hrtime.bigint();
const { path } = report(round);
console.log(`report written in ${(Number(process.hrtime.bigint() - started) / 1e9).toFixed(2)} s`);
const page = await open(pathToFileURL(path).href);
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

// 20,000 dots: eight servers with 2,500 each.
const many = changed(path, (numbers) => {
  const since = Array.from({ length: 2500 }, (_, at) => (at === 0 ? 10_000 : 40));
  const took = Array.from({ length: 2500 }, (_, at) => 10 + ((at * 7919) % 9000));
  const names = numbers.order.slice(0, 8).map(([name]) => name);
  numbers.shown = names;
  numbers.moments.timelines = names.map((server) => ({ server, kind: "sleep", k: 4, block_ms: 100, start_ms: 100, end_ms: 1100, probes: requests(since, took), blockers: requests([0], [10_000], [0]) }));
});
const dots = await open(pathToFileURL(many).href);
await dots.waitForFunction(() => Number(document.querySelector(".panes")?.dataset.frames) > 0);
await dots.$eval("#stalls", (one) => one.scrollIntoView({ behavior: "instant" }));
const frames = await dots.evaluate(async () => {
  const key = (name) => dispatchEvent(Object.assign(new KeyboardEvent("keydown", { key: name, bubbles: true })));
  const stack = document.querySelector(".panes");
  document.body.focus();
  const [first, from] = [Number(stack.dataset.frames), performance.now()];
  const keys = ["w", "d", "d", "a", "a", "s"];
  for (let press = 0; performance.now() - from < 4000; press += 1) {
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: keys[press % keys.length], bubbles: true }));
    await new Promise((done) => requestAnimationFrame(done));
  }
  return ((Number(stack.dataset.frames) - first) / (performance.now() - from)) * 1000;
});
console.log(`20,000 dots: ${frames.toFixed(0)} frames a second while zooming and panning (${await dots.$eval(".panes", (one) => one.dataset.mode)})`);
await dots.close();

const lab = spawn(join(root, "target/release/stallbench-lab"), ["--port", "0"], { cwd: root, stdio: ["ignore", "pipe", "ignore"] });
const [address] = await once(createInterface({ input: lab.stdout }), "line");
const live = await open(address);
await live.waitForFunction(() => [...document.querySelectorAll(".stage-panes .state")].filter((one) => one.dataset.state === "serving").length === 2);
await wait(3000);
await live.$$eval("button", (all) => all.find((one) => one.textContent === "slow requests: start").click());
await wait(20_000);
const driver = await live.$eval(".driver", (one) => ({ ...one.dataset }));
const { age, frames: count } = await live.evaluate(() => ({ ...document.documentElement.dataset }));
console.log(`lab: a frame is drawn ${age} ms after the load at p99, over ${count} frames`);
console.log(`lab: the driver sends ${(100 * Number(driver.sent) / 200).toFixed(1)} % of its 200 probes a second, ${(Number(driver.lag) * 1000).toFixed(0)} µs after they are due at p99`);
await live.close();
lab.kill("SIGINT");
await browser.close();
