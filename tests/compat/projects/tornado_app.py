"""A Tornado application: a page, an upload, a wait, a WebSocket, and a loop that never ends."""

import asyncio
import os

from tornado.web import Application, RequestHandler
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


class Stuck(RequestHandler):
    def get(self):
        while True:
            pass


class Talk(WebSocketHandler):
    def on_message(self, message):
        self.write_message(message.upper())


app = Application([("/", Page), ("/gated", Gated), ("/stuck", Stuck), ("/ws", Talk)])
