"""Laws of labels: patched by commits, found by lists, bounded in number."""

from __future__ import annotations

from sojourn.errors import InvalidId, TooLarge
from sojourn.limits import MAX_LABELS
from sojourn.testing.laws.corner import ONE, Corner
from sojourn.testing.laws.expect import equal, exactly, refused
from sojourn.testing.laws.law import law


@law()
async def labels_are_patched(corner: Corner) -> None:
    """A commit sets and removes the labels that it names; others stay, unknown ones are fine."""
    await corner.create(labels={"kept": "1", "changed": "1", "gone": "1"})
    await corner.commit(labels={"changed": "2", "gone": None, "new": "1", "never": None})
    labels = (await corner.read()).header.labels
    exactly(labels, {"kept": "1", "changed": "2", "new": "1"}, "the labels after the patch")


@law(behaviours=(28,))
async def lists_follow_the_labels(corner: Corner) -> None:
    """A session is found, and counted, by the labels that it has now."""
    await corner.create(labels={"stage": "draft"})
    await corner.create("other", labels={"stage": "draft"})
    await corner.commit(labels={"stage": "done", "by": "me"}, now=1)
    for labels, ids in (
        ({"stage": "draft"}, ["other"]),
        ({"stage": "done"}, [ONE]),
        ({"by": "me"}, [ONE]),
        ({"by": "me", "stage": "done"}, [ONE]),
        ({"by": "me", "stage": "draft"}, []),
        ({"by": "you"}, []),
    ):
        equal(await corner.ids(labels=labels, now=1), ids, f"the sessions labelled {labels}")
        equal(await corner.count(labels=labels, now=1), len(ids), f"the count of {labels}")
    await corner.commit(labels={"stage": "draft", "by": None}, now=2)
    equal(await corner.ids(labels={"stage": "draft"}, now=2), [ONE, "other"], "after going back")
    equal(await corner.count(labels={"by": "me"}, now=2), 0, "the count of a label nobody has")


@law()
async def lists_that_were_read_before_follow_as_well(corner: Corner) -> None:
    """Labels and user of a session that moves in time nowhere are found as they are now."""
    await corner.create(labels={"stage": "draft"})
    await corner.create("other", user="u", labels={"stage": "done"})
    by_user, by_label = {"user": "u"}, {"labels": {"stage": "done"}}
    for order in ("active", "-active", "created", "-created"):
        equal(await corner.ids(order=order, **by_user), ["other"], f"by user and {order}")
        equal(await corner.ids(order=order, **by_label), ["other"], f"by label and {order}")
        equal(await corner.ids(order=order, anonymous=True), [ONE], f"of nobody, by {order}")
    await corner.commit(labels={"stage": "done"})
    await corner.commit(user="u")
    for order in ("active", "-active", "created", "-created"):
        for asked in (by_user, by_label):
            found = await corner.ids(order=order, **asked)
            equal(sorted(found), [ONE, "other"], f"by {asked} and {order}, after the changes")
        equal(await corner.ids(order=order, anonymous=True), [], f"of nobody, by {order}, then")


@law()
async def labels_are_bounded(corner: Corner) -> None:
    """`MAX_LABELS` fit; one more is `TooLarge` and nothing changes; replacing one still works."""
    full = {f"l{n}": "x" for n in range(MAX_LABELS)}
    await corner.create()
    await corner.commit(labels=full)
    error = await refused(corner.commit(labels={"more": "x"}), TooLarge, "one label too many")
    equal((error.size, error.limit), (MAX_LABELS + 1, MAX_LABELS), "size and limit in the error")
    exactly((await corner.read()).header.labels, full, "the labels after the refusal")
    await corner.commit(labels={"l0": None, "more": "x"})
    equal(len((await corner.read()).header.labels), MAX_LABELS, "labels after replacing one")


@law()
async def an_exclusive_label_stays_as_it_was_created(corner: Corner) -> None:
    """Changing or removing it is `InvalidId`; naming its own value is fine."""
    await corner.create(labels={"role": "writer"}, exclusive=("role",))
    for patch in ({"role": "reader"}, {"role": None}):
        await refused(
            corner.commit(labels=patch), InvalidId, f"patching an exclusive label {patch}"
        )
    await corner.commit(labels={"role": "writer", "other": "1"})
    labels = (await corner.read()).header.labels
    exactly(labels, {"role": "writer", "other": "1"}, "the labels afterwards")
