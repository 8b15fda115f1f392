"""The command line: `sojourn`, or `python -m sojourn`, on any store; needs `sojourn[cli]`."""
