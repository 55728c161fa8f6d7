// Comparisons between two servers of the round, or between two rounds.

import type { Judged, Page, Value } from "./data";
import { choice, coded, h, source } from "./dom";
import { csv, significant, words } from "./format";
import type { State } from "./state";
import { apart } from "./stats";
import { type Verdict, judge, ratioOf } from "./verdict";

interface Line {
  metric: string;
  before: string;
  after: string;
  verdict: string;
  why: string;
  size: number;
}

/** The median, or both heaps where no trial was between them. */
function shown({ median, heaps }: { median: Value; heaps: [number, number] | null }, unit: string): string {
  return (heaps ?? [median]).map((value) => words(value, unit)).join(" or ");
}

/** A verdict in words. A time that was not reached was not measured, since fewer blockers had frozen the server; a threshold that was not reached is good. */
function told({ metric, change, differs, order }: Verdict): string {
  if (!differs) return "cannot be told apart";
  const word = order > 0 === metric.is_more_better ? "better" : "worse";
  if (change === "no_longer_reached") return `${word}: ${metric.is_threshold ? "it does not freeze" : "it is frozen"}`;
  if (change === "reached_now") return `${word}: ${metric.is_threshold ? "it freezes" : "it is not frozen"}`;
  const ratio = ratioOf(change);
  const bound = typeof change === "string" || "ratio" in change ? "" : "ratio_at_least" in change ? "at least " : "at most ";
  return ratio === null ? word : `${word} ${bound}x ${significant(ratio)}`;
}

/** Every metric that both servers have, the largest differences first. */
export function lines(page: Pick<Page, "metrics" | "values">, a: string, b: string): Line[] {
  const found = judge(page, a, b).map((one) => {
    const { metric, p, noise } = one;
    const pairs = apart(page.values[a][page.metrics.indexOf(metric)].values, page.values[b][page.metrics.indexOf(metric)].values);
    const why = [
      `${Math.max(pairs.above, pairs.below)} of ${pairs.of} pairs of trials apart`,
      `p = ${p.toFixed(4)}`,
      noise === null ? null : `noise x ${significant(noise)}`,
      one.canDiffer ? null : "no order of these values could show a difference",
      one.canDiffer && !one.isDiscovery && p < 0.05 ? `among all that is compared of ${metric.family}, chance explains it` : null,
      one.isClaimed ? null : `less than ${metric.least} ${metric.unit} is not claimed`,
    ];
    return {
      metric: metric.name,
      before: shown(one.before, metric.unit),
      after: shown(one.after, metric.unit),
      verdict: told(one),
      why: why.filter(Boolean).join("; "),
      size: one.differs ? one.size : -1,
    };
  });
  return found.sort((one, other) => (one.size === other.size ? 0 : other.size - one.size));
}

const KINDS = [false, false, true, true];

/** A comparison with the command that judges it, to be kept as a file of this name. */
function table(caption: string, command: string, name: string, heads: [string, string], rows: { cells: string[]; isWord: boolean[] }[]): HTMLElement {
  const head = ["metric", ...heads, "verdict", "why"];
  const body = h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", { class: "compare" }, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...head.map((word, at) => h("th", { scope: "col", class: at === 0 || KINDS[at - 1] ? "words" : "number" }, word)))), h("tbody", {}, ...rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.cells[0]), ...row.cells.slice(1).map((text, at) => h("td", { class: row.isWord[at] ? "words" : "number" }, text)))))),
  );
  return h("div", {}, body, source(command, name, { CSV: () => csv([head, ...rows.map((row) => row.cells)]) }));
}

/** Two servers of the round against one another; `null` where fewer than two have values. */
export function servers(page: Page, state: State): HTMLElement | null {
  const names = page.order.map(([name]) => name).filter((name) => Object.keys(page.values[name] ?? {}).length > 0);
  if (names.length < 2) return null;
  const pair = (): [string, string] => {
    const [a, b] = state.view.pair ?? [];
    const usual = page.shown.filter((name) => names.includes(name));
    return [a && names.includes(a) ? a : (usual[0] ?? names[0]), b && names.includes(b) ? b : (usual[1] ?? names[1] ?? names[0])];
  };
  const body = h("div", { class: "result" });
  const options = names.map((name): [string, string] => [name, name]);
  const pickers = h("div", { class: "controls" }, choice("first", options, pair()[0], (name) => state.set({ pair: [name, pair()[1]] })), choice("second", options, pair()[1], (name) => state.set({ pair: [pair()[0], name] })));
  const draw = () => {
    const [a, b] = pair();
    for (const [at, select] of [...pickers.querySelectorAll("select")].entries()) select.value = [a, b][at];
    const rows = lines(page, a, b).map((line) => ({ cells: [line.metric, line.before, line.after, line.verdict, line.why], isWord: KINDS }));
    body.replaceChildren(table(`${b} against ${a}: medians over trials, the largest differences first`, `stallbench report ${page.name}`, `${b}-against-${a}`, [a, b], rows));
  };
  state.on(["pair"], draw);
  draw();
  return h("div", {}, pickers, body, h("p", { class: "note" }, ...coded(page.noise_note), `. Two servers differ where the exact rank-sum test says so (5 %, Benjamini-Hochberg over each family of metrics) and the change exceeds noise, as `, h("code", {}, "stallbench compare"), " judges."));
}

/** Two rounds against one another: first what differs, and what does not is folded. */
export function rounds(page: Page): HTMLElement | null {
  const { beside } = page;
  if (!beside) return null;
  const cells = (line: Judged) => [`${line.server} ${line.metric}`, words(line.before, line.unit), words(line.after, line.unit), line.words, line.why];
  const sorted = [...beside.lines].sort((a, b) => b.size - a.size);
  const rows = (differs: boolean) => sorted.filter((line) => line.differs === differs).map((line) => ({ cells: cells(line), isWord: KINDS }));
  // What is shown is what was judged, which is not what the round itself says.
  const corrected = beside.is_corrected ? ", corrected for the machine" : "";
  const heads: [string, string] = [page.name, `${beside.name}${corrected}`];
  const caption = `${beside.name}${corrected}, against ${page.name}`;
  const command = `stallbench compare ${page.name} ${beside.name}`;
  const file = `${beside.name}-against-${page.name}`;
  const [differing, others] = [rows(true), rows(false)];
  const first = differing.length > 0 ? table(`${caption}: the largest changes first`, command, file, heads, differing) : h("p", {}, "Nothing differs by more than noise.");
  const folded = others.length > 0 ? h("details", {}, h("summary", {}, `Show the other ${others.length} numbers, which do not differ or cannot be told apart`), table(`${caption}: what does not differ`, command, `${file}-others`, heads, others)) : null;
  return h("div", {}, first, folded, h("ul", { class: "notes" }, ...beside.notes.map((note) => h("li", {}, ...coded(note)))));
}
