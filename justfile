# The menu. Without `just`: `cargo run --release -- ...` does the same.

stallbench := "cargo run --release --quiet --"

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
