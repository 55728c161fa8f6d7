// Messages between the lab and its page; see `lab/src/desk.rs`, `lab/src/stage.rs` and `lab/src/bounds.rs`.

export type Kind = "probes" | "tabs" | "blockers";

export interface Sent {
  load: Kind;
  at: number;
}

export interface Ended extends Sent {
  took: number;
  pid?: number;
  failed?: boolean;
}

export interface PaneFrame {
  sent: Sent[];
  ended: Ended[];
  /** When requests were due that were on their way as their load ended. */
  gone: number[];
  p99: number | null;
  oldest: number;
  per_s: number;
  /** Probes of the last seconds that failed. */
  failed: number;
  slow: number;
}

export interface Frame {
  t: number;
  wall: number;
  late: boolean;
  lag: number;
  lag_p99: number;
  sent_per_s: number;
  panes: PaneFrame[];
}

export interface Shown {
  name: string;
  about: string;
  runs_on: string;
  is_own: boolean;
  /** The number of the order that started it: a later start has a larger one. */
  start: number;
  state: "building" | "starting" | "serving" | "reloading" | "failed" | "stopped";
  error: string | null;
  pids: number[];
  says: (string | null)[];
  can_reload: boolean;
  /** Its processes are the lab's to kill. */
  can_kill: boolean;
  launch: string | null;
}

export interface Panes {
  panes: Shown[];
  servers: [string, string][];
  threads: number;
  processes: number;
  rate: number;
  /** The slow requests at a time, their length, and whether they spin. */
  blockers: number;
  length_ms: number;
  spins: boolean;
}

export type Ask =
  | { act: "show"; servers: string[]; threads: number; processes: number; each?: number[] }
  | { act: "launch" }
  | { act: "rate"; per_s: number }
  | { act: "tabs"; count: number; length_ms: number; spins: boolean }
  | { act: "blockers"; count: number; length_ms: number; spins: boolean }
  | { act: "reload" | "kill"; pane: number | null }
  | { act: "start"; pane: number };

const token = new URLSearchParams(location.search).get("token") ?? "";

/** Asks the lab; an error in words if it refuses. */
export async function ask(what: Ask): Promise<string | null> {
  try {
    const answer = await fetch("/act", { method: "POST", headers: { "x-token": token, "content-type": "application/json" }, body: JSON.stringify(what) });
    return answer.ok ? null : (await answer.text()).trim();
  } catch {
    return "This did not reach the lab: try again.";
  }
}

/** Without a frame for this time, in ms, the connection counts as lost: one comes every 50 ms. */
const SILENCE = 2000;

/** Frames and panes, as they come. `onMissed` is called where this page was too slow for some of them, `onLost` once no frame has come for a while, `onRefused` if the lab answers but does not let this page in. */
export function listen(onFrame: (frame: Frame) => void, onPanes: (panes: Panes) => void, onMissed: () => void, onLost: () => void, onRefused: () => void): void {
  const events = new EventSource(`/events?token=${encodeURIComponent(token)}`);
  // A browser tries again for ever where nobody answers, and says nothing of it.
  let silence = setTimeout(onLost, SILENCE);
  events.addEventListener("frame", (event) => {
    clearTimeout(silence);
    silence = setTimeout(onLost, SILENCE);
    onFrame(JSON.parse((event as MessageEvent<string>).data) as Frame);
  });
  events.addEventListener("panes", (event) => onPanes(JSON.parse((event as MessageEvent<string>).data) as Panes));
  events.addEventListener("missed", onMissed);
  events.addEventListener("error", () => {
    if (events.readyState !== EventSource.CLOSED) return;
    clearTimeout(silence);
    onRefused();
  });
}
