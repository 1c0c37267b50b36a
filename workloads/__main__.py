"""Command line: build the model image, and ask a served model."""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from rich.table import Table

from toolchain.build import BuildError, console
from workloads.client import Client, ClientError, Digits, reference


def query(url: str) -> int:
    """Asks for one digit of the test set."""
    digits = Digits.read()
    with Client(url) as client:
        client.infer(digits.pixels[:1])
        start = time.perf_counter()
        probabilities = client.infer(digits.pixels[:1])[0]
        took = time.perf_counter() - start
    label, expected = int(probabilities.argmax()), int(digits.labels[0])
    console.print(
        f"digit: {label} (probability {probabilities[label]:.3f}), expected: {expected}, {took * 1e3:.2f} ms"
    )
    return 0 if label == expected else 1


def evaluate(url: str) -> int:
    """Compares the served model with onnxruntime on the whole test set."""
    digits = Digits.read()
    wanted = reference(digits)
    with Client(url) as client:
        served = np.concatenate([client.infer(row[None]) for row in digits.pixels])
    differing = int((served.argmax(1) != wanted.argmax(1)).sum())
    for name, probabilities in (("served", served), ("onnxruntime", wanted)):
        accuracy = (probabilities.argmax(1) == digits.labels).mean()
        console.print(f"accuracy {name}: {accuracy:.4f} on {len(digits.labels)} digits")
    console.print(f"labels that differ: {differing}")
    console.print(f"largest difference of a probability: {np.abs(served - wanted).max():.2e}")
    return 0 if differing == 0 else 1


def bench(url: str, requests: int, warmup: int) -> int:
    """Times requests of one digit, one after the other."""
    digits = Digits.read()
    with Client(url) as client:
        took = np.array(client.latencies(digits.pixels[:1], requests, warmup)) * 1e3
    table = Table(title=f"{url}: {requests} requests of one digit, one connection")
    for name in ("min ms", "p50 ms", "p99 ms", "max ms", "requests/s"):
        table.add_column(name, justify="right")
    figures = [took.min(), np.percentile(took, 50), np.percentile(took, 99), took.max()]
    table.add_row(*(f"{figure:.3f}" for figure in figures), f"{1e3 / took.mean():.0f}")
    console.print(table)
    return 0


def main() -> int:
    """Runs the command line; exit codes: 0 good, 1 failed or labels differ, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m workloads",
        description="Builds the model image into .artifacts, and asks a served model.",
        epilog="example: python -m workloads query http://10.213.0.11:8080",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="server, model, image archive and signature; does only what is missing")
    commands.add_parser("query", help="one digit: label, what was expected, latency").add_argument("url")
    commands.add_parser("evaluate", help="whole test set, compared with onnxruntime").add_argument("url")
    timing = commands.add_parser("bench", help="latency of single requests")
    timing.add_argument("url")
    timing.add_argument("--requests", type=_positive, default=2000, help="timed requests (default: 2000)")
    timing.add_argument("--warmup", type=_positive, default=200, help="requests before them (default: 200)")
    args = parser.parse_args()
    try:
        if args.command == "build":
            from workloads.build import build

            build()
            return 0
        if args.command == "bench":
            return bench(args.url, args.requests, args.warmup)
        return query(args.url) if args.command == "query" else evaluate(args.url)
    except (BuildError, ClientError) as error:
        console.print(f"[red]error:[/red] {error}", soft_wrap=True)
        return 1


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
