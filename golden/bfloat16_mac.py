"""Multiply-accumulate of bfloat16 numbers in float32, the floating baseline of the comparisons.

Rules of range are those of ABFP (spec/abfp.md, section 6; chosen): no subnormal numbers, no
negative zero, saturation; infinities and NaN among the operands read as zero.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.abfp_tile import add_saturated
from golden.bfloat16 import from_bits, to_bits

__all__ = ["Bfloat16MacSpec", "accumulate", "dot"]

Integers = npt.NDArray[np.integer[Any]]

SMALLEST = 2.0**-126
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Bfloat16MacSpec:
    """The unit; nothing about its arithmetic can be chosen."""


def accumulate(activations: npt.ArrayLike, weights: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Float32 sums of products, from +0, the first product first.

    Parameters
    ----------
    activations, weights : array_like of int, [..., k]
        Bits of bfloat16; the shapes broadcast.

    Returns
    -------
    ndarray of float32, [...]
        Each product, which float32 holds exactly, and each sum after the rules of range.
    """
    a, w = (_finite(bits) for bits in (activations, weights))
    products = a * w
    products[np.abs(products) < SMALLEST] = 0
    products = np.clip(products, -LARGEST, LARGEST).astype(np.float32)
    total = np.zeros(products.shape[:-1], np.float32)
    for index in range(products.shape[-1]):
        total = add_saturated(total, products[..., index])
    return total


def _finite(bits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Numbers of bit patterns; infinities and NaN are zero."""
    patterns = np.asarray(bits)
    return from_bits(np.where(patterns & 0x7F80 < 0x7F80, patterns, 0)).astype(np.float64)


def dot(activations: npt.ArrayLike, weights: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """Bits of the sums of :func:`accumulate`, rounded to bfloat16."""
    return to_bits(accumulate(activations, weights))
