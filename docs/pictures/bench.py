"""Draws docs/pictures/bench.svg from docs/pictures/bench.json: `python docs/pictures/bench.py`.

`python -m tests.bench --json docs/pictures/bench.json` measures.
"""

from __future__ import annotations

import json
import statistics
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
INK, LINE, OURS, PEER = "#1b2733", "#5b7083", "#2f7d4f", "#b9c6d2"
LEFT, BAR, ROW = 210, 400, 58


def bar(y: int, value: float, scale: float, colour: str, low: float, high: float) -> str:
    """A bar to the median, with a line from the least to the greatest."""
    width = BAR * value / scale
    first, last = LEFT + BAR * low / scale, LEFT + BAR * min(high / scale, 1.1)
    return (
        f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="16" fill="{colour}"/>'
        f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{y + 8}" y2="{y + 8}" stroke="{INK}"/>'
        f'<text x="{max(LEFT + width, last) + 8:.1f}" y="{y + 13}" class="value">{value:.3g}</text>'
    )


def picture(ours: dict[str, list[float]], peer: dict[str, list[float]]) -> str:
    """The figures that both have, each on its own scale."""
    rows = [name for name in ours if name in peer]
    shapes = []
    for number, name in enumerate(rows):
        y = 60 + ROW * number
        both = (ours[name], peer[name])
        scale = max(statistics.median(values) for values in both)
        shapes.append(f'<text x="{LEFT - 12}" y="{y + 22}" class="name">{escape(name)}</text>')
        for values, colour, at in zip(both, (OURS, PEER), (y, y + 19), strict=True):
            middle = statistics.median(values)
            shapes.append(bar(at, middle, scale, colour, min(values), max(values)))
    height = 60 + ROW * len(rows)
    legend = (
        f'<rect x="{LEFT}" y="18" width="14" height="14" fill="{OURS}"/>'
        f'<text x="{LEFT + 20}" y="30" class="value">wasm pod, through the Service</text>'
        f'<rect x="{LEFT + 240}" y="18" width="14" height="14" fill="{PEER}"/>'
        f'<text x="{LEFT + 260}" y="30" class="value">onnxruntime behind Python\'s HTTP server</text>'
    )
    style = (
        f"text {{ font-family: sans-serif; font-size: 13px; fill: {INK} }} .name {{ text-anchor: end }}"
        f" .value {{ fill: {LINE} }}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" width="760" height="{height}">'
        f'<style>{style}</style><rect width="760" height="{height}" fill="#ffffff"/>'
        + "\n".join([legend, *shapes])
        + "</svg>\n"
    )


if __name__ == "__main__":
    figures = json.loads((FOLDER / "bench.json").read_text())
    (FOLDER / "bench.svg").write_text(picture(figures["ours"], figures["peer"]))
