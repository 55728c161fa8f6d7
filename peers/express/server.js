// Express in five models: plain, under `cluster` (round robin, or one shared socket), under PM2, and with worker threads.
'use strict';

// As Express's own guide advises for production; it is read when Express is loaded.
process.env.NODE_ENV ??= 'production';

const cluster = require('node:cluster');
const http = require('node:http');
const { parseArgs } = require('node:util');
const createApp = require('./app.js');
const { Pool } = require('./pool.js');
const work = require('./work.js');
const { versions, arch, platform } = process;

const MODELS = {
  plain: 'one thread runs everything',
  cluster: 'the primary hands out connections to single-threaded processes',
  'cluster-none': 'single-threaded processes accept on one socket',
  pm2: 'single-threaded processes under PM2',
  'worker-threads': 'one event loop; blocking calls go to a fixed number of threads',
};
const OPTIONS = {
  model: 'plain', listen: '127.0.0.1:0', processes: '', 'blocking-threads': '',
  'max-block': '60s', drain: '10s', 'drain-idle': '2s', 'header-timeout': '10s', 'request-timeout': '60s', 'idle-timeout': '75s',
};

function fail(message, code) {
  process.stderr.write(`express: ${message}\n`);
  process.exit(code);
}

function milliseconds(name, text) {
  const [, amount, unit] = /^(\d+)(ms|s|m)$/.exec(text) ?? fail(`--${name} '${text}' is not a time; write 500ms, 10s or 2m`, 2);
  return Number(amount) * { ms: 1, s: 1000, m: 60_000 }[unit];
}

function whole(name, text) {
  return /^[1-9]\d{0,3}$/.test(text) ? Number(text) : fail(`--${name} '${text}' is not a whole number from 1 to 9999`, 2);
}

function parse() {
  const options = { version: { type: 'boolean' } };
  for (const [name, value] of Object.entries(OPTIONS)) options[name] = { type: 'string', default: value };
  let values;
  try {
    ({ values } = parseArgs({ options }));
  } catch (error) {
    fail(error.message.split('\n')[0].split('. ')[0], 2);
  }
  const model = values.model;
  if (!(model in MODELS)) fail(`--model '${model}' is unknown; valid values: ${Object.keys(MODELS).join(', ')}`, 2);
  const refuse = (knob) => fail(`model ${model} does not take --${knob}: ${MODELS[model]}`, 2);
  const isClustered = model.startsWith('cluster') || model === 'pm2';
  if (values.processes && !isClustered) refuse('processes');
  if (values['blocking-threads'] && model !== 'worker-threads') refuse('blocking-threads');
  const listen = /^(.+):(\d+)$/.exec(values.listen) ?? fail(`--listen '${values.listen}' is not an address; write HOST:PORT`, 2);
  const time = (name) => milliseconds(name, values[name]);
  return {
    values, model, isClustered,
    host: listen[1].replace(/^\[|\]$/g, ''), port: Number(listen[2]),
    processes: isClustered ? whole('processes', values.processes || '2') : 1,
    threads: model === 'worker-threads' ? whole('blocking-threads', values['blocking-threads'] || '2') : 0,
    maxBlock: time('max-block'), drain: time('drain'), drainIdle: time('drain-idle'), headerTimeout: time('header-timeout'),
    requestTimeout: time('request-timeout'), idleTimeout: time('idle-timeout'),
  };
}

// The receipt, stored with every result.
function receipt(knobs) {
  const { model, threads, processes, values } = knobs;
  const given = { processes: String(processes) };
  if (threads > 0) given['blocking-threads'] = String(threads);
  for (const name of ['max-block', 'drain', 'drain-idle', 'header-timeout', 'request-timeout', 'idle-timeout']) given[name] = values[name];
  if (model === 'pm2') given.pm2 = require('pm2/package.json').version;
  return {
    server: `express-${model}`,
    runtime: 'express',
    runtime_version: `${require('express/package.json').version} on node ${versions.node}`,
    model,
    allocator: `V8 ${versions.v8}`,
    compiler: `V8 ${versions.v8}`,
    profile: 'release',
    target: `${arch}-${platform}`,
    rustflags: '',
    handler_threads: threads > 0 ? `1 + ${threads}` : '1',
    io_threads: '1',
    knobs: given,
  };
}

// Serves in this process, and calls `whenReady` with the address.
function serve(knobs, whenReady) {
  const state = { isDraining: false };
  const pool = knobs.threads > 0 ? new Pool(knobs.threads) : null;
  const run = pool ? (job) => pool.run(job) : (job) => work.run(job);
  const app = createApp({ maxBlock: knobs.maxBlock, state, run });
  const limits = { headersTimeout: Math.min(knobs.headerTimeout, knobs.requestTimeout), requestTimeout: knobs.requestTimeout, keepAliveTimeout: knobs.idleTimeout };
  const server = http.createServer({ ...limits, connectionsCheckingInterval: 100 }, app);
  server.on('error', (error) => {
    // Only the first worker reports the error.
    if (cluster.isWorker && cluster.worker.id > 1) process.exit(1);
    const why = error.code === 'EADDRINUSE' ? 'address already in use' : error.message;
    fail(`cannot listen on ${knobs.values.listen}: ${why}; choose another address with --listen`, 1);
  });
  const ready = () => whenReady(server.address());
  const isInherited = process.env.LISTEN_FDS === '1' && process.env.LISTEN_PID === String(process.pid);
  if (isInherited) server.listen({ fd: 3 }, ready);
  else server.listen({ host: knobs.host, port: knobs.port, backlog: 4096 }, ready);

  const drain = () => {
    if (state.isDraining) process.exit(143);
    state.isDraining = true;
    setTimeout(() => process.exit(0), knobs.drain).unref();
    // Close idle connections only after --drain-idle. The close of http.Server would close them at once.
    const idle = setTimeout(() => server.closeIdleConnections(), knobs.drainIdle);
    require('node:net').Server.prototype.close.call(server, () => {
      clearTimeout(idle);
      process.exit(0);
    });
  };
  process.on('SIGTERM', drain);
  // Ctrl-C reaches the whole process group, but the primary asks its workers to end. PM2 asks with SIGINT.
  process.on('SIGINT', cluster.isWorker && knobs.model !== 'pm2' ? () => {} : drain);
}

function announce({ address, port }) {
  process.stdout.write(`ready http://${address}:${port}\n`);
}

// Forks the workers, replaces dead ones, and ends with the last one.
function lead(knobs) {
  cluster.schedulingPolicy = knobs.model === 'cluster' ? cluster.SCHED_RR : cluster.SCHED_NONE;
  let listening = 0;
  let deaths = 0;
  let isDraining = false;
  for (let count = 0; count < knobs.processes; count++) cluster.fork();
  cluster.on('listening', (worker, address) => {
    if (++listening === knobs.processes) announce(address);
  });
  cluster.on('exit', (worker, code) => {
    const left = Object.keys(cluster.workers).length;
    if (isDraining) return left === 0 && process.exit(0);
    // A worker that cannot start would fail again if restarted.
    if (listening < knobs.processes || ++deaths > 10 * knobs.processes) {
      process.exitCode = code || 1;
      return;
    }
    cluster.fork();
  });
  const drain = () => {
    if (isDraining) process.exit(143);
    isDraining = true;
    for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGTERM');
  };
  process.on('SIGTERM', drain);
  process.on('SIGINT', drain);
}

const knobs = parse();
if (knobs.values.version) {
  process.stdout.write(`${JSON.stringify(receipt(knobs), null, 2)}\n`);
} else if (knobs.model === 'pm2') {
  require('./pm2.js')(knobs, announce, fail, serve);
} else if (knobs.isClustered && cluster.isPrimary) {
  lead(knobs);
} else {
  serve(knobs, cluster.isWorker ? () => {} : announce);
}
