"""A Tornado application: a page, an upload, a wait, a WebSocket, and a loop that never ends."""

import asyncio
import os

from tornado.web import Application, RequestHandler, stream_request_body
from tornado.websocket import WebSocketHandler


class Page(RequestHandler):
    def get(self):
        self.write({"pid": os.getpid(), "scheme": self.request.protocol, "remote": self.request.remote_ip})

    def post(self):
        self.write({"length": len(self.request.body)})


class Gated(RequestHandler):
    """Says that it was called, then waits until the test lets it go on (harness.gate)."""

    async def get(self):
        await asyncio.to_thread(self.wait)
        self.write("done")

    def wait(self):
        with open(os.path.join(os.environ["GATE"], "started"), "wb", buffering=0) as started:
            started.write(b"x")
        with open(os.path.join(os.environ["GATE"], "release"), "rb", buffering=0) as release:
            release.read(1)


class Held(Gated):
    """The same, with the whole loop."""

    def get(self):
        self.wait()
        self.write("done")


class Large(RequestHandler):
    def get(self):
        self.write(b"x" * 20_000_000)


@stream_request_body
class Streamed(RequestHandler):
    def data_received(self, chunk):
        self.write(chunk)

    def post(self):
        self.finish()


class Stuck(RequestHandler):
    def get(self):
        while True:
            pass


class Talk(WebSocketHandler):
    def on_message(self, message):
        self.write_message(message.upper())


app = Application(
    [
        ("/", Page),
        ("/gated", Gated),
        ("/held", Held),
        ("/large", Large),
        ("/streamed", Streamed),
        ("/stuck", Stuck),
        ("/ws", Talk),
    ]
)
