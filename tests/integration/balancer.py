"""A load balancer for TCP, as an operator has before several servers."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(listen: str, port: int, targets: list[str]) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for target in targets:
            with suppress(OSError, TimeoutError):
                there = await asyncio.wait_for(asyncio.open_connection(target, port), timeout=1)
                await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
                return
        writer.close()

    async with await asyncio.start_server(handle, listen, port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    # Each connection goes to the first of the targets that takes it.
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
