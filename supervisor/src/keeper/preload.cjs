'use strict';
// Lets a Node program run as a cluster under the supervisor, unchanged. Node loads this file before the program, which
//
// - takes its listeners from the supervisor: `server.listen(3000)` in several processes listens once, and stays open while processes are replaced;
//   `server.listen(0)` is each process's own;
// - says so when it closes a listener, which is closed once no process has it any more;
// - says that it is ready once it listens, or with `process.send('ready')` if it was started with --wait-ready;
// - reports its requests, those that failed, and the lag of its event loop;
// - gives signs of life, if it was started with --health-stall;
// - on the stop signal, answers the requests that it has, closes WebSockets and ends, unless it has a handler of its own for the signal. If it is a
//   cluster itself, its workers do that first.
const { ChildProcess } = require('node:child_process');
const cluster = require('node:cluster');
const net = require('node:net');
const dns = require('node:dns');
const path = require('node:path');
const { constants } = require('node:os');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { getSystemErrorName } = require('node:util');
const { isMainThread } = require('node:worker_threads');

const IDLE = 1000; // Milliseconds after which a kept connection without a request is closed, when its process is to end.

// The environment is inherited by child processes, which are their own masters.
if (isMainThread && process.send) {
  const own = Number(process.env.SUPERVISOR_PID);
  if (own === process.pid) begin(process.env);
  else if (own === process.ppid && cluster.isWorker) work();
}

// What a process still has to finish before it ends, and how it comes to its end.
let isEnding = false;
const answers = new Set();
const upgraded = new Set(); // Sockets that speak another protocol by now, such as WebSocket.
const sessions = new Set(); // Connections of HTTP/2.

function track(server) {
  server.on('session', (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
    if (isEnding) leave(session);
  });
  server.prependListener('request', (_, answer) => {
    if (isEnding) answer.shouldKeepAlive = false;
    answers.add(answer);
    answer.once('close', () => {
      answers.delete(answer);
      endUpgraded();
    });
  });
  // Not as a listener: with one, Node would upgrade connections that the program does not want upgraded.
  const { emit } = server;
  server.emit = function (event, ...words) {
    // HTTP/2 hands over an answer instead.
    if (event === 'upgrade' && words[1] instanceof net.Socket) keep(words[1]);
    return emit.call(this, event, ...words);
  };
}

function keep(socket) {
  upgraded.add(socket);
  socket.once('close', () => upgraded.delete(socket));
  // The program answers the request first.
  if (isEnding) setImmediate(endUpgraded);
}

// Such a connection has no end of its own, and its server is not closed before it. The last answers may still have news for it, and so may the program.
function endUpgraded() {
  if (isEnding && !answers.size) for (const socket of upgraded) setTimeout(() => answers.size || socket.destroySoon(), IDLE);
}

// The client may just be sending a request, which gets its answer; then the client learns that the next one needs another connection. What has come
// with the request is read before.
function leave(session) {
  const close = () => setImmediate(() => session.close());
  session.once('stream', close);
  setTimeout(close, IDLE);
}

function end() {
  isEnding = true;
  for (const answer of answers) if (!answer.headersSent) answer.shouldKeepAlive = false;
  sessions.forEach(leave);
  endUpgraded();
}

// A worker of a program that is a cluster itself. When it is to end, Node closes its servers and each connection without a request, on which a client may
// just be sending one; but no connection that a client keeps busy, and none of another protocol.
function work() {
  const { listen, close } = net.Server.prototype;
  const known = new WeakSet();
  const isToEnd = () => cluster.worker.exitedAfterDisconnect;
  net.Server.prototype.listen = function (...words) {
    if (!known.has(this)) {
      known.add(this);
      track(this);
      // The program may close it and go on.
      this.prependListener('request', (_, answer) => this.listening || (answer.shouldKeepAlive = false));
      const { closeIdleConnections } = this;
      if (closeIdleConnections) {
        let timer;
        // Node calls this before it closes the listener, too.
        this.closeIdleConnections = () => {
          if (!isToEnd()) return closeIdleConnections.call(this);
          timer ??= setInterval(() => closeIdleConnections.call(this), IDLE).unref();
        };
      }
    }
    return listen.apply(this, words);
  };
  net.Server.prototype.close = function (...words) {
    if (isToEnd() && !isEnding) end();
    return close.apply(this, words);
  };
}

function begin({ SUPERVISOR_LISTENERS, SUPERVISOR_STOP_SIGNAL = 'SIGTERM', SUPERVISOR_WAIT_READY, WATCHDOG_USEC }) {
  const NAME = 'NODE_SUPERVISOR'; // Messages with this prefix do not reach the program's own handlers.
  // Without IPv6, the address of all interfaces is another.
  const NO_IPV6 = [constants.errno.EAFNOSUPPORT, constants.errno.EADDRNOTAVAIL];
  const { listen, close } = net.Server.prototype;
  const inherited = new Map((SUPERVISOR_LISTENERS || '').split(',').filter(Boolean).map((address, index) => [address, 3 + index]));
  const wishes = new Map();
  const asking = new Map(); // The call of each server that has no listener yet.
  const held = new Map(); // The addresses of servers that have asked for theirs.
  const given = new Set(); // Addresses of servers that other processes have been given.
  const servers = new Set();
  const known = new WeakSet(); // Servers that have listened before, too.
  const apart = new WeakSet(); // Servers on a port that the system chooses for this process alone.
  const shared = new Set(); // Listeners whose connections this process hands to workers of its own.
  const waiting = new Set(); // Connections that no such worker has taken yet.
  let wished = 0;
  let allTaken = () => {};

  const say = (message) => process.connected && process.send({ cmd: NAME, ...message }, undefined, undefined, () => {});

  // Signs of life, as systemd asks for them: none comes while one request holds the event loop.
  const life = () => say({ is: 'alive' });
  if (WATCHDOG_USEC) setInterval(life, Number(WATCHDOG_USEC) / 1000 / 4).unref();

  const REPORT = 1000; // Milliseconds from a request to the report about it and those that follow.
  const RESOLUTION = 20; // Milliseconds between two looks at the lag, while there are requests.
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION });
  let requests = 0;
  let failed = 0;
  let reporting;

  function count(answer) {
    requests++;
    answer.once('finish', () => answer.statusCode >= 500 && failed++);
    if (reporting) return;
    delay.reset();
    delay.enable();
    reporting = setTimeout(report, REPORT).unref();
  }

  function report() {
    reporting = undefined;
    delay.disable();
    const lag = Math.max(0, delay.max / 1e6 - RESOLUTION).toFixed(1);
    say({ says: `${requests} requests, ${failed} failed, lag up to ${lag} ms` });
  }

  net.Server.prototype.listen = function (...words) {
    const wanted = read(words);
    // It would take requests that it does not get to answer: a cluster replaces the workers that end.
    if (wanted && isEnding) return this;
    if (asking.has(this)) {
      const why = 'Listen method has been called more than once without closing.';
      throw Object.assign(new Error(why), { code: 'ERR_SERVER_ALREADY_LISTEN' });
    }
    watch(this);
    const isApart = wanted?.port === 0 && !inheritedAt(0);
    if (isApart) apart.add(this);
    else apart.delete(this);
    // Another path, a descriptor that the program has taken itself, a handle, or what is an error anyway.
    // One that listens already is an error, too.
    if (!wanted || isApart || this._handle) return listen.apply(this, words);
    asking.set(this, wanted);
    const done = words.at(-1);
    if (typeof done === 'function') this.once('listening', done);
    if (wanted.signal) closeOnAbort(this, wanted.signal);
    if (wanted.socket) {
      this._pipeName = wanted.socket; // As Node sets it, for `server.address()`.
      inherit(this, `unix:${path.resolve(wanted.socket)}`);
      return this;
    }
    resolve(wanted.host, (error, host) => {
      // It was closed meanwhile.
      if (asking.get(this) !== wanted) return;
      if (error) fail(this, error);
      else take(this, host, wanted);
    });
    return this;
  };

  net.Server.prototype.close = function (...words) {
    // To the program, it listens since its call.
    if (asking.delete(this) && typeof words[0] === 'function') this.once('close', words.shift());
    close.apply(this, words);
    const address = held.get(this);
    held.delete(this);
    if (address) leaves(address);
    return this;
  };

  function leaves(address) {
    if (!isEnding && !given.has(address) && ![...held.values()].includes(address)) say({ leaves: address });
  }

  function closeOnAbort(server, signal) {
    const abort = () => server.close();
    if (signal.aborted) return process.nextTick(abort);
    signal.addEventListener('abort', abort, { once: true });
    server.once('close', () => signal.removeEventListener('abort', abort));
  }

  function fail(server, error) {
    asking.delete(server);
    server.emit('error', error);
  }

  // A program may hand its server to a child, and close its own: the child goes on to answer.
  const { spawn } = ChildProcess.prototype;
  ChildProcess.prototype.spawn = function (...words) {
    const result = spawn.apply(this, words);
    const { send } = this;
    if (send) {
      this.send = function (message, handle, ...others) {
        if (held.has(handle)) given.add(held.get(handle));
        return send.call(this, message, handle, ...others);
      };
    }
    return result;
  };

  // The port and the host of a call, or the Unix socket if the supervisor has it, in all its forms: listen(port, host, backlog, done),
  // listen({ port, host }, done), listen(path, done), listen(done).
  function read([first, second]) {
    if (first === undefined || typeof first === 'function') return { port: 0 };
    const options = typeof first === 'object' && first !== null ? first : { port: first, host: typeof second === 'string' ? second : undefined };
    const socket = options.path ?? options.port;
    if (typeof socket === 'string' && inherited.has(`unix:${path.resolve(socket)}`)) return { socket, signal: options.signal };
    const isElsewhere = ['fd', 'path', 'handle', '_handle'].some((name) => options[name] !== undefined);
    const port = Number(options.port);
    const isPort = options.port !== '' && options.port !== null && Number.isInteger(port) && port >= 0 && port < 65536;
    return isElsewhere || !isPort ? undefined : { port, host: options.host, isOnly6: options.ipv6Only === true, signal: options.signal };
  }

  function inheritedAt(port) {
    return [...inherited.keys()].find((own) => own.endsWith(`:${port}`));
  }

  function resolve(host, done) {
    if (!host || net.isIP(host)) return done(null, host);
    dns.lookup(host, (error, address) => done(error, address));
  }

  function take(server, host, { port, isOnly6 }) {
    const address = (host) => (net.isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`);
    const names = host ? [address(host)] : [address('::'), address('0.0.0.0')];
    // Without a host, or without a port of its own, whatever the supervisor listens on at this port is meant.
    const name = names.find((name) => inherited.has(name)) ?? (host && port ? undefined : inheritedAt(port));
    if (name) {
      inherit(server, name);
    } else if (!process.connected) {
      // A program that has closed its channel cannot ask: it listens itself.
      asking.delete(server);
      listen.call(server, { port, host, ipv6Only: isOnly6 });
    } else wish(server, isOnly6 && net.isIPv6(host) ? [`ipv6only:${names[0]}`] : names);
  }

  function inherit(server, name) {
    const fd = inherited.get(name);
    inherited.delete(name);
    asking.delete(server);
    listen.call(server, { fd });
  }

  function wish(server, [name, ...others]) {
    const id = ++wished;
    wishes.set(id, { server, name, others, wanted: asking.get(server) });
    process.channel.ref();
    say({ wants: name, id });
  }

  process.on('internalMessage', (message, handle) => {
    const { server, name, others, wanted } = (message.cmd === NAME && wishes.get(message.id)) || {};
    if (!server) {
      // Given a second time, when the listener was made anew meanwhile.
      if (message.cmd === NAME) handle?.close?.();
      return;
    }
    wishes.delete(message.id);
    // A keeper of an earlier version sends only the name.
    const number = message.errno ?? constants.errno[message.code];
    if (asking.get(server) !== wanted) {
      // It was closed meanwhile.
      handle?.close();
      if (handle) leaves(name);
    } else if (handle) {
      asking.delete(server);
      held.set(server, name);
      listen.call(server, handle);
    } else if (others.length && NO_IPV6.includes(number)) {
      wish(server, others);
    } else {
      const [errno, code] = [-number, message.code ?? getSystemErrorName(-number)];
      const [, address, port] = /\[?([^[]*?)\]?:(\d+)$/.exec(name);
      const error = new Error(`listen ${code}: ${message.why}`);
      fail(server, Object.assign(error, { errno, code, syscall: 'listen', address, port: Number(port) }));
    }
    if (!wishes.size) process.channel.unref();
  });

  function watch(server) {
    servers.add(server);
    if (known.has(server)) return;
    known.add(server);
    server.on('close', () => servers.delete(server));
    // Before Node takes the listener from a server that it has made for a cluster.
    server.on('listening', () => {
      const listener = server._handle;
      const own = listener?.onconnection;
      process.nextTick(() => listener?.onconnection !== own && share(listener));
    });
    // A program may look for a free port before it listens where its clients are.
    server.on('listening', () => SUPERVISOR_WAIT_READY || apart.has(server) || say({ is: 'listening' }));
    // One that listens again at once is told of its close only then.
    server.on('listening', () => servers.add(server));
    server.prependListener('request', (_, answer) => count(answer));
    track(server);
  }

  // Of a cluster's listener, Node drops the connections that no worker has taken yet when the last worker leaves it. It closes each that one has taken.
  function share(listener) {
    const { onconnection } = listener;
    shared.add(listener);
    listener.onconnection = (error, connection) => {
      if (connection) {
        const { close } = connection;
        waiting.add(connection);
        connection.close = (...words) => {
          waiting.delete(connection);
          if (!waiting.size) allTaken();
          return close.apply(connection, words);
        };
      }
      return onconnection(error, connection);
    };
  }

  // A connection that was on its way to a worker that has died is never taken.
  function areTaken() {
    return new Promise((done) => {
      if (!waiting.size) return done();
      allTaken = done;
      setTimeout(done, IDLE);
    });
  }

  // Each worker closes its own connections. One that still runs when it has none any more has something else to do, which has no end.
  function ends(worker) {
    if (worker.isConnected()) worker.disconnect();
    return new Promise((done) => {
      worker.once('exit', done);
      worker.once('disconnect', () => setTimeout(done, IDLE));
    });
  }

  // The listeners of the package signal-exit, which many others load: they leave the signal to any other listener, so they are no handler of the
  // program's own. Both of its versions count their own; neither listens for SIGUSR1.
  function passive() {
    const emitters = [process.__signal_exit_emitter__, globalThis[Symbol.for('signal-exit emitter')]];
    return SUPERVISOR_STOP_SIGNAL === 'SIGUSR1' ? 0 : emitters.reduce((sum, emitter) => sum + (Number(emitter?.count) || 0), 0);
  }

  process.on(SUPERVISOR_STOP_SIGNAL, function stop() {
    if (isEnding || process.listenerCount(SUPERVISOR_STOP_SIGNAL) - passive() > 1) return;
    end();
    const closed = [...servers].map((server) => {
      // Only the listener: a client may just be sending a request on a kept connection. It gets its answer, and `Connection: close`.
      close.call(server);
      setInterval(() => server.closeIdleConnections?.(), IDLE);
      return new Promise((done) => server.once('close', done));
    });
    shared.forEach((listener) => listener.close());
    const workers = areTaken().then(() => Promise.all(Object.values(cluster.workers ?? {}).map(ends)));
    Promise.all([...closed, workers]).then(() => process.exit(0));
  });
}
