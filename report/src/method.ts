// The section about the measurement: the machine, the settings, the receipt of each server, and every cell that is invalid.

import type { Page, Server } from "./data";
import { h } from "./dom";

function pairs(caption: string, rows: [string, string][]): HTMLElement {
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption), h("tbody", {}, ...rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "words" }, value))))),
  );
}

const text = (value: unknown): string => (typeof value === "object" ? JSON.stringify(value) : String(value));

/** The id of the element that holds the receipt of a server. */
export const receiptOf = ({ name }: Server): string => `receipt-${name}`;

function receipt(server: Server, threads: number): HTMLElement {
  const rows: [string, string][] = [];
  if (server.unavailable) rows.push(["unavailable", server.unavailable]);
  const own = server.receipt;
  if (own) {
    rows.push(["version", `${server.runtime} ${own.runtime_version}`], ["allocator", own.allocator], ["compiler", own.compiler], ["compiler flags", own.rustflags || "none"]);
    rows.push(["threads that run handlers", own.handler_threads], ["threads that may poll I/O", own.io_threads]);
    rows.push(...Object.entries(own.knobs));
  }
  rows.push(...Object.entries(server.unsupported).map(([name, reason]): [string, string] => [`cannot: ${name}`, reason]));
  return h("details", { id: receiptOf(server) }, h("summary", {}, server.name), pairs(`${server.name}: ${server.model}, a blocking call runs on ${server.runs_on.replace("{W}", String(threads)) || "–"}`, rows));
}

/** A reason without its figures: those that differ in nothing else are of one kind. */
const kindOf = (reason: string): string => reason.replace(/\d+(\.\d+)?/g, "#");

/** Every kind of reason for which a trial of a server does not count, with the first one in full. */
export function invalid(page: Page): [string, string, string, number][] {
  const found = new Map<string, [string, string, string, number]>();
  for (const [server, cells] of Object.entries(page.values)) {
    for (const [at, cell] of Object.entries(cells)) {
      for (const reason of cell.invalid ?? []) {
        const metric = page.metrics[Number(at)].name;
        const key = JSON.stringify([server, metric, kindOf(reason)]);
        const known = found.get(key);
        if (known) known[3] += 1;
        else found.set(key, [server, metric, reason, 1]);
      }
    }
  }
  return [...found.values()];
}

/** The section. */
export function method(page: Page): HTMLElement {
  const { header } = page;
  const bad = invalid(page);
  const settings: [string, string][] = [
    ["started", header.started],
    ["finished", header.finished ?? "not yet"],
    ["command", header.command.join(" ")],
    ...Object.entries(header.settings)
      .filter(([name]) => name !== "experiments")
      .map(([name, value]): [string, string] => [name.replaceAll("_", " "), name === "seed" ? page.seed : text(value)]),
    ...Object.entries(header.settings.experiments).map(([name, value]): [string, string] => [name, text(value)]),
  ];
  const machine = Object.entries(header.environment).map(([name, value]): [string, string] => [name.replaceAll("_", " "), text(value)]);
  const rows = bad.map((row) => h("tr", {}, h("th", { scope: "row" }, row[0]), h("td", { class: "words" }, row[1]), h("td", { class: "words" }, row[2]), h("td", { class: "number" }, String(row[3]))));
  const validity =
    bad.length === 0
      ? h("p", {}, "Every trial of every compared cell is valid.")
      : h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "invalid trials" }, h("table", { class: "reasons" }, h("caption", {}, "Trials that do not count, and why; of reasons that differ in their figures alone, the first one"), h("thead", {}, h("tr", {}, ...["server", "cell", "reason", "trials"].map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, ...rows)));
  return h(
    "div",
    {},
    pairs("The machine", machine),
    pairs("The settings", settings),
    h("h3", {}, "Validity"),
    validity,
    h("h3", {}, "Receipts: what each server says of itself"),
    ...header.servers.map((server) => receipt(server, header.settings.threads)),
  );
}
