"""Stacks that real processes write when they are asked."""

from __future__ import annotations

import collections
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from bicorn.ipc import stacks
from bicorn.ipc.stacks import ASK_SIGNAL, FAULT_SIGNAL, StackFile, held_back_by, is_caught, is_handled, kernel_state
from harness.server import wait_until


def waiting_in_python() -> None:
    threading.Event().wait()


def busy_in_c_code() -> None:
    collections.deque(itertools.repeat(None), maxlen=0)  # looks at no signal, and gives the lock to nobody


Forked = Callable[[Callable[[], None]], tuple[int, StackFile]]


@pytest.fixture
def forked() -> Iterator[Forked]:
    """Fork a process that is armed and then does something that does not end."""
    made: list[tuple[int, StackFile]] = []

    def fork(life: Callable[[], None]) -> tuple[int, StackFile]:
        file = StackFile()
        is_up, says_up = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                file.arm()
                threading.Thread(target=waiting_in_python, name="idler", daemon=True).start()
                os.write(says_up, b"x")
                life()
            finally:
                os._exit(1)
        made.append((pid, file))
        os.close(says_up)
        assert os.read(is_up, 1) == b"x"
        os.close(is_up)
        return pid, file

    yield fork
    for pid, file in made:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        file.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_process_that_runs_python_answers_with_names_and_lines(forked: Forked) -> None:
    pid, file = forked(waiting_in_python)
    for _ in range(2):
        file.clear()
        os.kill(pid, ASK_SIGNAL)
        wait_until(file.is_whole, "an answer")
        text = file.read()
        assert text.startswith("Thread MainThread (most recent call last):")
        assert "Thread idler (most recent call last):" in text
        assert "threading.Event().wait()" in text
        assert "in _answer" not in text


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_process_that_holds_the_lock_answers_the_second_signal(forked: Forked) -> None:
    pid, file = forked(busy_in_c_code)

    def is_busy() -> bool:
        file.clear()
        os.kill(pid, FAULT_SIGNAL)
        wait_until(lambda: file.read() and is_handled(pid, FAULT_SIGNAL), "an answer")
        return "in busy_in_c_code" in file.read()

    wait_until(is_busy, "the process is in C code")
    os.kill(pid, ASK_SIGNAL)
    assert is_busy()
    assert not file.is_whole()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_stopped_process_has_not_handled_its_signal(forked: Forked) -> None:
    pid, file = forked(waiting_in_python)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: kernel_state(pid) == "T (stopped)", "the process is stopped")
    os.kill(pid, FAULT_SIGNAL)
    assert not is_handled(pid, FAULT_SIGNAL)
    assert file.read() == ""
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: is_handled(pid, FAULT_SIGNAL), "the signal is handled")
    assert "Current thread" in file.read()


def test_a_thread_that_takes_no_signals_does_not_keep_an_answer_from_being_whole(forked: Forked) -> None:
    takes_none, says_so = os.pipe()

    def beside_one_that_takes_none() -> None:
        def take_none() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            os.write(says_so, b"x")
            waiting_in_python()

        threading.Thread(target=take_none, daemon=True).start()
        waiting_in_python()

    pid, file = forked(beside_one_that_takes_none)
    # Not to be seen from outside: while a thread is being made, the C library holds all signals back for a moment.
    assert os.read(takes_none, 1) == b"x"
    never_by = wait_until(lambda: held_back_by(pid, FAULT_SIGNAL) - {pid}, "the thread takes no signals")
    os.kill(pid, FAULT_SIGNAL)
    wait_until(lambda: is_handled(pid, FAULT_SIGNAL, never_by), "the signal is handled")
    assert "in take_none" in file.read()
    os.close(takes_none)
    os.close(says_so)


def test_a_process_that_is_gone_catches_nothing() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert not is_caught(pid, ASK_SIGNAL)
    assert kernel_state(pid) == ""


def test_no_more_is_read_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "STACK_BYTES_MAX", 5)
    file = StackFile()
    file._answer(ASK_SIGNAL, None)
    assert len(file.read()) == 4
    assert file.is_whole()
    file.close()
    file.close()
