// The driver with the lab and without it: the same probes to the same server, sent by `stallbench drive`, by a lab whose frames a program reads and
// drops, and by a lab whose page a browser draws.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { request } from "node:http";
import { createInterface } from "node:readline";
import { end, lab, open, root, serving } from "./test/labs.mjs";
import { stallbench } from "./test/rounds.mjs";

/** One that no slow request freezes: the driver never waits for a connection. */
const SERVER = "std-thread-per-connection";
/** Probes a second, connections, and the length of a slow request in ms: those of the lab. */
const [RATE, CONNECTIONS, LENGTH] = [100, 256, 900];
/** The time that the lab's numbers look back over, in s; windows of that length for each run, and the time before them. */
const [BACK, WINDOWS, BEFORE] = [3, 4, 2];
const REPEATS = 3;

const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Reads a window after another. */
async function windows(read) {
  const all = [];
  await wait(BEFORE);
  for (let window = 0; window < WINDOWS; window += 1) {
    await wait(BACK);
    all.push(await read());
  }
  return all;
}

/** A program of the project, and the first line that it prints. */
async function started(...words) {
  const child = spawn(stallbench, words, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  const line = once(createInterface({ input: child.stdout }), "line").then(([text]) => text);
  const first = await Promise.race([line, exited.then(() => undefined)]);
  if (first === undefined) throw new Error(`stallbench ${words.join(" ")} ended before it served`);
  return { child, line: first, exited };
}

/** Runs `stallbench drive`, and returns what it measured. */
async function drive(url, seconds, ...more) {
  const child = spawn(stallbench, ["drive", url, "--duration", String(seconds), "--json", ...more], { cwd: root, stdio: ["ignore", "pipe", "ignore"] });
  let text = "";
  child.stdout.on("data", (piece) => (text += piece));
  await once(child, "close");
  return JSON.parse(text);
}

async function withoutLab(_, slow) {
  const server = await started("serve", SERVER, "--listen", "127.0.0.1:0");
  const url = /http:\/\/\S+/.exec(server.line)[0];
  const seconds = BEFORE + BACK * WINDOWS + 2;
  const blocked = slow > 0 ? drive(`${url}/timer?ms=${LENGTH}`, seconds, "--closed", "--connections", String(slow)) : null;
  await wait(BEFORE);
  const all = [];
  for (let window = 0; window < WINDOWS; window += 1) {
    const { planned, lag_p99_us: lag } = await drive(url, BACK, "--rate", String(RATE), "--connections", String(CONNECTIONS));
    all.push({ sent: planned / BACK, lag });
  }
  await blocked;
  server.child.kill("SIGINT");
  await server.exited;
  return all;
}

/** A lab that shows one server, whose frames somebody takes. */
async function inLab(slow, take) {
  const running = await lab(SERVER);
  const token = running.url.searchParams.get("token");
  const begin = () => fetch(new URL("/act", running.url), { method: "POST", headers: { "x-token": token }, body: JSON.stringify({ act: "blockers", count: slow, length_ms: LENGTH, spins: true }) });
  const all = await take(running, begin);
  await end(running);
  return all;
}

const read = (_, slow) =>
  inLab(slow, async (running, begin) => {
    const token = running.url.searchParams.get("token");
    const [answer] = await once(request(new URL(`/events?token=${token}`, running.url)).end(), "response");
    let frame = {};
    const lines = createInterface({ input: answer });
    const serves = new Promise((done) => {
      lines.on("line", (line) => {
        if (line.startsWith('data: {"t"')) frame = JSON.parse(line.slice(6));
        if (line.includes('"state":"serving"')) done();
      });
    });
    await serves;
    await begin();
    const all = await windows(() => ({ sent: frame.sent_per_s, lag: 1000 * frame.lag_p99 }));
    answer.destroy();
    return all;
  });

const drawn = (browser, slow) =>
  inLab(slow, async (running, begin) => {
    const { page } = await open(browser, running);
    await serving(page, 1);
    await begin();
    const all = await windows(() => page.$eval(".driver", (one) => ({ sent: Number(one.dataset.sent), lag: 1000 * Number(one.dataset.lag) })));
    await page.close();
    return all;
  });

const WAYS = { "without the lab": withoutLab, "a lab whose frames are read": read, "a lab whose page is drawn": drawn };

/** Compares the three, which take turns, beside no slow request and beside many. */
export async function drivers(browser) {
  for (const slow of [0, 64]) {
    const found = Object.fromEntries(Object.keys(WAYS).map((name) => [name, []]));
    for (let repeat = 0; repeat < REPEATS; repeat += 1) {
      for (const [name, way] of Object.entries(WAYS)) found[name].push(...(await way(browser, slow)));
    }
    const medians = ([name, all]) => ({ name, ratio: median(all.map(({ sent }) => sent / RATE)), lag: median(all.map(({ lag }) => lag)) });
    const [first, ...rest] = Object.entries(found).map(medians);
    const told = ({ ratio, lag }) => `${(100 * ratio).toFixed(1)} % of ${RATE} probes a second, ${lag.toFixed(0)} µs late at p99`;
    console.log(`driver beside ${slow} slow requests, medians of ${REPEATS * WINDOWS} windows of ${BACK} s:`);
    console.log(`  ${first.name}: ${told(first)}`);
    for (const one of rest) console.log(`  ${one.name}: ${told(one)}; ${(100 * (one.ratio - first.ratio)).toFixed(1)} % and ${(one.lag - first.lag).toFixed(0)} µs more`);
  }
}
