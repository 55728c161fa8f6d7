// Tables: sorted by a click on a head, and filtered.

import type { Cell, Page, Table } from "./data";
import { button, choice, coded, h, showChoice, source } from "./dom";
import { csv } from "./format";
import { GRADES, STYLES, sample, styleOf } from "./colors";
import { FACETS, type Facet, type State } from "./state";

/** The words of a cell, with the word for what people feel of it. */
export function cell(one: Cell, isWords: boolean, attributes: Record<string, string> = {}): HTMLTableCellElement {
  const title = [one.i, one.w].filter(Boolean).join("; ");
  const classes = [isWords ? "words" : "number", one.g ? `grade ${one.g}` : ""].join(" ").trim();
  return h("td", { class: classes, title: title || undefined, ...attributes }, one.t, one.g ? h("span", { class: "word" }, ` ${one.g}`) : null, one.w ? h("span", { class: "why" }, ` ${one.w}`) : null);
}

/** A table as CSV, with intervals and reasons. */
function text(table: Table): string {
  return csv([table.columns.map((column) => column.head), ...table.rows.map((row) => row.cells.map((one) => one.w ?? one.i ?? one.t))]);
}

/** The names of all tables of the round. A figure may have the same name, so their files say what they are. An experiment may have several, which are numbered then. */
export function names(page: Page): string[] {
  const seen = new Map<string, number>();
  return page.tables.map(({ name }) => {
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    return count > 1 ? `${name}-${count}` : name;
  });
}

/** The id of the element that holds a table. */
export const idOf = (name: string): string => `table-${name}`;

/** All tables of the round. */
export function all(page: Page): HTMLElement[] {
  const own = names(page);
  return page.tables.map((table, at) => plain(table, page, own[at]));
}

/** A table of the round, with its notes; `name` is its own. */
function plain(table: Table, page: Page, name: string): HTMLElement {
  const head = h("tr", {}, ...table.columns.map((column) => h("th", { scope: "col", class: column.is_words ? "words" : "number" }, column.head)));
  const rows = table.rows.map((row) =>
    h("tr", {}, ...row.cells.map((one, at) => (at === 0 ? h("th", { scope: "row" }, one.t) : cell(one, table.columns[at].is_words)))),
  );
  return h(
    "details",
    { id: idOf(name) },
    h("summary", {}, table.title),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": table.title }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows))),
    h("ul", { class: "notes" }, ...table.notes.map((note) => h("li", {}, ...coded(note)))),
    source(`stallbench tables ${page.name} --table ${table.name} --intervals`, idOf(name), { CSV: () => text(table) }),
  );
}

/** The options of each facet. Groups come in the order of the page, the rest alphabetically or from quick to slow. */
export function facets(page: Page): Record<Facet, string[]> {
  const rows = page.tables[0]?.rows ?? [];
  const named = new Set(rows.map(nameOf));
  const told = page.header.servers.filter((server) => named.has(server.name));
  const once = (all: (string | null)[]) => [...new Set(all)].filter((one): one is string => one !== null);
  const grades = new Set(rows.map((row) => slowest(page.tables[0], row)));
  return {
    group: once(page.order.map(([, group]) => group)),
    runtime: once(told.map((server) => server.runtime)).sort(),
    model: once(told.map((server) => server.model)).sort(),
    grade: GRADES.filter((grade) => grades.has(grade)),
  };
}

type Row = Table["rows"][number];

/** The server of a row. */
const nameOf = (row: Row): string => row.cells[0].t.replace(/ \^$/, "");

/** The slowest grade of a row, in the columns that are always in sight: two tabs at once are slow on every server. */
function slowest(table: Table, row: Row | undefined): (typeof GRADES)[number] | undefined {
  const seen = new Set(row?.cells.filter((_, at) => !table.columns[at].is_wide).map((one) => one.g));
  return [...GRADES].reverse().find((grade) => seen.has(grade));
}

/** The table of all servers, which also chooses the servers that are drawn. */
export function servers(page: Page, state: State): HTMLElement {
  const table = page.tables[0];
  const rows = new Map(table.rows.map((row) => [nameOf(row), row]));
  const about = new Map(page.header.servers.map((server) => [server.name, server]));
  const columns = () => table.columns.map((column, at) => ({ ...column, at })).filter((column) => column.at === 0 || state.view.wide || !column.is_wide);
  const isOf = (name: string, facet: Facet, wanted: string): boolean => {
    const row = rows.get(name);
    return wanted === { group: row?.group, runtime: about.get(name)?.runtime, model: about.get(name)?.model, grade: slowest(table, row) }[facet];
  };

  const order = (): string[] => {
    const names = page.order.map(([name]) => name).filter((name) => rows.has(name));
    const { filter, sort } = state.view;
    let test = (_: string) => true;
    try {
      const pattern = new RegExp(filter, "i");
      test = (name) => {
        const server = about.get(name);
        return pattern.test(name) || (server !== undefined && [server.runtime, server.model].some((word) => pattern.test(word)));
      };
    } catch {
      // Half a pattern, while it is typed, lets everything through.
    }
    const shown = names.filter((name) => test(name) && FACETS.every((facet) => state.view[facet] === "" || isOf(name, facet, state.view[facet])));
    if (!sort) return shown;
    const [at, isDown] = sort;
    const key = (name: string) => rows.get(name)?.cells[at];
    return shown.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      // Cells without a number stand last in either direction.
      if (x?.n === undefined || y?.n === undefined) return x?.n === y?.n ? (x?.t ?? "").localeCompare(y?.t ?? "") * (isDown ? -1 : 1) : x?.n === undefined ? 1 : -1;
      return (x.n - y.n) * (isDown ? -1 : 1);
    });
  };

  const body = h("tbody");
  const head = h("thead");
  const count = h("p", { class: "count", role: "status" });
  const draw = () => {
    const { sort, servers: chosen } = state.view;
    const heads = columns().map((column) => {
      const isSorted = sort?.[0] === column.at;
      const turn = () => state.set({ sort: isSorted ? (sort?.[1] ? null : [column.at, true]) : [column.at, false] });
      const arrow = isSorted ? (sort?.[1] ? " ↓" : " ↑") : "";
      return h("th", { scope: "col", class: column.is_words ? "words" : "number", "aria-sort": isSorted ? (sort?.[1] ? "descending" : "ascending") : "none" }, button(column.head + arrow, turn));
    });
    const focused = [...head.querySelectorAll("button")].findIndex((one) => one === document.activeElement);
    head.replaceChildren(h("tr", {}, ...heads));
    head.querySelectorAll("button")[focused]?.focus();
    const names = order();
    let group: string | undefined;
    const lines: HTMLElement[] = [];
    for (const name of names) {
      const row = rows.get(name);
      if (!row) continue;
      if (!sort && row.group && row.group !== group) {
        group = row.group;
        lines.push(h("tr", { class: "group" }, h("th", { colspan: columns().length, scope: "colgroup" }, group)));
      }
      const style = styleOf(name, chosen);
      const box = h("input", { type: "checkbox", checked: chosen.includes(name), onchange: () => toggle(name) });
      const swatch = h("span", { class: "swatch", style: sample(style) });
      const first = h("th", { scope: "row" }, h("label", {}, box, swatch, row.cells[0].t));
      lines.push(h("tr", { "data-server": name }, first, ...columns().slice(1).map((column) => cell(row.cells[column.at], column.is_words))));
    }
    body.replaceChildren(...lines);
    const without = chosen.length - STYLES;
    const isMany = without > 0 ? `, but ${without} of them are not, since only ${STYLES} lines look different` : "";
    count.textContent = `${names.length} of ${rows.size} servers; ticked ones are drawn in colour${isMany}`;
  };
  const toggle = (name: string) => {
    const chosen = state.view.servers;
    state.set({ servers: chosen.includes(name) ? chosen.filter((other) => other !== name) : [...chosen, name] });
    body.querySelector<HTMLInputElement>(`tr[data-server="${CSS.escape(name)}"] input`)?.focus();
  };
  const filter = h("input", { type: "search", value: state.view.filter, placeholder: "tokio|smol", oninput: () => state.set({ filter: filter.value }) });
  const wide = h("input", { type: "checkbox", checked: state.view.wide, onchange: () => state.set({ wide: wide.checked }) });
  const offered = facets(page);
  const picked = FACETS.map((facet) => {
    const options: [string, string][] = [["", "all"], ...offered[facet].map((one): [string, string] => [one, one])];
    return choice(facet === "grade" ? "slowest grade" : facet, options, state.view[facet], (one) => state.set({ [facet]: one }));
  });
  state.on(["filter", ...FACETS, "sort", "servers", "wide", "theme"], (view) => {
    if (filter.value !== view.filter) filter.value = view.filter;
    wide.checked = view.wide;
    picked.forEach((one, at) => showChoice(one, view[FACETS[at]]));
    draw();
  });
  draw();
  return h(
    "div",
    {},
    h(
      "div",
      { class: "controls" },
      h("label", { class: "choice" }, h("span", {}, "name, runtime or model"), filter),
      // One group of many is a choice, and so is one of two or more of anything else.
      ...picked.filter((_, at) => offered[FACETS[at]].length > (FACETS[at] === "group" ? 0 : 1)),
      h("label", { class: "tick" }, wide, "all columns"),
      button("draw all shown", () => state.set({ servers: order() })),
      button("draw none", () => state.set({ servers: [] })),
      button("reset", () => state.set({ servers: page.shown })),
    ),
    count,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "servers" }, h("table", { class: "servers" }, h("caption", {}, table.title), head, body)),
    h("ul", { class: "notes" }, ...table.notes.map((note) => h("li", {}, ...coded(note)))),
    source(`stallbench tables ${page.name} --table ${table.name} --wide`, idOf(table.name), { CSV: () => text(table) }),
  );
}
