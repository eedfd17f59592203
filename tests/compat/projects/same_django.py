"""The same small site as its neighbours, in Django; `app` is WSGI, `asgi` is ASGI."""

from django.conf import settings
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(SECRET_KEY="of a test", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, DEBUG=False)

from django.core.asgi import get_asgi_application  # noqa: E402  # Django wants its settings first
from django.core.wsgi import get_wsgi_application  # noqa: E402  # the same


def page(request):
    return JsonResponse({"url": request.build_absolute_uri(), "agent": request.headers["X-Agent"]})


@csrf_exempt
def echo(request):
    return HttpResponse(request.body, content_type="application/octet-stream")


def stream(request):
    if hasattr(request, "scope"):  # Under ASGI Django would collect a synchronous iterator, and warn.
        return StreamingHttpResponse(numbers(), content_type="text/plain")
    return StreamingHttpResponse((f"{number}\n" for number in range(1000)), content_type="text/plain")


async def numbers():
    for number in range(1000):
        yield f"{number}\n"


def cookies(request):
    response = HttpResponseRedirect("/")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


def broken(request):
    raise ValueError("broken on purpose")


urlpatterns = [
    path("", page),
    path("echo", echo),
    path("stream", stream),
    path("cookies", cookies),
    path("broken", broken),
]
app = get_wsgi_application()
asgi = get_asgi_application()
