"""Rounding to the nearest value of a table.

For rounding, a number format is nothing but its sorted values and the codes that stand for them.
Between two neighbouring values lies one *cut*: the largest number that still rounds to the lower
of the two.  Everything here compares with these exact cuts and never looks at guard or sticky bits
of a code, so that it shares no mistake with an encoder in hardware.

Large arrays are rounded in blocks that stay in the cache, by one look-up per number.  For that, a
number is first *narrowed to odd*: it loses its low bits, and the last bit that is left becomes 1
if any of the lost ones was.  A narrowed number is even only if nothing was lost, so it still tells
an exact tie, whose last bit is 0, from the numbers just above and just below.  Look-ups are built
by searching the cuts, and are left out where no table of bearable size tells the cuts apart.
"""

from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "IntegerRounder", "ScaledTable", "Ties", "UnitTable", "ValueTable", "gather"]

#: Where a number midway between two values goes: to the larger or to the smaller magnitude.
Ties = Literal["away", "zero"]

#: Numbers per block: a few blocks and a look-up table share a second-level cache of 1 MiB.
BLOCK = 1 << 14

#: Fewer integers than this are searched for among the cuts: a table takes longer to make.
FEW = 1 << 10

#: Low bits of a binary32 number that narrowing drops.
DROPPED = 15

#: Significant bits that a binary32 number may have to be even after narrowing.
NARROW_PRECISION = 23 - DROPPED

#: Most entries in a table of narrowed integers; the baseline of 16 bits needs half of them.
MAX_TABLE = 1 << 19

#: Most entries in a table of truncated binary64 numbers, of which a tensor visits few.
MAX_SCALED_TABLE = 1 << 21

INT64 = np.iinfo(np.int64)


class ValueTable:
    """Sorted values of a format, their codes, and the cuts between them.

    Parameters
    ----------
    values : ndarray of float64, shape (count,)
        The distinct values, exact and ascending.
    codes : ndarray of uint8 or uint16, shape (count,)
        Code of each distinct value.
    midpoints : ndarray of float64, shape (count - 1,)
        Where rounding changes from value ``i`` to value ``i + 1``; exact.
    tie_up : ndarray of bool, shape (count - 1,)
        Whether the midpoint itself rounds to value ``i + 1``.
    """

    def __init__(
        self,
        values: npt.NDArray[np.float64],
        codes: npt.NDArray[np.unsignedinteger],
        midpoints: npt.NDArray[np.float64],
        tie_up: npt.NDArray[np.bool_],
    ):
        self.values = values
        self.codes = codes
        self.midpoints = midpoints
        self.tie_up = tie_up

    @classmethod
    def of_codes(cls, values: npt.NDArray[np.float64], bits: int) -> "ValueTable":
        """Make the rounding to the nearest value, ties to the even code.

        Parameters
        ----------
        values : ndarray of float64, shape (2**bits,)
            Value of each code, exact, with at most 52 significant bits.  Codes may share a value;
            rounding then gives the smallest of them.
        bits : int
            Bits of a code, 1 to 16.
        """
        distinct, codes = _distinct(values, bits)
        return cls(distinct, codes, (distinct[:-1] + distinct[1:]) / 2, codes[:-1] % 2 == 1)

    def cuts(self, dtype: npt.DTypeLike) -> npt.NDArray[np.floating]:
        """Largest number of a floating-point type that rounds to value ``i``, but for the last."""
        cuts = np.where(self.tie_up, np.nextafter(self.midpoints, -np.inf), self.midpoints)
        rounded = cuts.astype(dtype)
        below = np.nextafter(rounded, rounded.dtype.type(-np.inf))
        return np.where(rounded > cuts, below, rounded)

    def search(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.unsignedinteger]:
        """Codes nearest to ``x`` by binary search among the cuts; NaN counts as 0."""
        numbers = np.where(np.isnan(x), x.dtype.type(0), x)
        return self.codes[np.searchsorted(self.cuts(x.dtype), numbers, side="left")]

    @cached_property
    def narrow_codes(self) -> npt.NDArray[np.unsignedinteger] | None:
        """Code by narrowed binary32 number; None if narrowing could move a number over a cut."""
        mantissa, _ = np.frexp(self.midpoints)
        units = np.ldexp(mantissa, NARROW_PRECISION)
        normal = np.abs(self.midpoints) >= np.finfo(np.float32).smallest_normal
        if np.any(units != np.rint(units)) or not np.all(normal | (self.midpoints == 0)):
            return None
        # Narrowed number i stands for itself if it is even; if it is odd, for the open interval
        # between its neighbours, which has no midpoint inside and contains it.
        narrowed = np.arange(1 << 32 - DROPPED, dtype=np.uint32)
        return self.search((narrowed << np.uint32(DROPPED)).view(np.float32))

    @cached_property
    def grid(self) -> "_Grid | None":
        """Code by number narrowed to a grid on which midpoints are even; None if it is large."""
        mantissa, exp = np.frexp(self.midpoints[self.midpoints != 0])
        integers = np.ldexp(mantissa, 53).astype(np.int64)
        _, trailing = np.frexp((integers & -integers).astype(np.float64))
        # Half of the largest power of two that divides all midpoints.
        step = float(np.ldexp(1.0, int(np.min(exp - 53 + trailing - 1)) - 1))
        # One odd number more at either end stands for everything beyond; even low keeps parity.
        low, high = int(self.midpoints[0] / step) - 2, int(self.midpoints[-1] / step) + 1
        if high - low >= MAX_TABLE:
            return None
        return _Grid(step, low, high, self.search(np.arange(low, high + 1) * step))

    def encode(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.unsignedinteger]:
        """Codes nearest to ``x``, ties as ``tie_up`` says; NaN counts as 0.

        Parameters
        ----------
        x : ndarray of float16, float32 or float64
            Of any shape, strides and byte order.

        Returns
        -------
        ndarray of uint8 or uint16, of the shape and memory order of ``x``
            Needs a few blocks of memory besides.
        """
        codes = np.empty_like(x, self.codes.dtype, subok=False)
        if x.dtype.itemsize <= 4 and self.narrow_codes is not None:
            self._encode_binary32(x, self.narrow_codes, codes)
        elif self.grid is not None:
            self._encode_grid(x, self.grid, codes)
        else:
            with _blocks(x, np.dtype(np.float64), codes) as blocks:
                for numbers, result in blocks:
                    result[...] = self.search(numbers)
        return codes

    @staticmethod
    def _encode_binary32(
        x: npt.NDArray[np.floating],
        table: npt.NDArray[np.unsignedinteger],
        codes: npt.NDArray[np.unsignedinteger],
    ) -> None:
        narrow = np.empty(BLOCK, np.uint32)
        indices = np.empty(BLOCK, np.intp)
        with _blocks(x, np.dtype(np.float32), codes) as blocks:
            for numbers, result in blocks:
                index = indices[: numbers.size]
                index[...] = _narrow(numbers.view(np.uint32), DROPPED, narrow[: numbers.size])
                # No index is out of range; this mode saves the check.
                table.take(index, out=result, mode="clip")

    @staticmethod
    def _encode_grid(
        x: npt.NDArray[np.floating], grid: "_Grid", codes: npt.NDArray[np.unsignedinteger]
    ) -> None:
        scaled_block, floor_block = np.empty(BLOCK), np.empty(BLOCK)
        indices = np.empty(BLOCK, np.intp)
        # Scaling by a power of two is exact but for numbers far below the grid, and for those that
        # become infinite and are clipped.
        with np.errstate(over="ignore"), _blocks(x, np.dtype(np.float64), codes) as blocks:
            for numbers, result in blocks:
                size = numbers.size
                scaled = np.multiply(numbers, 1 / grid.step, out=scaled_block[:size])
                np.copyto(scaled, 0, where=np.isnan(scaled))
                np.clip(scaled, grid.low, grid.high, out=scaled)
                floor = np.floor(scaled, out=floor_block[:size])
                inexact = floor != scaled
                index = indices[:size]
                index[...] = np.subtract(floor, grid.low, out=floor)
                np.bitwise_or(index, inexact, out=index)
                grid.codes.take(index, out=result, mode="clip")


class UnitTable(ValueTable):
    """Rounding of numbers given in operands, for a format with any scale.

    Parameters
    ----------
    operands : ndarray of float64, shape (2**bits,)
        Operand of each code, an integer.  Codes may share one; rounding gives the smallest.
    bits : int
        Bits of a code, 1 to 16.
    ties : {"away", "zero"}
        Whether a tie goes to the larger or to the smaller magnitude; the tie at zero goes down.
    fraction_bits : int, optional
        Fraction bits to which numbers are rounded first, ties to even; None where they are not.
    """

    def __init__(
        self,
        operands: npt.NDArray[np.float64],
        bits: int,
        ties: Ties,
        fraction_bits: int | None = None,
    ):
        values, codes = _distinct(operands, bits)
        midpoints = (values[:-1] + values[1:]) / 2
        super().__init__(
            values, codes, midpoints, midpoints > 0 if ties == "away" else midpoints < 0
        )
        self.ties = ties
        self.fraction_bits = fraction_bits

    @cached_property
    def dropped(self) -> int:
        """Low bits of a binary64 number that no midpoint has; one more tells NaN from infinity."""
        mantissa, _ = np.frexp(self.midpoints[self.midpoints != 0])
        integers = np.ldexp(np.abs(mantissa), 53).astype(np.int64)
        merged = int(np.bitwise_or.reduce(integers))
        return min((merged & -merged).bit_length() - 1, 51)

    @cached_property
    def truncated_codes(self) -> npt.NDArray[np.unsignedinteger] | None:
        """Code by truncated binary64 number, no tie among them; None if that is a large table."""
        if self.midpoints.size == 0 or 1 << 64 - self.dropped > MAX_SCALED_TABLE:
            return None
        tops = np.arange(1 << 64 - self.dropped, dtype=np.uint64)
        # Any number inside stands for all of them: there is no midpoint between.
        inside = (tops << np.uint64(self.dropped)) + np.uint64(1 << self.dropped - 1)
        numbers = inside.view(np.float64)
        numbers[np.abs(numbers) < np.finfo(np.float64).tiny] = 0
        # Those that begin with infinity have only numbers above them that are none.
        infinite = (tops << np.uint64(self.dropped)).view(np.float64)
        numbers[np.isinf(infinite)] = infinite[np.isinf(infinite)]
        return self.search(numbers)


class ScaledTable(ValueTable):
    """Rounding of numbers to the values of a format with a scale.

    Parameters
    ----------
    unit : UnitTable
        The same format with scale 1.
    scale : float
        Value of the operand 1, a normal number of binary32.
    """

    def __init__(self, unit: UnitTable, scale: float):
        self.unit = unit
        self.scale = scale
        thresholds, tie_up = unit.midpoints, unit.tie_up
        if unit.fraction_bits is not None:
            # A midpoint is an integer in these finer units.  The largest integer that still rounds
            # to the lower value, and half a unit more that rounding to an integer takes away.
            last = np.ldexp(thresholds, unit.fraction_bits) - tie_up
            thresholds = np.ldexp(last + 0.5, -unit.fraction_bits)
            tie_up = last % 2 == 1
        super().__init__(unit.values * scale, unit.codes, thresholds * scale, tie_up)

    def encode(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.unsignedinteger]:
        """Codes nearest to ``x``; see :meth:`ValueTable.encode`."""
        table = self.unit.truncated_codes
        codes = np.empty_like(x, self.codes.dtype, subok=False)
        if x.dtype.itemsize > 4 or table is None:
            with _blocks(x, np.dtype(np.float64), codes) as blocks:
                for numbers, result in blocks:
                    result[...] = self.search(numbers)
            return codes
        # A binary32 number over the scale either is a midpoint or differs from it by more than
        # 2**-34 of its size, which binary64 shows.  So a nudge by less than that decides all ties
        # and moves nothing else; a product with the reciprocal is as good as a quotient, but for
        # the numbers that are rounded to an integer first.
        nudge = 1 + np.ldexp(1.0 if self.unit.ties == "away" else -1.0, -40)
        shift = np.uint64(self.unit.dropped)
        finer = None if self.unit.fraction_bits is None else 2.0**self.unit.fraction_bits
        factor = nudge / self.scale if finer is None else nudge / finer
        scaled_block = np.empty(BLOCK)
        with _blocks(x, np.dtype(np.float64), codes) as blocks:
            for numbers, result in blocks:
                scaled = scaled_block[: numbers.size]
                if finer is None:
                    np.multiply(numbers, factor, out=scaled)
                else:
                    np.divide(numbers, self.scale / finer, out=scaled)
                    np.rint(scaled, out=scaled)
                    np.multiply(scaled, factor, out=scaled)
                index = scaled.view(np.uint64)
                np.right_shift(index, shift, out=index)
                table.take(index.view(np.int64), out=result, mode="clip")
        return codes


class _Grid(NamedTuple):
    """Codes by multiple of ``step``, from ``low`` (even) to ``high``."""

    step: float
    low: int
    high: int
    codes: npt.NDArray[np.unsignedinteger]


class IntegerRounder:
    """Rounding of integers to the nearest value of a format.

    Parameters
    ----------
    operands : ndarray of int, shape (count,)
        The distinct values of the format in units of some power of two, ascending, and below 2**60
        in magnitude.
    table : ValueTable
        Codes and ties of the same values.
    shift : int
        Base-2 logarithm of that unit in units of the integers to round; may be negative.
    """

    def __init__(self, operands: npt.NDArray[np.integer], table: ValueTable, shift: int):
        # A midpoint is half a sum of neighbours, times 2**shift.
        sums = operands[:-1].astype(np.int64) + operands[1:]
        raised, lowered = max(shift - 1, 0), max(1 - shift, 0)
        # No int64 lies on the lower side of a midpoint below all of them, or beyond one above.
        # Python's integers hold these limits whatever the shift.
        lowest, highest = -(-INT64.min >> raised), INT64.max >> raised
        first, last = np.searchsorted(sums, lowest), np.searchsorted(sums, highest, side="right")
        # Where that is a shift by 63 bits or more, only the sum 0 is left; where it is one to the
        # right, no sum has as many bits.
        scaled = sums[first:last] << min(raised, 63)
        places = min(lowered, 62)
        # A cut is the midpoint rounded down, or one less where it is an integer that goes up.
        goes_up = table.tie_up[first:last] & (scaled & (1 << places) - 1 == 0)
        below_all = int(np.count_nonzero(goes_up & (scaled == INT64.min)))
        self.codes = table.codes[first + below_all :]
        self.cuts = ((scaled >> places) - goes_up)[below_all:]

        # Midpoints are multiples of half a unit; one more bit stays for the odd numbers.
        self.dropped = max(shift - 2, 0)
        # One narrowed number more at either end stands for everything beyond.
        self.low = -(-(int(sums[0]) << raised) >> lowered + self.dropped) - 1
        self.high = (int(sums[-1]) << raised >> lowered + self.dropped) + 1

    def search(self, integers: npt.NDArray[np.int64]) -> npt.NDArray[np.unsignedinteger]:
        """Codes nearest to ``integers`` by binary search among the cuts."""
        return self.codes[np.searchsorted(self.cuts, integers, side="left")]

    @cached_property
    def narrow_codes(self) -> npt.NDArray[np.unsignedinteger] | None:
        """Code by narrowed integer from ``low`` on; None if that is a large table."""
        fits = INT64.min <= self.low << self.dropped and self.high << self.dropped <= INT64.max
        if self.high - self.low >= MAX_TABLE or not fits:
            return None
        return self.search(np.arange(self.low, self.high + 1, dtype=np.int64) << self.dropped)

    def encode(
        self, integers: npt.NDArray[np.integer], *, relu: bool = False
    ) -> npt.NDArray[np.unsignedinteger]:
        """Codes nearest to ``integers``, ties as the table says.

        Parameters
        ----------
        integers : ndarray of int
            Of any shape and strides; must fit int64.
        relu : bool
            Replace negative integers by 0 first.

        Returns
        -------
        ndarray of uint8 or uint16, of the shape and memory order of ``integers``
            Needs a few blocks of memory besides.
        """
        codes = np.empty_like(integers, self.codes.dtype, subok=False)
        table = self.narrow_codes if integers.size >= FEW else None
        rectified = np.empty(BLOCK, np.int64)
        indices = np.empty(BLOCK, np.int64)
        with _blocks(integers, np.dtype(np.int64), codes) as blocks:
            for numbers, result in blocks:
                if relu:
                    numbers = np.maximum(numbers, 0, out=rectified[: numbers.size])
                if table is None:
                    result[...] = self.search(numbers)
                    continue
                index = indices[: numbers.size]
                if self.dropped:
                    numbers = _narrow(numbers, self.dropped, out=index)
                np.clip(numbers, self.low, self.high, out=index)
                np.subtract(index, self.low, out=index)
                table.take(index, out=result, mode="clip")
        return codes


def _distinct(
    values: npt.NDArray[np.float64], bits: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.unsignedinteger]]:
    """Distinct values, ascending, and the smallest code of each."""
    distinct, first = np.unique(values, return_index=True)
    return distinct, first.astype(np.uint8 if bits <= 8 else np.uint16)


def gather(table: npt.NDArray[Any], codes: npt.NDArray[np.integer]) -> npt.NDArray[Any]:
    """Entry of a table for each code.

    Parameters
    ----------
    table : ndarray, shape (count,)
        Entries by code.
    codes : ndarray of int
        Of any shape and strides; below ``count``.

    Returns
    -------
    ndarray, of the type of ``table``, and of the shape and memory order of ``codes``
        Needs a few blocks of memory besides.
    """
    entries = np.empty_like(codes, table.dtype, subok=False)
    with _blocks(codes, np.dtype(np.intp), entries) as blocks:
        for index, result in blocks:
            table.take(index, out=result, mode="clip")
    return entries


def _blocks(source: npt.NDArray[Any], dtype: np.dtype[Any], result: npt.NDArray[Any]) -> np.nditer:
    """Pairs of one-dimensional blocks: of ``source`` cast to ``dtype``, and of ``result``."""
    return np.nditer(
        [source, result],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"], ["writeonly"]],
        op_dtypes=[dtype, result.dtype],
        # Unsigned 64-bit codes become signed indices; the caller has checked their range.
        casting="same_kind",
        buffersize=BLOCK,
    )


def _narrow(
    numbers: npt.NDArray[np.integer], dropped: int, out: npt.NDArray[np.integer]
) -> npt.NDArray[np.integer]:
    """Narrow bit patterns or integers to odd: drop low bits, the last bit kept shows if any was 1.

    ``out`` must not share memory with ``numbers``.
    """
    mask = numbers.dtype.type((1 << dropped) - 1)
    # Adding the mask carries into the lowest bit kept if any of those dropped is 1.
    np.bitwise_and(numbers, mask, out=out)
    np.add(out, mask, out=out)
    np.bitwise_or(out, numbers, out=out)
    return np.right_shift(out, numbers.dtype.type(dropped), out=out)
