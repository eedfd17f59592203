"""One configuration and the workers forked from it.

Owns       what a worker is made from: settings, application, class, listeners, and how many there should be.
Never      forks.
Invariant  `tried` and `proven` turn true once: when one of its workers, and when `target` of them at the same time,
           were ready.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bicorn.app.application import Application
    from bicorn.arbiter.templates import Template
    from bicorn.config import Settings
    from bicorn.net.listener import Listener
    from bicorn.workers.base import Worker


@dataclasses.dataclass
class Generation:
    """What workers are forked from."""

    number: int
    settings: Settings
    app: Application
    worker_class: type[Worker]
    listeners: list[Listener]
    target: int
    tried: bool = False
    proven: bool = False
    template: Template | None = None  # what workers are forked from, if not from the arbiter
    is_warm: bool = False  # the template was a worker (refork)
    was_reforked: bool = False  # one of its workers has become a template

    @property
    def is_rolling(self) -> bool:
        """Whether its workers replace their predecessors one by one."""
        return self.settings.reload_mode == "rolling" or self.is_warm

    @property
    def needs_template(self) -> bool:
        """Whether no worker can be forked from the arbiter, which has not loaded the application."""
        return self.settings.preload_app or self.template is not None
