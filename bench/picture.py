"""Bar charts as SVG, drawn from a run with nothing but string formatting.

Owns       docs/performance-*.svg.
Never      computes a number (summary.py does).

SVG written by hand is small, the same for the same run, and readable in a diff; a plotting library
would add an environment of its own for a few rectangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from bench import summary
from bench.results import Run
from bench.servers import ROOT
from bench.summary import Row
from bench.works import WORKS, Work

FOLDER: Final = ROOT / "docs"
PICTURED: Final = ("hello", "send-64k", "flask", "django", "asgi-hello", "fastapi", "websocket-64")

# Pixels. The label column fits the longest entrant name at 13 px.
_WIDTH, _LABEL, _VALUE = 760, 140, 170
_BAR, _GAP, _TOP, _BOTTOM = 22, 9, 62, 30

_STYLE: Final = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .note { font-size: 11px; fill: #6e7781 }
  .own { fill: #2da44e } .peer { fill: #8c959f } .spread { stroke: #24292f; stroke-width: 1.5 }
"""


@dataclass(frozen=True)
class _Scale:
    """Microseconds to pixels."""

    pixels_per_us: float

    def x(self, cpu_us: float) -> float:
        return round(_LABEL + cpu_us * self.pixels_per_us, 1)


def draw(run: Run) -> list[Path]:
    """One picture for each pictured work that was measured."""
    drawn = []
    for work in PICTURED:
        rows = summary.rows(run, work)
        if rows:
            path = FOLDER / name(work)
            path.write_text(_picture(run, WORKS[work], rows))
            drawn.append(path)
    return drawn


def name(work: str) -> str:
    return f"performance-{work}.svg"


def _picture(run: Run, work: Work, rows: list[Row]) -> str:
    height = _TOP + len(rows) * (_BAR + _GAP) + _BOTTOM
    scale = _Scale((_WIDTH - _LABEL - _VALUE) / max(row.cpu_us.high for row in rows))
    subtitle = f"CPU microseconds a {work.load.unit}, whole process tree, one core; less is better"
    foot = (
        f"{run.date[:10]}, {run.machine.processor}, Linux {run.machine.kernel}; "
        f"lines: lowest and highest of {run.rounds_asked} rounds"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text class="title" x="12" y="26">{escape(work.title)}</text>',
        f'<text class="note" x="12" y="45">{subtitle}</text>',
        *(_bar(row, _TOP + index * (_BAR + _GAP), scale) for index, row in enumerate(rows)),
        f'<text class="note" x="12" y="{height - 11}">{escape(foot)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bar(row: Row, top: int, scale: _Scale) -> str:
    middle, baseline = top + _BAR / 2, top + _BAR - 6
    kind = "own" if row.entrant.startswith("bicorn") else "peer"
    width = round(scale.x(row.cpu_us.median) - _LABEL, 1)
    low, high = scale.x(row.cpu_us.low), scale.x(row.cpu_us.high)
    value = f"{row.cpu_us.median:,.1f} µs, {row.rate.median:,.0f}/s"
    return "\n".join(
        (
            f'<text x="{_LABEL - 8}" y="{baseline}" text-anchor="end">{escape(row.entrant)}</text>',
            f'<rect class="{kind}" x="{_LABEL}" y="{top}" width="{width}" height="{_BAR}" rx="2"/>',
            f'<line class="spread" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>',
            f'<text x="{high + 8}" y="{baseline}">{value}</text>',
        )
    )
