"""Uvicorn in two models: the work on the event loop, or handed to threads, which share the interpreter's lock."""

import asyncio
import contextlib
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "python"))
import knobs as command_line
import routes
import uvicorn

# Starlette and FastAPI give 40 threads to routes that are not async.
MODELS = {"plain": None, "to-thread": ("blocking-threads", 40)}


class App:
    def __init__(self, knobs):
        self.knobs = knobs
        self.server = None
        self.worker = str(os.getpid()).encode()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        headers = [(b"x-worker", self.worker)]
        try:
            body = await read(receive)
            path, query = scope["path"], scope["query_string"].decode("latin-1")
            found = routes.route(scope["method"], path, query, body, self.knobs.ms["max-block"], self.server.should_exit)
            if callable(found):
                found = await self.run(found)
        except routes.Refused as refused:
            found = refused.answer
            if refused.allow:
                headers.append((b"allow", refused.allow.encode()))
        if self.server.should_exit:
            headers.append((b"connection", b"close"))
        status, kind, body = found
        headers += [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def run(self, do):
        if self.knobs.model == "plain":
            return routes.guarded(do)
        return await asyncio.to_thread(routes.guarded, do)


async def read(receive):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > routes.MAX_BODY:
            raise routes.Refused(413, "body: too long\n")
    return body


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        """Uvicorn would raise the signal again after it has drained, and so end by it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.end)
        yield

    def end(self, *_):
        # A second signal means that its sender does not want to wait.
        if self.should_exit:
            os._exit(143)
        self.should_exit = True

    async def serve(self, sockets=None):
        await super().serve(sockets)
        # Python would wait for the calls that the drain gave up.
        os._exit(0)

    async def startup(self, sockets=None):
        knobs = self.config.app.knobs
        if knobs.model == "to-thread":
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(knobs.blocking_threads))
        await super().startup(sockets)
        command_line.announce(sockets[0])


def main():
    knobs = command_line.parse("uvicorn", MODELS)
    if knobs.version:
        threads = "1" if knobs.model == "plain" else f"1 + {knobs.blocking_threads}"
        command_line.print_receipt("uvicorn", uvicorn.__version__, knobs, threads)
        return
    app = App(knobs)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="off", backlog=4096, access_log=False, log_level="critical", server_header=False,
        timeout_keep_alive=knobs.ms["idle-timeout"] / 1000, timeout_graceful_shutdown=knobs.ms["drain"] / 1000,
    )
    app.server = Server(config)
    app.server.run(sockets=[command_line.listen("uvicorn", knobs)])


main()
