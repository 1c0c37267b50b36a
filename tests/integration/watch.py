"""Notes every command line and environment of every process, and every file of a folder, while it runs.

Usage: watch.py NOTES FOLDER. One JSON object a line goes to NOTES: kind, where, user, text. Ends on SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

PAUSE_S = 0.01
LARGEST = 4 << 20


def _processes(seen: set[int], out: TextIO) -> None:
    for pid in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 (names alone, thousands a second)
        for kind in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{kind}", "rb") as file:  # noqa: PTH123
                    text = file.read()
            except OSError:
                continue  # it ended
            if text and (key := hash((kind, text))) not in seen:
                seen.add(key)
                try:
                    user = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
                    name = Path(f"/proc/{pid}/comm").read_text().strip()
                except OSError:
                    user, name = -1, "?"
                _note(out, kind, f"{pid} {name}", user, text)


def _files(folder: Path, seen: set[int], out: TextIO) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            try:
                status = file.lstat()
                if status.st_size > LARGEST or not file.is_file():
                    continue
                key = hash((str(file), status.st_mtime_ns, status.st_size))
                if key not in seen:
                    seen.add(key)
                    _note(out, "file", f"{file} {status.st_mode & 0o777:o}", status.st_uid, file.read_bytes())
            except OSError:
                continue


def _note(out: TextIO, kind: str, where: str, user: int, text: bytes) -> None:
    note = {"kind": kind, "where": where, "user": user, "text": text.decode(errors="replace")}
    out.write(json.dumps(note) + "\n")


def main(notes: Path, folder: Path) -> None:
    """Samples until it is told to end, then says how often it did."""
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    seen: set[int] = set()
    start, samples = time.monotonic(), 0
    with notes.open("w") as out:
        while not ended:
            _processes(seen, out)
            _files(folder, seen, out)
            samples += 1
            time.sleep(PAUSE_S)
        took = time.monotonic() - start
        _note(out, "samples", f"{samples / took:.1f} a second", 0, str(samples).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
