// Labs that run, and their pages.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { colorOf } from "./browser.mjs";

export const root = join(import.meta.dirname, "../..");
export const program = process.env.LAB ?? join(root, "target/release/stallbench-lab");

/** The labs that run: a test that fails leaves none to the next one, which would be refused. */
const labs = new Set();

/** Ends the labs that a test has left. */
export const endAll = () => Promise.all([...labs].map((running) => end(running, "SIGKILL")));

/** A lab that runs, and its address. */
export async function lab(...more) {
  const child = spawn(program, ["--port", "0", ...more], { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  const running = { child, exited: once(child, "exit") };
  labs.add(running);
  const line = once(createInterface({ input: child.stdout }), "line");
  const address = await Promise.race([line.then(([text]) => text), running.exited.then(() => undefined)]);
  assert.ok(address, `the lab ended without an address: ${child.exitCode ?? child.signalCode}`);
  return Object.assign(running, { address, url: new URL(address) });
}

/** Ends a lab, and waits until it has ended: until then no other may run. */
export async function end(running, signal = "SIGINT") {
  running.child.kill(signal);
  await running.exited;
  labs.delete(running);
}

/** Its page, open; `before` runs in it before its own script. */
export async function open(browser, running, { width = 1280, theme = "light", before } = {}) {
  const page = await browser.newPage();
  const troubles = [];
  page.on("console", (message) => message.type() === "error" && troubles.push(message.text()));
  page.on("pageerror", (error) => troubles.push(error.message));
  page.on("request", (request) => {
    if (!request.url().startsWith(running.url.origin) && !request.url().startsWith("data:")) troubles.push(request.url());
  });
  await page.setViewport({ width, height: 1000 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
  if (before) await page.evaluateOnNewDocument(before);
  await page.goto(running.address);
  return { page, troubles };
}

/** Whether a process has ended, also one that its parent has not reaped yet. */
export function isGone(pid) {
  return !existsSync(`/proc/${pid}/stat`) || readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.startsWith("Z");
}

export const states = (page) => page.$$eval(".stage-panes .state", (all) => all.map((one) => one.dataset.state));
export const serving = (page, count) =>
  page.waitForFunction((wanted) => {
    const all = [...document.querySelectorAll(".stage-panes .state")].map((one) => one.dataset.state);
    return all.length === wanted && all.every((one) => one === "serving");
  }, {}, count);
export const pids = (page) => page.$$eval(".stage-panes .state", (all) => all.map((one) => (/process(?:es)? ([\d, ]+)/.exec(one.textContent)?.[1] ?? "").split(", ").filter(Boolean).map(Number)));
export const press = (page, text) => page.$$eval("button", (all, wanted) => all.find((one) => one.textContent === wanted).click(), text);
/** Waits until a guess may be made: whoever is to answer serves. */
export const guessable = (page) => page.waitForSelector(".guesses button:not([disabled])");

/** Waits until some pane draws a slow request as one that is on its way, or until none does. */
const held = (page, isHeld) =>
  page.waitForFunction((red, wanted) => {
    const draws = (canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, 80);
      for (let at = 0; at < data.length; at += 4) if (red.every((part, color) => data[at + color] === part)) return true;
      return false;
    };
    return [...document.querySelectorAll(".stage-panes canvas")].some(draws) === wanted;
  }, {}, colorOf("held"), isHeld);
export const somethingIsHeld = (page) => held(page, true);
export const nothingIsHeld = (page) => held(page, false);
