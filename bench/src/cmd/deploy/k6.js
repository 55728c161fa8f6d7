// The collateral experiment for k6: probes to / beside k requests that block for {{block}} ms each.
//
// From {{instances}} load generators, started at one moment, each with its part of the load:
//
{{segments}}
//
// Then bring the results together: stallbench import k6-*.json
import http from 'k6/http';
import { sleep } from 'k6';

const TARGET = __ENV.TARGET || '{{target}}';
const BLOCK_MS = {{block}};
const BLOCKERS = [{{blockers}}];
// Probes per second, the length of each step, and the pause after it, in which what blocked is worked off.
const RATE = 1000;
const SECONDS = 10;
const PAUSE = 20;

const scenarios = {};
BLOCKERS.forEach((k, step) => {
  const when = { startTime: `${step * (SECONDS + PAUSE)}s`, duration: `${SECONDS}s`, gracefulStop: '10s' };
  // As many virtual users as probes may wait at once; k6 drops what finds none, and the import counts that.
  const probes = { executor: 'constant-arrival-rate', exec: 'probe', rate: RATE, timeUnit: '1s', preAllocatedVUs: 1000 };
  scenarios[`probe-${k}-${BLOCK_MS}`] = { ...probes, ...when };
  if (k > 0) {
    scenarios[`blocker-${k}-${BLOCK_MS}`] = { executor: 'constant-vus', exec: 'blocker', vus: k, ...when };
  }
});

export const options = { scenarios, discardResponseBodies: true };

export function probe() {
  http.get(`${TARGET}/`);
}

export function blocker() {
  http.get(`${TARGET}/sleep?ms=${BLOCK_MS}`);
  sleep(0.001);
}
