"""A small shop, once for each web framework: `python -m examples.starlette` and so on."""
