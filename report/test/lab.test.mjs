// The lab in a real browser, over real servers: what it shows, what it refuses, and that nothing is left behind.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { launch, screens, uniqueIds } from "./browser.mjs";
import { end, endAll, guessable, isGone, lab, open, pids, press, program, root, serving, states } from "./labs.mjs";

const AXE = join(import.meta.dirname, "../node_modules/axe-core/axe.min.js");

let browser;
before(async () => {
  browser = await launch();
});
afterEach(endAll);
after(() => browser?.close());

async function until(what, condition) {
  for (let look = 0; look < 2400; look += 1) {
    if (await condition()) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  assert.fail(`never: ${what}`);
}

/** Asks the lab as another program would. */
function ask({ url }, { path = "/act", token = url.searchParams.get("token"), host = url.host, origin, body = '{"act":"rate","per_s":100}' } = {}) {
  return new Promise((done, fail) => {
    const headers = { host, "x-token": token, ...(origin ? { origin } : {}) };
    const asked = request({ host: "127.0.0.1", port: url.port, path, method: path === "/act" ? "POST" : "GET", headers }, (answer) => {
      let text = "";
      answer.on("data", (piece) => (text += piece));
      answer.on("end", () => done({ status: answer.statusCode, text }));
    });
    asked.on("error", fail);
    asked.end(path === "/act" ? body : undefined);
  });
}

test("two tabs come first, and one loop serves them one after the other", async () => {
  const running = await lab();
  try {
    const { page, troubles } = await open(browser, running);
    await serving(page, 2);
    const names = await page.$$eval(".stage-panes h2", (all) => all.map((one) => one.textContent));
    await page.waitForFunction(() => [...document.querySelectorAll(".stage-panes .tabs")].every((tabs) => tabs.children.length === 2));
    const took = await page.$$eval(".stage-panes .tabs", (all) => all.map((tabs) => [...tabs.children].map((tab) => /done after ([\d.]+) (ms|s)/.exec(tab.textContent)).map(([, size, unit]) => Number(size) * (unit === "s" ? 1000 : 1))));
    const last = (name) => Math.max(...took[names.indexOf(name)]);
    assert.ok(last("tokio-current-thread") >= 1795, `the second waits for the first: ${took}`);
    assert.ok(last("std-thread-per-connection") < last("tokio-current-thread"), `${took}`);
    await page.screenshot({ path: join(screens, "lab-tabs.png") });
    // What the page says is what the frames said.
    await press(page, "slow requests: start");
    await page.waitForFunction((number) => Number(document.querySelectorAll(".stage-panes .pane")[number].dataset.oldest) > 500, {}, names.indexOf("tokio-current-thread"));
    await page.waitForFunction(() => [...document.querySelectorAll(".stage-panes .numbers")].every((one) => /slow requests64$/.test(one.textContent)));
    await page.screenshot({ path: join(screens, "lab-blockers.png") });
    await press(page, "slow requests: end");
    assert.deepEqual(troubles, []);
    await page.close();
  } finally {
    await end(running);
  }
});

test("a reload replaces the processes, and a killed one comes back", async () => {
  const running = await lab("tokio-current-thread", "smol-current-thread");
  try {
    const { page, troubles } = await open(browser, running);
    await serving(page, 2);
    await until("processes are named", async () => (await pids(page)).every((own) => own.length === 1));
    const first = (await pids(page)).flat();
    await press(page, "reload all");
    await until("all are replaced", async () => (await pids(page)).flat().every((pid) => !first.includes(pid)) && (await pids(page)).flat().length === 2);
    const second = (await pids(page)).flat();
    await press(page, "kill a worker of each");
    await until("the killed came back", async () => (await pids(page)).flat().length === 2 && (await pids(page)).flat().every((pid) => !second.includes(pid)));
    await serving(page, 2);
    assert.deepEqual(troubles, []);
    await page.close();
  } finally {
    await end(running);
  }
});

test("the tour leads through seven steps, each with a guess before the answer", async () => {
  const running = await lab();
  try {
    const { page, troubles } = await open(browser, running);
    await serving(page, 2);
    await press(page, "start the tour");
    // Processes of each server: what the text of a step says of them has to be so.
    const processes = [[1, 1], [1, 1], [2, 1], [2, 1], [1, 1, 1], [2, 1], [2, 2]];
    for (let step = 0; step < 7; step += 1) {
      await page.waitForFunction((wanted) => document.querySelector(".step").dataset.step === wanted, {}, String(step));
      assert.equal(await page.$eval(".answer", (one) => one.textContent), "", "no answer before a guess");
      await until("its servers serve", async () => (await states(page)).every((state) => state === "serving") && JSON.stringify((await pids(page)).map((own) => own.length)) === JSON.stringify(processes[step]));
      const before = (await pids(page)).flat();
      await guessable(page);
      await page.click(".guesses button");
      assert.match(await page.$eval(".answer", (one) => one.textContent), /^(Right|No)/);
      if (step === 5) {
        // The parent deals connections in turn; the probes connect meanwhile, too, so that not just ten meet the process that saved it. But those find
        // it that do.
        const found = async () => (await page.$$eval(".launch", (all) => all.map((one) => /saved: (\d+) of 20.*; (\d+) of 20 were answered by/.exec(one.textContent)?.slice(1).map(Number))));
        await until("it was looked for", async () => (await found()).every((one) => one));
        const [two, one] = await found();
        assert.equal(two[0], two[1], "those whom the process that saved it answered have found it");
        assert.ok(two[0] > 0 && two[0] < 20, `${two[0]} of 20 found it with two processes`);
        assert.deepEqual(one, [20, 20]);
      }
      if (step === 6) {
        await until("all are replaced", async () => (await pids(page)).flat().length === 4 && (await pids(page)).flat().every((pid) => !before.includes(pid)));
        await until("nothing has failed", async () => (await page.$$eval(".numbers", (all) => all.map((one) => one.textContent))).every((one) => one.includes("failed so far0")));
      }
      if (step === 0) await page.screenshot({ path: join(screens, "lab-tour.png") });
      await press(page, step < 6 ? "next" : "from the beginning");
    }
    assert.deepEqual(troubles, []);
    await page.close();
  } finally {
    await end(running);
  }
});

test("nobody else may ask, and nothing beyond the sliders is done", async () => {
  const running = await lab();
  try {
    const { host } = running.url;
    assert.equal((await ask(running)).status, 204);
    for (const [what, why] of [
      [{ token: "" }, /token is missing or wrong/],
      [{ token: "x".repeat(24) }, /token is missing or wrong/],
      [{ host: "evil.example" }, /this host is not the lab's/],
      [{ host: `evil.example:${running.url.port}` }, /this host is not the lab's/],
      [{ origin: "http://evil.example" }, /another page may not ask/],
      [{ origin: "null" }, /another page may not ask/],
      [{ path: "/", token: "" }, /token is missing or wrong/],
      [{ path: "/events?token=wrong", token: "" }, /token is missing or wrong/],
    ]) {
      const { status, text } = await ask(running, what);
      assert.equal(status, 403, JSON.stringify(what));
      assert.match(text, why);
    }
    assert.equal((await ask(running, { origin: `http://${host}` })).status, 204);
    for (const [body, why] of [
      ['{"act":"blockers","count":100000,"length_ms":10,"spins":true}', /slow requests: 100000 is not between 0 and 256/],
      ['{"act":"show","servers":["no-such"],"threads":2,"processes":1}', /no-such/],
      ['{"act":"kill","pane":3}', /there is no pane 3/],
      ["{}", /act/],
      ["", /EOF/],
      ["x".repeat(20_000), /more than 16384 bytes/],
    ]) {
      const { status, text } = await ask(running, { body });
      assert.ok(status === 400 || status === 413, `${status} ${text}`);
      assert.match(text, why);
      assert.equal(text.trimEnd().split("\n").length, 1);
    }
  } finally {
    await end(running);
  }
});

test("a server that does not start shows its last words, and the others go on", async () => {
  const running = await lab("--command", "echo 'no such table' >&2; exit 3; : {port}", "--blocker", "/slow", "tokio-current-thread");
  try {
    const { page } = await open(browser, running);
    await page.waitForFunction(() => [...document.querySelectorAll(".stage-panes .state")].some((one) => one.dataset.state === "failed"));
    const said = await page.$$eval(".stage-panes .state", (all) => all.map((one) => one.textContent));
    assert.ok(said.some((one) => one.includes("no such table")), said.join("\n"));
    await until("the other one serves", async () => (await states(page)).includes("serving"));
    await page.close();
  } finally {
    await end(running);
  }
});

test("a server of one's own is shown beside the others", async () => {
  const server = join(import.meta.dirname, "own-server.mjs");
  const running = await lab("--command", `node ${server} {port}`, "--blocker", "/slow", "tokio-current-thread");
  try {
    const { page, troubles } = await open(browser, running);
    await serving(page, 2);
    await press(page, "slow requests: start");
    await until("it is held", async () => (await page.$$eval(".stage-panes .pane", (all) => all.map((one) => Number(one.dataset.oldest))))[0] > 100);
    assert.deepEqual(troubles, []);
    await page.close();
  } finally {
    await end(running);
  }
});

test("nothing is left when the tab is closed, when the lab is interrupted, and when it is killed", async () => {
  for (const how of ["close", "SIGINT", "SIGKILL"]) {
    const running = await lab();
    const { page } = await open(browser, running);
    await serving(page, 2);
    await press(page, "slow requests: start");
    await until("processes are named", async () => (await pids(page)).every((own) => own.length > 0));
    const own = (await pids(page)).flat();
    if (how === "close") await page.close();
    else await end(running, how);
    await until(`${own} are gone after ${how}`, () => own.every(isGone));
    if (how === "close") await end(running);
    else await page.close();
  }
});

test("a second lab, a port in use and an unknown server get one line each", async () => {
  const running = await lab();
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const said = (wanted, ...words) => {
    const { status, stderr } = spawnSync(program, words, { cwd: root, encoding: "utf8" });
    assert.equal(status, wanted, words.join(" "));
    assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
    return stderr;
  };
  assert.match(said(1, "--port", "0"), /another lab is running/);
  await end(running);
  assert.match(said(1, "--port", String(taken.address().port)), /cannot listen on port \d+: choose another with --port/);
  assert.match(said(1, "no-such-server"), /no-such-server/);
  assert.match(said(1, "--command", "true", "--blocker", "/slow"), /\{port\}/);
  assert.match(said(1, "--url", "http://127.0.0.1:1"), /--blocker is missing/);
  assert.match(said(2, "--port", "99999"), /99999/);
  assert.match(said(2, "--nonsense"), /--nonsense/);
  taken.close();
});

for (const theme of ["light", "dark"]) {
  for (const width of [380, 1280]) {
    test(`axe finds nothing wrong in the lab, and nothing is cut off: ${theme}, ${width} pixels`, async () => {
      const running = await lab();
      try {
        const { page, troubles } = await open(browser, running, { theme, width });
        await serving(page, 2);
        const old = (await pids(page)).flat();
        await press(page, "start the tour");
        await until("the servers of the tour serve", async () => (await states(page)).every((state) => state === "serving") && (await pids(page)).flat().length === 2 && (await pids(page)).flat().every((pid) => !old.includes(pid)));
        await guessable(page);
        const tabs = () => page.$$eval(".tabs", (all) => all.map((one) => one.querySelectorAll("li").length));
        const [first, second] = await tabs();
        await page.click(".guesses button");
        await until("both servers have two tabs more", async () => {
          const [one, other] = await tabs();
          return one >= first + 2 && other >= second + 2;
        });
        await page.screenshot({ path: join(screens, `lab-${theme}-${width}.png`) });
        const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(over <= 0, `the page is ${over} pixels wider than the screen`);
        await page.evaluate(readFileSync(AXE, "utf8"));
        const found = await page.evaluate(async () => (await globalThis.axe.run()).violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html).join(" ")}`));
        assert.deepEqual(found, []);
        await uniqueIds(page);
        assert.deepEqual(troubles, []);
        await page.close();
      } finally {
        await end(running);
      }
    });
  }
}
