"""`gunicorn.workers.gasgi`: subclasses of the asgi worker import it from here."""

from bicorn.workers.asgi import AsgiWorker as ASGIWorker

__all__ = ["ASGIWorker"]
