// Express under `pm2 start -i N`, in a separate PM2 that ends with this process, even if this process is killed.
//
// PM2's daemon leaves the process group of the process that starts it. So its home is a fresh folder, and a guardian process
// ends the daemon and removes the folder. The guardian notices the end of this process because its pipe closes. A daemon that has run
// out of descriptors for good hears nobody, so it is killed with its apps if it does not end in time.
'use strict';

const { execFile, spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const PM2 = path.join(__dirname, 'node_modules', '.bin', 'pm2');

// $0 is PM2's command, and $1 the seconds that it may take.
const GUARD = `cat >/dev/null
daemon=$(cat "$PM2_HOME/pm2.pid" 2>/dev/null)
if ! timeout --signal=KILL "$1" "$0" kill >/dev/null 2>&1 && [ -n "$daemon" ]; then
  kill -KILL "$daemon" $(cat "/proc/$daemon/task/$daemon/children") 2>/dev/null
fi
rm -rf "$PM2_HOME"`;

function lead(knobs, announce, fail) {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'stallbench-pm2-'));
  const env = { PATH: process.env.PATH, HOME: home, PM2_HOME: home, PM2_DISABLE_VERSION_CHECK: 'true' };
  const patience = Math.ceil(knobs.drain / 1000) + 10;
  const guardian = spawn('/bin/sh', ['-c', GUARD, PM2, String(patience)], { env, detached: true, stdio: ['pipe', 'ignore', 'ignore'] });

  const end = (signal) => {
    // A second signal means that its sender does not want to wait.
    for (const again of ['SIGTERM', 'SIGINT']) process.once(again, () => endNow(home, deleting));
    // PM2 sends SIGINT, on which each app drains, before it kills the app.
    const deleting = execFile(PM2, ['delete', 'all'], { env, timeout: 1000 * patience, killSignal: 'SIGKILL' }, () => {
      guardian.on('exit', () => process.exit(0));
      guardian.stdin.end();
    });
  };
  process.once('SIGTERM', end);
  process.once('SIGINT', end);

  const address = path.join(home, 'address');
  const server = path.join(__dirname, 'server.js');
  const mine = process.argv.slice(2);
  const more = ['--name', 'express', '--wait-ready', '--listen-timeout', '8000', '--kill-timeout', String(knobs.drain)];
  const start = ['start', server, '-i', String(knobs.processes), ...more, '--', ...mine];
  execFile(PM2, start, { env: { ...env, STALLBENCH_ADDRESS: address } }, (error, stdout, stderr) => {
    if (error) return fail(`pm2 start: ${(stderr || stdout).trim().split('\n').slice(-1)[0]}`, 1);
    if (!fs.existsSync(address)) return fail('pm2 start: no process reported its address', 1);
    announce(JSON.parse(fs.readFileSync(address, 'utf8')));
  });
}

// Kills `pm2 delete` first, because it would start another daemon. Then kills the daemon, because it would restart its
// processes, and last the processes. The guardian removes the rest.
function endNow(home, deleting) {
  deleting.kill('SIGKILL');
  const read = (file) => (fs.existsSync(file) ? fs.readFileSync(file, 'utf8').trim().split(/\s+/).filter(Boolean).map(Number) : []);
  const [daemon] = read(path.join(home, 'pm2.pid'));
  const apps = daemon ? read(`/proc/${daemon}/task/${daemon}/children`) : [];
  for (const pid of daemon ? [daemon, ...apps] : []) process.kill(pid, 'SIGKILL');
  process.exit(143);
}

module.exports = (knobs, announce, fail, serve) => {
  // With an address file, PM2 has started this process.
  const address = process.env.STALLBENCH_ADDRESS;
  if (!address) return lead(knobs, announce, fail);
  serve(knobs, (listening) => {
    fs.writeFileSync(address, JSON.stringify(listening));
    process.send('ready');
  });
};
