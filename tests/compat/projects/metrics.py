"""A WSGI application with prometheus_client's counters over several processes."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

VISITS = Counter("visits", "Requests for /.")
ALIVE = Gauge("alive", "One for each living worker.", multiprocess_mode="livesum")
ALIVE.set(1)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        VISITS.inc()
        body = b"hello"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
