// The lab: pick servers, press, and watch.

import { onSystemTheme, setTheme } from "../colors";
import { button, choice, h } from "../dom";
import { Late } from "./late";
import { Pane } from "./pane";
import { type Ask, type Frame, type Panes, ask, listen } from "./protocol";
import { STEPS, type Step } from "./tour";

/** Frames whose age is remembered. */
const REMEMBERED = 400;

const panes: Pane[] = [];
let known: Panes | null = null;
let newest: { frame: Frame; came: number } | null = null;
const ages: number[] = [];
let written = 0;

const said = h("p", { class: "said", role: "alert" });
const late = new Late();
const driver = h("p", { class: "about driver" });
const stage = h("div", { class: "stage-panes" });
const pickers = h("div", { class: "controls" });

async function act(what: Ask): Promise<void> {
  said.textContent = (await ask(what)) ?? "";
}

interface Slider {
  element: HTMLElement;
  value: () => number;
  set: (value: number) => void;
}

function slider(label: string, low: number, high: number, value: number, unit: string, changed: () => void): Slider {
  const input = h("input", { type: "range", min: low, max: high, value, oninput: () => tell(), onchange: changed });
  const output = h("output", {}, `${value}${unit}`);
  const tell = () => {
    output.textContent = `${input.value}${unit}`;
  };
  return {
    element: h("label", { class: "slider" }, h("span", {}, label, " ", output), input),
    value: () => Number(input.value),
    set: (next) => {
      input.value = String(next);
      tell();
    },
  };
}

const length = slider("length of a slow request", 10, 9000, 900, " ms", () => restart());
const blockers = slider("slow requests at a time", 1, 256, 64, "", () => restart());
const rate = slider("probes to each", 10, 1000, 100, " /s", () => void act({ act: "rate", per_s: rate.value() }));
const threads = slider("threads", 1, 16, 2, "", () => show());
const processes = slider("processes", 1, 8, 1, "", () => show());
const spins = h("input", {
  type: "checkbox",
  checked: true,
  onchange: () => {
    tabs.textContent = `open 2 tabs on ${spins.checked ? "/timer" : "/sleep"}`;
    restart();
  },
});

const tabs = button("open 2 tabs on /timer", () => void act({ act: "tabs", count: 2, length_ms: length.value(), spins: spins.checked }));
let isBlocking = false;
const toggle = button("", () => {
  setBlocking(!isBlocking);
  block();
});

function setBlocking(is: boolean): void {
  isBlocking = is;
  toggle.textContent = `slow requests: ${is ? "end" : "start"}`;
}

function block(): void {
  void act({ act: "blockers", count: isBlocking ? blockers.value() : 0, length_ms: length.value(), spins: spins.checked });
}

function restart(): void {
  if (isBlocking) block();
}

function chosen(): string[] {
  return [...pickers.querySelectorAll("select")].map((select) => select.value).filter(Boolean);
}

function show(): void {
  const servers = chosen();
  if (servers.length > 0) void act({ act: "show", servers, threads: threads.value(), processes: processes.value() });
}

function takePanes(now: Panes): void {
  const isOther = known === null || known.panes.map((pane) => pane.name).join() !== now.panes.map((pane) => pane.name).join();
  // A slider that somebody holds is left alone.
  if (known?.threads !== now.threads) threads.set(now.threads);
  if (known?.processes !== now.processes) processes.set(now.processes);
  if (known?.rate !== now.rate) rate.set(now.rate);
  known = now;
  setBlocking(now.blockers > 0);
  while (panes.length > now.panes.length) panes.pop()?.element.remove();
  while (panes.length < now.panes.length) {
    const number = panes.length;
    const pane = new Pane(number, {
      reload: () => void act({ act: "reload", pane: number }),
      kill: () => void act({ act: "kill", pane: number }),
      start: () => void act({ act: "start", pane: number }),
    });
    panes.push(pane);
    stage.append(pane.element);
  }
  now.panes.forEach((shown, number) => panes[number].show(shown));
  if (!isOther) return;
  const options: [string, string][] = [["", "–"], ...now.servers.map(([name]): [string, string] => [name, name])];
  const focused = [...pickers.querySelectorAll("select")].findIndex((one) => one === document.activeElement);
  pickers.replaceChildren(...[0, 1, 2, 3].map((number) => choice(`server ${number + 1}`, options, now.panes[number]?.name ?? "", () => show())));
  pickers.querySelectorAll("select")[focused]?.focus();
}

function takeFrame(frame: Frame): void {
  newest = { frame, came: performance.now() };
  frame.panes.forEach((one, number) => panes[number]?.take(one, frame.t));
  late.take(frame);
  stage.classList.toggle("is-late", late.bands.length > 0);
}

/** Draws at the screen's pace: between two frames of the lab time goes on. */
function draw(): void {
  if (newest) {
    const now = newest.frame.t + (performance.now() - newest.came);
    for (const pane of panes) pane.draw(now, late.bands);
    if (performance.now() - written > 200) {
      written = performance.now();
      for (const pane of panes) pane.write();
      const { sent_per_s: sent, lag_p99: lag } = newest.frame;
      driver.textContent = `driver: ${sent.toFixed(0)} probes a second, sent ${(lag * 1000).toFixed(0)} µs after they were due at p99`;
      driver.dataset.sent = String(sent);
      driver.dataset.lag = String(lag);
    }
    if (newest.frame.wall > 0) {
      ages.push(performance.timeOrigin + performance.now() - newest.frame.wall);
      newest.frame.wall = 0;
      if (ages.length > REMEMBERED) ages.shift();
      document.documentElement.dataset.frames = String(Number(document.documentElement.dataset.frames ?? 0) + 1);
      const sorted = [...ages].sort((a, b) => a - b);
      document.documentElement.dataset.age = (sorted[Math.floor(sorted.length * 0.99)] ?? 0).toFixed(1);
    }
  }
  requestAnimationFrame(draw);
}

function tour(): HTMLElement {
  const body = h("div", { class: "step" });
  const open = (number: number) => {
    const step: Step = STEPS[number];
    const guesses = h("div", { class: "guesses" });
    const answer = h("p", { class: "answer", role: "status" });
    const after = h("p", { class: "buttons" });
    const guess = (option: number) => {
      for (const one of guesses.querySelectorAll("button")) one.disabled = true;
      for (const what of step.acts) void act(what.act === "blockers" ? { ...what } : what);
      answer.textContent = `${option === step.right ? "Right." : `No: ${step.options[step.right]}.`} ${step.answer}`;
      after.replaceChildren(
        ...step.acts.map((what) => button("again", () => void act(what))),
        " ",
        number + 1 < STEPS.length ? button("next", () => open(number + 1)) : button("from the beginning", () => open(0)),
      );
      after.querySelector("button")?.focus();
    };
    guesses.append(...step.options.map((text, option) => button(text, () => guess(option))));
    body.replaceChildren(h("h2", {}, `${number + 1} of ${STEPS.length}: ${step.title}`), h("p", {}, step.text), h("p", { class: "question" }, step.question), guesses, answer, after);
    body.dataset.step = String(number);
    void act({ act: "blockers", count: 0, length_ms: length.value(), spins: false }).then(() => act({ act: "show", ...step.show }));
  };
  const start = button("start the tour", () => open(0));
  body.append(start);
  return h("section", { class: "tour", "aria-label": "tour" }, body);
}

setBlocking(false);
setTheme("");
onSystemTheme(() => setTheme(""));
const main = document.getElementById("page");
main?.replaceChildren(
  h("header", {}, h("p", { class: "brand" }, "Stallbench lab"), h("h1", {}, "When a few requests block, does everyone else wait?"), h("p", {}, "Every server gets the same requests at the same instants. A dot is a request to /: the higher, the longer it took. A bar is a slow request.")),
  tour(),
  h(
    "section",
    { class: "desk", "aria-label": "controls" },
    h("div", { class: "controls" }, tabs, toggle, button("reload all", () => void act({ act: "reload", pane: null })), button("kill a worker of each", () => void act({ act: "kill", pane: null }))),
    // The picture is what one came for: on a narrow screen these would fill the first sight.
    h("details", { open: innerWidth > 600 }, h("summary", {}, "servers and sliders"), pickers, h("div", { class: "controls" }, length.element, blockers.element, rate.element, threads.element, processes.element, h("label", { class: "tick" }, spins, "slow requests spin (otherwise they sleep)"))),
  ),
  said,
  late.element,
  h(
    "ul",
    { class: "legend" },
    h("li", {}, h("span", { class: "swatch p99" }), "p99 of the last 3 s"),
    h("li", {}, h("span", { class: "swatch lag" }), "lag felt: the time for which / had gone unanswered at that moment, which is what an event loop's lag is from outside"),
    h("li", {}, h("span", { class: "swatch late" }), "the driver was late: the picture may show the driver, not the servers"),
  ),
  stage,
  h("p", { class: "about" }, "The lag that a server reports is the longest time for which one request held one of its loops in the last second."),
  driver,
);
listen(takeFrame, takePanes, () => {
  said.textContent = "The lab has ended, or this address holds another token: open the one that `stallbench lab` printed.";
});
requestAnimationFrame(draw);
// Something moves at once: two tabs, as soon as both servers serve.
const opening = setInterval(() => {
  if (known && known.panes.length > 1 && known.panes.every((pane) => pane.state === "serving")) {
    clearInterval(opening);
    void act({ act: "tabs", count: 2, length_ms: length.value(), spins: true });
  }
}, 200);
document.documentElement.dataset.ready = "yes";
