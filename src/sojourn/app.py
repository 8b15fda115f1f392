"""The composition root: from settings to a manager that is open, with everything around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.manager import SessionManager
from sojourn.settings import Settings, load_settings
from sojourn.stores import OPTIONS
from sojourn.telemetry import LoggingObserver, OpenTelemetryObserver, PrometheusObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sojourn import blocking
    from sojourn.ports import Cleaner, Clock, IdSource
    from sojourn.telemetry import Observer

OBSERVERS: Mapping[str, Callable[[Settings], Observer]] = {
    "logging": lambda settings: LoggingObserver(slow=settings.telemetry_slow),
    "opentelemetry": lambda _settings: OpenTelemetryObserver(),
    "prometheus": lambda _settings: PrometheusObserver(),
}
"""What makes an observer that `telemetry` names."""


def open_sessions(
    settings: Settings | None = None,
    *,
    observers: Sequence[Observer] = (),
    cleaners: Sequence[Cleaner] = (),
    clock: Clock | None = None,
    ids: IdSource | None = None,
    **overrides: Any,
) -> SessionManager:
    """Return a manager made from settings; `async with` opens and closes it and its store.

    Without `settings` they are looked up (`load_settings`); `overrides` are settings by name that
    win over all others. `observers` are told of every call of the store, after those that the
    settings name; the rest is handed to `SessionManager`. Raises at once: `InvalidSetting` for a
    setting, `InvalidQuery` for a store's URL, `MissingExtra` for an observer whose packages are
    not there. Opening raises what the store's `open` does.
    """
    chosen = _chosen(settings, overrides)
    return SessionManager.open(
        store_url(chosen), cleaners=cleaners, clock=clock, ids=ids, **_asked_for(chosen, observers)
    )


def open_blocking_sessions(
    settings: Settings | None = None,
    *,
    observers: Sequence[Observer] = (),
    cleaners: Sequence[blocking.Cleaner] = (),
    clock: Clock | None = None,
    ids: IdSource | None = None,
    **overrides: Any,
) -> blocking.SessionManager:
    """Return the same for code that blocks: `with` opens and closes it and its store.

    Arguments and errors are those of `open_sessions`.
    """
    from sojourn import blocking  # noqa: PLC0415 - a program without it does not load it

    chosen = _chosen(settings, overrides)
    return blocking.SessionManager.open(
        store_url(chosen), cleaners=cleaners, clock=clock, ids=ids, **_asked_for(chosen, observers)
    )


def _chosen(settings: Settings | None, overrides: Mapping[str, Any]) -> Settings:
    return load_settings(**overrides) if settings is None else settings.replaced(**overrides)


def _asked_for(chosen: Settings, observers: Sequence[Observer]) -> dict[str, Any]:
    """Return the arguments of a manager that come from settings."""
    return {
        "app": chosen.app,
        "expiry": chosen.expiry,
        "durability": chosen.durability,
        "observers": [*(OBSERVERS[name](chosen) for name in chosen.telemetry), *observers],
        "observer_key": None if chosen.telemetry_key is None else chosen.telemetry_key.encode(),
    }


def store_url(settings: Settings) -> str:
    """Return the URL for `open_store`: the place, and the settings that this store takes with it.

    It holds the password, if the place has one: do not show it.
    """
    url = settings.url
    if "durability" in OPTIONS.get(url.partition("://")[0].lower(), ()):
        url += f"{'&' if '?' in url else '?'}durability={settings.durability}"
    return url
