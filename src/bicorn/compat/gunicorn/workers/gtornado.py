"""`gunicorn.workers.gtornado`, for configurations that name the class."""

from bicorn.workers.tornado import TornadoWorker

__all__ = ["TornadoWorker"]
