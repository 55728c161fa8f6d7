// The blocking work, with the same results as the common crate's `work.rs`.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');

const PASSWORD = 'correct horse battery staple';
const SALT = 'stallbench';
const neverWoken = new Int32Array(new SharedArrayBuffer(4));

// The CPU time of this thread, in ms. Node has no such clock, so read it from the kernel, which brings it up to date only a few times in 10 ms, or
// when it is asked for the time of the whole process.
function threadMs() {
  process.cpuUsage();
  return Number(fs.readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[0]) / 1e6;
}

function spin(ms, clock) {
  if (clock === 'wall') {
    for (const end = performance.now() + ms; performance.now() < end; );
    return;
  }
  for (const end = threadMs() + ms; threadMs() < end; ) {
    // Spin in between, because reading the clock takes system calls.
    for (const pause = performance.now() + 0.2; performance.now() < pause; );
  }
}

function records(items) {
  return Array.from({ length: items }, (_, number) => ({
    flight_number: number,
    mission: `Mission ${number}`,
    rocket: 'Explorer IS1',
    target: 'Kepler-442 b',
    customers: ['ZTM', 'NASA'],
    upcoming: number % 2 === 0,
    success: number % 3 === 0,
  }));
}

// Sorted numbers; the unsorted input is the same every time (SplitMix64 from 0).
function sorted(items) {
  const numbers = new BigUint64Array(items);
  const cut = (value) => BigInt.asUintN(64, value);
  let state = 0n;
  for (let index = 0; index < items; index++) {
    state = cut(state + 0x9e3779b97f4a7c15n);
    let mixed = cut((state ^ (state >> 30n)) * 0xbf58476d1ce4e5b9n);
    mixed = cut((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
    numbers[index] = mixed ^ (mixed >> 31n);
  }
  return Buffer.from(numbers.sort().buffer);
}

// The number of values in a document, the document itself included.
function count(value) {
  if (value === null || typeof value !== 'object') return 1;
  return Object.values(value).reduce((sum, part) => sum + count(part), 1);
}

const text = (body) => ({ status: 200, type: 'text/plain; charset=utf-8', body });

// An answer with a digest of the result, which proves that the work was done and lets clients check it.
function digest(work, amount, bytes) {
  const sha256 = crypto.createHash('sha256').update(bytes).digest('hex');
  return { status: 200, type: 'application/json', body: JSON.stringify({ work, amount, bytes: bytes.length, sha256 }) };
}

function parse(document) {
  try {
    return digest('parsed', count(JSON.parse(document)), Buffer.from(document));
  } catch (error) {
    return { status: 400, type: 'text/plain; charset=utf-8', body: `body: not JSON: ${error.message}\n` };
  }
}

// Does the work on this thread and returns the answer.
function run({ kind, ms, clock, items, iterations, log_n, document }) {
  switch (kind) {
    case 'timer':
      spin(ms, clock);
      return text(`spun for ${ms} ms\n`);
    case 'sleep':
      Atomics.wait(neverWoken, 0, 0, ms);
      return text(`slept for ${ms} ms\n`);
    case 'stringify':
      return digest('stringified', items, Buffer.from(JSON.stringify(records(items))));
    case 'parse':
      return parse(document);
    case 'sort':
      return digest('sorted', items, sorted(items));
    case 'pbkdf2':
      return digest('pbkdf2', iterations, crypto.pbkdf2Sync(PASSWORD, SALT, iterations, 64, 'sha512'));
    case 'panic':
      throw new Error('a request to /panic asked for this');
    case 'scrypt': {
      const N = 2 ** log_n;
      return digest('scrypt', log_n, crypto.scryptSync(PASSWORD, SALT, 64, { N, r: 8, p: 1, maxmem: 256 * N * 8 + (1 << 20) }));
    }
  }
}

module.exports = { run };
