// Browsers as the system has them, and pages that fail on any error or request to the outside.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const PATHS = {
  chrome: ["/usr/bin/chromium", "/usr/bin/google-chrome", "/usr/bin/chromium-browser"],
  firefox: ["/usr/bin/firefox-esr", "/usr/bin/firefox"],
};

/** Folder of screenshots. */
export const screens = join(import.meta.dirname, "../../target/report-screens");

/** A browser without a window. */
export async function launch(browser = "chrome") {
  const executablePath = PATHS[browser].find(existsSync);
  assert.ok(executablePath, `${browser} is not installed: looked at ${PATHS[browser].join(", ")}`);
  mkdirSync(screens, { recursive: true });
  return puppeteer.launch({ browser, executablePath, headless: true, args: browser === "chrome" ? ["--no-sandbox", "--force-device-scale-factor=1"] : [] });
}

/** A page that is open and ready; `troubles` holds what went wrong in it. */
export async function open(browser, path, { hash = "", width = 1280, height = 900, theme = "light" } = {}) {
  const page = await browser.newPage();
  const troubles = [];
  page.on("console", (message) => {
    if (["error", "warn"].includes(message.type())) troubles.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => troubles.push(`error: ${error.message}`));
  page.on("request", (request) => {
    if (!/^(file|data|blob|about):/.test(request.url())) troubles.push(`request to the outside: ${request.url()}`);
  });
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures?.([{ name: "prefers-color-scheme", value: theme }]).catch(() => {});
  await page.goto(pathToFileURL(path).href + hash);
  await page.waitForSelector("html[data-ready]", { timeout: 30_000 });
  return { page, troubles };
}

/** The red, green and blue of a colour of the style sheet in the light theme. */
export function colorOf(name) {
  const sheet = readFileSync(join(import.meta.dirname, "../src/style.css"), "utf8");
  const [, hex] = new RegExp(`--${name}: #([0-9a-f]{6})`).exec(sheet);
  return [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
}

/** Scrolls through a page, so that every figure is drawn. */
export async function drawAll(page) {
  await page.evaluate(async () => {
    for (const figure of document.querySelectorAll("figure.lines")) {
      figure.scrollIntoView();
      const isDrawn = () => figure.dataset.drawn === "yes";
      while (!isDrawn()) await new Promise((done) => requestAnimationFrame(done));
    }
    scrollTo({ top: 0, behavior: "instant" });
  });
}

/** Walks through a page with Tab alone, and returns what can be used and was not reached. */
export async function missedByKeyboard(page) {
  const wanted = await page.evaluate(() => {
    const all = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")].filter((one) => one.checkVisibility() && !one.disabled);
    all.forEach((one, at) => {
      one.dataset.stop = String(at);
    });
    return all.length;
  });
  const reached = new Set();
  for (let press = 0; press < wanted + 20; press += 1) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => document.activeElement?.dataset?.stop);
    if (stop !== undefined) reached.add(stop);
  }
  assert.notEqual(wanted, 0, "there is something to use");
  return page.evaluate((seen) => [...document.querySelectorAll("[data-stop]")].filter((one) => !seen.includes(one.dataset.stop)).map((one) => one.outerHTML.slice(0, 80)), [...reached]);
}

/** Fails if two elements of a page share an id. */
export async function uniqueIds(page) {
  const ids = await page.$$eval("[id]", (all) => all.map((one) => one.id));
  assert.deepEqual(ids.filter((id, at) => ids.indexOf(id) !== at), [], "ids that several elements have");
}

/** Closes a page in which nothing went wrong. */
export async function closed(page, troubles) {
  assert.deepEqual(troubles, []);
  await uniqueIds(page);
  await page.close();
}

/** The file that a button inside an element offers: its name and its text. */
export async function saved(page, within, button) {
  return page.$eval(
    within,
    (element, word) =>
      new Promise((done, failed) => {
        const [create, click] = [URL.createObjectURL, HTMLAnchorElement.prototype.click];
        let blob;
        URL.createObjectURL = (one) => create.call(URL, (blob = one));
        HTMLAnchorElement.prototype.click = function () {
          blob.text().then((text) => done({ name: this.download, text }));
        };
        const found = [...element.querySelectorAll("button")].find((one) => one.textContent === word);
        if (found) found.click();
        else failed(new Error(`no button ${word}`));
        [URL.createObjectURL, HTMLAnchorElement.prototype.click] = [create, click];
      }),
    button,
  );
}
