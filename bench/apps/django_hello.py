"""Hello through Django in one file, with the two middlewares of startproject that need no database."""

from __future__ import annotations

from django.conf import settings  # type: ignore[import-untyped]  # Django ships no types.
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]  # Django ships no types.
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]  # Django ships no types.
from django.urls import path  # type: ignore[import-untyped]  # Django ships no types.

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="nothing is signed here",
)


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello, world!", content_type="text/plain")


urlpatterns = [path("", hello)]
app = get_wsgi_application()
