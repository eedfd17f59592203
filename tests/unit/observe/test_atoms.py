"""Atoms: their values, and that no client can forge a line."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bicorn.errors import ConfigError
from bicorn.observe.atoms import SafeAtoms, basic_auth_user, check_format, escape, gather_atoms
from harness.logs import DEFAULT_FORMAT, Request, Response, environ


def formatted(fmt: str, atoms: SafeAtoms) -> str:
    return fmt % atoms


def atoms_after(request_time: timedelta) -> dict[str, object]:
    return gather_atoms(Response(), Request(), environ(), request_time, user=None, now="[now]")


@given(st.text())
def test_an_escaped_value_is_one_printable_ascii_field(value: str) -> None:
    escaped = escape(value)
    assert re.fullmatch(r'(?:[ !#-\[\]-~]|\\["\\]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8})*', escaped)


@given(st.text())
def test_an_escaped_value_can_be_read_back(value: str) -> None:
    pattern = r'\\(?:(["\\])|x(..)|u(....)|U(........))'
    assert re.sub(pattern, lambda m: m[1] or chr(int(m[2] or m[3] or m[4], 16)), escape(value)) == value


@given(st.text(alphabet=[*'\\"\n\r\0\x1b\x85ab \u2028'], max_size=12), st.text(alphabet=[*'\\"a '], max_size=12))
def test_two_quoted_fields_always_read_as_two(referer: str, agent: str) -> None:
    atoms = SafeAtoms({"f": referer, "a": agent})
    line = formatted('"%(f)s" "%(a)s"', atoms)
    assert re.findall(r'"((?:[^"\\]|\\.)*)"', line) == [escape(referer), escape(agent)]


def test_plain_text_stays_as_it_is() -> None:
    plain = "".join(map(chr, range(0x20, 0x7F))).replace('"', "").replace("\\", "")
    assert escape(plain) == plain


def test_long_requests_keep_their_days() -> None:
    atoms = atoms_after(timedelta(days=2, seconds=3, microseconds=456789))
    assert (atoms["T"], atoms["M"], atoms["D"]) == (172803, 172803456, 172803456789)
    assert atoms["L"] == "172803.456789"


def test_a_clock_set_back_gives_zero() -> None:
    atoms = atoms_after(timedelta(seconds=-5))
    assert (atoms["T"], atoms["M"], atoms["D"], atoms["L"]) == (0, 0, 0, "0.000000")


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1000)))
def test_the_four_durations_agree(request_time: timedelta) -> None:
    atoms = atoms_after(request_time)
    assert isinstance(atoms["D"], int)
    assert atoms["D"] == request_time // timedelta(microseconds=1)
    assert atoms["M"] == atoms["D"] // 1000
    assert atoms["T"] == atoms["D"] // 1_000_000
    assert atoms["L"] == f"{atoms['T']}.{atoms['D'] % 1_000_000:06d}"


def test_names_in_braces_are_found_in_any_case_and_missing_ones_are_a_dash() -> None:
    atoms = SafeAtoms(atoms_after(timedelta()))
    assert formatted("%({Host}i)s %({content-TYPE}o)s %({Server_Port}e)s", atoms) == "example.com text/html 8000"
    assert formatted("%({nope}i)s %({nope}o)s %({nope}e)s %(zz)s", atoms) == "- - - -"


def test_an_object_in_the_environ_is_escaped_as_text() -> None:
    class Route:
        def __str__(self) -> str:
            return '<Route "a\n">'

    atoms = SafeAtoms({"{route}e": Route(), "{version}e": (1, 0), "{flag}e": True, "{none}e": None})
    assert (
        formatted("%({route}e)s %({version}e)s %({flag}e)s %({none}e)s", atoms) == r"<Route \"a\x0a\"> (1, 0) True None"
    )


def test_header_fields_may_be_bytes_and_mappings() -> None:
    response = SimpleNamespace(status="200 OK", sent=1, headers={b"X-One": b"caf\xc3\xa9"})
    atoms = gather_atoms(response, [(b"X-Two", b"2")], {}, timedelta(), user=None, now="")
    assert formatted("%({x-one}o)s %({x-two}i)s", SafeAtoms(atoms)) == r"caf\xc3\xa9 2"


@pytest.mark.parametrize(
    ("field", "user"),
    [
        ("Basic YWxpY2U6c2VjcmV0", "alice"),
        ("basic YWxpY2U6c2VjcmV0", "alice"),
        ("Basic YWxpY2U=", "alice"),
        ("Basic   YWxpY2U6eA==", "alice"),
        ("Basic OnB3", ""),
        ("Basic", ""),
        ("Basic !!!x", None),
        ("Basic YWxpY2U", None),
        ("Basic \xff", None),
        ("Bearer YWxpY2U6c2VjcmV0", None),
        ("Basically YWxpY2U6c2VjcmV0", None),
        ("", None),
        (None, None),
    ],
)
def test_the_user_of_basic_authorization(field: str | None, user: str | None) -> None:
    assert basic_auth_user(field) == user


def test_a_user_name_cannot_break_the_line() -> None:
    atoms = gather_atoms(Response(), Request(), {}, timedelta(), user='a" 200\n', now="")
    assert formatted("%(u)s", SafeAtoms(atoms)) == r"a\" 200\x0a"


@pytest.mark.parametrize(
    "fmt",
    [
        DEFAULT_FORMAT,
        "plain",
        "100%%",
        "%(T)d %(D)d %(M)d %(B)d",
        "%(T).3f",
        "%({X-Request-Id}i)s",
        "%(h)-20s|",
        "%(s)r",
        "",
    ],
)
def test_formats_that_can_write_a_line_are_taken(fmt: str) -> None:
    check_format(fmt)


@pytest.mark.parametrize("fmt", ["%(h)", "%(h)s %", "%(s)d", "%(a)f", "%(h)z", "%(h", "%*d"])
def test_a_format_that_could_not_write_one_line_is_refused_with_its_setting(fmt: str) -> None:
    with pytest.raises(ConfigError, match="access_log_format"):
        check_format(fmt)
