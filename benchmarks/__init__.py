"""Figures of the core, each measured beside the least work that could do the same."""
