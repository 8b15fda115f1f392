"""Tests of one group run in one worker: they share servers, browsers, and the machine's quiet."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("groups")
def test_a_group_is_kept_together(request: pytest.FixtureRequest) -> None:
    """With pytest 9.2, pytest-xdist 3.8 scattered them without a word."""
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("only the workers of `--dist loadgroup` know groups")
    assert request.node.nodeid.endswith("@groups")
