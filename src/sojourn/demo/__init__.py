"""A tour of the guarantees on a real file, with real processes: `python -m sojourn.demo`.

Nothing in the library imports this. It uses what any program can use, and may be read as examples.
"""
