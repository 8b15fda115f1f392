"""Stores that are wrong on purpose: each breaks the laws about what it gets wrong, no others."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from sojourn.commit import apart, may_delete, renewed, touched
from sojourn.errors import Closed, LogFull, NotFound, SojournError
from sojourn.lifecycle import ENDING
from sojourn.model import Header
from sojourn.store import Committed, Create, Delete, Get, Listed, TierDelta
from sojourn.stores.memory import MemoryStore
from sojourn.testing import check_store
from sojourn.testing.laws import closing, watch
from sojourn.vault import index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn.model import Entry, Record
    from sojourn.store import Acquire, Change, Due, EventQuery, Fork, Query, Renew, Restore, Touch
    from sojourn.stores.memory import _Wakeup
    from sojourn.vault.transfer import TransferVault

NULL = msgspec.Raw(b"null")


def vault_of(store: MemoryStore) -> TransferVault:
    """Return what a memory store keeps, to tamper with it."""
    return store._open.vault


class Upserting(MemoryStore):
    """Creates what a commit does not find."""

    async def commit(self, change: Change, /) -> Committed:
        try:
            return await super().commit(change)
        except NotFound as missing:
            if change.id is None or type(missing) is not NotFound or change.epoch is not None:
                raise
            now = change.now
            header = Header(
                app=change.app, id=change.id, epoch="upsert", created_at=now, active_at=now
            )
            await super().create(Create(header=header, op=b"upsert00"))
            return await super().commit(change)


class Unchecking(MemoryStore):
    """Does not compare revisions."""

    async def commit(self, change: Change, /) -> Committed:
        return await super().commit(msgspec.structs.replace(change, revision=None))


class Homesick(MemoryStore):
    """Lets a commit in another event loop wait for its own."""

    home: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        self.home = asyncio.get_running_loop()
        await super().open()

    async def commit(self, change: Change, /) -> Committed:
        if asyncio.get_running_loop() is not self.home:
            await asyncio.Event().wait()
        return await super().commit(change)


class Aliasing(MemoryStore):
    """Returns, for the same session, the same mutable record again."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[object, ...], Record] = {}

    async def get(self, get: Get, /) -> Record | None:
        record = await super().get(get)
        if record is None or get.window is not None:
            return record
        header = record.header
        version = (header.epoch, header.revision, header.fence, header.active_at)
        return self._seen.setdefault((get.app, get.id, *version), record)


class Forgetful(MemoryStore):
    """Takes the app's tier along when it deletes a session."""

    async def delete(self, delete: Delete, /) -> bool:
        deleted = await super().delete(delete)
        if deleted:
            vault_of(self)._tiers.pop((delete.app, None), None)
        return deleted


class OffByOne(MemoryStore):
    """Takes a deadline for passed only behind it."""

    async def get(self, get: Get, /) -> Record | None:
        return await super().get(msgspec.structs.replace(get, now=get.now - 1))


class Leaving(MemoryStore):
    """Leaves the events of deleted sessions behind, to turn up in the next of that name."""

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[tuple[str, str], Any] = {}

    async def delete(self, delete: Delete, /) -> bool:
        slot = vault_of(self)._slots.get((delete.app, delete.id))
        deleted = await super().delete(delete)
        if deleted and slot is not None and slot.log is not None:
            self._left[delete.app, delete.id] = slot.log
        return deleted

    async def create(self, create: Create, /) -> Committed:
        created = await super().create(create)
        left = self._left.pop((create.header.app, create.header.id), None)
        slot = vault_of(self)._slots[create.header.app, create.header.id]
        if left is not None and slot.log is None:
            slot.log = left
        return created


class Reusing(MemoryStore):
    """Gives the numbers of truncated events out again."""

    async def commit(self, change: Change, /) -> Committed:
        committed = await super().commit(change)
        if change.truncate_after is not None and not change.events and change.id is not None:
            slot = vault_of(self)._slots[change.app, change.id]
            seq = min(slot.header.seq, change.truncate_after)
            slot.header = msgspec.structs.replace(slot.header, seq=seq)
        return committed


class Doubling(MemoryStore):
    """Stores an event again when it comes again."""

    async def commit(self, change: Change, /) -> Committed:
        events = tuple(msgspec.structs.replace(event, fresh=True) for event in change.events)
        return await super().commit(msgspec.structs.replace(change, events=events))


class AllOrNone(MemoryStore):
    """Fails a whole batch for one of its commits."""

    def __init__(self) -> None:
        super().__init__()
        self._batch: list[tuple[Change, asyncio.Future[Committed]]] = []

    async def commit(self, change: Change, /) -> Committed:
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._batch.append((change, future))
        if len(self._batch) == 1:
            asyncio.get_running_loop().call_soon(asyncio.ensure_future, self._write())
        return await future

    async def _write(self) -> None:
        batch, self._batch = self._batch, []
        failure: SojournError | None = None
        results = []
        for change, _ in batch:
            try:
                results.append(await super().commit(change))
            except SojournError as error:
                failure = error
        for number, (_, future) in enumerate(batch):
            if failure is not None:
                if not future.done():
                    future.set_exception(failure)
            elif not future.done():
                future.set_result(results[number])


class Tearing(MemoryStore):
    """Writes state first and the rest a little later, if it is not cancelled meanwhile."""

    async def commit(self, change: Change, /) -> Committed:
        if change.app_tier is not None and change.events and change.id and not change.user_tier:
            shared = msgspec.structs.replace(change, id=None, documents=(), events=(), session=None)
            await super().commit(shared)
            await asyncio.sleep(0)
        return await super().commit(change)


class Skipping(MemoryStore):
    """Pages by skipping rows."""

    async def list(self, query: Query, /) -> Listed:
        if query.position is not None and not query.position.isdigit():
            return await super().list(query)
        skip = int(query.position or 0)
        everything = msgspec.structs.replace(query, position=None, limit=10**6)
        records = (await super().list(everything)).records
        end = skip + query.limit
        return Listed(records[skip:end], str(end) if end < len(records) else None)


class Amnesiac(MemoryStore):
    """Does not remember operations."""

    async def commit(self, change: Change, /) -> Committed:
        return await super().commit(msgspec.structs.replace(change, op=os.urandom(8)))


class Raising(MemoryStore):
    """Raises the revision with every touch."""

    async def touch(self, touch: Touch, /) -> Header:
        await super().touch(touch)
        slot = vault_of(self)._slots[touch.app, touch.id]
        slot.header = msgspec.structs.replace(slot.header, revision=slot.header.revision + 1)
        return msgspec.structs.replace(slot.header, labels=dict(slot.header.labels))


class Folding(MemoryStore):
    """Takes ids that differ only by case for the same."""

    async def get(self, get: Get, /) -> Record | None:
        return await super().get(msgspec.structs.replace(get, id=get.id.lower()))

    async def create(self, create: Create, /) -> Committed:
        header = msgspec.structs.replace(create.header, id=create.header.id.lower())
        return await super().create(msgspec.structs.replace(create, header=header))


class Stale(MemoryStore):
    """Trusts a window that it has read before, as long as nothing was appended since."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str, str, int, EventQuery], Sequence[Entry] | None] = {}

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        record = await super().get(Get(app=app, id=id, now=now))
        if record is None or window.last is None:
            return await super().events(app, id, now, window)
        key = (app, id, record.header.epoch, record.header.seq, window)
        if key not in self._seen:
            self._seen[key] = await super().events(app, id, now, window)
        return self._seen[key]


class Sorting(MemoryStore):
    """Orders a log by the times of its events."""

    async def events(
        self, app: str, id: str, now: int, window: EventQuery, /
    ) -> Sequence[Entry] | None:
        found = await super().events(app, id, now, window)
        return None if found is None else sorted(found, key=lambda entry: entry.at)


class Lossy(MemoryStore):
    """Keeps numbers as floating point."""

    async def get(self, get: Get, /) -> Record | None:
        record = await super().get(get)
        if record is None:
            return None
        state = {
            key: msgspec.Raw(msgspec.json.encode(float(number)))
            if isinstance(number := msgspec.json.decode(value), int) and abs(number) > 2**53
            else value
            for key, value in record.state.items()
        }
        return msgspec.structs.replace(record, state=state)


class Dropping(MemoryStore):
    """Takes `None` for a deletion."""

    async def commit(self, change: Change, /) -> Committed:
        if change.session is not None:
            nulls = tuple(key for key, value in change.session.set.items() if value == NULL)
            delta = TierDelta(change.session.set, (*change.session.drop, *nulls))
            change = msgspec.structs.replace(change, session=delta)
        return await super().commit(change)


class Polite(MemoryStore):
    """Finds nothing once it is closed, instead of saying so."""

    async def get(self, get: Get, /) -> Record | None:
        try:
            return await super().get(get)
        except Closed:
            return None


class Reviving(MemoryStore):
    """Lets a touch bring an expired session back."""

    async def touch(self, touch: Touch, /) -> Header:
        slot = vault_of(self)._slots.get((touch.app, touch.id))
        if slot is not None and slot.header.idle and slot.header.live:
            header = msgspec.structs.replace(slot.header, expires_at=None)
            vault_of(self)._replace(slot, header)
        return await super().touch(touch)


class Repeating(MemoryStore):
    """Gives every holder of a lease the same token."""

    async def acquire(self, acquire: Acquire, /) -> int:
        await super().acquire(acquire)
        return 1


class Numb(MemoryStore):
    """Loses what is committed before anybody waits."""

    def subscribe(self, app: str, id: str, /) -> _Wakeup:
        wakeup = super().subscribe(app, id)
        wait = wakeup.wait

        async def wait_anew(seconds: float, /) -> None:
            await asyncio.sleep(0)
            wakeup._changed.clear()
            await wait(seconds)

        wakeup.wait = wait_anew  # type: ignore[method-assign] # tampering is the point
        return wakeup


class Restless(MemoryStore):
    """Goes on looking for changes when nobody watches any more."""

    def subscribe(self, app: str, id: str, /) -> _Wakeup:
        self._looking = asyncio.create_task(asyncio.Event().wait())
        return super().subscribe(app, id)


class Deaf(MemoryStore):
    """Does not wake anybody for a deletion that comes with the parent's."""

    async def delete(self, delete: Delete, /) -> bool:
        shared = self._open
        removed = shared.vault.delete(delete)
        for wakeup in shared.watchers.get((delete.app, delete.id), ()):
            wakeup.wake()
        return bool(removed)


class Trampling(MemoryStore):
    """Puts what it is told over whatever is there."""

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        header = restore.snapshot.header
        if restore.snapshot.last and not restore.snapshot.part:
            vault = vault_of(self)
            vault.delete(Delete(app=header.app, id=header.id, now=header.created_at))
        return await super().restore(restore)


class Hasty(MemoryStore):
    """Shows a large session when its first part is there."""

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        outcome = await super().restore(restore)
        if outcome == "partial" and not restore.snapshot.part:
            whole = msgspec.structs.replace(restore.snapshot, last=True)
            await super().restore(msgspec.structs.replace(restore, snapshot=whole))
            return "partial"
        return outcome


class Interrupting(MemoryStore):
    """Revokes the lease of who runs an end when somebody begins it once more."""

    async def commit(self, change: Change, /) -> Committed:
        slot = vault_of(self)._slots.get((change.app, change.id or ""))
        again = slot is not None and slot.header.phase in ENDING
        committed = await super().commit(change)
        if slot is not None and again and slot.header.phase in ENDING and change.move is not None:
            fence = slot.header.fence + 1
            slot.header = msgspec.structs.replace(slot.header, fence=fence, holder=None)
        return committed


class Stranding(MemoryStore):
    """Takes a use of an ending session for one that moves its deadline: nobody ends it then."""

    async def touch(self, touch: Touch, /) -> Header:
        header = await super().touch(touch)
        if header.phase in ENDING:
            vault, header = vault_of(self), msgspec.structs.replace(header, due_at=None)
            vault._replace(vault._slots[touch.app, touch.id], header)
        return header


class Overflowing(MemoryStore):
    """Leaves out, without a word, events for which a log has no numbers."""

    async def commit(self, change: Change, /) -> Committed:
        try:
            return await super().commit(change)
        except LogFull:
            return await super().commit(msgspec.structs.replace(change, events=()))


class Clutching(MemoryStore):
    """Goes on taking a deleted child for its parent's."""

    async def delete(self, delete: Delete, /) -> bool:
        slot = vault_of(self)._slots.get((delete.app, delete.id))
        parent = None if slot is None else vault_of(self)._parent(slot)
        deleted = await super().delete(delete)
        if deleted and parent is not None:
            parent.adopt(delete.id)
        return deleted


class Erasing(MemoryStore):
    """Removes the keys that a repeated event had removed once more."""

    async def commit(self, change: Change, /) -> Committed:
        committed = await super().commit(change)
        drop = () if change.session is None else change.session.drop
        if change.events and drop and min(committed.seqs) <= committed.before:
            slot = vault_of(self)._slots[change.app, str(change.id)]
            again = TierDelta({}, drop)
            slot.kept = slot.kept.merged(again, clear=False, key=str(change.id))
        return committed


class Misfiling(MemoryStore):
    """Files a session under its labels and user anew only when it moves in time as well."""

    async def list(self, query: Query, /) -> Listed:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index, "FEW", 0)  # an order is kept of all, and so can be wrong
            return await super().list(query)

    async def commit(self, change: Change, /) -> Committed:
        kept = vault_of(self)._index
        slot = vault_of(self)._slots.get((change.app, change.id or ""))
        if slot is None or change.now > slot.header.active_at:
            return await super().commit(change)
        orders, kept._orders = kept._orders, {}
        committed = await super().commit(change)
        kept._orders = orders
        return committed


class Impatient(MemoryStore):
    """Throws parts of a restore away at the next sweep, whosever it is."""

    async def due(self, due: Due, /) -> Sequence[Header]:
        vault_of(self)._staged.clear()
        return await super().due(due)


class Secretive(MemoryStore):
    """Tells no watcher of what is restored."""

    async def restore(self, restore: Restore, /) -> Literal["restored", "unchanged", "partial"]:
        return vault_of(self).restore(restore)


class Loitering(MemoryStore):
    """Looks what holds, lets others run, and goes by what it saw: each write in two steps."""

    async def delete(self, delete: Delete, /) -> bool:
        slot = vault_of(self)._slots.get((delete.app, delete.id))
        expected = delete.epoch, delete.revision, delete.fence
        if slot is None or not may_delete(slot.header, *expected):
            return await super().delete(delete)
        await asyncio.sleep(0)
        return await super().delete(Delete(app=delete.app, id=delete.id, now=delete.now))

    async def touch(self, touch: Touch, /) -> Header:
        slot = vault_of(self)._slots.get((touch.app, touch.id))
        header = touched(slot.header if slot else None, touch.id, touch.now, touch.epoch)
        await asyncio.sleep(0)
        if slot is not None and vault_of(self)._slots.get((touch.app, touch.id)) is slot:
            vault_of(self)._replace(slot, header)
        return apart(header)

    async def renew(self, renew: Renew, /) -> None:
        slot = vault_of(self)._slots.get((renew.app, renew.id))
        header = renewed(slot.header if slot else None, renew)
        await asyncio.sleep(0)
        if slot is not None:
            slot.header = header

    async def reap(self, due: Due, /) -> Sequence[str]:
        found = [header.id for header in await self.due(due)]
        await asyncio.sleep(0)
        for id in found:
            await super().delete(Delete(app=due.app, id=id, now=due.now))
        return found


class Dawdling(MemoryStore):
    """Does to children and to documents of forks afterwards what belongs into one step."""

    async def delete(self, delete: Delete, /) -> bool:
        slot = vault_of(self)._slots.get((delete.app, delete.id))
        if slot is not None and delete.epoch is None and delete.revision is None:
            for child in sorted(slot.children or ()):
                await super().delete(Delete(app=delete.app, id=child, now=delete.now))
                await asyncio.sleep(0)
        return await super().delete(delete)

    async def fork(self, fork: Fork, /) -> Committed:
        forked = await super().fork(fork)
        if forked.repeated:
            return forked
        slot = vault_of(self)._slots[fork.header.app, fork.header.id]
        documents, slot.documents = slot.documents, None
        await asyncio.sleep(0)
        slot.documents = documents
        return forked


WRONG: dict[type[MemoryStore], set[str]] = {
    Upserting: {
        "a_commit_never_brings_back_a_deleted_session",
        "a_commit_never_creates",
        "a_commit_that_fails_does_not_fail_its_neighbours",
        "deleting_and_committing_at_once_ends_with_the_session_gone",
        "a_delete_that_expects_a_revision_removes_no_later_one",
        "a_sweep_removes_nothing_that_is_used_at_that_moment",
    },
    Unchecking: {
        "a_handle_from_before_a_deletion_is_refused",
        "a_refused_commit_changes_nothing",
        "an_outdated_revision_is_a_conflict",
        "a_commit_that_fails_does_not_fail_its_neighbours",
        "of_many_strict_commits_exactly_one_wins",
        "documents_come_with_the_commit_or_not_at_all",
        "an_operation_that_was_refused_can_be_sent_again",
    },
    Aliasing: {
        "nothing_that_is_returned_is_what_is_stored",
    },
    Forgetful: {
        "what_is_restored_is_what_was_dumped",
        "deleting_removes_all_that_the_session_owned",
    },
    OffByOne: {
        "a_commit_may_replace_the_deadlines",
        "a_restored_session_goes_on",
        "a_session_is_missing_at_its_deadline",
        "a_touch_extends_the_idle_deadline_and_nothing_else",
        "an_absolute_deadline_is_not_extended",
        "an_ended_session_takes_no_writes_until_it_is_removed",
        "an_ended_session_that_is_not_retained_is_missing_at_once",
        "only_who_ends_a_session_reaches_it_past_its_deadline",
        "what_the_end_said_is_kept_until_it_is_said_anew",
    },
    Leaving: {
        "deleting_removes_all_that_the_session_owned",
        "an_expired_session_can_be_deleted",
    },
    Reusing: {
        "a_dump_is_all_of_a_session",
        "a_restored_session_goes_on",
        "an_older_revision_is_replaced_when_asked",
        "what_is_restored_is_what_was_dumped",
        "what_no_session_can_have_is_refused",
        "a_fork_and_its_source_go_separate_ways",
        "a_fork_of_a_cut_log_goes_on_from_the_last_number",
        "a_repetition_does_not_undo_what_came_after",
        "an_event_that_was_cut_off_can_come_again",
        "truncating_removes_the_tail_and_numbers_are_not_reused",
        "since_finds_late_times_among_early_ones",
    },
    Doubling: {
        "a_restored_session_goes_on",
        "a_repeated_event_does_not_change_the_state_again",
        "a_commit_sent_again_has_its_first_result_and_is_applied_once",
        "a_time_that_nobody_gave_does_not_make_events_differ",
        "an_event_that_was_cut_off_can_come_again",
        "different_events_with_one_id_are_all_kept",
        "equal_content_is_compared_as_json",
        "the_same_event_again_is_stored_once",
        "the_same_event_twice_in_one_commit_is_stored_once",
        "a_repeated_event_removes_nothing_again",
    },
    AllOrNone: {
        "a_commit_that_fails_does_not_fail_its_neighbours",
        "of_many_strict_commits_exactly_one_wins",
    },
    Tearing: {
        "a_cancelled_commit_is_applied_wholly_or_not_at_all",
        "commits_are_fenced",
        "a_log_without_numbers_left_takes_no_events",
    },
    Skipping: {
        "a_position_outlives_the_session_it_stands_for",
        "paging_is_steady_while_sessions_come_and_go",
    },
    Amnesiac: {
        "a_restored_session_goes_on",
        "a_cancelled_commit_can_be_sent_again",
        "a_commit_sent_again_has_its_first_result_and_is_applied_once",
        "a_repetition_does_not_undo_what_came_after",
        "a_repetition_is_not_refused_for_what_it_did_itself",
        "an_operation_is_remembered_over_many_commits",
        "an_operation_sent_many_times_at_once_is_applied_once",
        "generated_events_sent_again_are_not_doubled",
    },
    Raising: {
        "activity_and_deadline_catch_up_and_never_go_back",
        "a_touch_extends_the_idle_deadline_and_nothing_else",
        "touches_beside_commits_undo_nothing",
    },
    Folding: {
        "sessions_are_dumped_as_they_were_created",
        "a_move_that_is_not_in_the_table_changes_nothing",
        "phases_move_by_the_table",
        "filters_are_all_applied",
        "ids_mean_themselves",
        "the_apps_own_things_are_not_a_sessions",
    },
    Sorting: {
        "a_dump_is_all_of_a_session",
        "an_older_revision_is_replaced_when_asked",
        "entries_are_restored_as_entries",
        "what_is_restored_is_what_was_dumped",
        "a_fork_of_a_cut_log_goes_on_from_the_last_number",
        "a_suffix_is_replaced_only_when_it_is_the_tail",
        "order_is_by_number_whatever_the_times_say",
        "since_finds_late_times_among_early_ones",
        "a_restore_wakes_the_watchers",
    },
    Lossy: {
        "values_come_back_exactly",
    },
    Dropping: {
        "removing_a_key_is_not_setting_it_to_none",
    },
    Polite: {
        "a_closed_store_refuses_every_verb",
        "closing_twice_is_fine",
    },
    Reviving: {
        "a_session_is_missing_at_its_deadline",
        "an_absolute_deadline_is_not_extended",
        "an_expired_session_is_never_revived",
        "touching_what_is_not_there_is_not_found",
    },
    Repeating: {
        "a_lease_stays_behind_and_its_fence_never_falls",
        "a_delete_is_fenced",
        "a_lease_that_is_over_can_not_be_renewed",
        "a_released_lease_is_free_at_once",
        "beginning_the_end_revokes_the_lease",
        "commits_are_fenced",
        "tokens_rise_with_every_holder",
        "ending_again_takes_the_lease_from_nobody",
    },
    Numb: {
        "a_cancelled_wait_loses_nothing",
        "a_change_before_the_wait_is_not_lost",
        "a_wait_ends_when_its_time_is_up",
        "every_watcher_wakes_up",
        "a_restore_wakes_the_watchers",
    },
    Trampling: {
        "a_lease_stays_behind_and_its_fence_never_falls",
        "a_restore_sent_again_changes_nothing",
        "a_session_that_moved_on_here_is_not_set_back",
        "activity_and_deadline_catch_up_and_never_go_back",
        "an_older_revision_is_replaced_when_asked",
        "another_incarnation_is_not_replaced",
    },
    Hasty: {
        "a_large_session_is_seen_once_it_is_whole",
        "a_large_session_replaces_its_older_revision",
        "an_unfinished_restore_leaves_nothing_behind",
        "parts_of_another_restore_are_not_mixed_in",
        "a_restore_under_way_is_not_swept",
    },
    Homesick: {
        "in_another_event_loop_a_store_works_or_says_closed",
    },
    Deaf: {
        "every_change_wakes_the_watchers",
    },
    Stale: {
        "a_window_that_is_read_again_shows_what_became_of_the_log",
    },
    Restless: {
        "nothing_of_a_watch_outlives_its_store",
    },
    Interrupting: {
        "ending_again_takes_the_lease_from_nobody",
    },
    Stranding: {
        "using_an_ending_session_keeps_it_due",
    },
    Overflowing: {
        "a_log_without_numbers_left_takes_no_events",
    },
    Clutching: {
        "a_deleted_child_is_its_parents_no_more",
    },
    Erasing: {
        "a_repeated_event_removes_nothing_again",
    },
    Impatient: {
        "a_restore_under_way_is_not_swept",
    },
    Secretive: {
        "a_restore_wakes_the_watchers",
    },
    Loitering: {
        "a_delete_that_expects_a_revision_removes_no_later_one",
        "a_sweep_removes_nothing_that_is_used_at_that_moment",
        "leases_beside_commits_undo_nothing",
        "touches_beside_commits_undo_nothing",
    },
    Dawdling: {
        "a_family_is_gone_in_one_step",
        "a_fork_is_there_in_one_step",
    },
    Misfiling: {
        "lists_that_were_read_before_follow_as_well",
    },
}
"""Which laws each of them breaks."""


def test_a_right_store_breaks_nothing() -> None:
    report = asyncio.run(check_store(MemoryStore))
    assert report.broken == {}
    assert report.ok


@pytest.mark.parametrize("store", list(WRONG), ids=lambda store: store.__name__)
def test_a_wrong_store_breaks_the_laws_about_what_it_gets_wrong(
    store: type[MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 0.5)  # wake-ups that are lost are waited for
    monkeypatch.setattr(closing, "PATIENCE", 0.5)  # as are calls that never end
    report = asyncio.run(check_store(store))
    assert set(report.broken) == WRONG[store]
    assert not report.ok
