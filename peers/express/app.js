// The routes as an Express application. `run` does the blocking work on the thread that the model chooses.
'use strict';

const express = require('express');

const PAGE = 'This is the regular page. It should answer at once.\n';
const TEXT = 'text/plain; charset=utf-8';
const MAX_BODY = 1024 * 1024;

class Refused extends Error {}

function refuse(name, value, takes) {
  throw new Refused(`${name}: takes ${takes}, not '${value}'\n`);
}

function number(query, name, fallback, least, most) {
  const value = query[name];
  if (value === undefined) return fallback;
  const is_right = /^\d+$/.test(value) && Number(value) >= least && Number(value) <= most;
  return is_right ? Number(value) : refuse(name, value, `a whole number from ${least} to ${most}`);
}

function length(query, most) {
  const value = query.ms;
  if (value === undefined) return Math.min(most, 9000);
  const is_right = /^(\d+\.?\d*|\.\d+)$/.test(value) && Number(value) <= most;
  return is_right ? Number(value) : refuse('ms', value, `milliseconds from 0 to ${most} (--max-block)`);
}

function clock({ clock = 'wall' }) {
  return ['wall', 'cpu'].includes(clock) ? clock : refuse('clock', clock, 'wall or cpu');
}

// The work that each path asks for.
const WORK = {
  '/timer': (query, most) => ({ kind: 'timer', ms: length(query, most), clock: clock(query) }),
  '/sleep': (query, most) => ({ kind: 'sleep', ms: length(query, most) }),
  '/json/stringify': (query) => ({ kind: 'stringify', items: number(query, 'items', 10_000, 0, 1_000_000) }),
  '/sort': (query) => ({ kind: 'sort', items: number(query, 'items', 100_000, 0, 10_000_000) }),
  '/pbkdf2': (query) => ({ kind: 'pbkdf2', iterations: number(query, 'iterations', 100_000, 1, 10_000_000) }),
  '/panic': () => ({ kind: 'panic' }),
  '/scrypt': (query) => ({ kind: 'scrypt', log_n: number(query, 'log_n', 14, 1, 17) }),
};

module.exports = ({ maxBlock, state, run }) => {
  const app = express();
  app.use((request, response, next) => {
    response.set('X-Worker', String(process.pid));
    if (state.isDraining) response.set('Connection', 'close');
    next();
  });
  app.get('/', (request, response) => response.type('text').send(PAGE));
  app.get('/healthz', (request, response) => {
    response.status(state.isDraining ? 503 : 200).type('text').send(state.isDraining ? 'draining\n' : 'ready\n');
  });
  const answer = async (response, job) => {
    const { status, type, body } = await run(job);
    // The drain may have begun meanwhile.
    if (state.isDraining) response.set('Connection', 'close');
    response.status(status).set('Content-Type', type).send(body);
  };
  for (const [path, work] of Object.entries(WORK)) {
    app.get(path, (request, response) => answer(response, work(request.query, maxBlock)));
  }
  app.post('/json/parse', express.text({ type: () => true, limit: MAX_BODY }), (request, response) =>
    answer(response, { kind: 'parse', document: typeof request.body === 'string' ? request.body : '' }));
  for (const path of ['/', '/healthz', '/json/parse', ...Object.keys(WORK)]) {
    const allow = path === '/json/parse' ? 'POST' : 'GET, HEAD';
    app.all(path, (request, response) => response.status(405).set('Allow', allow).type('text').send(`${path} takes ${allow}\n`));
  }
  app.use((request, response) => {
    response.status(404).type('text').send('there is nothing here; try /, /timer?ms=9000, /sleep?ms=1000 or /healthz\n');
  });
  app.use((error, request, response, next) => {
    const status = error instanceof Refused ? 400 : (error.status ?? 500);
    response.status(status).set('Content-Type', TEXT).send(status === 500 ? 'something broke\n' : error.message);
  });
  return app;
};
