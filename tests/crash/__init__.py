"""Crash and I/O fault tooling, with the tests of the tooling itself."""
