// The numbers that the harness puts into the page; see `bench/src/page/data.rs`.

/** A number, a lower bound, a threshold that nothing reached, or a step that was left out since fewer blockers froze the server. */
export type Value = number | { at_least: number } | { never_up_to: number } | "not reached";

/** The place and the median; the ends of its interval; 1 where the true value is larger; the middles of two heaps, where the trials fall into two; and the numbers of valid and of all trials, where some are invalid. */
export type Point = [x: number, y: number, low?: number | null, high?: number | null, isBound?: number | null, heap?: number | null, other?: number | null, valid?: number, all?: number];

export interface Series {
  name: string;
  points: Point[];
}

export interface Figure {
  name: string;
  title: string;
  x: { label: string; ticks: [number, string][]; marks: [number, string][] };
  y: { label: string; unit: string; is_log: boolean; limits: [number, string][] };
  series: Series[];
}

export interface Cell {
  t: string;
  n?: number;
  i?: string;
  g?: string;
  w?: string;
}

export interface Table {
  name: string;
  title: string;
  columns: { head: string; is_wide: boolean; is_words: boolean }[];
  rows: { group?: string; cells: Cell[] }[];
  notes: string[];
}

export interface Receipt {
  runtime_version: string;
  allocator: string;
  compiler: string;
  rustflags: string;
  handler_threads: string;
  io_threads: string;
  knobs: Record<string, string>;
}

export interface Server {
  name: string;
  runtime: string;
  model: string;
  http: string;
  is_peer: boolean;
  blocking: string | null;
  runs_on: string;
  unsupported: Record<string, string>;
  unavailable: string | null;
  receipt: Receipt | null;
}

export interface Header {
  started: string;
  finished: string | null;
  command: string[];
  settings: { mode: string; threads: number; trials: number; placement: string; left_out: string[]; experiments: Record<string, unknown> };
  environment: Record<string, string | number | boolean>;
  servers: Server[];
}

export interface Waterfall {
  server: string;
  length_ms: number;
  finished_ms: number[];
  /** When the server had read each request; missing where nothing tells. */
  read_ms?: number[];
}

export interface Timeline {
  server: string;
  kind: string;
  k: number;
  block_ms: number;
  start_ms: number;
  end_ms: number;
  invalid?: string;
  probes: string;
  blockers: string;
}

export interface Metric {
  name: string;
  /** Metrics of one family are judged as one table. */
  family: string;
  experiment: string;
  unit: string;
  /** A step on a ladder, which has no relative noise. */
  is_threshold: boolean;
  is_more_better: boolean;
  least: number;
}

export interface Judged {
  server: string;
  metric: string;
  unit: string;
  before: Value;
  after: Value;
  words: string;
  why: string;
  size: number;
  differs: boolean;
}

/** Who freezes beside one kind of slow request: the groups that are not empty, each with its servers. */
export interface Freezing {
  kind: string;
  groups: [string, string[]][];
}

export interface Page {
  name: string;
  /** The heading of the first figure. */
  heading: string;
  /** The result, and that of the other kinds of slow requests. */
  sentence: string;
  others: string[];
  is_about_freezing: boolean;
  freezing: Freezing[];
  header: Header;
  /** The seed as text: a number has too few digits for it. */
  seed: string;
  /** The trials of each cell that the round has; fewer than its settings say if it is not finished. */
  trials_found: number;
  /** The groups beside the first kind of slow request. */
  order: [string, string | null][];
  shown: string[];
  tables: Table[];
  figures: Figure[];
  moments: { waterfalls: Waterfall[]; timelines: Timeline[]; unit_ms: number };
  metrics: Metric[];
  values: Record<string, Record<string, { values: Value[]; noise?: number; invalid?: string[] }>>;
  noise_note: string;
  /** `is_corrected`: what the machine did to all servers alike is taken out of the values after it. */
  beside?: { name: string; header: Header; trials_found: number; figures: Figure[]; freezing: Freezing[]; lines: Judged[]; is_corrected: boolean; notes: string[] };
}

/** The numbers of this page. */
export function read(): Page {
  const element = document.getElementById("numbers");
  if (!element?.textContent) throw new Error("the page holds no numbers: write it with `stallbench report`");
  return JSON.parse(element.textContent) as Page;
}

/** Bytes that are deflated, in base64. */
export async function inflate(text: string): Promise<Uint8Array> {
  const deflated = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The numbers of LEB128. */
export function leb128(bytes: Uint8Array): number[] {
  const numbers: number[] = [];
  let number = 0;
  let scale = 1;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    number += (byte & 0x7f) * scale;
    if (byte < 0x80) {
      numbers.push(number);
      number = 0;
      scale = 1;
    } else {
      scale *= 128;
    }
  }
  return numbers;
}
