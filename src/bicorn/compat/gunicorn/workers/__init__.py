"""`gunicorn.workers`; tools (nagare among them) add worker classes of their own to SUPPORTED_WORKERS."""

from bicorn.workers.registry import ALIASES as SUPPORTED_WORKERS

__all__ = ["SUPPORTED_WORKERS"]
