"""Two views: a page that counts your visits in a cookie, and an answer in JSON."""

from __future__ import annotations

import os

from django.http import HttpRequest, HttpResponse, JsonResponse


def index(request: HttpRequest) -> HttpResponse:
    """Count this visit."""
    visits = request.session.get("visits", 0) + 1
    request.session["visits"] = visits
    server = request.META["SERVER_SOFTWARE"]
    return HttpResponse(f"<h1>Served by {server}</h1><p>Visit {visits}, answered by process {os.getpid()}.</p>")


def json(request: HttpRequest) -> JsonResponse:
    """Answer in JSON."""
    return JsonResponse({"message": "hello", "worker": os.getpid()})
