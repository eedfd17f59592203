"""The grammar of APP_MODULE."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bicorn.app.target import Call, Target, parse_target
from bicorn.errors import AppImportError, ExitCode

LITERALS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("run", Target("run", "run", (), None)),
        ("run:app", Target("run:app", "run", ("app",), None)),
        ("a.b:c.d.e", Target("a.b:c.d.e", "a.b", ("c", "d", "e"), None)),
        ("run:make()", Target("run:make()", "run", ("make",), Call((), {}))),
        (
            "run:a.make('x', 1, k=[None])",
            Target("run:a.make('x', 1, k=[None])", "run", ("a", "make"), Call(("x", 1), {"k": [None]})),
        ),
        ("my-app: app ", Target("my-app: app ", "my-app", ("app",), None)),
        ("run:make(-1, 'a:b')", Target("run:make(-1, 'a:b')", "run", ("make",), Call((-1, "a:b"), {}))),
    ],
)
def test_what_can_be_named(uri: str, expected: Target) -> None:
    assert parse_target(uri) == expected


@given(st.lists(LITERALS, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c"]), LITERALS))
def test_any_literal_reaches_the_factory_as_it_was_written(args: list[object], kwargs: dict[str, object]) -> None:
    written = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    assert parse_target(f"run:make({written})").call == Call(tuple(args), kwargs)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "names no module"),
        (":app", "names no module"),
        ("a..b:app", "names no module"),
        (".run:app", "names no module"),
        ("run:", "Cannot read ''"),
        ("run:app app", "Cannot read"),
        ("run:app=1", "Cannot read"),
        ("run:\0", "Cannot read"),
        ("run:1", "not a name"),
        ("run:apps[0]", "not a name"),
        ("run:make()()", "not a name"),
        ("run:make().app", "not a name"),
        ("run:lambda: 1", "not a name"),
        ("run:make(name)", "'name' in .* is not a literal"),
        ("run:make(open('x'))", "not a literal"),
        ("run:make(__import__('os').system('id'))", "not a literal"),
        ("run:make(*[1])", "not a literal"),
        ("run:make(**{})", r"'\*\*'"),
        ("run:make([1] * 10)", "not a literal"),
    ],
)
def test_what_cannot_be_named_is_quoted_in_the_error(uri: str, said: str) -> None:
    with pytest.raises(AppImportError, match=said) as refused:
        parse_target(uri)
    assert refused.value.exit_code is ExitCode.APP_LOAD_ERROR


@given(st.text())
def test_nothing_but_the_one_error_comes_out(uri: str) -> None:
    with contextlib.suppress(AppImportError):
        assert parse_target(uri).uri == uri
