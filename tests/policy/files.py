"""What the tests of the command line share: files to check, and running it."""

import json
from pathlib import Path
from typing import Any

from policies import check

LIMITS = ("--rule", "resource-limits")
RESOURCES = "resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1, memory: 1Gi}}"
GOOD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: good, namespace: default}}
spec:
  containers:
    - name: c
      image: edge.local/app
      {RESOURCES}
"""
BAD = GOOD.replace("good", "bad").replace(f"      {RESOURCES}\n", "")


def run(*arguments: object) -> int:
    """Run the command line in this process."""
    return check.main([str(argument) for argument in arguments])


def write(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file of a test."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def report(folder: Path, content: str | bytes | Any, *options: object, code: int) -> dict[str, Any]:
    """Check one file and return the JSON report."""
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    file, output = write(folder, "input.yaml", text), folder / "report.json"
    assert run(file, *options, "--format", "json", "--output", output) == code
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return found


def resources(found: dict[str, Any]) -> set[str]:
    """Return the resources that a report has findings of."""
    return {finding["resource"] for finding in found["findings"]}
