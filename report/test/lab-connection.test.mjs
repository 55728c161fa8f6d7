// What the lab's page says of what runs: that it has lost the lab, which slow requests are under way, and whom a guess would reach.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { launch, screens } from "./browser.mjs";
import { end, endAll, guessable, lab, open, pids, press, serving } from "./labs.mjs";

let browser;
before(async () => {
  browser = await launch();
});
afterEach(endAll);
after(() => browser?.close());

const says = (page, pattern) => page.waitForFunction((words) => new RegExp(words).test(document.querySelector(".lost").textContent), {}, pattern);
const sliders = (page) => page.$$eval(".slider", (all) => Object.fromEntries(all.map((one) => [one.querySelector("span").firstChild.textContent, Number(one.querySelector("input").value)])));

/** Asks the lab from its own page, as another page of the same lab would. */
const ask = (page, what) =>
  page.evaluate(async (body) => {
    const token = new URLSearchParams(location.search).get("token");
    return (await fetch("/act", { method: "POST", headers: { "x-token": token }, body: JSON.stringify(body) })).status;
  }, what);

test("a page says so when no frame comes any more, greys what it shows, and goes on with the next frame", async () => {
  const running = await lab();
  const { page } = await open(browser, running);
  await serving(page, 2);
  assert.equal(await page.$eval(".lost", (one) => one.textContent), "");
  running.child.kill("SIGSTOP");
  await says(page, "^Connection lost");
  assert.equal(await page.$eval(".stage-panes", (one) => one.classList.contains("is-lost")), true);
  await page.screenshot({ path: join(screens, "lab-lost.png") });
  running.child.kill("SIGCONT");
  await says(page, "^$");
  assert.equal(await page.$eval(".stage-panes", (one) => one.classList.contains("is-lost")), false);
  await end(running, "SIGKILL");
  await says(page, "^Connection lost");
  await page.close();
});

test("sliders show the slow requests that run, so that moving one leaves the others as they are", async () => {
  const running = await lab();
  const { page, troubles } = await open(browser, running);
  await serving(page, 2);
  assert.equal(await ask(page, { act: "blockers", count: 3, length_ms: 70, spins: false }), 204);
  await page.waitForFunction(() => [...document.querySelectorAll(".slider output")].some((one) => one.textContent === "70 ms"));
  const { "length of a slow request": length, "slow requests at a time": count } = await sliders(page);
  assert.deepEqual([length, count], [70, 3]);
  assert.equal(await page.$eval(".tick input", (one) => one.checked), false);
  const asked = page.waitForRequest((one) => one.url().endsWith("/act"));
  await page.$$eval(".slider", (all) => {
    const input = all.find((one) => one.textContent.startsWith("slow requests at a time")).querySelector("input");
    input.value = "5";
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  assert.deepEqual(JSON.parse((await asked).postData()), { act: "blockers", count: 5, length_ms: 70, spins: false });
  assert.deepEqual(troubles, []);
  await page.close();
});

test("a guess is open once the step's servers serve, and the focus goes to the title of each step", async () => {
  const running = await lab();
  const { page, troubles } = await open(browser, running, {
    // Notes whether guesses are open at any time at which a server of the step does not serve.
    before: () => {
      globalThis.early = [];
      new MutationObserver(() => {
        const isOpen = [...document.querySelectorAll(".guesses button")].some((one) => !one.disabled);
        const states = [...document.querySelectorAll(".stage-panes .state")].map((one) => one.dataset.state);
        if (isOpen && !states.every((state) => state === "serving")) globalThis.early.push(states.join());
      }).observe(document, { subtree: true, childList: true, attributes: true });
    },
  });
  await serving(page, 2);
  const focused = () => page.evaluate(() => document.activeElement.textContent);
  for (const [word, title] of [["start the tour", /^1 of 7/], ["next", /^2 of 7/]]) {
    await press(page, word);
    assert.match(await focused(), title);
    assert.ok(await page.$$eval(".guesses button", (all) => all.every((one) => one.disabled)), "nobody would answer yet");
    await guessable(page);
    await page.click(".guesses button");
  }
  assert.deepEqual(await page.evaluate(() => globalThis.early), []);
  await press(page, "slow requests: end");
  // A button that cannot be pressed for a while leaves the focus in its pane.
  await page.$$eval(".stage-panes .pane .buttons button", (all) => {
    const again = all.find((one) => one.textContent === "start again");
    again.focus();
    again.click();
  });
  await page.waitForFunction(() => document.querySelectorAll(".stage-panes .tabs")[0].children.length === 0);
  await serving(page, 2);
  assert.ok(await page.evaluate(() => document.querySelector(".stage-panes .pane").contains(document.activeElement)));
  assert.deepEqual(troubles, []);
  await page.close();
});

test("no server at all is said to be no choice", async () => {
  const running = await lab();
  const { page, troubles } = await open(browser, running);
  await serving(page, 2);
  await page.$$eval(".desk select", (all) => {
    for (const one of all) one.value = "";
    all[0].dispatchEvent(new Event("change", { bubbles: true }));
  });
  assert.match(await page.$eval(".said", (one) => one.textContent), /choose at least one/);
  assert.equal((await page.$$(".stage-panes .pane")).length, 2);
  assert.deepEqual(troubles, []);
  await page.close();
});

test("a server of one's own that names no process is not said to answer nobody, and the tabs are on its slow page", async () => {
  const server = join(import.meta.dirname, "own-server.mjs");
  const running = await lab("--command", `node ${server} {port}`, "--blocker", "/slow");
  const { page, troubles } = await open(browser, running);
  await page.waitForFunction(() => [...document.querySelectorAll(".stage-panes .workers")].some((one) => /do not say which process/.test(one.textContent)));
  const words = await page.$$eval(".desk .controls > button", (all) => all.map((one) => one.textContent));
  assert.ok(words.some((word) => /slow page/.test(word)), words.join());
  assert.deepEqual(troubles, []);
  await page.close();
});

test("a server that runs elsewhere is not killed with the others, and one that refuses every request is said to be failing", async () => {
  let refuses = false;
  const server = createServer((request, response) => (refuses ? request.socket.destroy() : response.end("done\n"))).listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const running = await lab("--url", `http://127.0.0.1:${server.address().port}`, "--blocker", "/slow", "tokio-current-thread");
    const { page, troubles } = await open(browser, running);
    await serving(page, 2);
    const [own, other] = await pids(page);
    assert.deepEqual([own.length, other.length], [0, 1]);
    const kill = await page.$$eval(".stage-panes .buttons", (all) => all.map((one) => [...one.querySelectorAll("button")].find((button) => button.textContent === "kill a worker").disabled));
    assert.deepEqual(kill, [true, false]);
    const killed = async (old) => {
      await press(page, "kill a worker of each");
      await page.waitForFunction((old) => {
        const [first, second] = [...document.querySelectorAll(".stage-panes .state")].map((one) => one.textContent);
        return first === "serving" && /^serving, process \d+$/.test(second) && !second.endsWith(` ${old}`);
      }, {}, old);
    };
    await killed(other[0]);
    assert.equal(await page.$eval(".said", (one) => one.textContent), "");
    const numbers = () => page.$eval(".stage-panes .numbers", (one) => [...one.children].slice(0, 2).map((entry) => [entry.textContent, entry.querySelector("dd").className]));
    assert.ok((await numbers()).every(([, grade]) => /^grade /.test(grade)));
    refuses = true;
    await page.waitForFunction(() => /^p99failinglag felt nowfailing/.test(document.querySelector(".stage-panes .numbers").textContent));
    assert.deepEqual(await numbers(), [["p99failing", ""], ["lag felt nowfailing", ""]], "no grade");
    // Probes begin anew as the other server comes back: one that refuses the first of them keeps nobody from being probed.
    await killed((await pids(page))[1][0]);
    const failed = () => page.$eval(".stage-panes .numbers", (one) => Number(/failed so far(\d+)/.exec(one.textContent)[1]));
    await page.waitForFunction((before) => {
      const [own, other] = [...document.querySelectorAll(".stage-panes .numbers")].map((one) => one.textContent);
      return Number(/failed so far(\d+)/.exec(own)[1]) > before && /^p99[\d.]+ m?s/.test(other);
    }, {}, (await failed()) + 100);
    refuses = false;
    await page.waitForFunction(() => /^p99[\d.]+ ms/.test(document.querySelector(".stage-panes .numbers").textContent));
    assert.deepEqual(troubles, []);
    await page.close();
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test("every mark of the picture is explained in words", async () => {
  const running = await lab();
  const { page, troubles } = await open(browser, running);
  const words = await page.$$eval(".legend li", (all) => all.map((one) => one.textContent.split(":")[0]));
  for (const wanted of ["answered within 0.1 s", "not answered yet", "slow request on its way", "slow request that failed", "p99 of the last 3 s", "lag felt", "the driver was late"]) assert.ok(words.includes(wanted), `${wanted}: ${words}`);
  assert.deepEqual(troubles, []);
  await page.close();
});
