"""Policies: which one counts for a path."""

from __future__ import annotations

import pytest

from sojourn import InvalidSetting
from sojourn.web.policies import Policies

MIXED = Policies(
    {"/static": "skip", "/static/forms": "required", "/blog/": "optional", "/a": "optional"}
)


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/static", "skip"),
        ("/static/", "skip"),
        ("/static/app.css", "skip"),
        ("/static-admin", "required"),
        ("/static.txt", "required"),
        ("/static/forms", "required"),
        ("/static/forms-2", "skip"),
        ("/blog", "required"),
        ("/blog/", "optional"),
        ("/blog/today", "optional"),
        ("/a/b", "optional"),
        ("/ab", "required"),
        ("/", "required"),
        ("", "required"),
    ],
)
def test_a_prefix_fits_whole_segments_and_the_longest_counts(path: str, policy: str) -> None:
    assert MIXED.of(path) == policy


@pytest.mark.parametrize("everything", ["/", ""])
def test_a_policy_for_everything(everything: str) -> None:
    policies = Policies({everything: "optional", "/pay": "required"})
    assert [policies.of(path) for path in ("/", "", "/a", "/pay/now")] == [
        "optional",
        "optional",
        "optional",
        "required",
    ]
    assert Policies("skip").of("/anything") == "skip"


@pytest.mark.parametrize("policy", [{"static": "skip"}, {"/a": "perhaps"}, "perhaps"])
def test_what_can_fit_nothing_is_refused(policy: object) -> None:
    with pytest.raises(InvalidSetting, match="policy"):
        Policies(policy)  # type: ignore[arg-type]  # that is the test
