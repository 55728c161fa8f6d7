// Worker threads for blocking work: a fixed number, fed through a queue, sharing one buffer with the event loop.
'use strict';

const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');

// In the shared buffer each worker writes down, in a word of its own, how many jobs it has done; the loop knows how many it was given.
class Pool {
  constructor(threads) {
    this.done = new Int32Array(new SharedArrayBuffer(4 * threads));
    this.given = new Int32Array(threads);
    this.waiting = [];
    this.workers = Array.from({ length: threads }, (_, index) => this.start(index));
  }

  start(index) {
    const worker = new Worker(__filename, { workerData: { done: this.done, index } });
    // A worker may have been given the next job before its last answer is read here.
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

  // Gives the first that waits to a worker that has done all it was given.
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
    const answer = run(job);
    Atomics.add(done, index, 1);
    parentPort.postMessage(answer);
  });
}

module.exports = { Pool };
