"""A Django application in one file, asynchronous and synchronous views."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)

import django  # noqa: E402 - it reads the settings
from django.core.handlers.asgi import ASGIHandler  # noqa: E402 - as above
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402 - as above
from django.urls import path  # noqa: E402 - as above

django.setup(set_prefix=False)


async def as_json(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return JsonResponse({"name": request.GET.get("name", "nobody"), "method": request.method})


def in_a_thread(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"thread": request.META["PATH_INFO"], "agent": request.META.get("HTTP_USER_AGENT")})


async def body(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"size": len(request.body)})


async def upload(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"size": request.FILES["file"].size, "note": request.POST["note"]})


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5):
            yield f"piece {number};".encode()

    return StreamingHttpResponse(pieces(), content_type="text/plain")


async def cookies(request: HttpRequest) -> HttpResponse:
    response = JsonResponse(dict(request.COOKIES))
    response.set_cookie("a", "b")
    response.set_cookie("c", "d")
    return response


async def error(request: HttpRequest) -> HttpResponse:
    raise ValueError("an error of the application")


urlpatterns: list[Any] = [
    path("json", as_json),
    path("sync", in_a_thread),
    path("body", body),
    path("upload", upload),
    path("stream", stream),
    path("cookies", cookies),
    path("error", error),
]
app = ASGIHandler()
