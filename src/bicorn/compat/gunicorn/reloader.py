"""`gunicorn.reloader`, for development servers that watch files with the server's own class."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bicorn.app.reloader import Reloader as BicornReloader

__all__ = ["InotifyReloader", "Reloader", "preferred_reloader", "reloader_engines"]


class Reloader(BicornReloader):
    """Looks at the files once a second."""

    ENGINE = "poll"

    def __init__(
        self,
        extra_files: Iterable[str] | None = None,
        interval: float = 1,
        callback: Callable[[str], None] | None = None,
    ) -> None:
        """`interval` is Gunicorn's parameter; files are looked at once a second."""
        super().__init__(extra_files or (), self.ENGINE, callback or (lambda file: None))


class InotifyReloader(Reloader):
    """Is told by the kernel, through the package watchfiles; looks once a second where that is not installed."""

    ENGINE = "inotify"

    def __init__(self, extra_files: Iterable[str] | None = None, callback: Callable[[str], None] | None = None) -> None:
        super().__init__(extra_files, callback=callback)


preferred_reloader = InotifyReloader
reloader_engines = {"auto": InotifyReloader, "poll": Reloader, "inotify": InotifyReloader}
