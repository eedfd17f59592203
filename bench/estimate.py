"""How long a run will take, before it is started.

Owns       the guess, from what starting and stopping a server took on a machine of two cores.
Never      waits or measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from bench.rounds import SETTLE_S, WARM_UP_S, Plan
from bench.works import Work

# From the start of a process to its first right answer, and from SIGTERM to its end.
_START_AND_STOP_S: Final = 1.1
# Opening and using ten thousand connections.
_IDLE_S: Final = 3.0


def minutes(works: Iterable[Work], servers: Sequence[str], plan: Plan) -> int:
    """Rounded up."""
    seconds = sum(_round_s(work, servers, plan) for work in works) * plan.rounds
    return math.ceil(seconds / 60)


def _round_s(work: Work, servers: Sequence[str], plan: Plan) -> float:
    entrants = [entrant for entrant in work.entrants if entrant.server in servers]
    each = _START_AND_STOP_S + WARM_UP_S + SETTLE_S + max(plan.seconds, work.seconds_min)
    return len(entrants) * each + sum(_IDLE_S for entrant in entrants if entrant.idle_connections)
