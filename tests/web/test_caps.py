"""Caps: how many sessions a user may have, and what a login does that is one too many."""

from __future__ import annotations

from typing import Any

import pytest
from tests.web.browser import Site

from sojourn import InvalidSetting, SessionManager
from sojourn.web import Cap, SessionMiddleware


@pytest.mark.parametrize(
    "given", [(1, "end_oldest"), (0,), (-1,), (True,), (1.5,), ("2",), (None,)]
)
def test_a_cap_that_could_not_be_kept_is_refused(given: Any) -> None:
    with pytest.raises(InvalidSetting, match="Cap"):
        Cap(*given)


async def test_a_number_alone_is_no_cap() -> None:
    async with SessionManager.open("memory://") as sessions:
        with pytest.raises(InvalidSetting, match="give a Cap, not 3"):
            SessionMiddleware(Site(), sessions=sessions, cap=3)  # type: ignore[arg-type]  # that is the test
