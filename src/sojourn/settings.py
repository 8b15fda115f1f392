"""Settings: typed, from arguments, the URL, the environment and TOML, each with its source."""

from __future__ import annotations

import math
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints
from urllib.parse import parse_qsl, unquote

import msgspec

from sojourn.errors import InvalidId, InvalidSetting
from sojourn.expiry import Expiry
from sojourn.names import check_name
from sojourn.spelling import known_names
from sojourn.store import Durability
from sojourn.stores import OPTIONS
from sojourn.telemetry.fingerprint import KEY_BYTES_LEAST, KEY_BYTES_MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FILE = "sojourn.toml"
"""The file that is read if it is there: one setting a line."""

PROJECT_FILE = "pyproject.toml"
"""The file whose table `[tool.sojourn]` is read if it is there; `sojourn.toml` wins over it."""

PREFIX = "SOJOURN_"
"""What a variable of the environment starts with: `SOJOURN_IDLE` is the setting `idle`."""

FILE_VARIABLE = "SOJOURN_SETTINGS"
"""The variable that names the file to read instead of the two."""

NOT_SETTINGS = frozenset(
    {FILE_VARIABLE, "SOJOURN_REDIS_USERNAME", "SOJOURN_REDIS_PASSWORD", "SOJOURN_SOAK"}
)
"""Variables with our prefix that are something else: the file, what a store looks for itself, and a
switch of our own tests."""

SERVICE_LINKS = re.compile(r"SOJOURN_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_.*)?)")
"""Variables that Kubernetes gives to every container beside a service that is called sojourn."""

OBSERVERS = ("logging", "opentelemetry", "prometheus")
"""What can observe the store; the names that `telemetry` takes."""

OPTION_OF_URL = "option of the URL,"
"""What the source of a value starts with that came with the URL."""

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""Seconds in each unit of a duration."""

_ONE_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])")
_SPANS = re.compile(rf"(?:{_ONE_SPAN.pattern})+")
_PLAIN_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_SECRET_OPTION = re.compile(r"pass|secret|token|key|auth", re.IGNORECASE)

NEVER_WORDS = frozenset({"never", "none", "off", "0"})
"""What a duration says that never comes."""


# --- values: what is given, as text or typed, to what a setting holds --------------------------


class _Unfit(ValueError):
    """A value is not one of its kind. The message says what to give, and names no secret."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Unfit(f"give text, not {type(value).__name__}")
    return value


def _url(value: object) -> str:
    url = _text(value)
    if "://" not in url or not url.isprintable():
        raise _Unfit("give a URL, for example sqlite:///app.db")
    if "#" in url:
        raise _Unfit("write %23 for a #")
    if _is_ambiguous(url):
        raise _Unfit("write %40 for an @, %2F for a / and %3F for a ? in a password or an option")
    return url


def _name(value: object) -> str:
    try:
        return check_name("app", _text(value))
    except InvalidId as error:
        raise _Unfit(error.reason) from None


def _durability(value: object) -> str:
    if value not in ("durable", "relaxed"):
        raise _Unfit(f"give 'durable' or 'relaxed', not {value!r}")
    return str(value)


def _duration(value: object) -> float | None:
    if isinstance(value, str):
        value = _seconds_of(value.strip())
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unfit(f"{_HOW_LONG}, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds < math.inf:
        raise _Unfit(f"{_HOW_LONG}; it is finite and not negative")
    return value or None


_HOW_LONG = "give seconds as a number, or text like '90', '30m', '12h', '7d', '1h30m', or 'never'"


def _seconds_of(text: str) -> float | None:
    if text in NEVER_WORDS:
        return None
    if _PLAIN_NUMBER.fullmatch(text):
        return _whole(float(text))
    if _SPANS.fullmatch(text):
        return _whole(math.fsum(float(n) * UNITS[unit] for n, unit in _ONE_SPAN.findall(text)))
    raise _Unfit(f"{_HOW_LONG}, not {text!r}")


def _whole(seconds: float) -> float:
    return int(seconds) if seconds.is_integer() else seconds


def _observers(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip() not in ("", "none")]
    if not isinstance(value, list | tuple):
        raise _Unfit(f"give a list of names, not {type(value).__name__}")
    names = tuple(_text(name) for name in value)
    for name in names:
        if name not in OBSERVERS:
            raise _Unfit(f"unknown observer {name!r}; {known_names(name, OBSERVERS)}")
    if len(set(names)) < len(names):
        raise _Unfit("name each observer once")
    return names


def _key(value: object) -> str | None:
    if value is None:
        return None
    try:
        size = len(_text(value).encode())
    except UnicodeEncodeError:  # whose message shows a part of it
        raise _Unfit("it is not valid text") from None
    if not KEY_BYTES_LEAST <= size <= KEY_BYTES_MOST:
        raise _Unfit(f"give a text of {KEY_BYTES_LEAST} to {KEY_BYTES_MOST} bytes")
    return str(value)


class Kind(NamedTuple):
    """What a setting's value is: how it is written, its unit, how it is read, whether it is shown.

    `parse` turns text, or a value of TOML or of an argument, into what the setting holds.
    """

    text: str
    unit: str
    parse: Callable[[object], object]
    secret: bool = False


URL = Kind("URL", "", _url)
NAME = Kind("text", "", _name)
DURABILITY = Kind("`durable` or `relaxed`", "", _durability)
DURATION = Kind("duration", "seconds", _duration)
OBSERVER_NAMES = Kind("list of names", "", _observers)
SECRET = Kind("text", f"{KEY_BYTES_LEAST} to {KEY_BYTES_MOST} bytes", _key, secret=True)


def _is(kind: Kind, text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra={"kind": kind})


# --- the settings ------------------------------------------------------------------------------


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set, checked when it is made. `sources` says where each value came from.

    Use `load_settings` to have them looked up. Raises `InvalidSetting` for a value that is none.
    """

    url: Annotated[str, _is(URL, "Where the sessions are kept, see `open_store`.")] = (
        "sqlite:///sojourn.db"
    )
    app: Annotated[str, _is(NAME, "Whose sessions they are.")] = "default"
    durability: Annotated[
        Durability, _is(DURABILITY, "What a write waits for, unless the write itself says.")
    ] = "durable"
    idle: Annotated[
        float | None, _is(DURATION, "New sessions expire so long after their last use.")
    ] = None
    absolute: Annotated[
        float | None, _is(DURATION, "New sessions expire so long after they began.")
    ] = None
    telemetry: Annotated[
        tuple[str, ...],
        _is(OBSERVER_NAMES, "What observes the store: `logging`, `opentelemetry`, `prometheus`."),
    ] = ()
    telemetry_slow: Annotated[
        float | None, _is(DURATION, "Calls that take so long or longer are logged as warnings.")
    ] = None
    telemetry_key: Annotated[
        str | None,
        _is(SECRET, "Makes fingerprints of session ids the same everywhere; random if not given."),
    ] = None
    sources: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Check every value, and say of each where it came from."""
        sources = dict(self.sources)
        for name, setting in SETTINGS.items():
            source = sources.get(name, "argument")
            value = _parsed(name, getattr(self, name), source)
            msgspec.structs.force_setattr(self, name, value)
            sources.setdefault(name, "default" if value == setting.default else "argument")
        msgspec.structs.force_setattr(self, "sources", sources)
        _, options = split_url(self.url, sources["url"])
        for name in options:
            raise InvalidSetting(name, sources["url"], "take it out of the URL and give it itself")

    @property
    def expiry(self) -> Expiry:
        """The expiry of new sessions."""
        return Expiry(idle=self.idle, absolute=self.absolute)

    def replaced(self, **given: Any) -> Settings:
        """Return these settings with others in their place.

        A new URL brings its options; what the old one's options had set is the default again.
        Raises `InvalidSetting` for an unknown name, or a value that is none.
        """
        found: Found = {name: (getattr(self, name), self.sources[name]) for name in SETTINGS}
        if "url" in given:
            for name, setting in SETTINGS.items():
                if found[name][1].startswith(OPTION_OF_URL):
                    found[name] = (setting.default, "default")
        _put(found, {name: (value, "argument") for name, value in given.items()})
        return _settings(found)

    def described(self) -> list[Described]:
        """Return each setting with its value in words and its source; secrets are masked."""
        return [
            Described(name, _shown(name, getattr(self, name)), self.sources[name])
            for name in SETTINGS
        ]

    def describe(self) -> str:
        """Return a table of the settings, their values and their sources; secrets are masked."""
        rows = [Described("setting", "value", "source"), *self.described()]
        wide = [max(len(row[column]) for row in rows) for column in range(2)]
        return "\n".join(f"{n:<{wide[0]}}  {v:<{wide[1]}}  {source}" for n, v, source in rows)

    def __repr__(self) -> str:
        """Show the values, secrets masked."""
        return f"Settings({', '.join(f'{row.name}={row.value}' for row in self.described())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same to rich, which would show every field."""
        return [(row.name, row.value) for row in self.described()]


class Described(NamedTuple):
    """A setting's name, its value in words, and where the value came from."""

    name: str
    value: str
    source: str


class Setting(NamedTuple):
    """What is known of a setting: its kind, its default, and what it is for."""

    kind: Kind
    default: object
    text: str


def _known() -> dict[str, Setting]:
    hints = get_type_hints(Settings, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(Settings):
        for meta in getattr(hints[field.name], "__metadata__", ()):
            kind = meta.extra["kind"]
            found[field.name] = Setting(kind, field.default, meta.description)
    return found


SETTINGS: Mapping[str, Setting] = _known()
"""Every setting by its name, in order."""


# --- looking them up ---------------------------------------------------------------------------

Found = dict[str, tuple[object, str]]
"""What was found of each setting, and where."""


def load_settings(
    *,
    file: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] = ".",
    environ: Mapping[str, str] | None = None,
    **given: Any,
) -> Settings:
    """Return the settings: what is given, else the URL's options, the environment, TOML, default.

    TOML is `file` (or the file that SOJOURN_SETTINGS names) if there is one, else in `folder`
    `sojourn.toml` and below it the table `[tool.sojourn]` of `pyproject.toml`. `environ` is the
    process's by default; an empty variable counts as not set. Raises `InvalidSetting` for an
    unknown setting anywhere, a value that is none, or a file that can not be read.
    """
    environ = os.environ if environ is None else environ
    found: Found = {name: (setting.default, "default") for name, setting in SETTINGS.items()}
    file = file if file is not None else environ.get(FILE_VARIABLE) or None
    for layer in _files(file, Path(folder)):
        found.update(layer)
    found.update(_environment(environ))
    _put(found, {name: (value, "argument") for name, value in given.items()})
    return _settings(found)


def _put(found: Found, given: Found) -> None:
    """Put what is given over what was found, and the options of the URL between the two."""
    for name, (_, source) in given.items():
        _check_known(name, source, SETTINGS)
    url, source = given.get("url", found["url"])
    plain, options = split_url(_parsed("url", url, source), source)
    found.update(options)
    found.update(given)
    found["url"] = (plain, source)


def _settings(found: Found) -> Settings:
    values: dict[str, Any] = {name: value for name, (value, _) in found.items()}
    return Settings(**values, sources={name: source for name, (_, source) in found.items()})


def _parsed(name: str, value: object, source: str) -> Any:
    try:
        return SETTINGS[name].kind.parse(value)
    except _Unfit as error:
        raise InvalidSetting(name, source, str(error)) from None


def _check_known(name: str, source: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise InvalidSetting(name, source, f"there is no such setting; {known_names(name, known)}")


def _environment(environ: Mapping[str, str]) -> Found:
    variables = {f"{PREFIX}{name.upper()}": name for name in SETTINGS}
    found: Found = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS:
            continue
        if SERVICE_LINKS.fullmatch(variable):
            continue
        _check_known(variable, "environment", variables)
        if value:
            found[variables[variable]] = (value, f"environment {variable}")
    return found


def _files(file: str | os.PathLike[str] | None, folder: Path) -> Iterator[Found]:
    if file is not None:
        table = _read(Path(file))
        if table is None:
            raise InvalidSetting("file", str(file), "there is no such file")
        yield _entries(table, str(file))
        return
    project = folder / PROJECT_FILE
    source = f"{project} [tool.sojourn]"
    tools = _table((_read(project) or {}).get("tool", {}), f"{project} [tool]")
    yield _entries(_table(tools.get("sojourn", {}), source), source)
    yield _entries(_read(folder / FILE) or {}, str(folder / FILE))


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a TOML file holds, `None` if it is not there."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = f"it can not be read: {error.strerror or type(error).__name__}"
        raise InvalidSetting("file", str(path), reason) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested without end
        raise InvalidSetting("file", str(path), f"it is not TOML: {error}") from None


def _table(value: object, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidSetting("file", source, "it is not a table")
    return value


def _entries(table: Mapping[str, Any], source: str) -> Found:
    for name in table:
        _check_known(name, source, SETTINGS)
    return {name: (value, source) for name, value in table.items()}


# --- URLs --------------------------------------------------------------------------------------


def split_url(url: str, source: str) -> tuple[str, Found]:
    """Return a URL without those of its options that are settings, and these.

    What only its store knows stays. Raises `InvalidSetting` for an option that neither knows, or
    that is there twice.
    """
    place, _, query = url.partition("?")
    source = f"{OPTION_OF_URL} {source}"
    store_knows = OPTIONS.get(place.partition("://")[0].lower())
    kept: list[str] = []
    found: Found = {}
    for part in filter(None, query.split("&")):
        ((name, value),) = parse_qsl(part, keep_blank_values=True)
        if name in SETTINGS and name != "url":
            if name in found:
                raise InvalidSetting(name, source, "it is there twice")
            found[name] = (value, source)
            continue
        if store_knows is not None:  # of an unknown store nothing is known; opening it will say
            known = {*SETTINGS, *store_knows} - {"url"}
            _check_known(name, source, dict.fromkeys(known))
        kept.append(part)
    return place + ("?" + "&".join(kept) if kept else ""), found


_AMBIGUOUS = re.compile(r"[^:/]*://[^/?]*:[^/?]*[/?].*@", re.DOTALL)


def _is_ambiguous(url: str) -> bool:
    """Return whether a part of a password may stand behind the host: it can not be told.

    In `postgresql://me:pa?ss@host` and `me:pa/ss@host` the password ought to have been quoted.
    """
    return _AMBIGUOUS.match(url) is not None


def masked(url: str) -> str:
    """Return a URL that can be shown: without its password, and without options that are secret."""
    place, question, query = url.partition("?")
    scheme, separator, rest = place.partition("://")
    if _is_ambiguous(url):
        return f"{scheme}://***"
    if not rest.startswith("/"):  # else there is no host, and so nobody who has a password
        who, at, host = rest.rpartition("@")  # the last @: a password may have another
        user, colon, _ = who.partition(":")
        rest = f"{user}{':***' if colon else ''}{at}{host}"
    shown = [
        f"{name}=***" if value and _SECRET_OPTION.search(unquote(name)) else part
        for part in query.split("&")
        for name, _, value in [part.partition("=")]
    ]
    return f"{scheme}{separator}{rest}{question}{'&'.join(shown)}"


def _shown(name: str, value: Any) -> str:
    kind = SETTINGS[name].kind
    if value is None:
        return "never" if kind is DURATION else "none"
    if kind.secret:
        return "***"
    if kind is DURATION:
        return _span(value)
    if kind is OBSERVER_NAMES:
        return ", ".join(value) or "none"
    return masked(value) if kind is URL else str(value)


def _span(seconds: float) -> str:
    """Return a duration as it can be written in a setting, in the largest unit that is whole."""
    for unit, size in reversed(UNITS.items()):
        if size >= 1 and seconds >= size and seconds % size == 0:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds!r}s"
