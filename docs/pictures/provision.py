"""Draws docs/pictures/provision.svg from provision.json: `python -m docs.pictures.provision`.

`python -m tests.bench.provision --json docs/pictures/provision.json` measures.
"""

from __future__ import annotations

import json
import statistics
from html import escape
from typing import Any

from docs.pictures.bench import FOLDER, INK, LEFT, LINE, OURS, PEER, bar

ROW, GAP, TOP = 24, 34, 40
TITLES = {"install": "bare hosts → Ready, s", "again": "second run, unchanged, s"}


def picture(results: list[dict[str, Any]], load: list[float]) -> str:
    """A group of bars a figure and number of hosts, a bar a tool, all on one scale."""
    scale = max(statistics.median(found["install"]) for found in results)
    shapes, y = [], TOP
    for figure, title in TITLES.items():
        for count in sorted({found["hosts"] for found in results}):
            hosts = f"{count} host{'s' if count > 1 else ''}"
            shapes.append(f'<text x="{LEFT}" y="{y}" class="title">{hosts}: {escape(title)}</text>')
            y += 10
            for found in results:
                if found["hosts"] != count:
                    continue
                values = found[figure]
                colour = OURS if found["tool"].startswith("this") else PEER
                middle = statistics.median(values)
                shapes.append(
                    f'<text x="{LEFT - 12}" y="{y + 13}" class="name">{escape(found["tool"])}</text>'
                )
                shapes.append(bar(y, middle, scale, colour, min(values), max(values)))
                y += ROW
            y += GAP
    rounds = len(results[0]["install"])
    note = f"medians of {rounds} rounds, least to greatest; load average {min(load):.1f} to {max(load):.1f}"
    shapes.append(f'<text x="{LEFT}" y="{y - 8}" class="value">{note}</text>')
    height = y + 10
    style = (
        f"text {{ font-family: sans-serif; font-size: 13px; fill: {INK} }} .name {{ text-anchor: end }}"
        f" .title {{ font-weight: bold }} .value {{ fill: {LINE} }}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" width="760" height="{height}">'
        f'<style>{style}</style><rect width="760" height="{height}" fill="#ffffff"/>'
        + "\n".join(shapes)
        + "</svg>\n"
    )


if __name__ == "__main__":
    measured = json.loads((FOLDER / "provision.json").read_text())
    (FOLDER / "provision.svg").write_text(picture(measured["results"], measured["load"]))
