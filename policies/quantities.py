"""Kubernetes quantities (`500m`, `1Gi`, `1e3`), read exactly as the API server reads them.

The grammar is that of ParseQuantity in k8s.io/apimachinery/pkg/api/resource/quantity.go. The Python
client's `kubernetes.utils.parse_quantity` is not used: it takes `NaN`, `1_000`, ` 1` and `1K`, which the
server refuses.
"""

import math
import re
from fractions import Fraction

_QUANTITY = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE]?)", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_NANO = Fraction(1, 10**9)
# Far beyond any quantity (the server caps at 2^63); keeps a hostile exponent from filling the memory.
_MAX_DIGITS = 128
_BINARY_CAP = 2**63 - 1


class QuantityError(ValueError):
    """A value that Kubernetes does not take for a quantity; the text says why."""


def parse(value: object) -> Fraction:
    """Return the number that a quantity stands for.

    Args:
        value: what a manifest holds: a string such as `500m`, or a number.

    Returns:
        The exact value; what lies below a billionth is rounded away from zero, as the server does.

    Raises:
        QuantityError: the value is no quantity.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise QuantityError(f"{value!r} is not a quantity: write a number or a string such as '1Gi'")
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _MAX_DIGITS:
        raise QuantityError(f"'{text[:16]}…' is not a quantity: it has {len(text)} characters")
    match = _QUANTITY.fullmatch(text)
    if not text or match is None:
        raise QuantityError(
            f"{value!r} is not a quantity: a number with one of the suffixes "
            "n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent such as e3"
        )
    sign, whole, fraction, suffix = match[1], match[2], match[3] or "", match[4]
    number = _scale(Fraction(int(whole + fraction or "0"), 10 ** len(fraction)), suffix, text)
    rounded = math.ceil(number / _NANO) * _NANO
    return -rounded if sign == "-" else rounded


def _scale(number: Fraction, suffix: str, text: str) -> Fraction:
    if suffix in _BINARY:
        return min(number * (1 << _BINARY[suffix]), Fraction(_BINARY_CAP))
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    if abs(exponent) > _MAX_DIGITS:
        raise QuantityError(f"{text!r} is not a quantity: its exponent is out of range")
    return number * Fraction(10) ** exponent
