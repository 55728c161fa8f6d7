// The lab: pick servers, press, and watch.

import { onSystemTheme, setTheme } from "../colors";
import { button, choice, h, marks } from "../dom";
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
const connection = h("p", { class: "lost", role: "alert" });
let isLost = false;
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
    nameTabs();
    restart();
  },
});

const tabs = button("", () => void act({ act: "tabs", count: 2, length_ms: length.value(), spins: spins.checked }));

/** Says which page the tabs are opened on: a user's own server has a slow page of its own. */
function nameTabs(): void {
  const own = known?.panes.filter((pane) => pane.is_own).length ?? 0;
  const ours = spins.checked ? "/timer" : "/sleep";
  const page = own === 0 ? ours : own === known?.panes.length ? "the slow page" : `${ours}, or the slow page of your server`;
  tabs.textContent = `open 2 tabs on ${page}`;
}

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
  if (servers.length === 0) said.textContent = "No server is chosen, so those of before go on: choose at least one.";
  else void act({ act: "show", servers, threads: threads.value(), processes: processes.value() });
}

function takePanes(now: Panes): void {
  const isOther = known === null || known.panes.map((pane) => pane.name).join() !== now.panes.map((pane) => pane.name).join();
  // A slider that somebody holds is left alone.
  if (known?.threads !== now.threads) threads.set(now.threads);
  if (known?.processes !== now.processes) processes.set(now.processes);
  if (known?.rate !== now.rate) rate.set(now.rate);
  // Sliders show the slow requests that run, whoever has started them: moving one of the three asks for the values of all.
  const isSame = known && known.blockers === now.blockers && known.length_ms === now.length_ms && known.spins === now.spins;
  if (now.blockers > 0 && !isSame) {
    blockers.set(now.blockers);
    length.set(now.length_ms);
    spins.checked = now.spins;
  }
  known = now;
  nameTabs();
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

/** What waits for the servers of a step, or for those that are shown at first. */
let awaited: (() => void) | null = null;

/** Each pane has been started after this order, and is probed by now: of what is sent earlier, nobody sees what it does to the others. One that cannot start
    has said why; the others go on without it. */
function areProbed(before: number): boolean {
  const isProbed = (number: number) => {
    const frame = newest?.frame.panes[number];
    return frame !== undefined && (frame.p99 !== null || frame.failed > 0);
  };
  return known !== null && known.panes.every(({ start, state }, number) => start > before && (state === "failed" || (state === "serving" && isProbed(number))));
}

/** Says why nothing moves, and that what is seen is no longer so. */
function lose(why: string): void {
  isLost = true;
  connection.textContent = why;
  stage.classList.add("is-lost");
}

function takeFrame(frame: Frame): void {
  if (isLost) {
    isLost = false;
    connection.textContent = "";
    stage.classList.remove("is-lost");
  }
  newest = { frame, came: performance.now() };
  frame.panes.forEach((one, number) => panes[number]?.take(one, frame.t));
  awaited?.();
  late.take(frame);
  stage.classList.toggle("is-late", late.bands.length > 0);
}

/** Draws at the screen's pace: between two frames of the lab time goes on. */
function draw(): void {
  if (newest && !isLost) {
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
  const body = h("div", { class: "step", "aria-live": "polite" });
  const open = (number: number) => {
    const step: Step = STEPS[number];
    const title = h("h2", { tabindex: -1 }, `${number + 1} of ${STEPS.length}: ${step.title}`);
    const guesses = h("div", { class: "guesses" });
    const answer = h("p", { class: "answer", role: "status" });
    const waiting = h("p", { class: "about waiting" }, "You can guess as soon as the servers answer.");
    const after = h("p", { class: "buttons" });
    const guess = (option: number) => {
      setOpen(false);
      for (const what of step.acts) void act(what.act === "blockers" ? { ...what } : what);
      answer.textContent = `${option === step.right ? "Right." : `No: ${step.options[step.right]}.`} ${step.answer}`;
      after.replaceChildren(
        ...step.acts.map((what) => button("again", () => void act(what))),
        " ",
        number + 1 < STEPS.length ? button("next", () => open(number + 1)) : button("from the beginning", () => open(0)),
      );
      after.querySelector("button")?.focus();
    };
    const setOpen = (isOpen: boolean) => {
      for (const one of guesses.querySelectorAll("button")) one.disabled = !isOpen;
    };
    guesses.append(...step.options.map((text, option) => button(text, () => guess(option))));
    setOpen(false);
    body.replaceChildren(title, h("p", {}, step.text), h("p", { class: "question" }, step.question), guesses, waiting, answer, after);
    body.dataset.step = String(number);
    title.focus();
    const before = Math.max(0, ...(known?.panes.map((pane) => pane.start) ?? []));
    awaited = () => {
      if (!areProbed(before)) return;
      awaited = null;
      waiting.remove();
      setOpen(true);
    };
    void act({ act: "blockers", count: 0, length_ms: length.value(), spins: false }).then(() => act({ act: "show", ...step.show }));
  };
  const start = button("start the tour", () => open(0));
  body.append(start);
  return h("section", { class: "tour", "aria-label": "tour" }, body);
}

setBlocking(false);
nameTabs();
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
  connection,
  said,
  late.element,
  marks([
    ["dot instant", "answered within 0.1 s"],
    ["dot flow", "within 1 s"],
    ["dot attention", "within 10 s"],
    ["dot lost", "later, or failed"],
    ["dot pending", "not answered yet: it rises with its age"],
    ["bar done", "slow request that has ended"],
    ["bar held", "slow request on its way"],
    ["bar lost", "slow request that failed"],
    ["p99", "p99 of the last 3 s"],
    ["lag", "lag felt: the time for which / had gone unanswered at that moment, which is what an event loop's lag is from outside"],
    ["late", "the driver was late: the picture may show the driver, not the servers"],
  ]),
  stage,
  h("p", { class: "about" }, "The lag that a server reports is the longest time for which one request held one of its loops in the last second."),
  driver,
);
listen(
  takeFrame,
  takePanes,
  () => panes.forEach((pane) => pane.miss(newest?.frame.t ?? 0)),
  () => lose("Connection lost: the lab has ended, or this page cannot reach it. It goes on by itself once the lab answers."),
  () => lose("The lab has ended, or this address holds another token: open the one that `stallbench lab` printed."),
);
requestAnimationFrame(draw);
// Something moves at once: two tabs, as soon as both servers serve and are probed.
awaited = () => {
  if (!known || known.panes.length < 2 || known.panes.some((pane) => pane.state !== "serving") || !areProbed(-1)) return;
  awaited = null;
  void act({ act: "tabs", count: 2, length_ms: length.value(), spins: true });
};
document.documentElement.dataset.ready = "yes";
