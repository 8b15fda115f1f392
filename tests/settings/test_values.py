"""What each setting takes: text, and typed values, in every way that it can be written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import Expiry, InvalidSetting
from sojourn.settings import SETTINGS, UNITS, Settings, load_settings

NOWHERE = Path("/nowhere")
"""A folder without files."""


def loaded(**given: Any) -> Settings:
    """Return settings of these arguments alone."""
    return load_settings(folder=NOWHERE, environ={}, **given)


def refused(**given: Any) -> InvalidSetting:
    """Return what is said of these arguments."""
    with pytest.raises(InvalidSetting) as caught:
        loaded(**given)
    return caught.value


def test_nothing_given_is_the_defaults() -> None:
    settings = loaded()
    assert {name: getattr(settings, name) for name in SETTINGS} == {
        "url": "sqlite:///sojourn.db",
        "app": "default",
        "durability": "durable",
        "idle": None,
        "absolute": None,
        "telemetry": (),
        "telemetry_slow": None,
        "telemetry_key": None,
    }
    assert set(settings.sources.values()) == {"default"}
    assert settings.expiry == Expiry()


def test_every_setting_says_what_it_is() -> None:
    for name, setting in SETTINGS.items():
        assert setting.text.endswith("."), name
        assert setting.kind.text, name
        assert setting.kind.parse(setting.default) == setting.default, name


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (90, 90),
        (1.5, 1.5),
        ("90", 90),
        ("1.5", 1.5),
        (" 30m ", 1800),
        ("12h", 43_200),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1m1m", 120),
        ("never", None),
        ("none", None),
        ("off", None),
        ("0", None),
        ("0s", None),
        (0, None),
        (0.0, None),
        (None, None),
    ],
    ids=repr,
)
def test_a_duration_is_seconds_or_text_with_units(given: Any, seconds: float | None) -> None:
    assert loaded(idle=given).idle == seconds
    assert loaded(idle=given).expiry == Expiry(idle=seconds)


@pytest.mark.parametrize(
    "given",
    [
        "",
        " ",
        "30 m",
        "30M",
        "m",
        "30x",
        "-1",
        "1e3",
        "nan",
        "inf",
        "\u0663m",
        "1h 30m",
        "9" * 400,
        "9" * 5000 + "d",
        -1,
        -0.5,
        math.nan,
        math.inf,
        10**400,
        True,
        [1],
        {"minutes": 3},
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_duration_is_refused(given: Any) -> None:
    error = refused(absolute=given)
    assert (error.name, error.source) == ("absolute", "argument")
    assert "give seconds" in error.reason
    assert len(str(error)) < 10_000


@given(st.integers(1, 10**9), st.sampled_from(sorted(UNITS)))
def test_a_duration_is_shown_as_it_can_be_written(number: int, unit: str) -> None:
    settings = loaded(idle=f"{number}{unit}")
    (shown,) = [row.value for row in settings.described() if row.name == "idle"]
    assert loaded(idle=shown).idle == settings.idle


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("url", 5, "give text, not int"),
        ("url", None, "give text, not NoneType"),
        ("url", "app.db", "give a URL"),
        ("url", "sqlite:///a\n.db", "give a URL"),
        ("url", "sqlite:///a.db#b", "write %23 for a #"),
        ("app", "", "it is empty"),
        ("app", 5, "give text, not int"),
        ("app", "a\nb", "not a printable character"),
        ("durability", "fast", "give 'durable' or 'relaxed', not 'fast'"),
        ("durability", None, "give 'durable' or 'relaxed', not None"),
        ("durability", ["durable"], "give 'durable' or 'relaxed'"),
        ("telemetry", 5, "give a list of names, not int"),
        ("telemetry", ["logging", 5], "give text, not int"),
        ("telemetry", "login", "did you mean 'logging'? known are: logging, opentelemetry"),
        ("telemetry", "logging,logging", "name each observer once"),
        ("telemetry_key", "short", "give a text of 16 to 64 bytes"),
        ("telemetry_key", "k" * 65, "give a text of 16 to 64 bytes"),
        ("telemetry_key", b"k" * 16, "give text, not bytes"),
        ("telemetry_key", "\udc80" * 16, "it is not valid text"),
    ],
)
def test_what_is_no_value_is_named_with_its_reason(name: str, given: Any, reason: str) -> None:
    error = refused(**{name: given})
    assert error.name == name
    assert reason in error.reason


@pytest.mark.parametrize(
    "given", ["logging,prometheus", " logging , prometheus,", ["logging", "prometheus"]]
)
def test_observers_are_a_list_or_text_with_commas(given: Any) -> None:
    assert loaded(telemetry=given).telemetry == ("logging", "prometheus")


@pytest.mark.parametrize("given", ["", "none", [], ()])
def test_no_observers(given: Any) -> None:
    assert loaded(telemetry=given).telemetry == ()


def test_a_key_is_never_in_what_is_said_of_it() -> None:
    secret = "sesame" * 20
    error = refused(telemetry_key=secret)
    assert "sesame" not in str(error)
    settings = loaded(telemetry_key="sesame" * 5)
    assert settings.telemetry_key == "sesame" * 5
    assert "sesame" not in settings.describe()
    assert "sesame" not in repr(settings)
    assert "sesame" not in repr(settings.__rich_repr__())


def test_settings_that_are_made_directly_are_checked_too() -> None:
    settings = Settings(app="shop", idle=1800)
    assert settings.sources["app"] == "argument"
    assert settings.sources["url"] == "default"
    with pytest.raises(InvalidSetting, match="finite"):
        Settings(idle=-1)
    with pytest.raises(InvalidSetting, match="out of the URL") as caught:
        Settings(url="sqlite:///app.db?idle=5")
    assert caught.value.name == "idle"


def test_replaced_settings_keep_the_others_and_their_sources() -> None:
    first = load_settings(
        folder=NOWHERE, environ={"SOJOURN_URL": "memory://a?idle=5", "SOJOURN_APP": "shop"}
    )
    second = first.replaced(url="memory://b?absolute=7", telemetry="logging")
    assert (second.url, second.app) == ("memory://b", "shop")
    assert (second.idle, second.absolute) == (None, 7)  # the 5 was the old URL's
    assert second.sources["app"] == "environment SOJOURN_APP"
    assert second.sources["idle"] == "default"
    assert first.idle == 5
    assert first.replaced(app="other").idle == 5
    with pytest.raises(InvalidSetting, match="did you mean 'idle'"):
        first.replaced(idel=5)
