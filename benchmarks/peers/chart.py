"""Charts: horizontal bars as SVG, with nothing but text. They read well on light and on dark."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 820
LABELS = 310
"""Width of the column of labels."""

VALUES = 90
"""Room behind the longest bar for its number."""

ROW = 28
BAR = 16
TOP = 46

_STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #57606a }
    .title { font-size: 15px; font-weight: 600; fill: #24292f }
    .value { font-variant-numeric: tabular-nums }
    .ours { fill: #0969da } .floor { fill: #8c959f } .peer { fill: #bf8700 }
    @media (prefers-color-scheme: dark) {
      text { fill: #9da7b3 }
      .title { fill: #e6edf3 }
      .ours { fill: #4493f8 } .floor { fill: #7d8590 } .peer { fill: #d29922 }
    }
"""


@dataclass(frozen=True)
class Bar:
    """One bar: what it is of, how long, the number behind it, and a class of the style."""

    label: str
    value: float
    shown: str
    kind: str


def bars(title: str, unit: str, items: Sequence[Bar]) -> str:
    """Return a chart, every bar from zero and to one scale."""
    height = TOP + ROW * len(items) + 12
    longest = max((item.value for item in items), default=0) or 1
    body = "\n".join(_bar(place, item, longest) for place, item in enumerate(items))
    described = "; ".join(f"{item.label}: {item.shown}" for item in items)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title described">\n'
        f'  <title id="title">{escape(title)}</title>\n'
        f'  <desc id="described">{escape(f"{unit}. {described}")}</desc>\n'
        f"  <style>{_STYLE}  </style>\n"
        f'  <text class="title" x="8" y="22">{escape(title)}</text>\n'
        f'  <text x="{WIDTH - 8}" y="22" text-anchor="end">{escape(unit)}</text>\n'
        f"{body}\n</svg>\n"
    )


def _bar(place: int, item: Bar, longest: float) -> str:
    top = TOP + place * ROW
    length = max(1.0, (WIDTH - LABELS - VALUES) * item.value / longest)
    text = top + BAR - 3
    return (
        f'  <text x="{LABELS - 8}" y="{text}" text-anchor="end">{escape(item.label)}</text>\n'
        f'  <rect class="{item.kind}" x="{LABELS}" y="{top}" width="{length:.1f}" '
        f'height="{BAR}" rx="2"/>\n'
        f'  <text class="value" x="{LABELS + length + 6:.1f}" y="{text}">{escape(item.shown)}'
        "</text>"
    )
