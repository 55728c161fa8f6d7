// Stalls: probes that waited long and were answered at one moment, and the blocker that let them go.

import { inflate, leb128, type Timeline } from "./data";

/** A probe that took longer was stalled, in ms. */
const SLOW_MS = 20;
/** Answers further apart than this, in ms, belong to different stalls. */
const APART_MS = 5;

/** Requests by the instant at which they were due, in ms. */
export interface Requests {
  at: Float64Array;
  took: Float64Array;
  answered: Uint8Array;
  /** The connection; of blockers only. */
  connection: Uint16Array;
}

/** A stall. */
export interface Stall {
  server: string;
  /** When the first of its probes was due, in ms. */
  from: number;
  /** When its last probe was answered. */
  to: number;
  /** The longest wait. */
  worst: number;
  /** Its probes. */
  count: number;
  /** The blocker whose end let them go: its connection, and when it was sent. */
  held: [number, number] | null;
}

/** Requests as a page holds them. */
async function requests(text: string, unit: number, hasConnections: boolean): Promise<Requests> {
  const numbers = leb128(await inflate(text));
  const count = Math.floor(numbers.length / (hasConnections ? 3 : 2));
  const [at, took, answered, connection] = [new Float64Array(count), new Float64Array(count), new Uint8Array(count), new Uint16Array(count)];
  let now = 0;
  for (let index = 0; index < count; index += 1) {
    now += numbers[index];
    at[index] = now * unit;
    took[index] = Math.floor(numbers[count + index] / 2) * unit;
    answered[index] = 1 - (numbers[count + index] % 2);
    if (hasConnections) connection[index] = numbers[2 * count + index];
  }
  return { at, took, answered, connection };
}

/** The requests of a timeline. */
export async function requestsOf(timeline: Timeline, unit: number): Promise<{ probes: Requests; blockers: Requests }> {
  const [probes, blockers] = await Promise.all([requests(timeline.probes, unit, false), requests(timeline.blockers, unit, true)]);
  return { probes, blockers };
}

/** The stalls of a timeline, the worst first. */
export function stalls(server: string, { at, took, answered }: Requests, blockers: Requests): Stall[] {
  const slow = [...at.keys()].filter((index) => answered[index] && took[index] > SLOW_MS);
  slow.sort((a, b) => at[a] + took[a] - at[b] - took[b]);
  const found: Stall[] = [];
  let last = Number.NEGATIVE_INFINITY;
  for (const index of slow) {
    const end = at[index] + took[index];
    const stall = found[found.length - 1];
    if (!stall || end - last > APART_MS) {
      found.push({ server, from: at[index], to: end, worst: took[index], count: 1, held: heldBy(blockers, end) });
    } else {
      stall.from = Math.min(stall.from, at[index]);
      stall.to = end;
      stall.worst = Math.max(stall.worst, took[index]);
      stall.count += 1;
    }
    last = end;
  }
  return found.sort((a, b) => b.worst - a.worst);
}

/** The blocker that ended right before an answer, by its number. */
export function endedAt({ at, took, answered }: Requests, answer: number): number | null {
  let best: number | null = null;
  let nearest = APART_MS;
  for (let index = 0; index < at.length; index += 1) {
    const apart = Math.abs(answer - (at[index] + took[index]));
    if (answered[index] && apart <= nearest) {
      nearest = apart;
      best = index;
    }
  }
  return best;
}

function heldBy(blockers: Requests, answer: number): [number, number] | null {
  const index = endedAt(blockers, answer);
  return index === null ? null : [blockers.connection[index], blockers.at[index]];
}
