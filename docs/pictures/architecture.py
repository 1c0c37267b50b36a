"""Draws docs/pictures/architecture.svg: `python docs/pictures/architecture.py`."""

from __future__ import annotations

from html import escape
from pathlib import Path

WIDTH, HEIGHT = 1120, 640
INK, LINE, SOFT = "#1b2733", "#5b7083", "#eef3f7"
BLUE, GREEN, AMBER = "#dbe9f8", "#dcf2e1", "#fcefd2"


def box(x: int, y: int, w: int, h: int, title: str, lines: list[str], fill: str = "#ffffff") -> str:
    """A titled box."""
    text = [f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="8" fill="{fill}" stroke="{LINE}"/>']
    text.append(f'<text x="{x + 12}" y="{y + 23}" class="title">{escape(title)}</text>')
    for number, line in enumerate(lines):
        text.append(f'<text x="{x + 12}" y="{y + 44 + 18 * number}" class="line">{escape(line)}</text>')
    return "\n".join(text)


def arrow(points: list[tuple[int, int]], label: str = "", at: tuple[int, int] = (0, 0)) -> str:
    """A line with a head, and its label."""
    path = " ".join(f"{x},{y}" for x, y in points)
    text = f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="2" marker-end="url(#head)"/>'
    if label:
        text += f'<text x="{at[0]}" y="{at[1]}" class="label">{escape(label)}</text>'
    return text


def host(x: int, name: str, role: str, last: str) -> str:
    """An edge host and what runs on it."""
    pod = ["server.wasm (AOT) + model.onnx", "HTTP :8080"]
    shapes = [
        box(x, 330, 340, 286, name, [], SOFT),
        box(x + 16, 364, 308, 62, role, [last]),
        box(x + 16, 436, 308, 62, "containerd", ["shim for WasmEdge 0.14.1, one per pod"], AMBER),
        box(x + 16, 508, 308, 92, "pod · runtimeClassName: wasm", pod, GREEN),
    ]
    return "\n".join(shapes)


def picture() -> str:
    """The whole drawing."""
    steps = [
        ("EdgeHost", ["SSH, pinned key,", "checks first"]),
        ("Artifact", ["staged once,", "sha256 on the host"]),
        ("K3sCluster", ["server, agents,", "secret kubeconfig"]),
        ("WasmEdgeRuntime", ["shim, label,", "RuntimeClass wasm"]),
        ("ModelImage", ["by digest,", "pinned on the node"]),
        ("InferenceService", ["Deployment, Service,", "probes, limits, HPA"]),
    ]
    shapes = [
        box(20, 20, 190, 86, "stacks/", ["settings, checked", "local dev staging prod"]),
        box(20, 126, 190, 86, "policies/", ["limits, signed images:", "refuse at preview"]),
        box(20, 232, 190, 86, ".artifacts/", ["K3s, WasmEdge, images,", "signed model · sha256"], AMBER),
        box(240, 20, 860, 210, "pulumi up", [], BLUE),
    ]
    for number, (title, lines) in enumerate(steps):
        x, y = 256 + 282 * (number % 3), 50 + 88 * (number // 3)
        shapes.append(box(x, y, 262, 78, f"{number + 1}  {title}", lines))
    shapes += [
        arrow([(210, 63), (238, 63)]),
        arrow([(210, 169), (238, 169)]),
        arrow([(300, 230), (300, 328)], "SSH: scripts, files", (310, 285)),
        arrow([(640, 230), (640, 328)], "SSH: scripts, files", (650, 285)),
        arrow([(560, 230), (560, 328)], "Kubernetes API", (458, 285)),
        arrow([(210, 275), (276, 275), (276, 328)]),
        host(240, "edge host 1", "k3s server", "API, scheduler, service load balancer"),
        host(600, "edge host 2", "k3s agent", "kubelet, service load balancer"),
        box(960, 508, 140, 92, "client", ["POST /v2/models/", "digits/infer"]),
        arrow([(960, 554), (928, 554)]),
    ]
    style = (
        f"text{{font-family:Helvetica,Arial,sans-serif;fill:{INK}}} .title{{font-size:15px;font-weight:bold}}"
        " .line{font-size:13px}"
        f" .label{{font-size:12px;fill:{LINE}}}"
    )
    head = (
        '<marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
        f'<path d="M0,0 L9,4 L0,8 z" fill="{LINE}"/></marker>'
    )
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}">\n<defs>{head}<style>{style}</style></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture())
