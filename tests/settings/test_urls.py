"""URLs: which options are settings, which are the store's, and what of a URL may be shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import InvalidQuery, InvalidSetting, open_store
from sojourn.settings import load_settings, masked

NOWHERE = Path("/nowhere")


def loaded(url: Any, **given: Any) -> Any:
    """Return settings of a URL."""
    return load_settings(folder=NOWHERE, environ={}, url=url, **given)


def test_options_that_are_settings_are_taken_out_of_the_url() -> None:
    settings = loaded("sqlite:///my%20app.db?app=a%26b&durability=relaxed&idle=5&")
    assert settings.url == "sqlite:///my%20app.db"
    assert (settings.app, settings.durability, settings.idle) == ("a&b", "relaxed", 5)


def test_options_of_a_store_that_is_not_known_here_stay_as_they_are() -> None:
    settings = loaded("other://db/x?ssl=on&idle=5&target=a%26b")
    assert settings.url == "other://db/x?ssl=on&target=a%26b"
    assert settings.idle == 5


@pytest.mark.parametrize(
    ("query", "name", "reason"),
    [
        ("idle=5&idle=6", "idle", "it is there twice"),
        ("idle=", "idle", "give seconds"),
        ("url=memory://", "url", "there is no such setting"),
        ("mode=ro", "mode", "known are: absolute, app, durability"),
        ("sources=x", "sources", "there is no such setting"),
    ],
)
def test_an_option_that_nobody_knows_or_that_is_none_is_refused(
    query: str, name: str, reason: str
) -> None:
    with pytest.raises(InvalidSetting) as caught:
        loaded(f"sqlite:///a.db?{query}")
    assert caught.value.name == name
    assert caught.value.source == "option of the URL, argument"
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
        ("postgresql://host/x", "postgresql://host/x"),
        ("postgresql://me@host/x", "postgresql://me@host/x"),
        ("postgresql://me:pw@host:5/x", "postgresql://me:***@host:5/x"),
        ("redis://:pw@host", "redis://:***@host"),
        ("postgresql://me:p@w@host/x", "postgresql://me:***@host/x"),
        ("postgresql://me:p/w@host/x", "postgresql://***"),
        ("postgresql://me:p?w@host/x", "postgresql://***"),
        ("postgresql://me:p@?w@host/x", "postgresql://***"),
        ("postgresql://me:p%40w@host/x?to=a%40b", "postgresql://me:***@host/x?to=a%40b"),
        ("x://h?password=pw&a=1&Auth_Token=pw", "x://h?password=***&a=1&Auth_Token=***"),
        ("x://h?pass%77ord=pw", "x://h?pass%77ord=***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert masked(url) == shown


@given(st.text(st.characters(codec="ascii", exclude_characters="#"), min_size=1, max_size=9))
def test_no_password_is_ever_shown(text: str) -> None:
    password = f"zq{text}zq"
    assert "zq" not in masked(f"postgresql://me:{password}@host/name").replace("host", "")


def test_what_is_said_of_a_url_does_not_hold_its_password() -> None:
    servers = ("postgresql://", "redis://", "rediss://", "redis+cluster://")
    unquoted = [f"{server}me:{text}@h/1" for server in servers for text in ("x?zq7", "1/zq7")]
    for url in ("postgresql://me:zq7@[host", "zq7:zq7", "postgresql://me:zq7@h\u2100/x", *unquoted):
        with pytest.raises(InvalidQuery) as caught:
            open_store(url)
        assert "zq7@" not in str(caught.value)
    for url in unquoted:
        with pytest.raises(InvalidSetting, match="write %40 for an @, %2F for a /") as refused:
            loaded(url)
        assert "zq7" not in str(refused.value)
    for url in ("me:zq7@host", "x://me:zq7@host#", "x://me:zq7@ho\nst", "x://me:z?zq7=1@host"):
        with pytest.raises(InvalidSetting) as refused:
            loaded(url)
        assert "zq7" not in str(refused.value)


# --------------------------------------------------------------------------------- open_store


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///a.db?durabilty=relaxed", "did you mean 'durability'? known are: durability"),
        ("sqlite:///a.db?zzz", "unknown option 'zzz'; known are: durability"),
        ("memory://?durability=relaxed", "known are: none"),
        ("sqlite:///a.db?durability=relaxed&durability=durable", "is there twice"),
        ("sqlit:///a.db", "did you mean 'sqlite://'? known are: file://, memory://"),
        ("memory://[", "it is malformed"),
        ("file://", "write file:///absolute/folder"),
        ("file:///", "write file:///absolute/folder"),
        ("file://localhost/a", "without a host"),
        ("file:///a?fsync=off", "unknown option 'fsync'; known are: durability"),
        (Path("a.db"), "give text, not PosixPath"),
        (None, "give text, not NoneType"),
    ],
)
def test_a_wrong_url_of_a_store_says_what_is_known(url: Any, reason: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        open_store(url)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("file:///var/lib/app", "file:///var/lib/app"),
        ("file://data", "file://data"),
        ("file://data/of%20it", "file://data/of it"),
        ("file://./data", "file://./data"),
        ("file://Data?durability=relaxed", "file://Data"),
    ],
)
def test_the_url_of_a_folder_is_absolute_with_three_slashes_and_relative_with_two(
    url: str, name: str
) -> None:
    assert open_store(url).name == name
