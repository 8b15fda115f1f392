"""Checkpoints without `await`: saved bytes of a session, each with the one it came from.

Made of `sojourn.checkpoints.verbs` by `python -m tests.blocking.mirror`: change that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.blocking.arguments import pieces_of
from sojourn.blocking.iteration import Iteration

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sojourn import manager
    from sojourn.blocking.arguments import Source
    from sojourn.blocking.gateway import Gateway
    from sojourn.checkpoints import verbs as async_face
    from sojourn.checkpoints.record import Checkpoint
    from sojourn.checkpoints.removal import Pruned
    from sojourn.expiry import Expiry
    from sojourn.session import Session
    from sojourn.store import Durability


class Checkpoints:
    """The checkpoints of one session: what was saved, in the order in which it was."""

    def __init__(
        self, gateway: Gateway, of: Callable[[manager.SessionManager], async_face.Checkpoints]
    ) -> None:
        """Made by `SessionManager.checkpoints`."""
        of(gateway.bridge().sessions)  # refuses at once what makes no sense
        self._gateway = gateway
        self._of = of

    def save(
        self,
        body: Source,
        *,
        parent: Checkpoint | str | None = None,
        content_type: str = "application/octet-stream",
        metadata: dict[str, Any] | None = None,
        id: str | None = None,
        durability: Durability | None = None,
    ) -> Checkpoint:
        """Save bytes, or an iterator of bytes, as the latest checkpoint, and return it.

        It is there wholly or not at all, however large: nothing of it shows before its last byte
        is stored. `parent` is the one that it came from, `metadata` a dict of JSON values. An `id`
        that is there is saved anew, and is the latest then; without one it gets one of its own.

        Raises `CheckpointMissing` for an unknown parent; `NotFound` (or `Ended`) when the session
        is missing; `InvalidId` for a malformed id; `TooLarge` over `MAX_CHECKPOINT` bytes, or over
        `MAX_METADATA` bytes of metadata; `Unserializable` for what is not bytes, or not JSON;
        `Conflict` for one with a parent in a session that is never still for a moment.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).save(
                pieces_of(body),
                parent=parent,
                content_type=content_type,
                metadata=metadata,
                id=id,
                durability=durability,
            )
        )

    def latest(self, *, body: bool = True, expired: bool = False) -> Checkpoint | None:
        """Return the checkpoint that was saved last, `None` without any; see `get`."""
        return self._gateway.run(
            lambda sessions: self._of(sessions).latest(body=body, expired=expired)
        )

    def get(
        self, checkpoint: Checkpoint | str, *, body: bool = True, expired: bool = False
    ) -> Checkpoint | None:
        """Return a checkpoint, with its body unless `body=False`; `None` when there is none.

        `expired` also reads those of a session past its deadline, for its end hooks. Raises
        `TooLarge` for a body over `MAX_DOCUMENT` bytes, which is to be read with `stream`, and
        `Corrupt` for one that is not what was saved.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).get(checkpoint, body=body, expired=expired)
        )

    def stream(self, checkpoint: Checkpoint | str, *, expired: bool = False) -> Iteration[bytes]:
        """Yield a body in pieces of at most `CHUNK_BYTES`, however large it is.

        Raises `CheckpointMissing` for an unknown one, or one that is deleted meanwhile, and
        `Corrupt` at the end of a body that is not what was saved.
        """
        return Iteration(
            self._gateway, lambda sessions: self._of(sessions).stream(checkpoint, expired=expired)
        )

    def lineage(self, checkpoint: Checkpoint | str, *, expired: bool = False) -> list[Checkpoint]:
        """Return a checkpoint and those that it came from, itself first, without bodies.

        If the last one names a parent, then the line was cut there: by `prune`, or by a `delete`
        that said so. Whoever was given that id since is another. Empty for an unknown checkpoint.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).lineage(checkpoint, expired=expired)
        )

    def fork(
        self,
        checkpoint: Checkpoint | str,
        *,
        new_id: str | None = None,
        expiry: Expiry | None = None,
    ) -> Session:
        """Copy the session as of a checkpoint, and return the copy, whose latest it is.

        As `SessionManager.fork` at the checkpoint's place in the log, without the checkpoints that
        were saved after it; those that it came from come along, up to one that was saved anew
        further down the log. Raises `CheckpointMissing` for an unknown one, `NotFound` for an
        unknown session, `AlreadyExists`.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).fork(checkpoint, new_id=new_id, expiry=expiry)
        )

    def delete(
        self, checkpoint: Checkpoint | str, *more: Checkpoint | str, cut: bool = False
    ) -> int:
        """Remove checkpoints, and return how many there were; unknown ones are fine.

        One that another came from is refused with `CheckpointInUse`, unless that goes as well, or
        `cut` says that its line may end there; to see that, all of them are looked at. A body is
        removed with the last checkpoint that has it. Raises `Conflict`, but not with `cut`, in a
        session that is never still for a moment.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).delete(checkpoint, *more, cut=cut)
        )

    def prune(self, *, keep: int) -> Pruned:
        """Remove all but the `keep` that were saved last; return how many, and what that cut.

        Lines end at the oldest that is kept: `cut` names those kept whose parent is gone. Removes
        as well what uploads left that were never completed, and bodies that a fork has without the
        checkpoints that they are of. Raises `Conflict` in a session that is never still for a
        moment; what was removed until then is.
        """
        return self._gateway.run(lambda sessions: self._of(sessions).prune(keep=keep))

    def list(
        self, *, limit: int = 100, before: Checkpoint | str | None = None, expired: bool = False
    ) -> list[Checkpoint]:
        """Return checkpoints without bodies, the last saved first, those saved before `before`.

        Pages go on from the last checkpoint of the one before, even if that was deleted meanwhile;
        only its id is not enough for that: `CheckpointMissing`.
        """
        return self._gateway.run(
            lambda sessions: self._of(sessions).list(limit=limit, before=before, expired=expired)
        )
