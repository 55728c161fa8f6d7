// Reports for tests: of recorded rounds, and of rounds that are changed on the way.

import { execFileSync } from "node:child_process";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { temporary } from "./modules.mjs";

const root = join(import.meta.dirname, "../..");
export const stallbench = process.env.STALLBENCH ?? join(root, "target/release/stallbench");

/** The address space of a report's writer, in KiB: 300 MB. */
const MOST_KIB = Math.floor(300e6 / 1024);

/** The folder of a recorded round. */
export const recorded = (name) => join(root, "bench-results", name);

/** A folder of its own. */
export const folder = () => temporary("stallbench-report-");

/** Writes the report of a round, and returns its path and its numbers. */
export function report(round, ...beside) {
  const path = join(folder(), "report.html");
  // More address space than that is more memory than a report may take.
  const script = `ulimit -v ${MOST_KIB} && exec "$0" "$@"`;
  execFileSync("bash", ["-c", script, stallbench, "report", round, ...beside, "--out", path], { stdio: ["ignore", "ignore", "inherit"] });
  return { path, numbers: numbers(path) };
}

/** The numbers in a page. */
export function numbers(path) {
  const text = readFileSync(path, "utf8");
  const start = text.indexOf('<script id="numbers" type="application/json">');
  const from = text.indexOf(">", start) + 1;
  return JSON.parse(text.slice(from, text.indexOf("</script>", from)));
}

/** A page with other numbers. */
export function changed(path, change) {
  const text = readFileSync(path, "utf8");
  const all = numbers(path);
  change(all);
  const start = text.indexOf('<script id="numbers" type="application/json">');
  const from = text.indexOf(">", start) + 1;
  const to = text.indexOf("</script>", from);
  const other = join(folder(), "report.html");
  writeFileSync(other, text.slice(0, from) + JSON.stringify(all).replaceAll("<", "\\u003c") + text.slice(to));
  return other;
}

/** A copy of a round whose header and trials a function changes. */
export function copy(round, change) {
  const to = folder();
  cpSync(round, to, { recursive: true });
  const header = JSON.parse(readFileSync(join(to, "round.json"), "utf8"));
  const trials = readFileSync(join(to, "trials.jsonl"), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  const kept = change(header, trials) ?? trials;
  writeFileSync(join(to, "round.json"), JSON.stringify(header));
  writeFileSync(join(to, "trials.jsonl"), kept.map((trial) => `${JSON.stringify(trial)}\n`).join(""));
  return to;
}

/** A round as large as one of all servers becomes: seven trials, and the state experiment of every server. Its numbers are those of recorded rounds. */
export function large() {
  const states = readFileSync(join(recorded("2026-11-28-vm-state"), "trials.jsonl"), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  const settings = JSON.parse(readFileSync(join(recorded("2026-11-28-vm-state"), "round.json"), "utf8")).settings.experiments.state;
  return copy(recorded("2026-11-29-vm"), (header, trials) => {
    header.settings.trials = 7;
    header.settings.experiments.state = settings;
    const more = trials.filter((one) => one.trial === 6).map((one) => ({ ...one, trial: 7 }));
    const ofState = header.servers.flatMap(({ name }, row) => Array.from({ length: 7 }, (_, at) => ({ ...states[(7 * row + at) % states.length], server: name, trial: at + 1 })));
    return [...trials, ...more, ...ofState];
  });
}

/** Requests as a page holds them: the time since the one before, and how long each took, in units; the connections of blockers; and the positions of those that got no answer. */
export function requests(since, took, connections = [], lost = []) {
  let [now, answer] = [0, 0];
  const answers = took.map((units, at) => {
    now += since[at];
    const expected = Math.max(now, answer);
    answer = now + units;
    const folded = answer < expected ? 2 * (expected - answer) - 1 : 2 * (answer - expected);
    return 2 * folded + Number(lost.includes(at));
  });
  return packed(leb128([...since, ...answers, ...connections]));
}

/** Bytes as a page holds them. */
export const packed = (bytes) => deflateRawSync(Buffer.from(bytes)).toString("base64");

function leb128(all) {
  const bytes = [];
  for (let number of all) {
    while (number >= 0x80) {
      bytes.push((number % 0x80) | 0x80);
      number = Math.floor(number / 0x80);
    }
    bytes.push(number);
  }
  return Buffer.from(bytes);
}

/** Rounds recorded before probes were kept get made-up ones: one probe each millisecond, held while a blocker of 100 ms is in flight. */
export function withTimelines(full) {
  const { path } = full;
  if (full.numbers.moments.timelines.length > 0) return full;
  const own = changed(path, (page) => {
    page.moments.timelines = page.shown.flatMap((server) => [1, 4].map((k) => timeline(server, k, 1000)));
  });
  return { path: own, numbers: numbers(own) };
}

/** A step beside k blockers of 100 ms, each sent when the one before ends; all times are in units of 10 µs. */
export function timeline(server, k, count) {
  const due = Array.from({ length: count }, (_, at) => (at === 0 ? 10_000 : 100));
  const took = Array.from({ length: count }, (_, at) => (at % 2 === 0 ? 10 : 10_000 - (at % 100) * 100));
  const all = Array.from({ length: Math.ceil(count / 100) + 1 }, (_, at) => at);
  const blockers = requests(all.map((at) => (at === 0 ? 0 : 10_000)), all.map(() => 10_000), all.map((at) => at % k));
  return { server, kind: "sleep", k, block_ms: 100, start_ms: 100, end_ms: 100 + count, probes: requests(due, took), blockers };
}
