"""The kinds of plain values: numbers, texts, lists, choices, users, paths.

Owns       the conversion of every setting that is not code (hooks and classes are in `callables`).
Never      reads a configuration source; a value comes in, a value goes out.
Invariant  whatever Gunicorn's validators accept is accepted here with the same result, save for what
           docs/differences.md lists.
"""

from __future__ import annotations

import glob
import grp
import ipaddress
import os
import pwd
import re
from collections.abc import Callable, Sequence
from typing import Final

from bicorn.config import cpus
from bicorn.config.addresses import Address, parse_address
from bicorn.config.kind import Invalid, Kind

# --- numbers ---------------------------------------------------------------------------------------------------


def parse_integer(raw: object) -> int:
    """Read an int, or text in Python's notation ("0x10"); a float is refused rather than rounded."""
    if isinstance(raw, int):
        return int(raw)  # True counts as 1, as it does in Gunicorn
    if isinstance(raw, str):
        try:
            return int(raw, 0)
        except ValueError:
            raise Invalid from None
    raise Invalid


def integer_between(low: int, high: int | None = None) -> Callable[[object], int]:
    """Make a parser of whole numbers from low to high, both allowed."""

    def parse(raw: object) -> int:
        number = parse_integer(raw)
        if number < low or (high is not None and number > high):
            raise Invalid
        return number

    return parse


def integer_from_text(text: str) -> object:
    """Read a number as a mode is written: "022" is octal, as well as "0o22", "0x12" and "18"."""
    if re.match(r"0\d", text):
        text = "0o" + text[1:]
    return int(text, 0)


integer_from_text.__name__ = "mode"  # argparse prints it: "invalid mode value"


def count_or_auto(text: str) -> object:
    """Read the text of `--workers`: decimal digits, or "auto"."""
    return cpus.AUTO if text.strip().lower() == cpus.AUTO else int(text)


count_or_auto.__name__ = "worker count"


def parse_workers(raw: object) -> int:
    """Read a worker count; "auto" becomes the count that fits the CPUs of this process."""
    if isinstance(raw, str) and raw.strip().lower() == cpus.AUTO:
        return cpus.auto_workers(cpus.read_usable_cpus())
    return COUNT.parse(raw)


def annotate_workers(raw: object) -> str | None:
    """Say what "auto" was worked out from."""
    if isinstance(raw, str) and raw.strip().lower() == cpus.AUTO:
        return cpus.explain(cpus.read_usable_cpus())
    return None


def parse_seconds(raw: object) -> float:
    """Read a duration: an int or a float, or their text."""
    if isinstance(raw, str):
        try:
            raw = float(raw)
        except ValueError:
            raise Invalid from None
    # "not >=" also refuses NaN, which compares false with everything.
    if not isinstance(raw, (int, float)) or not 0 <= raw < float("inf"):
        raise Invalid
    return raw


COUNT: Final = Kind[int](
    name="whole number",
    allowed="a whole number, 0 or more",
    parse=integer_between(0),
    metavar="INT",
    from_text=int,
)
POSITIVE: Final = Kind[int](
    name="whole number from 1",
    allowed="a whole number, 1 or more",
    parse=integer_between(1),
    metavar="INT",
    from_text=int,
)
FILE_MODE: Final = Kind[int](
    name="mode",
    allowed="a file mode such as 0o022 (on the command line also 022)",
    parse=integer_between(0),
    metavar="INT",
    from_text=integer_from_text,
)
# The text is left to the parser, as in Gunicorn: `--cert-reqs 0x2` works, unlike an INT flag.
CODE_NUMBER: Final = Kind[int](name="whole number", allowed="a whole number, 0 or more", parse=integer_between(0))
SECONDS: Final = Kind[float](
    name="seconds",
    allowed="a number of seconds, 0 or more, whole or not",
    parse=parse_seconds,
    metavar="SECONDS",
    from_text=float,
)
WORKERS: Final = Kind[int](
    name='whole number or "auto"',
    allowed='a whole number, 0 or more, or "auto"',
    parse=parse_workers,
    metavar="INT|auto",
    from_text=count_or_auto,
    annotate=annotate_workers,
)


def bounded(low: int, high: int) -> Kind[int]:
    """Make the kind of whole numbers within bounds that a specification sets."""
    return Kind[int](
        name=f"whole number from {low} to {high}",
        allowed=f"a whole number from {low} to {high}",
        parse=integer_between(low, high),
        metavar="INT",
        from_text=int,
    )


# --- switches and texts ----------------------------------------------------------------------------------------


def parse_bool(raw: object) -> bool:
    """Read a bool or the words true and false; 1, "yes" and their like are refused, as in Gunicorn."""
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
        return raw.strip().lower() == "true"
    raise Invalid


def parse_text(raw: object) -> str:
    """Read a string, without the white space around it."""
    if not isinstance(raw, str):
        raise Invalid(f"it is of type {type(raw).__name__}")
    return raw.strip()


def parse_optional_text(raw: object) -> str | None:
    """Read a string, or None."""
    return None if raw is None else parse_text(raw)


FLAG: Final = Kind[bool](
    name="bool",
    allowed="True or False",
    parse=parse_bool,
    action="store_true",
    none_is_default=True,
)
FLAG_OFF: Final = Kind[bool](
    name="bool",
    allowed="True or False",
    parse=parse_bool,
    action="store_const",
    alone=False,
    none_is_default=True,
)


def text(metavar: str | None = None) -> Kind[str]:
    """Make the kind of a string that is always there."""
    return Kind[str](name="string", allowed="a string", parse=parse_text, metavar=metavar, none_is_default=True)


def optional_text(metavar: str | None = None) -> Kind[str | None]:
    """Make the kind of a string that may be None."""
    return Kind[str | None](
        name="string or None", allowed="a string, or None", parse=parse_optional_text, metavar=metavar
    )


def one_of(options: Sequence[str]) -> str:
    """Give the metavar of a choice, as argparse writes its own."""
    return "{" + ",".join(options) + "}"


def choice(*options: str) -> Kind[str]:
    """Make the kind of one word out of a few, in any case."""

    def parse(raw: object) -> str:
        if isinstance(raw, str) and raw.strip().lower() in options:
            return raw.strip().lower()
        raise Invalid

    return Kind[str](
        name="one of " + ", ".join(options),
        allowed="one of " + ", ".join(repr(option) for option in options),
        parse=parse,
        metavar=one_of(options),
        none_is_default=True,
    )


# Old spellings of a switch that became a choice; they must go on meaning what they meant.
PROXY_PROTOCOL_WORDS: Final = {
    **dict.fromkeys(("off", "false", "0", "none"), "off"),
    **dict.fromkeys(("auto", "true", "1"), "auto"),
    "v1": "v1",
    "v2": "v2",
}


def parse_proxy_protocol(raw: object) -> str:
    """Read off, v1, v2 or auto; True and False are kept from when this was a switch."""
    if isinstance(raw, bool):
        return "auto" if raw else "off"
    if isinstance(raw, str) and raw.strip().lower() in PROXY_PROTOCOL_WORDS:
        return PROXY_PROTOCOL_WORDS[raw.strip().lower()]
    raise Invalid


PROXY_PROTOCOL: Final = Kind[str](
    name="one of off, v1, v2, auto",
    allowed="one of 'off', 'v1', 'v2', 'auto', or a bool (True means 'auto')",
    parse=parse_proxy_protocol,
    metavar=one_of(("off", "v1", "v2", "auto")),
    values="optional",
    alone="auto",
    none_is_default=True,
)

HTTP2_CLEARTEXT_WORDS: Final = ("off", "prior-knowledge", "upgrade", "both")


def parse_http2_cleartext(raw: object) -> str:
    """Read how cleartext HTTP/2 begins; True means prior knowledge."""
    if isinstance(raw, bool):
        return "prior-knowledge" if raw else "off"
    if isinstance(raw, str) and raw.strip().lower() in HTTP2_CLEARTEXT_WORDS:
        return raw.strip().lower()
    raise Invalid


HTTP2_CLEARTEXT: Final = Kind[str](
    name="one of " + ", ".join(HTTP2_CLEARTEXT_WORDS),
    allowed="one of 'off', 'prior-knowledge', 'upgrade', 'both', or a bool (True means 'prior-knowledge')",
    parse=parse_http2_cleartext,
    metavar=one_of(HTTP2_CLEARTEXT_WORDS),
    none_is_default=True,
)


# --- lists and dicts -------------------------------------------------------------------------------------------


def parse_texts(raw: object) -> list[str]:
    """Read a list of strings; one string is a list of one, anything empty the empty list."""
    if not raw:
        return []
    if isinstance(raw, str):
        return [raw.strip()]
    if not isinstance(raw, Sequence):
        if not isinstance(raw, (set, frozenset, dict)):
            raise Invalid
        raw = list(raw)
    return [parse_text(item) for item in raw]


def parse_comma_list(raw: object) -> list[str]:
    """Read words with commas between them; a list of words is taken as well."""
    if raw is None or raw == "":
        return []
    if isinstance(raw, (list, tuple)):
        return [parse_text(item) for item in raw]
    return [word.strip() for word in parse_text(raw).split(",") if word]


def parse_networks(raw: object) -> list[str]:
    """Read IP addresses, networks in CIDR notation, and `*`; each is checked and kept as it was written."""
    words = parse_comma_list(raw)
    for word in words:
        if word == "*":
            continue
        try:
            ipaddress.ip_network(word)
        except ValueError as error:
            raise Invalid(str(error)) from None
    return words


def parse_http_protocols(raw: object) -> list[str]:
    """Read protocols in order of preference, each once."""
    words = [word.lower() for word in parse_comma_list(raw) if word] or ["h1"]
    if not set(words) <= {"h1", "h2"}:
        raise Invalid
    if len(words) != len(set(words)):
        raise Invalid("one is named twice")
    return words


GLOB_MAGIC: Final = re.compile(r"[*?\[]")


def parse_watched_files(raw: object) -> list[str]:
    """Read paths that exist, and patterns, which may match nothing yet."""
    paths = parse_texts(raw)
    for path in paths:
        if GLOB_MAGIC.search(path) is None and not os.path.exists(path):
            raise Invalid(f"{path!r} does not exist")
    return paths


def annotate_watched_files(raw: object) -> str | None:
    """Name the patterns that match nothing at the moment."""
    idle = [path for path in parse_texts(raw) if GLOB_MAGIC.search(path) and not glob.glob(path, recursive=True)]
    return f"matches no file yet: {', '.join(idle)}" if idle else None


def parse_dict(raw: object) -> dict[str, object]:
    """Read a dict, as it is."""
    if not isinstance(raw, dict):
        raise Invalid
    return raw


def texts(metavar: str) -> Kind[list[str]]:
    """Make the kind of a list of strings, one for each time its flag is given."""
    return Kind[list[str]](
        name="list of strings",
        allowed="a string or a list of strings",
        parse=parse_texts,
        metavar=metavar,
        action="append",
    )


WATCHED_FILES: Final = Kind[list[str]](
    name="list of paths and patterns",
    allowed="a path that exists, a pattern, or a list of them",
    parse=parse_watched_files,
    metavar="FILES",
    action="append",
    annotate=annotate_watched_files,
)
COMMA_LIST: Final = Kind[list[str]](
    name="comma-separated list", allowed="words with commas between them, or a list of words", parse=parse_comma_list
)
NETWORKS: Final = Kind[list[str]](
    name="comma-separated IP addresses and networks",
    allowed="IP addresses and networks (10.0.0.0/8, with no host bits set) with commas between them, or '*'",
    parse=parse_networks,
    metavar="STRING",
)
HTTP_PROTOCOLS: Final = Kind[list[str]](
    name="comma-separated list of h1, h2",
    allowed="'h1', 'h2' or both with a comma between them, the preferred one first",
    parse=parse_http_protocols,
    metavar="STRING",
)
DICT: Final = Kind[dict[str, object]](name="dict", allowed="a dict", parse=parse_dict)


# --- the system's names ----------------------------------------------------------------------------------------


def parse_user(raw: object) -> int:
    """Read a user id or the name of a user; None is the user who runs this."""
    if raw is None:
        return os.geteuid()
    if isinstance(raw, int):
        return raw
    if not isinstance(raw, str):
        raise Invalid
    if raw.isdigit():
        return int(raw)
    try:
        return pwd.getpwnam(raw).pw_uid
    except KeyError:
        raise Invalid("there is no such user") from None


def parse_group(raw: object) -> int:
    """Read a group id or the name of a group; None is the group of this process."""
    if raw is None:
        return os.getegid()
    if isinstance(raw, int):
        return raw
    if not isinstance(raw, str):
        raise Invalid
    if raw.isdigit():
        return int(raw)
    try:
        return grp.getgrnam(raw).gr_gid
    except KeyError:
        raise Invalid("there is no such group") from None


def current_directory() -> str:
    """Give the working directory as the shell calls it, so that a symlinked deployment stays a symlink.

    `current -> releases/41` must be followed anew at each reload; getcwd() alone would pin release 41.
    """
    real = os.getcwd()
    named = os.environ.get("PWD", "")
    try:
        return named if os.path.samefile(named, real) else real
    except OSError:
        return real


def parse_directory(raw: object) -> str:
    """Read a directory that exists; a relative one counts from the working directory."""
    path = os.path.abspath(os.path.join(current_directory(), parse_text(raw)))
    if not os.path.exists(path):
        raise Invalid("it does not exist")
    return path


def parse_reload_engine(raw: object) -> str:
    """Read the name of a reload engine, exactly as it is written."""
    if isinstance(raw, str) and raw in RELOAD_ENGINES:
        return raw
    raise Invalid


USER: Final = Kind[int](name="user", allowed="a user id or the name of a user", parse=parse_user, metavar="USER")
GROUP: Final = Kind[int](name="group", allowed="a group id or the name of a group", parse=parse_group, metavar="GROUP")
DIRECTORY: Final = Kind[str](name="directory", allowed="a directory that exists", parse=parse_directory)

RELOAD_ENGINES: Final = ("auto", "poll", "watchfiles", "inotify")
RELOAD_ENGINE: Final = Kind[str](
    name="one of " + ", ".join(RELOAD_ENGINES),
    allowed="one of " + ", ".join(repr(engine) for engine in RELOAD_ENGINES),
    parse=parse_reload_engine,
    metavar=one_of(RELOAD_ENGINES),
)

STATSD_PORT: Final = 8125


def parse_statsd_host(raw: object) -> Address | None:
    """Read the address of statsd, or None."""
    if raw is None:
        return None
    text = parse_text(raw)
    # Here "unix:8125" is a host called unix, unlike in `bind`; Gunicorn keeps it so for old configurations.
    if re.fullmatch(r"unix:\d+", text):
        return "unix", int(text.removeprefix("unix:"))
    return parse_address(text, STATSD_PORT)


STATSD_HOST: Final = Kind[Address | None](
    name="address or None", allowed="HOST:PORT, unix://PATH, or None", parse=parse_statsd_host, metavar="STATSD_ADDR"
)
ANYTHING: Final = Kind[object](name="any value", allowed="any value", parse=lambda raw: raw)
