"""What a regression prediction contributes, exactly, and the figures made of it.

A number counts as the decimal that it is written as: the shortest one that reads back as the same 64-bit float
(0.8 predicted where 0.77 happened is off by 0.03). The last digit of that decimal never stands behind the 324th
place, since floats lie at least 4.9e-324 apart. So errors are integers in units of 1e-324 and their squares
integers in units of 1e-648, whatever was predicted, and nothing is rounded before the one division at the edge.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

PLACES = 324
"""Decimal places of the unit that errors count in."""

ERROR_UNITS = 10**PLACES
SQUARED_ERROR_UNITS = 10 ** (2 * PLACES)

_ROOT_BITS = 128
"""Bits of a square root before it is rounded to the 53 of a float."""


def in_units(value: float) -> int:
    """A finite number in units of 1e-324."""
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    size: int = int("".join(map(str, digits))) * 10 ** (int(exponent) + PLACES)
    return -size if sign else size


def mean(total: int, units: int, count: int) -> float | None:
    """The mean of ``count`` numbers whose sum is ``total / units``, rounded once; None without any.

    None too where it is beyond the largest 64-bit float, which is no number that JSON's readers know.
    """
    return _rounded(Fraction(total, units * count)) if count else None


def root_mean(total: int, units: int, count: int) -> float | None:
    """The square root of :func:`mean`, rounded once."""
    if not count:
        return None
    square = Fraction(total, units * count)
    if not square:
        return 0.0
    # An even shift that leaves at least 128 bits of the root; what is cut off is told by an odd last bit.
    shift = _ROOT_BITS - (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    numerator, denominator = square.numerator, square.denominator
    if shift >= 0:
        numerator <<= 2 * shift
    else:
        denominator <<= -2 * shift
    whole, rest = divmod(numerator, denominator)
    root = math.isqrt(whole)
    if rest or root * root != whole:
        root |= 1
    return _rounded(Fraction(root, 1 << shift) if shift >= 0 else Fraction(root << -shift))


def _rounded(value: Fraction) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
