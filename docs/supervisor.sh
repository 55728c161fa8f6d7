#!/usr/bin/env bash
# Writes sample output of `list`, `show` and `monit` into docs/supervisor.md. It comes from real runs under a light load; tmux is
# the terminal.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet --package supervisor
cargo build --release --quiet --package bench
target/release/stallbench build smol tokio-multi-thread >/dev/null
folder=$(mktemp -d)
SUPERVISOR_HOME=$(mktemp -d)
export SUPERVISOR_HOME
supervisor=target/release/supervisor
trap '$supervisor kill >/dev/null; tmux kill-session -t stallbench-docs 2>/dev/null; rm -rf "$folder" "$SUPERVISOR_HOME"' EXIT

run() { echo "\$ supervisor $*"; $supervisor "$@" 2>&1; echo; }
start() { echo "\$ stallbench start $*"; target/release/stallbench start "$@" 2>&1; echo; }
{
  echo '```'
  start smol -i 2 --listen 127.0.0.1:8081
  start tokio-multi-thread --listen 127.0.0.1:8082
  run reload smol-current-thread
  target/release/stallbench drive http://127.0.0.1:8081/ --rate 2000 --connections 8 --duration 12 >/dev/null 2>&1 &
  sleep 2
  run list
  run show 0
  echo '$ supervisor monit'
  tmux new-session -d -s stallbench-docs -x 110 -y 30 "SUPERVISOR_HOME=$SUPERVISOR_HOME $supervisor monit"
  sleep 8
  tmux capture-pane -p -t stallbench-docs
  tmux send-keys -t stallbench-docs q
  wait
  echo '```'
} | sed "s#$PWD#/srv/stallbench#g; s#$SUPERVISOR_HOME#~/.supervisor#g; s/ *$//" >"$folder/shown"

awk -v shown="$folder/shown" '
  /<!-- supervisor:/ { print; while ((getline line < shown) > 0) print line; skip = 1; next }
  /<!-- \/supervisor -->/ { skip = 0 }
  !skip' docs/supervisor.md >"$folder/page"
cp "$folder/page" docs/supervisor.md
