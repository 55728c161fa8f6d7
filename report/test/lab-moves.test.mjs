// What moves in the lab's picture stands where its frames say, and what is over in a frame stays long enough to be seen.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { colorOf, launch, screens } from "./browser.mjs";
import { endAll, lab, nothingIsHeld, open, press, serving, somethingIsHeld } from "./labs.mjs";

/** The room around the dots, the time in sight, and the range of response times. */
const [LEFT, RIGHT, BASE, DOTS, SIGHT, LOW, HIGH] = [56, 8, 16 * 5 + 6, 150, 10_000, 0.05, 10_000];
const LIGHT = { link: colorOf("link"), text: colorOf("text"), flow: colorOf("flow") };

let browser;
before(async () => {
  browser = await launch();
});
afterEach(endAll);
after(() => browser?.close());

test("a time in which the driver was late stays marked, and is counted, after its frame is gone", async () => {
  const running = await lab();
  const { page, troubles } = await open(browser, running);
  await serving(page, 2);
  const frames = () => page.$eval("html", (one) => Number(one.dataset.frames));
  const later = async (count) => page.waitForFunction((goal) => Number(document.documentElement.dataset.frames) >= goal, {}, (await frames()) + count);
  await later(20);
  // The lab, and its driver with it, stands still for thirty frames of the screen.
  running.child.kill("SIGSTOP");
  await page.evaluate(async () => {
    for (let frame = 0; frame < 30; frame += 1) await new Promise((done) => requestAnimationFrame(done));
  });
  running.child.kill("SIGCONT");
  await page.waitForFunction(() => /The driver was up to \d{3,}\.\d ms late/.test(document.querySelector(".late").textContent));
  // Two seconds later it can still be seen and read.
  await later(40);
  assert.match(await page.$eval(".late[role=status]", (one) => one.textContent), /^The driver was up to \d{3,}\.\d ms late: .* So far it was late in (one|\d+) frames?, by up to \d{3,}\.\d ms\.$/);
  const marked = await page.$$eval(".stage-panes canvas", (all, [y, left], color) => all.map((one) => {
    const { data } = one.getContext("2d").getImageData(left, y, one.width - left, 1);
    return Array.from({ length: data.length / 4 }, (_, at) => [...data.slice(4 * at, 4 * at + 3)]).filter((pixel) => pixel.every((part, at) => part === color[at])).length;
  }), [BASE + DOTS - 2, LEFT], LIGHT.flow);
  assert.ok(marked.length === 2 && marked.every((pixels) => pixels >= 3), `pixels of the band: ${marked}`);
  await page.screenshot({ path: join(screens, "lab-late.png") });
  assert.deepEqual(troubles, []);
  await page.close();
});

test("p99 and the lag that is felt are drawn as they move, and the lag stands beside p99 as a number", async () => {
  const running = await lab();
  const { page, troubles } = await open(browser, running, {
    before: () => {
      globalThis.course = [];
      const listen = EventSource.prototype.addEventListener;
      EventSource.prototype.addEventListener = function (name, take) {
        listen.call(this, name, (event) => {
          if (name === "frame") globalThis.course.push(JSON.parse(event.data));
          take(event);
        });
      };
    },
  });
  await serving(page, 2);
  const names = await page.$$eval(".stage-panes h2", (all) => all.map((one) => one.textContent));
  const pane = names.indexOf("tokio-current-thread");
  // The two tabs that open by themselves, once both servers are probed, hold the one loop for 900 ms each: the lag rises to that at least (the others may have
  // a turn between the two), and falls at once, while p99 looks back for seconds.
  await page.waitForFunction((number) => {
    const now = Number(document.querySelectorAll(".stage-panes canvas")[number].dataset.now);
    const own = globalThis.course.filter(({ t }) => t > now - 9000 && t < now - 500).map(({ panes }) => panes[number]);
    return own.some(({ oldest }) => oldest > 800) && own.some(({ p99, oldest }) => p99 > 800 && oldest < 100);
  }, {}, pane);
  const found = await page.$$eval(".stage-panes canvas", (all, number, colors, [left, right, base, dots, sight, low, high]) => {
    const [canvas, now] = [all[number], Number(all[number].dataset.now)];
    const own = globalThis.course.filter(({ t }) => t > now - 9500 && t < now - 400);
    const isDrawn = ({ t }, ms, color) => {
      const x = left + ((t - now + sight) / sight) * (canvas.width - left - right);
      const y = base + (1 - Math.log(Math.max(ms, low) / low) / Math.log(high / low)) * dots;
      const { data } = canvas.getContext("2d").getImageData(Math.round(x) - 2, Math.round(y) - 2, 5, 5);
      return Array.from({ length: 25 }, (_, at) => [...data.slice(4 * at, 4 * at + 3)]).some((pixel) => pixel.every((part, at) => Math.abs(part - color[at]) < 60));
    };
    const lag = own.find(({ panes }) => panes[number].oldest > 800);
    const after = own.find(({ panes }) => panes[number].p99 > 800 && panes[number].oldest < 100);
    return { isLag: isDrawn(lag, lag.panes[number].oldest, colors.text), isP99: isDrawn(after, after.panes[number].p99, colors.link), lag: lag.panes[number].oldest, p99: after.panes[number].p99 };
  }, pane, LIGHT, [LEFT, RIGHT, BASE, DOTS, SIGHT, LOW, HIGH]);
  assert.ok(found.isP99 && found.isLag, JSON.stringify(found));
  const numbers = await page.$$eval(".stage-panes .numbers", (all) => all.map((one) => [...one.querySelectorAll("dt")].map((name) => name.textContent)));
  assert.deepEqual(numbers.map((own) => own.slice(0, 2)), Array(2).fill(["p99", "lag felt now"]));
  // The server says itself that one request has held its loop; one with a thread for each connection has none to be held.
  await press(page, "open 2 tabs on /timer");
  await page.waitForFunction((number) => /lag it reports(9\d\d ms|1\.\d+ s)/.test(document.querySelectorAll(".stage-panes .numbers")[number].textContent), {}, pane);
  assert.match(await page.$$eval(".stage-panes .numbers", (all, number) => all[number].textContent, 1 - pane), /lag it reports–/);
  await press(page, "slow requests: start");
  await page.waitForFunction((number) => /lag felt now\d\.\d+ s/.test(document.querySelectorAll(".stage-panes .numbers")[number].textContent), {}, pane);
  await page.screenshot({ path: join(screens, "lab-lag.png") });
  assert.deepEqual(troubles, []);
  await page.close();
});

test("a page that has missed frames takes off what was open, since it may have ended meanwhile", async () => {
  const running = await lab();
  const { page, troubles } = await open(browser, running, {
    // While the page is deaf, no frame reaches it; it still gets the lists of panes.
    before: () => {
      globalThis.lists = 0;
      const listen = EventSource.prototype.addEventListener;
      EventSource.prototype.addEventListener = function (name, take) {
        globalThis.events = this;
        listen.call(this, name, (event) => {
          if (name === "panes") globalThis.lists += 1;
          if (!globalThis.isDeaf || name !== "frame") take(event);
        });
      };
    },
  });
  await serving(page, 2);
  await press(page, "slow requests: start");
  await somethingIsHeld(page);
  await page.evaluate(() => {
    globalThis.isDeaf = true;
  });
  await press(page, "slow requests: end");
  await page.waitForFunction(() => [...document.querySelectorAll("button")].some((one) => one.textContent === "slow requests: start"));
  // Each list comes after the frames before it.
  await page.waitForFunction((goal) => globalThis.lists >= goal, {}, (await page.evaluate(() => globalThis.lists)) + 3);
  await page.evaluate(() => {
    globalThis.isDeaf = false;
  });
  await page.waitForFunction(() => [...document.querySelectorAll(".stage-panes .numbers")].every((one) => /slow requests0$/.test(one.textContent)));
  await somethingIsHeld(page);
  await page.evaluate(() => globalThis.events.dispatchEvent(new MessageEvent("missed", { data: "{}" })));
  await nothingIsHeld(page);
  assert.deepEqual(troubles, []);
  await page.close();
});
