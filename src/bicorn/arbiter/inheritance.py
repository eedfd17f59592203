"""What every process below the arbiter shares with it.

Owns       the lifeline, the pipe of messages, the flag of a stop, and the queue of connections that change workers.
Never      takes part in what goes through them.
Invariant  all are made before the first fork, and the arbiter's ends stay open for as long as it lives.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bicorn.ipc import messages
from bicorn.ipc.handover import Handover
from bicorn.ipc.stop_flag import StopFlag

if TYPE_CHECKING:
    from bicorn.workers.base import Worker


class Inheritance:
    """Descriptors and memory that outlive generations of workers."""

    def __init__(self) -> None:
        #: Readable as soon as the arbiter is dead, however it died: nobody else has the other end.
        self.lifeline, self._life = os.pipe()
        self._messages, self.ready_pipe = os.pipe()
        os.set_blocking(self._messages, False)
        self.stop_flag = StopFlag()
        self.handover = Handover()

    def fileno(self) -> int:
        """Give the descriptor that is readable while there are messages."""
        return self._messages

    def receive(self) -> list[messages.Message]:
        """Give the messages that wait, in order."""
        return messages.receive(self._messages)

    def give_to(self, worker: Worker) -> None:
        """Let a worker that is about to be forked know what it gets."""
        worker.lifeline, worker.ready_pipe = self.lifeline, self.ready_pipe
        worker.stop_flag, worker.handover = self.stop_flag, self.handover.fds

    def leave_in_child(self) -> None:
        """Close the arbiter's ends in a forked child."""
        os.close(self._life)
        os.close(self._messages)
