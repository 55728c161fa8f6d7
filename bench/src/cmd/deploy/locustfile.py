"""The collateral experiment for Locust: probes to / beside K requests that block for {{block}} ms each.

On the machine that leads, one run for each number of blockers:

    for k in {{spaced_blockers}}; do
      K=$k locust -f locustfile.py --headless --master --expect-workers {{instances}} --users $((100 + k)) --spawn-rate 1000 \
        --run-time 10s --host {{target}} --json-file locust-$k
      sleep 20
    done

On each of {{instances}} load generators, which wait for it:

    for k in {{spaced_blockers}}; do
      until K=$k locust -f locustfile.py --worker --master-host LEADER; do sleep 1; done
    done

Then bring the results together: stallbench import locust-*.json
"""

import os

from locust import FastHttpUser, constant, constant_throughput, task

K = int(os.environ.get("K", "0"))
BLOCK_MS = {{block}}


class Probe(FastHttpUser):
    """A hundred clients that ask ten times a second each, unless they still wait."""

    fixed_count = 100
    wait_time = constant_throughput(10)

    @task
    def page(self):
        self.client.get("/", name=f"probe-{K}-{BLOCK_MS}")


class Blocker(FastHttpUser):
    """A client that asks for the next slow page as soon as it has one."""

    abstract = K == 0
    fixed_count = K
    wait_time = constant(0.001)

    @task
    def slow(self):
        self.client.get(f"/sleep?ms={BLOCK_MS}", name=f"blocker-{K}-{BLOCK_MS}")
