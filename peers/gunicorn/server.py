"""Gunicorn in two models: processes that serve one request after another, or one process with a pool of threads."""

import ctypes
import multiprocessing
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "python"))
import gunicorn
import knobs as command_line
import routes
from gunicorn.app.base import BaseApplication

MODELS = {"sync": ("processes", 2), "gthread": ("threads", 2)}
PR_SET_PDEATHSIG = 1
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large",
           500: "Internal Server Error", 503: "Service Unavailable"}


class App(BaseApplication):
    def __init__(self, knobs):
        self.knobs = knobs
        self.ready = multiprocessing.Value("i", 0)
        self.worker = None
        super().__init__()

    def load_config(self):
        knobs = self.knobs
        # Gunicorn finds an inherited socket by itself.
        if not command_line.is_inherited():
            listener = command_line.listen("gunicorn", knobs)
            listener.set_inheritable(True)
            self.cfg.set("bind", f"fd://{listener.detach()}")
        settings = {
            "worker_class": knobs.model, "workers": knobs.processes, "threads": knobs.threads,
            "keepalive": command_line.whole_seconds(knobs.ms["idle-timeout"]), "graceful_timeout": command_line.whole_seconds(knobs.ms["drain"]), "loglevel": "critical",
            # A worker that is silent for longer is killed; one that blocks is silent.
            "timeout": max(30, knobs.ms["max-block"] // 1000 + 5), "post_worker_init": self.begin, "control_socket_disable": True,
        }
        for name, value in settings.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self):
        return self.serve

    def begin(self, worker):
        # A worker would notice only after half its timeout that the parent has died.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        self.worker = worker
        with self.ready.get_lock():
            self.ready.value += 1
            if self.ready.value == self.knobs.processes:
                command_line.announce(worker.sockets[0].sock)

    def serve(self, environ, start_response):
        headers = [("X-Worker", str(os.getpid()))]
        method = environ["REQUEST_METHOD"]
        try:
            body = environ["wsgi.input"].read(routes.MAX_BODY + 1)
            if len(body) > routes.MAX_BODY:
                raise routes.Refused(413, "body: too long\n")
            path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
            found = routes.route(method, path, query, body, self.knobs.ms["max-block"], not self.worker.alive)
            if callable(found):
                found = routes.guarded(found)
        except routes.Refused as refused:
            found = refused.answer
            if refused.allow:
                headers.append(("Allow", refused.allow))
        status, kind, body = found
        headers += [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start_response(f"{status} {REASONS[status]}", headers)
        return [] if method == "HEAD" else [body]


def main():
    knobs = command_line.parse("gunicorn", MODELS)
    if knobs.version:
        command_line.print_receipt("gunicorn", gunicorn.__version__, knobs, str(knobs.threads))
        return
    App(knobs).run()


main()
