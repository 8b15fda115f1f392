"""Sojourn beside its peers: the same work, in turns, each run in a process of its own."""
