"""The routes, without a server: a request becomes an answer, or work that gives one."""

import re
from functools import partial
from urllib.parse import parse_qs

import work

PAGE = work.text(200, "This is the regular page. It should answer at once.\n")
MAX_BODY = 1 << 20
NUMBER = re.compile("[0-9]+")
MILLISECONDS = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
# What each path takes.
METHODS = {
    **dict.fromkeys(
        ["/", "/healthz", "/timer", "/sleep", "/json/stringify", "/sort", "/pbkdf2", "/scrypt", "/panic"], ("GET", "HEAD")
    ),
    "/json/parse": ("POST",),
}


class Refused(Exception):
    """A request that is not carried out: its answer, and the methods that would be."""

    def __init__(self, status, body, allow=None):
        super().__init__(body)
        self.answer = work.text(status, body)
        self.allow = allow


class Query:
    def __init__(self, text):
        self.values = parse_qs(text, keep_blank_values=True)

    def get(self, name, otherwise, reads, takes):
        if name not in self.values:
            return otherwise
        value = self.values[name][0]
        found = reads(value)
        if found is None:
            raise Refused(400, f"{name}: takes {takes}, not '{value}'\n")
        return found

    def number(self, name, otherwise, least, most):
        def reads(value):
            is_right = NUMBER.fullmatch(value) and len(value) < 20
            return int(value) if is_right and least <= int(value) <= most else None

        return self.get(name, otherwise, reads, f"a whole number from {least} to {most}")

    def length(self, most):
        def reads(value):
            is_right = MILLISECONDS.fullmatch(value)
            return float(value) if is_right and float(value) <= most else None

        return self.get("ms", min(most, 9000), reads, f"milliseconds from 0 to {most:g} (--max-block)")

    def clock(self):
        return self.get("clock", "wall", lambda value: value if value in ("wall", "cpu") else None, "wall or cpu")


def route(method, path, query, body, max_block, is_draining):
    """An answer (status, type, body), or a function that does the work and returns one."""
    if path not in METHODS:
        raise Refused(404, "there is nothing here; try /, /timer?ms=9000, /sleep?ms=1000 or /healthz\n")
    if method not in METHODS[path]:
        allow = ", ".join(METHODS[path])
        raise Refused(405, f"{path} takes {allow}\n", allow)
    query = Query(query)
    match path:
        case "/":
            return PAGE
        case "/healthz":
            return work.text(503, "draining\n") if is_draining else work.text(200, "ready\n")
        case "/timer":
            return partial(work.timer, query.length(max_block), query.clock())
        case "/sleep":
            return partial(work.sleep, query.length(max_block))
        case "/json/stringify":
            return partial(work.stringify, query.number("items", 10_000, 0, 1_000_000))
        case "/json/parse":
            return partial(work.parse, body)
        case "/sort":
            return partial(work.sort, query.number("items", 100_000, 0, 10_000_000))
        case "/pbkdf2":
            return partial(work.pbkdf2, query.number("iterations", 100_000, 1, 10_000_000))
        case "/scrypt":
            return partial(work.scrypt, query.number("log_n", 14, 1, 17))
        case "/panic":
            return work.panic


def guarded(do):
    """Does the work; 500 if it fails."""
    try:
        return do()
    except Exception:
        return work.text(500, "the handler panicked\n")
