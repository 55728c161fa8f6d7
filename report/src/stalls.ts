// Stalls: probes that waited long and were answered at one moment, and the blocker that let them go; or that never got an answer.

import { inflate, leb128, type Timeline } from "./data";

/** A probe that took longer was stalled, in ms. */
const SLOW_MS = 20;
/** Answers further apart than this, in ms, belong to different stalls. */
const APART_MS = 5;

/** Requests by the instant at which they were due, in ms. */
export interface Requests {
  at: Float64Array;
  /** The response time; without an answer, the age at the end of the load. */
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
  /** When its last probe was answered, or the load ended. */
  to: number;
  /** The longest wait. */
  worst: number;
  /** Its probes. */
  count: number;
  /** Its probes have answers: all of them, or none. */
  isAnswered: boolean;
  /** The blocker whose end let them go: its connection, and when it was sent. */
  held: [number, number] | null;
}

/** Requests as a page holds them: each answer by how much it came after the later of two instants, when its request was due and the answer before. */
async function requests(text: string, unit: number, hasConnections: boolean): Promise<Requests> {
  const numbers = leb128(await inflate(text));
  const count = Math.floor(numbers.length / (hasConnections ? 3 : 2));
  const [at, took, answered, connection] = [new Float64Array(count), new Float64Array(count), new Uint8Array(count), new Uint16Array(count)];
  let now = 0;
  let answer = 0;
  for (let index = 0; index < count; index += 1) {
    now += numbers[index];
    const folded = Math.floor(numbers[count + index] / 2);
    answer = Math.max(now, answer) + (folded % 2 === 0 ? folded / 2 : -(folded + 1) / 2);
    at[index] = now * unit;
    took[index] = (answer - now) * unit;
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

/** The stalls of a timeline, the worst first. How long a probe without an answer would have taken is not known, so each of them counts. */
export function stalls(server: string, probes: Requests, blockers: Requests): Stall[] {
  const { at, took, answered } = probes;
  const end = (index: number) => at[index] + took[index];
  const slow = [...at.keys()].filter((index) => !answered[index] || took[index] > SLOW_MS);
  slow.sort((a, b) => answered[b] - answered[a] || end(a) - end(b));
  const found: Stall[] = [];
  for (const index of slow) {
    const isAnswered = answered[index] === 1;
    const stall = found[found.length - 1];
    if (!stall || stall.isAnswered !== isAnswered || end(index) - stall.to > APART_MS) {
      const held = holder(probes, index, blockers);
      found.push({ server, from: at[index], to: end(index), worst: took[index], count: 1, isAnswered, held: held === null ? null : [blockers.connection[held], blockers.at[held]] });
    } else {
      stall.from = Math.min(stall.from, at[index]);
      stall.to = end(index);
      stall.worst = Math.max(stall.worst, took[index]);
      stall.count += 1;
    }
  }
  return found.sort((a, b) => b.worst - a.worst);
}

/** The blocker whose end let a probe go, by its number; what has no answer was not let go. */
export function holder(probes: Requests, probe: number, { at, took, answered }: Requests): number | null {
  if (!probes.answered[probe]) return null;
  const answer = probes.at[probe] + probes.took[probe];
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
