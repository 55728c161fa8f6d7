# The menu. Without `just`: `cargo run --release -- ...` does the same.

stallbench := "cargo run --release --quiet --"
supervisor := "cargo build --release --quiet --package supervisor && ${CARGO_TARGET_DIR:-target}/release/supervisor"

set positional-arguments

# What there is to run
default:
    @just --list

# Measure every server (standard round) and add it to bench-results/
bench-all *args:
    {{stallbench}} bench {{args}}

# One trial of every server: three minutes once built
bench-quick *args:
    {{stallbench}} bench --quick {{args}}

# The servers that others wrote, beside ours
bench-peers *args:
    {{stallbench}} bench --peers {{args}}

# What the supervisor weighs; then replace, restart, multiply and kill the processes of a cluster under load; Express under PM2 beside ours
bench-reload *args="tokio-current-thread smol-current-thread std-thread-per express-pm2":
    cargo bench --quiet --package supervisor
    {{stallbench}} bench --experiment reload {{args}}

# Micro benchmarks: the codec, the blocking functions, each runtime's primitives
bench-micro *args:
    cargo bench --package common {{args}}
    for file in runtimes/*/benches/primitives.rs; do cargo bench --package runtime-$(echo $file | cut -d/ -f2) {{args}} || exit 1; done

# The load driver against wrk, oha and its own plan
bench-driver:
    cargo bench --package bench --bench driver

# A standard round with peers that is meant to be committed, and the README's table from it
record *args:
    {{stallbench}} bench --peers {{args}}
    just splice

# Serve a runtime's first server, or a server by name, on a fixed port until Ctrl-C
serve name *args:
    {{stallbench}} serve {{name}} {{args}}

# The servers there are
servers *args:
    {{stallbench}} servers {{args}}

# The tables of a round, the newest unless told
tables *args:
    {{stallbench}} tables {{args}}

# Write what its marks ask for into a page: the newest round's headline into the README
splice page="README.md" *args:
    {{stallbench}} tables --splice {{page}} {{args}}

# Which servers of a round stand out, and which cannot be told apart
rank *args:
    {{stallbench}} rank {{args}}

# What differs between rounds by more than noise
compare *args:
    {{stallbench}} compare {{args}}

# Run a server, a command or a supervisor.toml as a cluster that is kept alive: `just start smol -i 2`
start what *args:
    {{supervisor}} start "$@"

# What the supervisor runs
list *args:
    {{supervisor}} list "$@"

# Everything about a name or an id
show *args:
    {{supervisor}} show "$@"

# What instances write; --follow goes on
logs *args:
    {{supervisor}} logs "$@"

# Processes, what they use and what they write, on the whole terminal
monit:
    {{supervisor}} monit

# Replace processes one after the other, without dropping a request
reload *args:
    {{supervisor}} reload "$@"

# End and start anew
restart *args:
    {{supervisor}} restart "$@"

# More or fewer instances: `just scale NAME +2`
scale *args:
    {{supervisor}} scale "$@"

# End a name, an id or all
stop *args:
    {{supervisor}} stop "$@"

# End and forget
delete *args:
    {{supervisor}} delete "$@"

# Put a load on any HTTP server
drive *args:
    {{stallbench}} drive {{args}}

# Verify the contract of every server; `just check harness` the harness itself
check *args:
    {{stallbench}} check {{args}}

# All tests
test *args:
    cargo test {{args}}

# What CI runs
ci:
    bash .ci/run
