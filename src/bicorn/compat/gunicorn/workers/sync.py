"""`gunicorn.workers.sync`, for configurations that name the class; its loop is native, without accept()."""

from bicorn.workers.sync import SyncWorker

__all__ = ["SyncWorker"]
