// A pane of the timelines: where each request stands, on the screen and in a file.

import { prepare } from "./canvas";
import { GRADES, grade, ink } from "./colors";
import type { Timeline } from "./data";
import { svg } from "./dom";
import { type Pen, SvgPen, sheet } from "./sheet";
import { type Requests, holder } from "./stalls";

const [LEFT, RIGHT, DOTS, LANE, GAP] = [64, 12, 130, 5, 6];
const FILE_WIDTH = 900;
/** More dots than this in sight are drawn as a heat map. */
export const MOST_DOTS = 20_000;
/** The range of response times, in ms. */
const [LOW, HIGH] = [0.03, 3000];

export interface Pane {
  timeline: Timeline;
  probes: Requests;
  blockers: Requests;
  /** How high each probe stands, and the grade of its response time: 4 for one without an answer. */
  height: Float32Array;
  grades: Uint8Array;
  canvas: HTMLCanvasElement;
  lanes: number;
}

/** Height and grade of each probe, which do not depend on the zoom. */
export function looks({ took, answered }: Requests): { height: Float32Array; grades: Uint8Array } {
  const height = Float32Array.from(took, (ms) => up(ms) * DOTS);
  const grades = Uint8Array.from(took, (ms, index) => (answered[index] ? GRADES.indexOf(grade(ms)) : GRADES.length));
  return { height, grades };
}

/** The first probe at or after an instant, and how many there are before another. */
export function within(at: Float64Array, from: number, to: number): { first: number; count: number } {
  const find = (time: number) => {
    let [low, high] = [0, at.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (at[middle] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const first = find(from);
  return { first, count: find(to) - first };
}

const up = (took: number): number => 1 - Math.min(1, Math.max(0, Math.log(Math.max(took, LOW) / LOW) / Math.log(HIGH / LOW)));

/** The probe at a place, or near it. */
export function nearest(pane: Pane, x: number, y: number, [from, to]: [number, number]): number | null {
  const { at, took } = pane.probes;
  const width = pane.canvas.clientWidth - LEFT - RIGHT;
  const scale = width / (to - from);
  const time = from + (x - LEFT) / scale;
  const { first, count } = within(at, time - 10 / scale, time + 10 / scale);
  let best: number | null = null;
  let least = 12 ** 2;
  for (let index = first; index < first + count; index += 1) {
    const distance = ((at[index] - time) * scale) ** 2 + (top(pane) + up(took[index]) * DOTS - y) ** 2;
    if (distance < least) {
      least = distance;
      best = index;
    }
  }
  return best;
}

const top = (pane: Pane): number => pane.lanes * LANE + GAP;

const heightOf = (pane: Pane): number => top(pane) + DOTS + 22;

/** Where instants are on an axis over all of a width. */
const scale = (width: number, from: number, to: number) => (time: number) => LEFT + ((time - from) / (to - from)) * (width - LEFT - RIGHT);

/** The instant at a place. */
export function timeAt(x: number, canvas: HTMLCanvasElement, [from, to]: [number, number]): number {
  return from + ((x - LEFT) / (canvas.clientWidth - LEFT - RIGHT)) * (to - from);
}

/** Draws a pane on its canvas. */
export function paint(pane: Pane, from: number, to: number, isHeat: boolean, hovered: number | null, selection: [number, number] | null): void {
  const { canvas, probes: own } = pane;
  const ready = prepare(canvas, heightOf(pane));
  if (!ready) return;
  const { ctx, width } = ready;
  const across = scale(width, from, to);
  axes(ctx, pane, width, from, to);
  ctx.save();
  ctx.beginPath();
  ctx.rect(LEFT, 0, width - LEFT - RIGHT, heightOf(pane));
  ctx.clip();
  const held = hovered === null ? null : holder(own, hovered, pane.blockers);
  requests(ctx, pane, width, from, to, isHeat, held);
  if (hovered !== null) {
    const answer = own.at[hovered] + own.took[hovered];
    const y = top(pane) + up(own.took[hovered]) * DOTS;
    ctx.strokeStyle = ink("held");
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.moveTo(across(own.at[hovered]), y);
    ctx.lineTo(across(answer), y);
    // Up to the blocker whose end was the answer.
    if (held !== null) ctx.lineTo(across(answer), 0);
    ctx.stroke();
  }
  if (selection) {
    ctx.fillStyle = ink("select");
    ctx.fillRect(across(Math.min(...selection)), 0, Math.abs(across(selection[1]) - across(selection[0])), heightOf(pane));
  }
  ctx.restore();
}

/** A pane as a file: what is in sight. */
export function drawn(pane: Pane, from: number, to: number): string {
  const height = heightOf(pane);
  const room = FILE_WIDTH - LEFT - RIGHT;
  // A drawing inside another is cut off at its edges.
  const inside = svg("svg", { x: LEFT, width: room, height, viewBox: `${LEFT} 0 ${room} ${height}` });
  const whole = svg("g");
  axes(new SvgPen(whole), pane, FILE_WIDTH, from, to);
  whole.append(inside);
  requests(new SvgPen(inside), pane, FILE_WIDTH, from, to, within(pane.probes.at, from, to).count > MOST_DOTS, null);
  const { server, kind, k } = pane.timeline;
  return sheet(FILE_WIDTH, height, `${server}: each request to / over time beside ${k} blockers (${kind})`, whole);
}

/** The blockers as bars, one row for each connection, and below them the probes. */
function requests(pen: Pen, pane: Pane, width: number, from: number, to: number, isHeat: boolean, held: number | null): void {
  const { blockers } = pane;
  const across = scale(width, from, to);
  for (let index = 0; index < blockers.at.length; index += 1) {
    const [sent, end] = [across(blockers.at[index]), across(blockers.at[index] + blockers.took[index])];
    pen.fillStyle = ink(index === held ? "held" : blockers.answered[index] ? "blocker" : "faint");
    pen.fillRect(sent, blockers.connection[index] * LANE, Math.max(1, end - sent - 1), LANE - 1);
  }
  if (isHeat) heat(pen, pane, width, across, from, to);
  else dots(pen, pane, across, from, to);
}

function dots(pen: Pen, pane: Pane, across: (time: number) => number, from: number, to: number): void {
  const { height, grades } = pane;
  const { at } = pane.probes;
  const { first, count } = within(at, from, to);
  const base = top(pane);
  // One colour at a time: changing it for each dot costs most of the time.
  GRADES.forEach((word, number) => {
    pen.fillStyle = ink(word);
    for (let index = first; index < first + count; index += 1) {
      if (grades[index] === number) pen.fillRect(across(at[index]) - 1, base + height[index] - 1, 2.5, 2.5);
    }
  });
  pen.strokeStyle = ink("lost");
  pen.lineWidth = 1;
  for (let index = first; index < first + count; index += 1) {
    if (grades[index] === GRADES.length) pen.strokeRect(across(at[index]) - 1.5, base + height[index] - 1.5, 3, 3);
  }
}

/** A heat map, for dots that would cover one another: the number of dots in each square. */
function heat(pen: Pen, pane: Pane, width: number, across: (time: number) => number, from: number, to: number): void {
  const SIZE = 4;
  const { at, took } = pane.probes;
  const { first, count } = within(at, from, to);
  const [columns, rows] = [Math.ceil(width / SIZE), Math.ceil(DOTS / SIZE) + 1];
  const counts = new Uint32Array(columns * rows);
  let most = 1;
  for (let index = first; index < first + count; index += 1) {
    const square = Math.floor((up(took[index]) * DOTS) / SIZE) * columns + Math.floor(across(at[index]) / SIZE);
    most = Math.max(most, (counts[square] += 1));
  }
  pen.fillStyle = ink("blocker");
  const base = top(pane);
  for (let square = 0; square < counts.length; square += 1) {
    if (counts[square] === 0) continue;
    pen.globalAlpha = 0.15 + 0.85 * (Math.log(counts[square] + 1) / Math.log(most + 1));
    pen.fillRect((square % columns) * SIZE, base + Math.floor(square / columns) * SIZE, SIZE, SIZE);
  }
  pen.globalAlpha = 1;
}

function axes(pen: Pen, pane: Pane, width: number, from: number, to: number): void {
  const across = scale(width, from, to);
  const base = top(pane);
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const ms of [0.1, 1, 10, 100, 1000]) {
    const y = base + up(ms) * DOTS;
    pen.fillStyle = ink("quiet");
    pen.fillText(ms >= 1000 ? "1 s" : `${ms} ms`, LEFT - 6, y);
    pen.fillStyle = ink(ms >= 100 ? "limit" : "grid");
    pen.fillRect(LEFT, y, width - LEFT - RIGHT, 1);
  }
  pen.fillStyle = ink("quiet");
  pen.fillText("blockers", LEFT - 6, Math.max(6, (pane.lanes * LANE) / 2));
  pen.textAlign = "center";
  const rough = (to - from) / Math.max(2, (width - LEFT - RIGHT) / 90);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    pen.fillRect(across(time), base + DOTS, 1, 4);
    pen.textAlign = across(time) > width - 40 ? "right" : "center";
    pen.fillText(`${Number(time.toPrecision(6))} ms`, across(time), base + DOTS + 14);
  }
}
