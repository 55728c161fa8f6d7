#!/bin/sh
# Builds the server as the file of the first argument.
#
# The version in go.mod also chooses how the runtime and the standard library behave: a new toolchain acts as an old one did for a module that names that. So each
# toolchain builds with its own version.
set -eu
mod="$1.mod"
mkdir -p "$(dirname "$1")"
cp go.mod "$mod"
go mod edit -go="$(go env GOVERSION | sed -E 's/.*go([0-9]+\.[0-9]+).*/\1/')" "$mod"
exec go build -trimpath -modfile "$mod" -o "$1" .
