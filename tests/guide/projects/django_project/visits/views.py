"""The project's pages."""

import json
import os
import threading

from django.http import HttpResponse, JsonResponse
from django.views.decorators.http import require_POST

from visits.models import Visit

VERSION = 1


def index(request):
    return HttpResponse(f"version {VERSION}")


@require_POST
def echo(request):
    return JsonResponse(json.loads(request.body))


def visits(request):
    """Counts visits in the database."""
    Visit.objects.create()
    return HttpResponse(str(Visit.objects.count()))


def slow(request):
    """Answers when the test says so."""
    directory = os.environ["GATE"]
    with open(f"{directory}/started", "wb") as started:
        started.write(b"x")
    with open(f"{directory}/release", "rb", buffering=0) as release:
        release.read(1)
    return HttpResponse("done")


def stuck(request):
    """Never answers: a deadlock, for example."""
    threading.Event().wait()
