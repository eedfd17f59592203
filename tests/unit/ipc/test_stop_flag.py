"""The byte that tells workers why they drain."""

from __future__ import annotations

import os

from bicorn.ipc.stop_flag import StopFlag


def test_a_child_sees_what_its_parent_sets_after_the_fork() -> None:
    flag = StopFlag()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(told, 1)
        os._exit(7 if flag.is_set() else 1)
    assert not flag.is_set()
    flag.set()
    os.write(tell, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    os.close(told)
    os.close(tell)
