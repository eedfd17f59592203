"""Django with channels: HTTP beside a consumer whose messages go through a layer to a group."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer  # noqa: E402 - after setup()
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402 - as above
from django.core.asgi import get_asgi_application  # noqa: E402 - as above
from django.http import HttpRequest, HttpResponse  # noqa: E402 - as above
from django.urls import path  # noqa: E402 - as above


class Room(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # channels is not typed
    """Everybody in a room hears everybody."""

    groups: ClassVar[list[str]] = ["room"]

    async def connect(self) -> None:
        """Let in who speaks our protocol."""
        if self.scope["subprotocols"]:
            await self.accept("chat")
        else:
            await self.close(code=4003)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Pass it on."""
        await self.channel_layer.group_send("room", {"type": "said", "words": content["words"]})

    async def said(self, event: dict[str, Any]) -> None:
        """Somebody said something."""
        await self.send_json({"heard": event["words"]})


# What asgiref warns of where a server's send() is none for it: each of these consumers passes it on.
warnings.filterwarnings("error", "async_to_sync was passed a non-async-marked callable")


class Shout(WebsocketConsumer):  # type: ignore[misc]  # as above
    """A consumer that is not asynchronous: it runs in a thread."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer loudly, or close."""
        if text_data == "stop":
            self.close(code=4000, reason="stopped")
        else:
            self.send(text_data=(text_data or "").upper())


def hello(request: HttpRequest) -> HttpResponse:
    """Say hello."""
    return HttpResponse("hello")


urlpatterns = [path("", hello)]
sockets = [path("room", Room.as_asgi()), path("shout", Shout.as_asgi())]
app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter(sockets)})
