"""The one thread that writes: it owns the writing connection and does every checkpoint."""

from __future__ import annotations

import contextlib
import queue
import threading
from functools import partial
from typing import TYPE_CHECKING

import apsw

from sojourn.doorbell import Doorbell
from sojourn.errors import SojournError, Unavailable
from sojourn.exiting import off_loop
from sojourn.mounts import LOST
from sojourn.operations import durability_of
from sojourn.stores.sqlite import connection, tally
from sojourn.stores.sqlite.batch import Batch
from sojourn.stores.sqlite.recent import Recent
from sojourn.stores.sqlite.transaction import Moved, Transaction

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from sojourn.gate import Gate
    from sojourn.mounts import Whereabouts
    from sojourn.operations import Operation, Outcome
    from sojourn.store import Durability

GATE_SECONDS = 30.0
"""Longest wait for the turn of this process. A holder that dies lets go at once, so a wait this
long means that another process is stopped in the middle of a write."""

HAND_OVER_SECONDS = 0.0005
"""How long a process that was inside stands back when another waits: about what it takes to wake
that one. It costs a tenth of a batch, and only while processes compete."""

CHECKPOINT_PAGES = 4_000
"""Pages in the write-ahead log before they are moved into the file: 16 MB, so that it is rare."""

IDLE_CHECKPOINT_PAGES = 1_000
"""So many are enough when no other batch waits. A log that is begun anew is written over what it
was, and that is much cheaper to sync than a file that grows."""


class _Job:
    """A batch on its way: either the writer takes it, or it is given up, never both."""

    __slots__ = ("_ticket", "done", "operations", "until")

    def __init__(
        self,
        operations: Sequence[Operation],
        done: Callable[[Sequence[Outcome]], None],
        until: float,
    ) -> None:
        self.operations = operations
        self.done = done
        self.until = until
        """When it is given up, in the loop's time."""
        self._ticket = [True]

    def claim(self) -> bool:
        """Return `True` to the first caller only."""
        try:
            return self._ticket.pop()
        except IndexError:
            return False


class Writer:
    """Writes batches, one transaction each, in a thread of its own."""

    def __init__(
        self,
        db: apsw.Connection,
        gate: Gate,
        name: str,
        *,
        loop: asyncio.AbstractEventLoop,
        durability: Durability,
        changed: Callable[[set[tuple[str, str]]], None],
        where: Sequence[Whereabouts],
    ) -> None:
        """`changed` is called in the loop with the sessions that a batch changed.

        `where` tells whether the file, its log and their index are still those that others find.
        """
        self.poison: Unavailable | None = None
        self._db = db
        self._gate = gate
        self._name = name
        self._loop = loop
        self._doorbell = Doorbell(loop)
        self._durability = durability
        self._changed = changed
        self._where = where
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._outstanding: dict[_Job, None] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._synchronous = "FULL"
        self._recent = Recent()
        self._log_pages = 0
        self._untold: Callable[[], None] | None = None
        self._stopping = threading.Event()
        tally.prepare(db)
        db.set_wal_hook(self._note_log)
        self._thread = threading.Thread(target=self._run, name=f"sojourn {name}", daemon=True)
        self._thread.start()

    def _note_log(self, _db: apsw.Connection, _schema: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def write(
        self, operations: Sequence[Operation], done: Callable[[Sequence[Outcome]], None]
    ) -> None:
        """Start a batch; `done` is called in the loop with the outcomes."""
        job = _Job(operations, done, self._loop.time() + GATE_SECONDS)
        self._outstanding[job] = None
        if self._watch is None:
            self._watch = self._loop.call_at(job.until, self._look)
        self._jobs.put(job)

    def _look(self) -> None:
        """Give up what waits for too long. One timer for all jobs: most are done at once."""
        now = self._loop.time()
        for job in [job for job in self._outstanding if job.until <= now]:
            self._give_up(job)
        self._watch = None
        oldest = next(iter(self._outstanding), None)
        if oldest is not None:
            self._watch = self._loop.call_at(oldest.until, self._look)

    def _give_up(self, job: _Job) -> None:
        """Fail a batch that did not get its turn. It has not begun, so nothing was written."""
        del self._outstanding[job]
        if job.claim():
            reason = (
                f"another process has kept the file for {GATE_SECONDS:.0f} s; nothing was written"
            )
            job.done([Unavailable(self._name, reason)] * len(job.operations))

    async def stop(self) -> None:
        """Let the thread finish and close the connection, unless its turn does not come."""
        self._stopping.set()
        self._jobs.put(None)
        if self._watch is not None:
            self._watch.cancel()
        await off_loop(None, self._thread.join, GATE_SECONDS)
        if not self._thread.is_alive():  # else it may still ring
            self._doorbell.close()

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            try:
                self._take_turn()
                self._finish(job, *self._work(job))
                if self._jobs.empty():  # nothing to put it off for
                    self._tell()
                self._checkpoint()
            except OSError as error:  # of the gate: the kernel has no lock to give
                self._finish(job, self._refused(job, error), set())
            finally:
                self._gate.release()
            del job  # waiting must not keep the last batch alive
        self._tell()
        self._gate.acquire()
        try:
            with contextlib.suppress(apsw.Error):
                self._db.close()
        finally:
            self._gate.release()

    def _finish(
        self, job: _Job, outcomes: list[Outcome] | None, changed: set[tuple[str, str]]
    ) -> None:
        """Note what the callers of a batch are to be told, and tell those of the one before."""
        if self._untold is not None:
            self._tell()
        if outcomes is not None:
            self._untold = partial(self._arrived, job, outcomes, changed)

    def _next_job(self) -> _Job | None:
        """Return what is to be done next; nobody waits to be told while this thread waits."""
        if self._untold is None:
            return self._jobs.get()
        with contextlib.suppress(queue.Empty):
            return self._jobs.get_nowait()
        self._tell()
        return self._jobs.get()

    def _take_turn(self) -> None:
        """Take the gate; nobody waits to be told while this thread waits for it."""
        if self._gate.acquire_at_once():
            return
        if self._untold is not None:  # this process was inside a moment ago
            self._tell()
            self._stopping.wait(HAND_OVER_SECONDS)
        self._gate.acquire()

    def _tell(self) -> None:
        """Tell the callers of the last batch what came of it.

        If another batch waits, this is put off until that one is decided: then SQLite writes it,
        without the GIL held, while the callers of this one go on.
        """
        tell, self._untold = self._untold, None
        if tell is not None:
            self._doorbell.ring(tell)

    def _refused(self, job: _Job, error: OSError) -> list[Outcome] | None:
        """Fail a batch whose turn could not be taken, unless it was given up."""
        if not job.claim():
            return None
        reason = Unavailable(self._name, f"its gate can not be locked: {error.strerror}")
        reason.__cause__ = error
        return [reason] * len(job.operations)

    def _work(self, job: _Job) -> tuple[list[Outcome] | None, set[tuple[str, str]]]:
        """Write a job whose turn has come, unless it was given up."""
        if not job.claim():
            return None, set()
        if self.poison is None and any(each.is_lost() for each in self._where):
            self.poison = Unavailable(self._name, LOST)
        if self.poison is not None:
            return [self.poison] * len(job.operations), set()
        outcomes, changed = self._transact(job.operations)
        if outcomes is None:
            # One of them broke the transaction. Alone, each breaks only its own.
            return self._one_by_one(job.operations)
        return outcomes, changed

    def _one_by_one(
        self, operations: Sequence[Operation]
    ) -> tuple[list[Outcome], set[tuple[str, str]]]:
        """Write each operation in a transaction of its own, until the disk fails."""
        outcomes: list[Outcome] = []
        changed: set[tuple[str, str]] = set()
        for operation in operations:
            if self.poison is not None:
                outcomes.append(self.poison)
                continue
            single, touched = self._transact([operation])
            outcomes += single or []
            changed |= touched
        return outcomes, changed

    def _arrived(self, job: _Job, outcomes: list[Outcome], changed: set[tuple[str, str]]) -> None:
        """Hand the outcomes of a batch to its callers; called in the loop."""
        self._outstanding.pop(job, None)
        job.done(outcomes)
        if changed:
            self._changed(changed)

    def _transact(
        self, operations: Sequence[Operation]
    ) -> tuple[list[Outcome] | None, set[tuple[str, str]]]:
        """Write operations in one transaction; `None` when they have to be tried one by one."""
        # A lone commit has few rows: they are written in a transaction anyway.
        alone = len(operations) == 1
        asked = [durability_of(operation, self._durability) for operation in operations]
        durable = "durable" in asked
        try:
            self._set_synchronous("FULL" if durable else "NORMAL")
            try:
                return self._attempt(operations, durable=durable, at_once=alone)
            except Moved:
                self._recent.clear()
                self._roll_back()
                return self._attempt(operations, durable=durable, at_once=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers are told
            self._recent.clear()
            return self._failed(error, operations), set()

    def _attempt(
        self, operations: Sequence[Operation], *, durable: bool, at_once: bool = False
    ) -> tuple[list[Outcome], set[tuple[str, str]]]:
        """Decide and write operations. Raises `Moved` if what was known of the file is old."""
        transaction = Transaction(self._db, self._recent, self._name, at_once=at_once)
        batch = Batch(transaction, self._recent, durable=durable)
        outcomes = list(map(batch.apply, operations))
        if self._untold is not None:
            self._tell()
        batch.commit_all()
        return outcomes, batch.changed

    def _failed(self, error: Exception, operations: Sequence[Operation]) -> list[Outcome] | None:
        """Undo a transaction; return the outcomes, or `None` if the neighbours may be innocent."""
        self._roll_back()
        reason = self._cause(error)
        if self.poison is None and len(operations) > 1:
            return None
        return [reason] * len(operations)

    def _roll_back(self) -> None:
        with contextlib.suppress(apsw.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _cause(self, error: Exception) -> SojournError:
        """Map an error; a failed disk poisons the engine, for a retry could lie."""
        reason = connection.mapped(error, self._name)
        if reason is not error:
            reason.__cause__ = error
        if isinstance(error, apsw.IOError) and not connection.is_full(error):
            self.poison = Unavailable(
                self._name, f"the disk failed ({error}); close the store, check it, open it again"
            )
            self.poison.__cause__ = error
            return self.poison
        return reason

    def _set_synchronous(self, level: str) -> None:
        if level != self._synchronous:
            self._db.execute(f"PRAGMA synchronous={level}")
            self._synchronous = level

    def _checkpoint(self) -> None:
        """Move a long write-ahead log into the file. Its failure is not that of any commit."""
        limit = IDLE_CHECKPOINT_PAGES if self._jobs.empty() else CHECKPOINT_PAGES
        if self._log_pages < min(limit, CHECKPOINT_PAGES):
            return
        self._tell()  # it takes a while
        self._log_pages = 0
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.FullError:
            return  # the log holds everything; it is moved once there is space
        except apsw.BusyError:
            return  # a program outside the gate is at it
        except apsw.Error as error:
            self._cause(error)
