"""`gunicorn.workers.geventlet`, for configurations that name the class. Gunicorn dropped it in 26."""

from bicorn.workers.eventlet import EventletWorker

__all__ = ["EventletWorker"]
