"""`gunicorn.workers.ggevent`: gevent-websocket's worker subclasses GeventPyWSGIWorker."""

from bicorn.workers.gevent import GeventPyWSGIWorker, GeventWorker
from bicorn.workers.pywsgi import PyWSGIHandler, PyWSGIServer

__all__ = ["GeventPyWSGIWorker", "GeventWorker", "PyWSGIHandler", "PyWSGIServer"]
