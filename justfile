# The menu. Without `just`: `cargo run --release -- VERB ...` does the same for every verb of stallbench.

stallbench := "cargo run --release --quiet --"
supervisor := "cargo build --release --quiet --package supervisor && ${CARGO_TARGET_DIR:-target}/release/supervisor"

set positional-arguments

# List the recipes
default:
    @just --list

# Measure servers, or your own service
bench *args:
    {{stallbench}} bench "$@"

# Measure every server (standard round) and add it to bench-results/
bench-all *args:
    {{stallbench}} bench "$@"

# Measure two versions in turn, trial by trial: `just ab main HEAD tokio`
ab *args:
    {{stallbench}} ab "$@"

# Build servers, each by itself
build *args:
    {{stallbench}} build "$@"

# One trial of every server but variants: about six minutes once built
bench-quick *args:
    {{stallbench}} bench --quick "$@"

# Third-party servers, beside ours
bench-peers *args:
    {{stallbench}} bench --peers "$@"

# Memory and response times of the supervisor; 200 runs in which something dies at a moment by chance; then reload, restart, scale, update and kill a cluster under load, and Express under both managers
bench-reload *args="tokio-current-thread smol-current-thread std-thread-per express-plain express-pm2":
    cargo bench --quiet --package supervisor
    CHAOS_RUNS=200 cargo test --quiet --package supervisor --test chaos -- --nocapture
    {{stallbench}} bench --experiment reload {{args}}

# Micro benchmarks: the codec, the blocking functions, each runtime's primitives
bench-micro *args:
    cargo bench --package common {{args}}
    for file in runtimes/*/benches/primitives.rs; do cargo bench --package runtime-$(echo $file | cut -d/ -f2) {{args}} || exit 1; done

# The load driver against wrk, oha and its own plan
bench-driver:
    cargo bench --package bench --bench driver

# Record a round of everything, with third-party servers and what becomes of launches; then the null round that says what is noise in it, and write all pages' tables (a mark that names a round stays with it)
record *args:
    {{stallbench}} bench --peers --experiment two-tabs,collateral,throughput,footprint,state "$@"
    {{stallbench}} check harness
    for page in README.md METHODOLOGY.md docs/*.md; do just splice $page || exit 1; done

# Serve a runtime's first server, or a server by name, on a fixed port until Ctrl-C
serve name *args:
    {{stallbench}} serve "$@"

# List all servers
servers *args:
    {{stallbench}} servers "$@"

# Print the tables of a round [default: the newest]
tables *args:
    {{stallbench}} tables "$@"

# Fill in the tables that the marks of a page ask for [default: README.md]
splice page="README.md" *args:
    {{stallbench}} tables --splice {{page}} {{args}}

# Rank the servers of a round; those that cannot be told apart share a rank
rank *args:
    {{stallbench}} rank "$@"

# Write a round as one HTML page, or two side by side: `just report`, `just report A B`
report *args:
    {{stallbench}} report "$@"

# Open a page where servers run side by side under the same load, live: `just lab`, `just lab -- --url http://127.0.0.1:3000 --blocker /slow`
lab *args:
    {{stallbench}} lab "$@"

# Compare rounds: what changed by more than noise
compare *args:
    {{stallbench}} compare "$@"

# Run a server as a cluster that is kept alive: `just start smol -i 2`
start what *args:
    {{stallbench}} start "$@"

# List running apps
list *args:
    {{supervisor}} list "$@"

# Show everything about a name or an id
show *args:
    {{supervisor}} show "$@"

# Show logs; --follow keeps streaming
logs *args:
    {{supervisor}} logs "$@"

# Watch processes, their use and their logs, on the whole terminal
monit:
    {{supervisor}} monit

# Replace processes one after another, without dropping a request
reload *args:
    {{supervisor}} reload "$@"

# Stop and start again
restart *args:
    {{supervisor}} restart "$@"

# Change the number of instances: `just scale NAME +2`
scale *args:
    {{supervisor}} scale "$@"

# Stop a name, an id or all
stop *args:
    {{supervisor}} stop "$@"

# Stop and forget
delete *args:
    {{supervisor}} delete "$@"

# Add what several machines measured: `just merge a.hlog b.hlog`
merge *args:
    {{stallbench}} merge "$@"

# Show what k6 or Locust found with the files of `deploy`: `just import k6-1.json k6-2.json`
import *args:
    {{stallbench}} import "$@"

# Print files for systemd, haproxy, kubernetes, compose, k6 or locust: `just deploy haproxy tokio-forked --hosts a,b`
deploy *args:
    {{stallbench}} deploy "$@"

# Load-test any HTTP server
drive *args:
    {{stallbench}} drive "$@"

# Verify the contract of every server; `just check harness` tests the harness itself, `just check database` launches in PostgreSQL
check *args:
    {{stallbench}} check "$@"

# Attack each server with slow, greedy and rude clients; verify that it serves the others and recovers: ten minutes
soak *args:
    {{stallbench}} soak "$@"

# Set one host against several: clusters behind HAProxy, launches in PostgreSQL; needs root
scale-out *args:
    {{stallbench}} scale-out "$@"

# Run all tests
test *args:
    cargo test {{args}}

# Run what CI runs
ci:
    bash .ci/run
