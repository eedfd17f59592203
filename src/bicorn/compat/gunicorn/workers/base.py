"""`gunicorn.workers.base`: the base of every third-party worker class (uvicorn, uvicorn_worker, aiohttp, meinheld)."""

from bicorn.workers.base import Worker

__all__ = ["Worker"]
