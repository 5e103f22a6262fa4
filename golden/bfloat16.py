"""bfloat16 as ABFP stores tensors: 8 significant bits, the exponents of binary32.

Rounding is to nearest, ties to even, once from any float type.  There are no subnormal numbers and
no negative zero, and results saturate: spec/abfp.md, section 6 (chosen).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.rounding import BLOCK
from golden.spec import as_floats, as_integers

__all__ = ["MAX_BITS", "Bfloat16Codec", "from_bits", "round_in_range", "rounded", "to_bits"]

#: Bits of the largest finite number.
MAX_BITS = 0x7F7F

#: Bits of a bfloat16 below those of its binary32.
DROPPED = 16


def rounded(x: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Nearest bfloat16 numbers.

    Parameters
    ----------
    x : array_like of float16, float32 or float64
        Any shape.

    Returns
    -------
    ndarray of float32, of the shape of ``x``
        Ties go to the even significand.  A number whose magnitude, rounded as if exponents had no
        limit, is below 2**-126 becomes +0; so does -0.  One above the largest finite bfloat16
        becomes that of its sign.  Infinities and NaN stay.

    Raises
    ------
    TypeError
        If ``x`` is of another type.
    """
    numbers = as_floats("x", x)
    result = np.empty(numbers.shape, np.float32)
    for words, out in _rounded_blocks(numbers, result):
        out[...] = words.view(np.float32)
    return result


def to_bits(x: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """Bit patterns of the nearest bfloat16 numbers; arguments as of :func:`rounded`.

    Infinities are 7F80 and FF80; NaN is 7FC0 or FFC0.
    """
    numbers = as_floats("x", x)
    result = np.empty(numbers.shape, np.uint16)
    for words, out in _rounded_blocks(numbers, result):
        np.right_shift(words, DROPPED, out=words)
        out[...] = words
    return result


def from_bits(bits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Numbers that bit patterns stand for.

    Parameters
    ----------
    bits : array_like of int
        Any shape, 0 to FFFF.

    Returns
    -------
    ndarray of float32, of the shape of ``bits``
        Exact.  An exponent field of 0 reads as +0; one of 255 is an infinity or NaN.

    Raises
    ------
    TypeError, ValueError
        If ``bits`` are not integers or out of range.
    """
    words = as_integers("bits", bits, 0, 0xFFFF).astype(np.uint32)
    words <<= DROPPED
    np.multiply(words, words & 0x7F800000 > 0, out=words)
    return words.view(np.float32)


def round_in_range(
    x: npt.NDArray[np.float32], scratch: npt.NDArray[np.float32], out: npt.NDArray[np.float32]
) -> None:
    """Round to the nearest bfloat16, fast, where nothing can overflow or underflow.

    x - 2**16 * x has its last digit where that of a bfloat16 is, so that subtracting rounds, once
    and to even, and adding 2**16 * x again is exact.  Just above a power of two the digit is one
    place lower, but there the nearest bfloat16 is that power.

    Parameters
    ----------
    x : ndarray of float32
        Magnitudes from 2**-100 to 2**100, or zeros, which keep their sign.
    scratch : ndarray of float32
        Of the shape of ``x``; overwritten.
    out : ndarray of float32
        The result; may be ``x``.
    """
    np.multiply(x, np.float32(1 << DROPPED), out=scratch)
    np.subtract(x, scratch, out=out)
    np.add(out, scratch, out=out)


@dataclass(frozen=True)
class Bfloat16Codec:
    """A tensor stored as bfloat16; a :class:`golden.inference.TensorCodec`."""

    def __str__(self) -> str:
        return "bfloat16"

    def encode(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
        """Bit patterns of the nearest bfloat16 numbers."""
        return to_bits(values)

    def quantise(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Nearest bfloat16 numbers."""
        return rounded(values)


def _rounded_blocks(
    source: npt.NDArray[Any], result: npt.NDArray[Any]
) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[Any]]]:
    """Pairs of one-dimensional blocks: float32 bits of ``source``, rounded, and ``result``."""
    wide = np.dtype(np.float64 if source.dtype.itemsize == 8 else np.float32)
    rounder = _Rounder(wide)
    with np.nditer(
        [source, result],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"], ["writeonly"]],
        op_dtypes=[wide, result.dtype],
        buffersize=BLOCK,
    ) as pairs:
        for block, out in pairs:
            yield rounder(block), out


class _Rounder:
    """Rounds blocks of float32 or float64 numbers to the bits of float32 numbers."""

    def __init__(self, dtype: np.dtype[Any]):
        fraction_bits = np.finfo(dtype).nmant
        self.word: type[np.unsignedinteger[Any]] = np.uint32 if fraction_bits == 23 else np.uint64
        self.dropped = self.word(fraction_bits - 7)
        #: Half a unit of the last place kept, less one.
        self.half = self.word((1 << fraction_bits - 8) - 1)
        self.kept = ~self.word((1 << fraction_bits - 7) - 1)
        self.sign = self.word(1 << 8 * dtype.itemsize - 1)
        #: The tie below 2**-126 rounds up to it, though float32 has no digit there to round to.
        self.least = dtype.type(2.0**-126 * (1 - 2.0**-9)).view(self.word)
        self.largest = dtype.type(from_bits(MAX_BITS)).view(self.word)
        self.infinity = dtype.type(np.inf).view(self.word)
        self.quiet_nan = self.infinity | self.word(1 << fraction_bits - 1)
        self._result = np.empty(BLOCK, self.word)
        self._magnitudes = np.empty(BLOCK, self.word)

    def __call__(self, block: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
        """Round a block of at most BLOCK numbers; the result is valid until the next call."""
        bits = block.view(self.word)
        result, magnitudes = self._result[: bits.size], self._magnitudes[: bits.size]
        # The last bit kept and the half, added, carry into that bit where the rest is above half
        # a unit, and where it is half a unit and the bit is 1.
        np.right_shift(bits, self.dropped, out=result)
        np.bitwise_and(result, self.word(1), out=result)
        np.add(result, self.half, out=result)
        np.add(result, bits, out=result)
        np.bitwise_and(result, self.kept, out=result)

        np.bitwise_and(bits, ~self.sign, out=magnitudes)
        if magnitudes.min() < self.least:
            # A product, because a masked copy stalls on zeros in random places.
            np.multiply(result, magnitudes >= self.least, out=result)
        if magnitudes.max() > self.largest:
            signs = bits & self.sign
            above = (result & ~self.sign > self.largest) & (magnitudes < self.infinity)
            np.copyto(result, signs | self.largest, where=above)
            np.copyto(result, signs | self.quiet_nan, where=magnitudes > self.infinity)
        if self.word is np.uint64:
            return result.view(np.float64).astype(np.float32).view(np.uint32)
        return result.view(np.uint32)
