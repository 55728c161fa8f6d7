"""The blocking work, with the same results as the common crate's `work.rs`."""

import hashlib
import json
import time

PASSWORD = b"correct horse battery staple"
SALT = b"stallbench"
TEXT = "text/plain; charset=utf-8"
CUT = (1 << 64) - 1


def text(status, body):
    return status, TEXT, body.encode()


def plain(ms):
    return int(ms) if ms == int(ms) else ms


def timer(ms, clock):
    now = time.perf_counter if clock == "wall" else time.thread_time
    end = now() + ms / 1e3
    while now() < end:
        pass
    return text(200, f"spun for {plain(ms)} ms\n")


def sleep(ms):
    time.sleep(ms / 1e3)
    return text(200, f"slept for {plain(ms)} ms\n")


def stringify(items):
    records = [
        {
            "flight_number": number,
            "mission": f"Mission {number}",
            "rocket": "Explorer IS1",
            "target": "Kepler-442 b",
            "customers": ["ZTM", "NASA"],
            "upcoming": number % 2 == 0,
            "success": number % 3 == 0,
        }
        for number in range(items)
    ]
    return digest("stringified", items, json.dumps(records, separators=(",", ":")).encode())


def refuse_constant(name):
    raise ValueError(f"{name} is not JSON")


def parse(document):
    try:
        return digest("parsed", count(json.loads(document.decode(), parse_constant=refuse_constant)), document)
    except (ValueError, RecursionError) as error:
        return text(400, f"body: not JSON: {error}\n")


def count(value):
    """The number of values in a document, the document itself included."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count, parts))


def sort(items):
    """Sorted numbers; the unsorted input is the same every time (SplitMix64 from 0)."""
    numbers = []
    state = 0
    for _ in range(items):
        state = (state + 0x9E3779B97F4A7C15) & CUT
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & CUT
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & CUT
        numbers.append(mixed ^ (mixed >> 31))
    numbers.sort()
    return digest("sorted", items, b"".join(number.to_bytes(8, "little") for number in numbers))


def pbkdf2(iterations):
    return digest("pbkdf2", iterations, hashlib.pbkdf2_hmac("sha512", PASSWORD, SALT, iterations, 64))


def scrypt(log_n):
    n = 1 << log_n
    return digest("scrypt", log_n, hashlib.scrypt(PASSWORD, salt=SALT, n=n, r=8, p=1, maxmem=256 * n * 8 + (1 << 20), dklen=64))


def panic():
    raise RuntimeError("a request to /panic asked for this")


def digest(work, amount, data):
    """An answer with a digest of the result, which proves that the work was done and lets clients check it."""
    found = {"work": work, "amount": amount, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return 200, "application/json", json.dumps(found, separators=(",", ":")).encode()
