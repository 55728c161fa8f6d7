"""The command line and the receipt, the same for each Python server."""

import argparse
import contextlib
import json
import os
import platform
import re
import socket
import sys

UNITS = {"ms": 1, "s": 1000, "m": 60_000}
TIMES = {"max-block": "60s", "drain": "10s", "drain-idle": "2s", "header-timeout": "10s", "request-timeout": "60s", "idle-timeout": "75s"}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        fail(self.prog, message, 2)


def fail(name, message, code):
    sys.stderr.write(f"{name}: {message}\n")
    sys.exit(code)


def parse(name, models):
    """The knobs of a server with these models: for each, the knob that it takes and its default, or None."""
    parser = Parser(prog=name, allow_abbrev=False, add_help=False)
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--model", default=next(iter(models)))
    parser.add_argument("--listen", default="127.0.0.1:0")
    for knob in ("processes", "threads", "blocking-threads"):
        parser.add_argument(f"--{knob}")
    for knob, value in TIMES.items():
        parser.add_argument(f"--{knob}", default=value)
    knobs = parser.parse_args()
    if knobs.model not in models:
        fail(name, f"--model '{knobs.model}' is unknown; valid values: {', '.join(models)}", 2)
    for knob in ("processes", "threads", "blocking_threads"):
        dashed, value = knob.replace("_", "-"), getattr(knobs, knob)
        own, default = models[knobs.model] or (None, 1)
        if value is not None and own != dashed:
            fail(name, f"model {knobs.model} does not take --{dashed}", 2)
        if value is not None and not re.fullmatch("[1-9][0-9]{0,3}", value):
            fail(name, f"--{dashed} '{value}' is not a whole number from 1 to 9999", 2)
        setattr(knobs, knob, int(value or default) if own == dashed else 1)
    knobs.ms = {knob: milliseconds(name, knob, getattr(knobs, knob.replace("-", "_"))) for knob in TIMES}
    listen = re.fullmatch(r"(.+):([0-9]{1,5})", knobs.listen)
    if not listen or int(listen[2]) > 65535:
        fail(name, f"--listen '{knobs.listen}' is not an address; write HOST:PORT", 2)
    knobs.host, knobs.port = listen[1].strip("[]"), int(listen[2])
    return knobs


def milliseconds(name, knob, text):
    found = re.fullmatch("([0-9]+)(ms|s|m)", text)
    return int(found[1]) * UNITS[found[2]] if found else fail(name, f"--{knob} '{text}' is not a time; write 500ms, 10s or 2m", 2)


def is_inherited():
    """Whether the listener is descriptor 3, as systemd passes it."""
    return os.environ.get("LISTEN_FDS") == "1" and os.environ.get("LISTEN_PID") == str(os.getpid())


def whole_seconds(ms):
    """For settings that count in seconds: never 0, which means something else to them."""
    return max(1, -(-ms // 1000))


def listen(name, knobs):
    """The socket that was inherited, or a new one."""
    if is_inherited():
        return socket.socket(fileno=3)
    try:
        family = socket.AF_INET6 if ":" in knobs.host else socket.AF_INET
        return socket.create_server((knobs.host, knobs.port), family=family, backlog=4096)
    except OSError as error:
        why = "address already in use" if error.errno == 98 else error.strerror or str(error)
        fail(name, f"cannot listen on {knobs.listen}: {why}; choose another address with --listen", 1)


def announce(listener):
    host, port = listener.getsockname()[:2]
    # A server serves also if nobody reads its output.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"ready http://{f'[{host}]' if ':' in host else host}:{port}\n")
        sys.stdout.flush()


def print_receipt(name, version, knobs, handler_threads):
    given = {"processes": str(knobs.processes)}
    if knobs.threads > 1:
        given["threads"] = str(knobs.threads)
    if knobs.blocking_threads > 1:
        given["blocking-threads"] = str(knobs.blocking_threads)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    receipt = {
        "server": f"{name}-{knobs.model}", "runtime": name, "runtime_version": f"{version} on {python}", "model": knobs.model,
        "allocator": f"of {python}", "compiler": python, "profile": "release", "target": f"{platform.machine()}-linux", "rustflags": "",
        "handler_threads": handler_threads, "io_threads": "1",
        "knobs": {**given, **{knob: getattr(knobs, knob.replace("-", "_")) for knob in TIMES}},
    }
    print(json.dumps(receipt, indent=2))
