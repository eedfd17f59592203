"""Requests and answers as lines."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bicorn.observe.control_protocol import (
    Refused,
    Request,
    decode_answer,
    decode_request,
    encode_refusal,
    encode_request,
    encode_result,
)


def test_a_request_is_read_as_it_was_written() -> None:
    request = Request("scale", {"workers": 4}, "a")
    line = encode_request(request)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode_request(line) == request


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (b"", "bad-request", "one JSON object"),
        (b"GET / HTTP/1.1", "bad-request", "one JSON object"),
        (b"[" * 10000, "bad-request", "one JSON object"),
        (b"\xff", "bad-request", "one JSON object"),
        (b"[]", "bad-request", '"command"'),
        (b'{"version": 1, "command": 7}', "bad-request", '"command"'),
        (b'{"command": "status"}', "bad-version", '"version" has to be 1'),
        (b'{"version": 2, "command": "status"}', "bad-version", '"version" has to be 1'),
        (b'{"version": 1, "command": "status", "arguments": []}', "bad-request", '"arguments"'),
        (b'{"version": 1, "command": "status", "id": []}', "bad-request", '"id"'),
    ],
)
def test_what_is_no_request_is_refused(line: bytes, code: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        decode_request(line)
    assert refused.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["version", "command", "arguments", "id"]), inner),
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_request_or_refused(line: bytes) -> None:
    with contextlib.suppress(Refused):
        decode_request(line)


def test_arguments_are_checked() -> None:
    request = Request("scale", {"workers": 3, "quick": True, "pids": [1, 2]})
    assert request.number("workers", 1, 3) == 3
    assert request.flag("quick") and not request.flag("absent")
    assert request.numbers("pids") == [1, 2] and request.numbers("absent") == []
    for wrong in (
        lambda: request.number("workers", 4, 9),
        lambda: request.number("quick", 0, 1),
        lambda: request.number("absent", 0, 1),
        lambda: request.flag("workers"),
        lambda: request.numbers("workers"),
        lambda: request.refuse_unknown("workers", "quick"),
        lambda: request.refuse_unknown(),
    ):
        with pytest.raises(Refused, match=r"^scale: ") as refused:
            wrong()
        assert refused.value.code == "bad-argument"


def test_an_answer_is_read_as_it_was_written() -> None:
    assert decode_answer(encode_result(1, {"a": [1]})) == {"a": [1]}
    with pytest.raises(Refused, match="not now") as refused:
        decode_answer(encode_refusal(None, Refused("stopping", "not now")))
    assert refused.value.code == "stopping"


@pytest.mark.parametrize("line", [b"HTTP/1.1 400 Bad Request\r\n", b"{}", b"[]", b'{"ok": false}', b'{"ok": true}'])
def test_what_is_no_answer_is_refused(line: bytes) -> None:
    with pytest.raises(Refused, match="not one of a Bicorn server"):
        decode_answer(line)


def test_keys_that_come_later_are_no_mistake() -> None:
    line = json.dumps({"version": 1, "command": "status", "of-a-later": "client"}).encode()
    assert decode_request(line) == Request("status")
