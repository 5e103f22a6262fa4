"""Rounding to the nearest value of a table.

For rounding, a number format is nothing but its sorted values and the codes that stand for them.
Between two neighbouring values lies one *cut*: the largest number that still rounds to the lower
of the two.  Everything here compares with these exact cuts and never looks at guard or sticky bits
of a code, so that it shares no mistake with an encoder in hardware.

Large arrays are rounded in blocks that stay in the cache, by one look-up per number.  For that, a
number is first *narrowed to odd*: it loses its low bits, and the last bit that is left becomes 1
if any of the lost ones was.  A narrowed number is even only if nothing was lost, so it still tells
an exact tie, whose last bit is 0, from the numbers just above and just below.
"""

from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "IntegerRounder", "ValueTable"]

#: Numbers per block: the blocks of a look-up and its table share a second-level cache of 1 MiB.
BLOCK = 1 << 14

#: Low bits of a binary32 number that narrowing drops.
DROPPED = 15
DROPPED_MASK = np.uint32((1 << DROPPED) - 1)

#: Significant bits that a binary32 number may have to be even after narrowing.
NARROW_PRECISION = 23 - DROPPED

INT64 = np.iinfo(np.int64)


class ValueTable:
    """Sorted values of a format, their codes, and the cuts between them.

    Parameters
    ----------
    values : ndarray of float64, shape (2**bits,)
        Value of each code, exact, with at most 52 significant bits.  Codes may share a value;
        rounding then gives the smallest of them.
    bits : int
        Bits of a code, 1 to 16.

    Attributes
    ----------
    values : ndarray of float64, shape (count,)
        The distinct values, ascending.
    codes : ndarray of uint8 or uint16, shape (count,)
        Code of each distinct value; ``uint8`` up to 8 bits.
    tie_up : ndarray of bool, shape (count - 1,)
        Whether a tie between value ``i`` and value ``i + 1`` goes up: it does where the code of
        the lower value is odd.
    """

    def __init__(self, values: npt.NDArray[np.float64], bits: int):
        self.bits = bits
        self.values, first = np.unique(values, return_index=True)
        code_type = np.uint8 if bits <= 8 else np.uint16
        self.codes: npt.NDArray[np.integer] = first.astype(code_type)
        self.tie_up = first[:-1] % 2 == 1

    @cached_property
    def midpoints(self) -> npt.NDArray[np.float64]:
        """Midpoints between neighbouring values, exact."""
        return (self.values[:-1] + self.values[1:]) / 2

    def cuts(self, dtype: npt.DTypeLike) -> npt.NDArray[np.floating]:
        """Largest number of a floating-point type that rounds to value ``i``, but for the last."""
        cuts = np.where(self.tie_up, np.nextafter(self.midpoints, -np.inf), self.midpoints)
        rounded = cuts.astype(dtype)
        below = np.nextafter(rounded, rounded.dtype.type(-np.inf))
        return np.where(rounded > cuts, below, rounded)

    def search(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.integer]:
        """Codes nearest to ``x`` by binary search among the cuts; NaN counts as 0."""
        # NaN compares with nothing; in place of it 0 is searched.
        numbers = np.where(np.isnan(x), x.dtype.type(0), x)
        return self.codes[np.searchsorted(self.cuts(x.dtype), numbers, side="left")]

    @cached_property
    def narrow_codes(self) -> npt.NDArray[np.integer] | None:
        """Code by narrowed binary32 number; None if narrowing could move a number over a cut."""
        mantissa, _ = np.frexp(self.midpoints)
        units = np.ldexp(mantissa, NARROW_PRECISION)
        normal = np.abs(self.midpoints) >= np.finfo(np.float32).smallest_normal
        if np.any(units != np.rint(units)) or not np.all(normal | (self.midpoints == 0)):
            return None
        # Number i stands for itself if i is even, and for an open interval around itself, in
        # which there is no midpoint, if i is odd.
        narrowed = np.arange(1 << 32 - DROPPED, dtype=np.uint32)
        return self.search((narrowed << np.uint32(DROPPED)).view(np.float32))

    def encode(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.integer]:
        """Codes nearest to ``x``, ties as ``tie_up`` says; NaN counts as 0.

        Parameters
        ----------
        x : ndarray of float16, float32 or float64
            Of any shape, strides and byte order.

        Returns
        -------
        ndarray of uint8 or uint16, of the shape of ``x``
            Memory: the result and a few blocks.
        """
        codes = np.empty(x.shape, self.codes.dtype)
        dtype = np.dtype(np.float32 if x.dtype.itemsize <= 4 else np.float64)
        table = self.narrow_codes if dtype == np.float32 else None
        scratch = np.empty(BLOCK, np.uint32)
        indices = np.empty(BLOCK, np.intp)
        blocks = np.nditer(
            [x, codes],
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=[["readonly"], ["writeonly"]],
            op_dtypes=[dtype, codes.dtype],
            order="C",
            buffersize=BLOCK,
        )
        with blocks:
            for numbers, result in blocks:
                if table is None:
                    result[...] = self.search(numbers)
                    continue
                index = indices[: numbers.size]
                index[...] = _narrow(numbers.view(np.uint32), scratch[: numbers.size])
                # Every index is in the table; this mode saves the check.
                table.take(index, out=result, mode="clip")
        return codes


def _narrow(
    patterns: npt.NDArray[np.uint32], out: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    """Narrow binary32 patterns to odd."""
    # Adding the mask carries into the lowest kept bit if any dropped bit is set.  There the sum
    # holds nothing else, so that it can be merged with the pattern itself.
    np.bitwise_and(patterns, DROPPED_MASK, out=out)
    np.add(out, DROPPED_MASK, out=out)
    np.bitwise_or(out, patterns, out=out)
    return np.right_shift(out, np.uint32(DROPPED), out=out)


class IntegerRounder:
    """Rounding of integers to the nearest value of a format.

    Parameters
    ----------
    operands : ndarray of int, shape (count,)
        The distinct values of the format in units of some power of two, ascending.
    table : ValueTable
        Codes and ties of the same values.
    shift : int
        Base-2 logarithm of that unit in units of the integers to round; may be negative.
    """

    def __init__(self, operands: npt.NDArray[np.integer], table: ValueTable, shift: int):
        self.codes = table.codes
        cuts = []
        for low, high, up in zip(
            operands[:-1].tolist(), operands[1:].tolist(), table.tie_up.tolist(), strict=True
        ):
            # Python's integers, because a shift may leave 64 bits.
            midpoint = Fraction(low + high, 2) * Fraction(2) ** shift
            cut = -(-midpoint // 1) - 1 if up else midpoint // 1
            cuts.append(min(max(cut, INT64.min), INT64.max))
        self.cuts = np.array(cuts, np.int64)

    def encode(self, integers: npt.NDArray[np.int64]) -> npt.NDArray[np.integer]:
        """Codes nearest to ``integers``, of the same shape; ties as the table says."""
        return self.codes[np.searchsorted(self.cuts, integers, side="left")]
