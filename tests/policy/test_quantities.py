"""Quantities are read as the API server reads them."""

import contextlib
import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import quantities

# What ParseQuantity of k8s.io/apimachinery v0.33.3 says of each text: "unscaled scale", or null for an error.
ORACLE: dict[str, str | None] = json.loads(
    (Path(__file__).parent / "quantities.json").read_text(encoding="utf-8")
)


def test_agrees_with_kubernetes() -> None:
    """Each of 780 texts gives the API server's value, or is refused where it refuses."""
    for text, expected in ORACLE.items():
        try:
            found = quantities.parse(text)
        except quantities.QuantityError:
            assert expected is None, text
        else:
            assert expected is not None, text
            unscaled, scale = map(int, expected.split())
            assert found == Fraction(unscaled) / Fraction(10) ** scale, text


@pytest.mark.parametrize(
    "value", [True, None, [], {}, "1" * 5000, "1e999999999", "\u0661", "1Gi\n", float("nan")]
)
def test_refuses(value: object) -> None:
    """What is no quantity is refused by name, whatever its type or length."""
    with pytest.raises(quantities.QuantityError, match="is not a quantity"):
        quantities.parse(value)


@given(st.integers(0, 2**53), st.sampled_from(["", "k", "Ki", "M", "Mi"]))
def test_integers(number: int, suffix: str) -> None:
    """A whole number with a suffix is that number times the suffix."""
    factor = {"": 1, "k": 1000, "Ki": 1024, "M": 1000**2, "Mi": 1024**2}[suffix]
    expected = number * factor
    assert quantities.parse(f"{number}{suffix}") == (min(expected, 2**63 - 1) if "i" in suffix else expected)


@given(st.text())
def test_never_crashes(text: str) -> None:
    """Any text is a quantity or is refused."""
    with contextlib.suppress(quantities.QuantityError):
        quantities.parse(text)
