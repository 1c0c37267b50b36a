"""Asks a model at several addresses, ten times a second, and notes what is not answered well."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from workloads.client import Client, ClientError, Digits


class Asker:
    """Asks for one digit at each address, ten times a second, over a new connection each, until `end`.

    Args:
        addresses: IP addresses that the Service has, on port 8080.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._over = threading.Event()
        self._asked = dict.fromkeys(addresses, 0)
        self._failed: list[str] = []
        self._start = time.monotonic()
        digits = Digits.read()
        self._pixels, self._label = digits.pixels[:1], int(digits.labels[0])
        self._threads = [threading.Thread(target=self._run, args=(address,)) for address in addresses]
        for thread in self._threads:
            thread.start()

    def _run(self, address: str) -> None:
        while not self._over.wait(0.1):
            self._asked[address] += 1
            try:
                with Client(f"http://{address}:8080") as client:
                    answer = int(client.infer(self._pixels)[0].argmax())
                if answer != self._label:
                    self._note(address, f"answered {answer}, it is {self._label}")
            except ClientError as error:
                self._note(address, str(error))

    def _note(self, address: str, text: str) -> None:
        self._failed.append(f"{time.monotonic() - self._start:.1f} s {address}: {text}")

    def end(self) -> tuple[dict[str, int], list[str]]:
        """How many questions were asked at each address, and those that were not answered well."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self._asked, self._failed
