"""A call of the script that writes, in the making: checks, then commands, on keys of one route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sojourn.stores.redis import scripts
from sojourn.stores.redis.client import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.stores.redis.routes import Route

Argument = "str | bytes | int"

MOST_ARGUMENTS = 1_000
"""Arguments of one command: Lua can hand on some thousands at a time."""


class Sink(Protocol):
    """Where commands go: into a request, or on a list of things to do elsewhere."""

    def do(self, name: str, key: str, *arguments: str | bytes | int) -> None:
        """Note a command on one key."""


class Request:
    """Checks and commands. In a cluster all keys belong to the one route."""

    def __init__(self, route: Route) -> None:
        """Begin with nothing."""
        self.route = route
        self._keys: dict[str, int] = {}
        self._checks: list[str | bytes | int] = []
        self._commands: list[str | bytes | int] = []
        self.checks = 0
        self.commands = 0
        self.size = 0
        """About how many bytes it has, as far as that matters."""

    def _key(self, key: str) -> int:
        return self._keys.setdefault(key, len(self._keys) + 1)

    def check(self, name: str, key: str, *arguments: str | bytes | int) -> int:
        """Add a check; return its number, which the script returns when it fails."""
        self._checks += (name, 1 + len(arguments), self._key(key), *arguments)
        self.checks += 1
        return self.checks

    def do(self, name: str, key: str, *arguments: str | bytes | int) -> None:
        """Add a command on one key."""
        self._commands += (name, 1 + len(arguments), self._key(key), *arguments)
        self.commands += 1

    def make_room(self, hash_key: str) -> None:
        """Have a server do this though its memory is full; call it before any command is added.

        Only the first write of a script is held against the memory that there is. So this one is
        of a kind that is always let through, and changes nothing: no hash it is used on has such a
        field.
        """
        assert not self.commands, "it is the first command that counts"
        self.do("HDEL", hash_key, "")

    def do_on(self, name: str, keys: Sequence[str], *arguments: str | bytes | int) -> None:
        """Add a command on several keys; only the script's own have several."""
        numbers = [self._key(key) for key in keys]
        self._commands += (name, len(numbers) + len(arguments), *numbers, *arguments)
        self.commands += 1

    def do_in_pieces(
        self, name: str, key: str, arguments: Sequence[str | bytes | int], step: int = 1
    ) -> None:
        """Add a command with many arguments, which belong together `step` by `step`."""
        most = MOST_ARGUMENTS // step * step
        for at in range(0, len(arguments), most):
            self.do(name, key, *arguments[at : at + most])

    def call(self) -> Call:
        """Return what is to be sent."""
        return Call(
            self.route,
            (
                "EVALSHA",
                scripts.APPLY.sha,
                len(self._keys),
                *self._keys,
                self.checks,
                *self._checks,
                self.commands,
                *self._commands,
            ),
            self.size,
        )
