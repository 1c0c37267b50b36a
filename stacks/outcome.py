"""What came of a program's resources, where the engine goes on after an error (--continue-on-error)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.runtime.settings import _get_rpc_manager
from pulumi.runtime.stack import ResourceRegistrationFailed


async def settle() -> None:
    """Waits until every resource came or failed.

    The SDK (3.258, pulumi.runtime.stack.wait_for_rpcs) awaits registrations one by one, and the first that
    can't be made, as something before it failed, ends the program, and with it all that could go on. It also
    awaits outputs in a loop over all of them, which takes longer than all the rest where it comes first.
    """
    await asyncio.sleep(0)  # registrations begin
    manager = _get_rpc_manager()
    registrations: list[asyncio.Future[Any]] = manager.rpcs  # type: ignore[assignment]
    while pending := [each for each in registrations if not each.done()]:
        await asyncio.wait(pending)
    errors = [error for each in registrations if (error := each.exception())]
    if all(isinstance(error, ResourceRegistrationFailed) for error in errors):
        manager.clear()


async def failure(outputs: Mapping[str, Any]) -> str | None:
    """What kept outputs from coming: the resource that failed; None: nothing did."""
    try:
        await pulumi.Output.from_input(outputs).future()
    except ResourceRegistrationFailed as error:
        return str(error)
    return None
