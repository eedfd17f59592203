"""`gunicorn.workers.gthread`, for configurations that name the class; its threads share a native loop."""

from bicorn.workers.threads import ThreadWorker

__all__ = ["ThreadWorker"]
