// Every control of the lab is used, and does what it says. One that is not in the lists below fails the test.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, missedByKeyboard, uniqueIds } from "./browser.mjs";
import { end, guessable, lab, nothingIsHeld, open, pids, press, serving } from "./labs.mjs";
import { load } from "./modules.mjs";

/** Elements that a person can use. */
const CONTROLS = "a[href], button, input, select, textarea, summary";
/** The servers that are shown at first, and one that is chosen later. Both run under the supervisor. */
const [SHOWN, OTHER] = [["tokio-multi-thread", "smol-current-thread"], "tokio-current-thread"];

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

const all = async (page, selector, at) => (await page.$$(selector))[at];
const text = async (page, selector, at) => (await all(page, selector, at)).evaluate((one) => one.textContent);
const click = async (page, selector, at) => (await all(page, selector, at)).evaluate((one) => one.click());
const names = (page) => page.$$eval(".stage-panes h2", (titles) => titles.map((one) => one.textContent));

/** Waits until every pane's number of this name is the wanted one. */
const numbersAre = (page, name, wanted) =>
  page.waitForFunction((own, value) => [...document.querySelectorAll(".stage-panes .numbers")].every((one) => [...one.children].some((entry) => entry.textContent === `${own}${value}`)), {}, name, wanted);

/** Waits until these panes serve with processes that are not those of before, and returns all processes. */
async function replaced(page, panes, before) {
  await page.waitForFunction((wanted, old) => {
    const states = [...document.querySelectorAll(".stage-panes .state")];
    const pids = (one) => (/process(?:es)? ([\d, ]+)/.exec(one.textContent)?.[1] ?? "").split(", ").filter(Boolean).map(Number);
    return wanted.every((pane) => states[pane].dataset.state === "serving" && pids(states[pane]).length === old[pane].length && pids(states[pane]).every((pid) => !old[pane].includes(pid)));
  }, {}, panes, before);
  return pids(page);
}

/** Waits until both servers serve, and the two tabs that a page opens by itself are done: they would count as others. */
async function opened(page) {
  await serving(page, 2);
  await page.waitForFunction(() => [...document.querySelectorAll(".stage-panes .tabs")].every((list) => list.children.length === 2));
}

/** Opens tabs with a press, and waits until both are done in each pane. Returns how long each took, in ms. */
async function tabs(page, open) {
  const lines = () => page.$$eval(".stage-panes .tabs", (lists) => lists.map((list) => [...list.children].map((one) => one.textContent)));
  const known = await lines();
  await open();
  await page.waitForFunction((old) => [...document.querySelectorAll(".stage-panes .tabs")].every((list, pane) => [...list.children].filter((one) => !old[pane].includes(one.textContent)).length === 2), {}, known);
  const added = (await lines()).flatMap((list, pane) => list.filter((line) => !known[pane].includes(line)));
  return added.map((line) => /done after ([\d.]+) (ms|s)/.exec(line)).map(([, size, unit]) => Number(size) * (unit === "s" ? 1000 : 1));
}

/** Moves a slider, as a person who lets go of it does. */
async function move(page, label, value) {
  const output = await page.$$eval(".slider", (sliders, name, wanted) => {
    const slider = sliders.find((one) => one.textContent.startsWith(name));
    const input = slider.querySelector("input");
    input.value = String(wanted);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    const said = slider.querySelector("output").textContent;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return said;
  }, label, value);
  assert.equal(Number.parseInt(output, 10), value, label);
}

/** What each button above the panes does, by its words. */
const BUTTONS = {
  "open 2 tabs on /timer": async (page, use) => {
    assert.ok((await tabs(page, use)).every((ms) => ms >= 895));
  },
  "slow requests: start": async (page, use) => {
    await use();
    await page.waitForFunction(() => [...document.querySelectorAll("button")].some((one) => one.textContent === "slow requests: end"));
    await numbersAre(page, "slow requests", "64");
    await use();
    await numbersAre(page, "slow requests", "0");
    await nothingIsHeld(page);
  },
  "reload all": async (page, use) => {
    const old = await pids(page);
    await use();
    await replaced(page, [0, 1], old);
  },
  "kill a worker of each": async (page, use) => {
    const old = await pids(page);
    await use();
    await replaced(page, [0, 1], old);
  },
};

/** What each slider does, by its label; each is left as it was. */
const SLIDERS = {
  "length of a slow request": async (page, label) => {
    await move(page, label, 50);
    assert.ok((await tabs(page, () => press(page, "open 2 tabs on /timer"))).every((ms) => ms < 895), "shorter than usual");
    await move(page, label, 900);
  },
  "slow requests at a time": async (page, label) => {
    await press(page, "slow requests: start");
    await numbersAre(page, "slow requests", "64");
    await move(page, label, 3);
    await numbersAre(page, "slow requests", "3");
    await press(page, "slow requests: end");
    await numbersAre(page, "slow requests", "0");
    await move(page, label, 64);
  },
  "probes to each": async (page, label) => {
    const sent = (low, high) => page.waitForFunction((from, to) => Number(document.querySelector(".driver").dataset.sent) > from && Number(document.querySelector(".driver").dataset.sent) < to, {}, low, high);
    await sent(150, 250);
    await move(page, label, 20);
    await sent(30, 50);
    await move(page, label, 100);
  },
  threads: async (page, label) => {
    const about = (threads) => page.waitForFunction((count) => document.querySelector(".stage-panes .about").textContent.includes(`one of ${count} `), {}, threads);
    await about(2);
    await move(page, label, 3);
    await about(3);
    await serving(page, 2);
    await move(page, label, 2);
    await about(2);
    await serving(page, 2);
  },
  processes: async (page, label) => {
    const have = (count) => page.waitForFunction((wanted) => [...document.querySelectorAll(".stage-panes .state")].every((one) => one.dataset.state === "serving" && (/process(?:es)? ([\d, ]+)/.exec(one.textContent)?.[1] ?? "").split(", ").filter(Boolean).length === wanted), {}, count);
    await have(1);
    await move(page, label, 2);
    await have(2);
    await move(page, label, 1);
    await have(1);
  },
};

/** What each button below a pane does, by its words. */
const PANE_BUTTONS = ["reload", "kill a worker", "start again"];

/** The controls that are there from the first, by selector. */
const DESK = {
  ".desk .controls > button": async (page, at) => {
    const word = await text(page, ".desk .controls > button", at);
    assert.ok(BUTTONS[word], `'${word}' is not in the list`);
    await BUTTONS[word](page, () => click(page, ".desk .controls > button", at));
  },
  ".desk summary": async (page, at) => {
    for (const isOpen of [false, true]) {
      await click(page, ".desk summary", at);
      assert.deepEqual(await page.$$eval(".desk select, .desk .slider input", (found) => [...new Set(found.map((one) => one.checkVisibility()))]), [isOpen]);
    }
  },
  ".desk select": async (page, at) => {
    const choose = async (name) => (await all(page, ".desk select", at)).select(name);
    const old = await names(page);
    // A place after the last one adds a pane, and emptied it takes the pane away.
    const wanted = [...old];
    wanted[Math.min(at, old.length)] = OTHER;
    await choose(OTHER);
    const shows = (list) => page.waitForFunction((goal) => [...document.querySelectorAll(".stage-panes h2")].map((one) => one.textContent).join() === goal, {}, list.join());
    await shows(wanted);
    await serving(page, wanted.length);
    const place = Math.min(at, old.length);
    await (await all(page, ".desk select", place)).select(old[place] ?? "");
    await shows(old);
    await serving(page, old.length);
  },
  ".desk .slider input": async (page, at) => {
    const label = await (await all(page, ".desk .slider input", at)).evaluate((one) => one.closest("label").querySelector("span").firstChild.textContent);
    assert.ok(SLIDERS[label], `'${label}' is not in the list`);
    await SLIDERS[label](page, label);
  },
  ".desk .tick input": async (page, at) => {
    const asked = [];
    const note = (request) => asked.push(request.postData());
    page.on("request", note);
    await click(page, ".desk .tick input", at);
    await tabs(page, () => press(page, "open 2 tabs on /sleep"));
    await click(page, ".desk .tick input", at);
    await tabs(page, () => press(page, "open 2 tabs on /timer"));
    page.off("request", note);
    assert.deepEqual(asked.map((body) => JSON.parse(body).spins), [false, true]);
  },
  ".pane .buttons button": async (page, at) => {
    const word = await text(page, ".pane .buttons button", at);
    assert.ok(PANE_BUTTONS.includes(word), `'${word}' is not in the list`);
    const [pane, old] = [Math.floor(at / PANE_BUTTONS.length), await pids(page)];
    await click(page, ".pane .buttons button", at);
    const now = await replaced(page, [pane], old);
    assert.deepEqual(now[1 - pane], old[1 - pane], "the other one is left alone");
  },
};

/** The controls of the tour, by selector. */
const TOUR = [".tour .step > button", ".tour .guesses button", ".tour .step .buttons button"];

/** Fails on a control that is in no list, or in two. Returns how many there are for each selector. */
async function counted(page) {
  const selectors = [...Object.keys(DESK), ...TOUR];
  const { unknown, counts } = await page.evaluate((controls, own) => {
    const known = [...document.querySelectorAll(controls)].map((one) => [one, own.filter((selector) => one.matches(selector))]);
    return { unknown: known.filter(([, found]) => found.length !== 1).map(([one, found]) => `${one.outerHTML.slice(0, 100)}: ${found}`), counts: own.map((selector) => document.querySelectorAll(selector).length) };
  }, CONTROLS, selectors);
  assert.deepEqual(unknown, [], "each control is in a list, once");
  return new Map(selectors.map((selector, at) => [selector, counts[at]]));
}

test("every control above and below the panes is used and does what it says", async (context) => {
  const running = await lab(...SHOWN);
  try {
    const { page, troubles } = await open(browser, running);
    await opened(page);
    const counts = await counted(page);
    for (const [selector, use] of Object.entries(DESK)) {
      await context.test(selector, async () => {
        assert.ok(counts.get(selector) > 0, `nothing is ${selector}`);
        for (let at = 0; at < counts.get(selector); at += 1) await use(page, at);
        assert.equal(await page.$eval(".said", (one) => one.textContent), "", "nothing was refused");
      });
    }
    assert.deepEqual([counts.get(".desk .controls > button"), counts.get(".desk .slider input")], [Object.keys(BUTTONS).length, Object.keys(SLIDERS).length], "each is there");
    await uniqueIds(page);
    assert.deepEqual(troubles, []);
    await page.close();
  } finally {
    await end(running);
  }
});

test("every control of the tour is used and does what it says", async () => {
  const { STEPS } = await load("lab/tour.ts");
  const running = await lab();
  try {
    const { page, troubles } = await open(browser, running);
    const [starts, guesses, buttons] = TOUR;
    const words = (selector) => page.$$eval(selector, (found) => found.map((one) => one.textContent));
    const answered = async (step, option) => {
      const told = await page.$eval(".answer", (one) => one.textContent);
      assert.ok(told.startsWith(option === step.right ? "Right. " : `No: ${step.options[step.right]}. `), told);
      assert.ok(await page.$$eval(guesses, (found) => found.every((one) => one.disabled)), "there is one guess");
    };
    // Each guess of the first step, and what comes after it.
    for (let option = 0; option < STEPS[0].options.length; option += 1) {
      await page.reload();
      await opened(page);
      assert.equal((await counted(page)).get(starts), 1);
      const old = await pids(page);
      await click(page, starts, 0);
      await page.waitForFunction((title) => document.querySelector(".step h2")?.textContent === title, {}, `1 of ${STEPS.length}: ${STEPS[0].title}`);
      // The servers of the step are new ones; what is asked of those before is lost with them.
      await replaced(page, [0, 1], old);
      await guessable(page);
      await counted(page);
      assert.deepEqual(await words(guesses), STEPS[0].options);
      await tabs(page, () => click(page, guesses, option));
      await answered(STEPS[0], option);
    }
    await tabs(page, () => click(page, buttons, 0));
    for (const [number, step] of STEPS.entries()) {
      if (number > 0) {
        await click(page, buttons, STEPS[number - 1].acts.length);
        assert.equal(await page.$eval(".step h2", (one) => one.textContent), `${number + 1} of ${STEPS.length}: ${step.title}`);
        await guessable(page);
        await click(page, guesses, number % step.options.length);
        await answered(step, number % step.options.length);
      }
      await counted(page);
      assert.deepEqual(await words(buttons), [...step.acts.map(() => "again"), number + 1 < STEPS.length ? "next" : "from the beginning"]);
      // What the guess has done is done again.
      for (const [at, what] of step.acts.entries()) {
        const answer = page.waitForResponse((one) => one.url().endsWith("/act") && JSON.stringify(JSON.parse(one.request().postData())) === JSON.stringify(what));
        await click(page, buttons, at);
        assert.equal((await answer).status(), 204);
      }
    }
    await click(page, buttons, STEPS.at(-1).acts.length);
    assert.equal(await page.$eval(".step", (one) => one.dataset.step), "0");
    await uniqueIds(page);
    assert.deepEqual(troubles, []);
    await page.close();
  } finally {
    await end(running);
  }
});

test("the keyboard alone reaches every control of the lab, opens tabs, moves a slider and goes through the tour", async () => {
  const running = await lab();
  try {
    const { page, troubles } = await open(browser, running);
    await opened(page);
    assert.deepEqual(await missedByKeyboard(page), []);
    const focused = () => page.evaluate(() => document.activeElement.textContent);
    const tabTo = async (wanted) => {
      for (let press = 0; !(await focused()).startsWith(wanted); press += 1) {
        assert.ok(press < 60, `Tab does not reach ${wanted}`);
        await page.keyboard.press("Tab");
      }
    };
    const took = await tabs(page, async () => {
      await tabTo("open 2 tabs");
      await page.keyboard.press("Enter");
    });
    assert.equal(took.length, 4);
    const probes = '.slider input[max="1000"]';
    await page.focus(probes);
    await page.keyboard.press("ArrowRight");
    const rate = await page.$eval(probes, (one) => one.value);
    await page.waitForFunction((selector, value) => document.querySelector(selector).closest(".slider").querySelector("output").textContent === `${value} /s`, {}, probes, rate);
    assert.equal(rate, "101");

    await tabTo("start the tour");
    await page.keyboard.press("Enter");
    for (let step = 1; step <= 2; step += 1) {
      await page.waitForSelector(`.step[data-step="${step - 1}"]`);
      assert.match(await focused(), new RegExp(`^${step} of 7`));
      await guessable(page);
      await page.keyboard.press("Tab");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => /^(Right|No)/.test(document.querySelector(".step .answer").textContent));
      assert.equal(await focused(), "again");
      await page.keyboard.press("Tab");
      assert.equal(await focused(), "next");
      await page.keyboard.press("Enter");
    }
    assert.deepEqual(troubles, []);
    await page.close();
  } finally {
    await end(running);
  }
});
