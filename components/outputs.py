"""Outputs that are known before the resource they belong to exists."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Generic, TypeVar, cast

import pulumi

T = TypeVar("T")


def known_name(name: str, resource: pulumi.Resource) -> pulumi.Output[str]:
    """A name fixed by the program, of something that must exist before the name is used.

    `resource.metadata.name` is unknown in the first preview, and so would be all that policies ask about it.

    Args:
        name: the name.
        resource: what bears it; a resource that uses the name depends on this one.
    """
    return pulumi.Output({resource}, _Given(name), _Given(True))


def known_after(value: T, outputs: Sequence[pulumi.Output[Any]]) -> pulumi.Output[T]:
    """A value of the program that is handed on when outputs are there; nothing depends on their resources.

    Args:
        value: the value.
        outputs: what must have come first; where one of them failed, nothing that uses the value is made.
    """

    async def wait() -> T:
        for output in outputs:
            await output.future()
        return value

    return pulumi.Output(set(), wait(), _Given(True))


def value_of(output: pulumi.Output[T]) -> pulumi.Output[T]:
    """An output's value without its resource: what uses it waits for the value, and depends on nothing."""

    async def wait() -> T:
        return cast(T, await output.future())

    return pulumi.Output(set(), wait(), output.is_known())


class _Given(Generic[T]):
    """A value to await; a coroutine would complain where something fails before it is awaited."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, T]:
        yield from ()
        return self._value
