"""Multiplication of accumulators by a real number in integers, as the hardware does it.

:class:`Multiplier` is the common requantiser of dybit, weight_pool, elp_bsd and fixed: one rounding
of the full product.  :class:`TwoStepMultiplier` is that of CMSIS-NN, which rounds twice.  Both
give integers; scales, biases and activation functions are the callers' business.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from golden.spec import as_integers, check_int

__all__ = ["ACCUMULATOR_RANGE", "Multiplier", "TwoStepMultiplier"]

#: Accumulators whose product with 16 bits fits int64: 48 bits, two's complement.
ACCUMULATOR_RANGE = (-(1 << 47), (1 << 47) - 1)

#: Bits of ``Multiplier.mult``, and the largest shift.
MULT_BITS = 16
MAX_SHIFT = 47

#: Fraction bits of ``TwoStepMultiplier.mult``, and its shifts.
Q31_BITS = 31
MIN_TWO_STEP_SHIFT, MAX_TWO_STEP_SHIFT = -31, 30

#: From here on the rounded fraction would need a shift beyond the range.
REAL_LIMIT = 65535.5
TWO_STEP_REAL_LIMIT = (1 << 30) - 0.25

INT32_RANGE = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class Multiplier:
    """A real number of at least 0 as ``mult * 2**-shift``, with one rounding of each product.

    Source: specification of all systems, section 4 (chosen).

    Parameters
    ----------
    mult : int
        16 bits, unsigned; :meth:`of` gives 2**15 to 2**16 - 1, or 0.
    shift : int
        0 to 47.

    Raises
    ------
    TypeError
        If a parameter is not an int.
    ValueError
        If a parameter is out of range.
    """

    mult: int
    shift: int

    def __post_init__(self) -> None:
        check_int("mult", self.mult, 0, (1 << MULT_BITS) - 1)
        check_int("shift", self.shift, 0, MAX_SHIFT)

    @classmethod
    def of(cls, real: float) -> Self:
        """Nearest multiplier to a real number, with a relative error of at most 2**-17.

        Parameters
        ----------
        real : float
            At least 0 and below 65535.5.  Below about 2**-32 the multiplier is 0.

        Raises
        ------
        TypeError
            If ``real`` is not a float or an int.
        ValueError
            If ``real`` is NaN, negative or too large.
        """
        fraction, exp = _split(real, REAL_LIMIT)
        mult = round(math.ldexp(fraction, MULT_BITS))  # to even
        if mult == 1 << MULT_BITS:
            mult, exp = mult // 2, exp + 1
        shift = MULT_BITS - exp
        if mult == 0 or shift > MAX_SHIFT:
            return cls(0, 0)
        return cls(mult, shift)

    def product(self, accumulators: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Exact ``accumulators * mult``: the result in units of ``2**-shift``.

        Parameters
        ----------
        accumulators : array_like of int
            Any shape, -2**47 to 2**47 - 1.

        Returns
        -------
        ndarray of int64, of the shape of ``accumulators``

        Raises
        ------
        TypeError
            If ``accumulators`` are not integers.
        ValueError
            If an accumulator is out of range.
        """
        integers = as_integers("accumulators", accumulators, *ACCUMULATOR_RANGE)
        product = np.empty(integers.shape, np.int64)
        # Unsigned 64-bit accumulators are small enough to be signed.
        return np.multiply(integers, self.mult, out=product, dtype=np.int64, casting="unsafe")

    def apply(
        self, accumulators: npt.ArrayLike, low: int, high: int, zero_point: int = 0
    ) -> npt.NDArray[np.int64]:
        """``clamp(RNE(accumulators * mult / 2**shift) + zero_point, low, high)``.

        Parameters
        ----------
        accumulators : array_like of int
            Any shape, -2**47 to 2**47 - 1.
        low, high : int
            Smallest and largest result, of 32 bits.
        zero_point : int
            Added after the rounding, of 32 bits.

        Returns
        -------
        ndarray of int64, of the shape of ``accumulators``

        Raises
        ------
        TypeError
            If ``accumulators`` are not integers, or another argument is not an int.
        ValueError
            If an accumulator is out of range, or ``low`` is above ``high``.
        """
        _check_output(low, high, zero_point)
        remainder = self.product(accumulators)
        quotient = np.right_shift(remainder, self.shift, out=np.empty_like(remainder))
        remainder &= (1 << self.shift) - 1
        # Up if the remainder is above one half, or equal to it and the quotient odd: both sides
        # are doubled, and even for any shift but 0, whose remainder is 0.
        remainder *= 2
        remainder += quotient & 1
        quotient += remainder > 1 << self.shift
        return _clamped(quotient, low, high, zero_point)


@dataclass(frozen=True)
class TwoStepMultiplier:
    """A real number of at least 0 as ``mult * 2**(shift - 31)``, with two roundings.

    The run-time requantiser of CMSIS-NN (published; spec/weight_pool.md, section 2): a rounding
    half up of the product with a Q31 number, then one half away from zero of the right shift.

    Parameters
    ----------
    mult : int
        Q31, 0 to 2**31 - 1; :meth:`of` gives at least 2**30, or 0.
    shift : int
        -31 to 30; left if positive.

    Raises
    ------
    TypeError
        If a parameter is not an int.
    ValueError
        If a parameter is out of range.
    """

    mult: int
    shift: int

    def __post_init__(self) -> None:
        check_int("mult", self.mult, 0, (1 << Q31_BITS) - 1)
        check_int("shift", self.shift, MIN_TWO_STEP_SHIFT, MAX_TWO_STEP_SHIFT)

    @classmethod
    def of(cls, real: float) -> Self:
        """Nearest multiplier to a real number; a tie goes up (chosen, as TensorFlow Lite does).

        Parameters
        ----------
        real : float
            At least 0 and below 2**30 - 0.25.  Below about 2**-32 the multiplier is 0.

        Raises
        ------
        TypeError
            If ``real`` is not a float or an int.
        ValueError
            If ``real`` is NaN, negative or too large.
        """
        fraction, shift = _split(real, TWO_STEP_REAL_LIMIT)
        mult = math.floor(math.ldexp(fraction, Q31_BITS) + 0.5)
        if mult == 1 << Q31_BITS:
            mult, shift = mult // 2, shift + 1
        if mult == 0 or shift < MIN_TWO_STEP_SHIFT:
            return cls(0, 0)
        return cls(mult, shift)

    def apply(
        self, accumulators: npt.ArrayLike, low: int, high: int, zero_point: int = 0
    ) -> npt.NDArray[np.int64]:
        """Both roundings, then the zero point and the clamp.

        Parameters
        ----------
        accumulators : array_like of int
            Any shape; must fit 32 bits after the shift to the left, if there is one.
        low, high : int
            Smallest and largest result, of 32 bits.
        zero_point : int
            Added after the roundings, of 32 bits.

        Returns
        -------
        ndarray of int64, of the shape of ``accumulators``

        Raises
        ------
        TypeError
            If ``accumulators`` are not integers, or another argument is not an int.
        ValueError
            If an accumulator is out of range, or ``low`` is above ``high``.
        """
        _check_output(low, high, zero_point)
        left, right = max(self.shift, 0), max(-self.shift, 0)
        limits = (limit >> left for limit in INT32_RANGE)
        integers = as_integers("accumulators", accumulators, *limits)
        result = np.empty(integers.shape, np.int64)
        np.multiply(integers, self.mult << left, out=result, dtype=np.int64, casting="unsafe")
        result += 1 << Q31_BITS - 1
        result >>= Q31_BITS
        # Half away from zero: half up, but one less for negative numbers.
        result -= result < 0 if right else 0
        result += 1 << right >> 1
        result >>= right
        return _clamped(result, low, high, zero_point)


def _split(real: float, limit: float) -> tuple[float, int]:
    """Fraction of at least one half (or 0) and exponent of a number from 0 to below a limit."""
    if not isinstance(real, float | int | np.floating) or isinstance(real, bool):
        raise TypeError(f"real must be a float, not {real!r}")
    # NaN compares with nothing.
    if not 0 <= real < limit:
        raise ValueError(f"real must be at least 0 and below {limit}, not {real!r}")
    return math.frexp(real)


def _check_output(low: int, high: int, zero_point: int) -> None:
    for name, value in (("low", low), ("high", high), ("zero_point", zero_point)):
        check_int(name, value, *INT32_RANGE)
    if low > high:
        raise ValueError(f"low must be at most high, not {low} and {high}")


def _clamped(
    integers: npt.NDArray[np.int64], low: int, high: int, zero_point: int
) -> npt.NDArray[np.int64]:
    integers += zero_point
    return np.clip(integers, low, high, out=integers)
