// Worker threads for blocking work: a fixed number of threads that take jobs from a queue and share a buffer with the event loop.
'use strict';

const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');

// Each worker counts its finished jobs in its own word of the shared buffer. The loop counts the jobs that it has given to each
// worker.
class Pool {
  constructor(threads) {
    this.done = new Int32Array(new SharedArrayBuffer(4 * threads));
    this.given = new Int32Array(threads);
    this.waiting = [];
    this.workers = Array.from({ length: threads }, (_, index) => this.start(index));
  }

  start(index) {
    const worker = new Worker(__filename, { workerData: { done: this.done, index } });
    // A worker may get its next job before the loop has read its last answer.
    worker.resolvers = [];
    worker.on('message', (answer) => {
      worker.resolvers.shift()(answer);
      this.next();
    });
    worker.unref();
    return worker;
  }

  run(job) {
    return new Promise((resolve) => {
      this.waiting.push({ job, resolve });
      this.next();
    });
  }

  // Gives the first waiting job to a worker that has finished all its jobs.
  next() {
    const index = this.workers.findIndex((_, index) => Atomics.load(this.done, index) === this.given[index]);
    if (index < 0 || this.waiting.length === 0) return;
    const { job, resolve } = this.waiting.shift();
    this.given[index]++;
    this.workers[index].resolvers.push(resolve);
    this.workers[index].postMessage(job);
  }
}

if (!isMainThread) {
  const { run } = require('./work.js');
  const { done, index } = workerData;
  parentPort.on('message', (job) => {
    let answer;
    try {
      answer = run(job);
    } catch {
      answer = { status: 500, type: 'text/plain; charset=utf-8', body: 'the handler panicked\n' };
    }
    Atomics.add(done, index, 1);
    parentPort.postMessage(answer);
  });
}

module.exports = { Pool };
