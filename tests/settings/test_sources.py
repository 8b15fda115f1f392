"""Where settings come from, which one wins, and what is said of those that nobody knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import InvalidSetting
from sojourn.settings import FILE_VARIABLE, SETTINGS, Settings, load_settings
from sojourn.stores.redis import options

PROJECT = '[project]\nname = "mine"\n\n[tool.other]\nx = 1\n\n[tool.sojourn]\n'


def write(folder: Path, *, project: str | None = None, file: str | None = None) -> None:
    """Write the two files that are looked for."""
    if project is not None:
        (folder / "pyproject.toml").write_text(PROJECT + project)
    if file is not None:
        (folder / "sojourn.toml").write_text(file)


def test_an_argument_wins_over_the_url_over_the_environment_over_toml(tmp_path: Path) -> None:
    """Each is taken away in turn, and the next one shows."""
    write(tmp_path, project="idle = 1", file="idle = 2")
    layers: list[tuple[dict[str, str], dict[str, Any], float | None, str]] = [
        ({"SOJOURN_IDLE": "3"}, {"url": "memory://?idle=4", "idle": 5}, 5, "argument"),
        ({"SOJOURN_IDLE": "3"}, {"url": "memory://?idle=4"}, 4, "option of the URL, argument"),
        (
            {"SOJOURN_IDLE": "3", "SOJOURN_URL": "memory://?idle=4"},
            {},
            4,
            "option of the URL, environment SOJOURN_URL",
        ),
        ({"SOJOURN_IDLE": "3"}, {}, 3, "environment SOJOURN_IDLE"),
        ({}, {}, 2, str(tmp_path / "sojourn.toml")),
    ]
    for environ, given_, idle, source in layers:
        settings = load_settings(folder=tmp_path, environ=environ, **given_)
        assert (settings.idle, settings.sources["idle"]) == (idle, source)
    (tmp_path / "sojourn.toml").unlink()
    settings = load_settings(folder=tmp_path, environ={})
    assert settings.idle == 1
    assert settings.sources["idle"] == f"{tmp_path / 'pyproject.toml'} [tool.sojourn]"


LAYERS = ["project", "file", "environment", "url", "argument"]


@given(st.sets(st.sampled_from(LAYERS)))
def test_whatever_is_given_the_highest_wins(layers: set[str]) -> None:
    import tempfile

    value = {layer: 10 + n for n, layer in enumerate(LAYERS)}
    with tempfile.TemporaryDirectory() as name:
        write(
            Path(name),
            project=f"idle = {value['project']}" if "project" in layers else None,
            file=f"idle = {value['file']}" if "file" in layers else None,
        )
        environ = {"SOJOURN_IDLE": str(value["environment"])} if "environment" in layers else {}
        given_: dict[str, Any] = {"idle": value["argument"]} if "argument" in layers else {}
        if "url" in layers:
            given_["url"] = f"memory://?idle={value['url']}"
        settings = load_settings(folder=name, environ=environ, **given_)
    assert settings.idle == max((value[layer] for layer in layers), default=None)


def test_every_setting_can_be_given_in_every_way(tmp_path: Path) -> None:
    given_: dict[str, Any] = {
        "url": "memory://x",
        "app": "shop",
        "durability": "relaxed",
        "idle": "30m",
        "absolute": "12h",
        "telemetry": "logging",
        "telemetry_slow": "100ms",
        "telemetry_key": "k" * 16,
    }
    assert set(given_) == set(SETTINGS)
    expected = load_settings(folder=tmp_path, environ={}, **given_)

    def same(settings: Settings) -> bool:
        return all(getattr(settings, name) == getattr(expected, name) for name in SETTINGS)

    environ = {f"SOJOURN_{name.upper()}": value for name, value in given_.items()}
    assert same(load_settings(folder=tmp_path, environ=environ))
    options = "&".join(f"{n}={v}" for n, v in given_.items() if n != "url")
    assert same(load_settings(folder=tmp_path, environ={}, url=f"memory://x?{options}"))
    write(tmp_path, file="\n".join(f'{n} = "{v}"' for n, v in given_.items()))
    assert same(load_settings(folder=tmp_path, environ={}))


def test_a_file_can_be_named_and_is_the_only_one_then(tmp_path: Path) -> None:
    write(tmp_path, project="idle = 1", file="idle = 2")
    (tmp_path / "other.toml").write_text('telemetry = ["logging"]\nabsolute = 7.5\n')
    for settings in (
        load_settings(file=tmp_path / "other.toml", folder=tmp_path, environ={}),
        load_settings(folder=tmp_path, environ={FILE_VARIABLE: str(tmp_path / "other.toml")}),
    ):
        assert (settings.idle, settings.absolute, settings.telemetry) == (None, 7.5, ("logging",))
    with pytest.raises(InvalidSetting, match="there is no such file"):
        load_settings(file=tmp_path / "missing.toml", environ={})


def test_the_process_is_looked_at_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [name for name in os.environ if name.startswith("SOJOURN_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, file='app = "shop"')
    monkeypatch.setenv("SOJOURN_IDLE", "7")
    settings = load_settings()
    assert (settings.app, settings.idle) == ("shop", 7)
    assert settings.sources["app"] == "sojourn.toml"


# ----------------------------------------------------------------------------- what is unknown


def refused(**sources: Any) -> InvalidSetting:
    """Return what is said of settings from these sources."""
    with pytest.raises(InvalidSetting) as caught:
        load_settings(**{"environ": {}, **sources})
    return caught.value


ALL = "known are: absolute, app, durability, idle, telemetry, telemetry_key, telemetry_slow, url"


def test_an_unknown_setting_is_refused_wherever_it_is(tmp_path: Path) -> None:
    write(tmp_path, file="idel = 5")
    error = refused(folder=tmp_path)
    assert (error.name, error.source) == ("idel", str(tmp_path / "sojourn.toml"))
    assert error.reason == f"there is no such setting; did you mean 'idle'? {ALL}"

    write(tmp_path, file="", project="[tool.sojourn.expiry]\nidle = 5")
    error = refused(folder=tmp_path)
    assert (error.name, error.source[-14:]) == ("expiry", "[tool.sojourn]")

    (tmp_path / "pyproject.toml").unlink()
    error = refused(folder=tmp_path, environ={"SOJOURN_IDEL": "5"})
    assert (error.name, error.source) == ("SOJOURN_IDEL", "environment")
    assert "did you mean 'SOJOURN_IDLE'? known are: SOJOURN_ABSOLUTE" in error.reason

    error = refused(folder=tmp_path, url="sqlite:///a.db?idel=5")
    assert (error.name, error.source) == ("idel", "option of the URL, argument")
    assert "did you mean 'idle'?" in error.reason

    error = refused(folder=tmp_path, IDLE=5)
    assert error.source == "argument"
    assert "did you mean 'idle'?" in error.reason
    assert "known are" in refused(folder=tmp_path, **{"zzz" * 99: 5}).reason


@pytest.mark.parametrize(
    "variable",
    [
        "SOJOURN_SERVICE_HOST",
        "SOJOURN_SERVICE_PORT",
        "SOJOURN_SERVICE_PORT_HTTP",
        "SOJOURN_PORT",
        "SOJOURN_PORT_8080_TCP",
        "SOJOURN_PORT_8080_TCP_ADDR",
        "SOJOURN_SOAK",
        options.USERNAME,
        options.PASSWORD,
        "sojourn_idel",
        "OTHER",
    ],
)
def test_variables_of_others_are_left_alone(tmp_path: Path, variable: str) -> None:
    """Kubernetes sets some of these beside any service that is called sojourn."""
    settings = load_settings(folder=tmp_path, environ={variable: "tcp://10.0.0.1:80"})
    assert set(settings.sources.values()) == {"default"}


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    settings = load_settings(folder=tmp_path, environ={"SOJOURN_IDLE": "", FILE_VARIABLE: ""})
    assert settings.sources["idle"] == "default"
    with pytest.raises(InvalidSetting, match="SOJOURN_IDEL"):  # a typing error all the same
        load_settings(folder=tmp_path, environ={"SOJOURN_IDEL": ""})


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        ({"SOJOURN_IDLE": "soon"}, "environment SOJOURN_IDLE"),
        ({"SOJOURN_URL": "memory://?idle=soon"}, "option of the URL, environment SOJOURN_URL"),
    ],
)
def test_a_wrong_value_is_named_with_where_it_came_from(
    tmp_path: Path, environ: dict[str, str], source: str
) -> None:
    error = refused(folder=tmp_path, environ=environ)
    assert (error.name, error.source) == ("idle", source)
    assert "'soon'" in error.reason


@pytest.mark.parametrize(
    "line", ["idle = true", "idle = 00:30:00", "idle = []", "app = 5", "url = 1979-05-27"]
)
def test_a_wrong_type_in_a_file_is_named_with_file_and_key(tmp_path: Path, line: str) -> None:
    write(tmp_path, file=line)
    error = refused(folder=tmp_path)
    assert (error.name, error.source) == (line.partition(" ")[0], str(tmp_path / "sojourn.toml"))


@pytest.mark.parametrize(
    "content",
    [
        b"idle = ",
        b"\xff\xfe",
        b"idle = 1\nidle = 2",
        b"x = " + b"[" * 5000,
        b"idle = " + b"9" * 5000,
    ],
    ids=["cut", "not UTF-8", "twice", "deep", "a number without end"],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sojourn.toml").write_bytes(content)
    error = refused(folder=tmp_path)
    assert (error.name, error.source) == ("file", str(tmp_path / "sojourn.toml"))
    assert error.reason.startswith("it is not TOML")


def test_what_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "sojourn.toml").mkdir()
    assert refused(folder=tmp_path).reason == "it can not be read: Is a directory"


@pytest.mark.parametrize("project", ["tool = 5", "[tool]\nsojourn = 5"])
def test_a_table_that_is_none_is_named(tmp_path: Path, project: str) -> None:
    (tmp_path / "pyproject.toml").write_text(project)
    assert refused(folder=tmp_path).reason == "it is not a table"


def test_a_project_without_our_table_is_fine(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    assert set(load_settings(folder=tmp_path, environ={}).sources.values()) == {"default"}


def test_the_table_of_settings_shows_values_and_sources(tmp_path: Path) -> None:
    write(tmp_path, file='app = "shop"')
    settings = load_settings(
        folder=tmp_path,
        environ={"SOJOURN_ABSOLUTE": "1.5"},
        url="other://me:pw@db/x?idle=90m&password=pw",
        telemetry=["logging"],
    )
    rows = [line.split("  ") for line in settings.describe().splitlines()]
    shown = {row[0]: [cell.strip() for cell in row[1:] if cell] for row in rows}
    assert shown["url"] == ["other://me:***@db/x?password=***", "argument"]
    assert shown["app"] == ["shop", str(tmp_path / "sojourn.toml")]
    assert shown["idle"] == ["90m", "option of the URL, argument"]
    assert shown["absolute"] == ["1.5s", "environment SOJOURN_ABSOLUTE"]
    assert shown["telemetry"] == ["logging", "argument"]
    assert shown["telemetry_slow"] == ["never", "default"]
