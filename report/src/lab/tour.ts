// The guided tour: seven steps, each with a guess before the answer.

import type { Ask } from "./protocol";

export interface Step {
  title: string;
  text: string;
  /** The servers of the step, with threads, and the processes of each. */
  show: { servers: string[]; threads: number; processes: number; each?: number[] };
  question: string;
  options: string[];
  /** Requests that are sent after the guess. */
  acts: Ask[];
  /** The right option. */
  right: number;
  answer: string;
}

const ONE = "tokio-current-thread";

export const STEPS: Step[] = [
  {
    title: "Two tabs",
    text: "Two browser tabs open a page that keeps its handler busy for 900 ms, at the same instant. In the first server one event loop serves everybody, in the second each connection has a thread.",
    show: { servers: [ONE, "std-thread-per-connection"], threads: 2, processes: 1 },
    question: "When is the second tab done in the first server?",
    options: ["after 0.9 s, like the first", "after 1.8 s", "never"],
    acts: [{ act: "tabs", count: 2, length_ms: 900, spins: true }],
    right: 1,
    answer: "The loop runs one handler at a time, so the second tab waits for the first, and so does every dot: nobody else is answered meanwhile.",
  },
  {
    title: "One loop",
    text: "One client now asks for the slow page again and again. The dots are all other clients, who ask for a page that takes no time at all.",
    show: { servers: [ONE, "std-thread-per-connection"], threads: 2, processes: 1 },
    question: "One slow client of many: what happens to the 99th percentile of the others in the first server?",
    options: ["nothing that anybody feels", "it becomes about as long as the slow page takes"],
    acts: [{ act: "blockers", count: 1, length_ms: 500, spins: false }],
    right: 1,
    answer: "While a handler blocks, the loop reads no socket. Whoever comes meanwhile waits for what is left of it.",
  },
  {
    title: "Cluster",
    text: "Fork one process for each core, as Node's cluster does. First: two processes. Second: the one loop, for comparison.",
    show: { servers: ["tokio-forked", ONE], threads: 2, processes: 2, each: [2, 1] },
    question: "One slow client again. How many of the others wait in the first server?",
    options: ["none: the other process is free", "about half", "all"],
    acts: [{ act: "blockers", count: 1, length_ms: 500, spins: false }],
    right: 1,
    answer: "Each connection belongs to the process that accepted it. Those of the blocked one wait, the others do not: look at the two bands of dots.",
  },
  {
    title: "Keep-alive pins you to a worker",
    text: "Browsers keep connections open, so whoever is with the blocked worker stays with it. First: two forked processes. Second: two threads that share all connections.",
    show: { servers: ["tokio-forked", "tokio-multi-thread"], threads: 2, processes: 2, each: [2, 1] },
    question: "Two slow clients now. Is anybody in the first server still answered at once?",
    options: ["always", "it depends on luck: both may have got the same worker", "never"],
    acts: [{ act: "blockers", count: 2, length_ms: 500, spins: false }],
    right: 1,
    answer: "The kernel deals connections without a look at who is busy. If both slow clients have the same process, half of all others wait twice as long, and half not at all.",
  },
  {
    title: "Worker threads",
    text: "Move the blocking call off the event loop: to a pool of threads, or to workers of your own.",
    show: { servers: ["tokio-spawn-blocking", "tokio-worker-threads", ONE], threads: 2, processes: 1 },
    question: "64 slow clients at once. Which of the three still answers everybody else at once?",
    options: ["none", "the first", "the first two"],
    acts: [{ act: "blockers", count: 64, length_ms: 500, spins: false }],
    right: 2,
    answer: "The loop stays free in both. They differ in how many slow requests they serve at a time: 64 threads in the first, two in the second, where the slow ones wait for each other.",
  },
  {
    title: "The state trap",
    text: "A list of launches is kept in memory. First: two forked processes, each with a memory of its own, and each connection belongs to one of them. Second: one process with two threads. One client saves a launch, and twenty others look for it.",
    show: { servers: ["tokio-forked-round-robin", "tokio-multi-thread"], threads: 2, processes: 2, each: [2, 1] },
    question: "How many of the twenty find it in the first server?",
    options: ["all", "those whom the same process answers", "none"],
    acts: [{ act: "launch" }],
    right: 1,
    answer: "What one process is told, the other does not know: the line below the picture says how many found it. The way out is a place outside of both, such as a database; `just bench --experiment state` shows what is lost without one.",
  },
  {
    title: "Reload",
    text: "New code: every process has to be replaced while requests come in.",
    show: { servers: [ONE, "smol-current-thread"], threads: 2, processes: 2 },
    question: "How many of the requests fail?",
    options: ["those on their way", "none"],
    acts: [{ act: "reload", pane: null }],
    right: 1,
    answer: "None: the supervisor starts the new process, waits until it is ready, and lets the old one answer what it has read. Kill a worker to see the difference.",
  },
];
