"""A Django site of ordinary weight: startproject's applications, the admin loaded, a page with a table of 100 rows."""

from __future__ import annotations

import django  # type: ignore[import-untyped]  # Django ships no types.
from django.conf import settings  # type: ignore[import-untyped]  # Django ships no types.
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]  # Django ships no types.
from django.template import engines  # type: ignore[import-untyped]  # Django ships no types.

_CONTRIB = ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=[f"django.contrib.{name}" for name in _CONTRIB],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    ROOT_URLCONF=__name__,
    SECRET_KEY="nothing is signed here",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    STATIC_URL="static/",
)
django.setup()

from django.contrib import admin  # type: ignore[import-untyped]  # noqa: E402  # Its models need the settings above.
from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]  # noqa: E402  # The same.
from django.urls import path  # type: ignore[import-untyped]  # noqa: E402  # The same.

ROWS = [{"number": number, "name": f"row {number}", "price": number * 1.5} for number in range(100)]
TABLE = engines["django"].from_string(
    "<table>{% for row in rows %}<tr><td>{{ row.number }}</td><td>{{ row.name|title }}</td>"
    "<td>{{ row.price|floatformat:2 }}</td></tr>{% endfor %}</table>"
)


def table(request: HttpRequest) -> HttpResponse:
    return HttpResponse(TABLE.render({"rows": ROWS}, request))


urlpatterns = [path("", table), path("admin/", admin.site.urls)]
app = WSGIHandler()
