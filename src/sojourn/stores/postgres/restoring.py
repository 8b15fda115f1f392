"""Putting sessions into the schema exactly as they were elsewhere, large ones part by part."""

from __future__ import annotations

STAGING = "\x1frestoring "
"""Stands before the app of a session of which not all parts are here: no name begins with it."""
