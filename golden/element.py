"""Number systems in which each element is coded by itself.

:class:`ElementSpec` is one format with all its parameters, driven by the integer operand of each
code; :class:`ElementFormat` is a format with some parameters left to be fitted to a tensor.  The
unit of the operands is a power of two in a :class:`DyadicSpec`, and any binary32 number in a
:class:`ScaledSpec`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from golden.requantiser import Multiplier
from golden.rounding import BLOCK, IntegerRounder, ScaledTable, Ties, UnitTable, ValueTable, gather
from golden.spec import (
    INT64_RANGE,
    Format,
    Method,
    Role,
    Spec,
    as_floats,
    as_integers,
    check_int,
    checked_tensor,
    largest_magnitude,
)

if TYPE_CHECKING:
    from golden.inference import NumberSystem

__all__ = [
    "MAX_SCALE",
    "MIN_SCALE",
    "DyadicSpec",
    "ElementFormat",
    "ElementSpec",
    "ListedFormat",
    "ScaledSpec",
    "least_error",
    "sorted_errors",
    "squared_errors",
]

#: Largest magnitude of the exponent of an accumulator.
MAX_EXPONENT = 1024

#: Limits of a scale: values and midpoints stay normal numbers of binary32.
MIN_SCALE = 2.0**-90
MAX_SCALE = 2.0**90


class ElementSpec(Spec):
    """One number format with all its parameters, in which each element has a code of its own.

    Every code is an unsigned integer below ``2**bits`` and stands for
    ``operands(code) * operand_unit``.  Encoding gives the nearest value.  Out of range saturates,
    NaN counts as 0.
    """

    bits: int

    @property
    @abstractmethod
    def operand_unit(self) -> float:
        """Value of the operand 1; products of two units are exact in binary64."""

    @property
    @abstractmethod
    def operand_bits(self) -> int:
        """Bits of a signed operand, as the hardware carries it."""

    @abstractmethod
    def make_operands(self) -> npt.NDArray[np.int32]:
        """Operand of each code, indexed by code, computed from the definition of the format."""

    @abstractmethod
    def make_rounding(self) -> ValueTable:
        """Make the rounding to the values of the format."""

    @abstractmethod
    def rescale(
        self, accumulators: npt.ArrayLike, unit: float, *, relu: bool = False
    ) -> npt.NDArray[Any]:
        """Codes of ``accumulators * unit`` as hardware with a multiplier gives them.

        Parameters
        ----------
        accumulators : array_like of int
            Any shape; below 2**47 in magnitude.
        unit : float
            Value of the accumulator 1, positive.  Its ratio to ``operand_unit`` is applied by a
            16-bit integer and a shift (spec/README.md, section 4).
        relu : bool
            Replace negative accumulators by 0.

        Returns
        -------
        ndarray of uint8 (up to 8 bits) or uint16, of the shape of ``accumulators``

        Raises
        ------
        TypeError
            If ``accumulators`` are not integers.
        ValueError
            If one is out of range, or the ratio is.
        """

    def __str__(self) -> str:
        # Only subclasses are dataclasses.
        parameters = [f.name for f in fields(self) if f.name != "bits"]  # type: ignore[arg-type]
        shown = [f"{name}={text}" for name in parameters if (text := self.show(name)) is not None]
        return f"{self.stem}{self.bits}" + (":" + ",".join(shown) if shown else "")

    def show(self, name: str) -> str | None:
        """Value of parameter ``name`` for ``str``; None where it goes without saying."""
        return str(getattr(self, name))

    @property
    def operand_table(self) -> npt.NDArray[np.int32]:
        """Operand of each code, indexed by code; read-only, shape (2**bits,)."""
        return _operand_table(self)

    @property
    def value_table(self) -> npt.NDArray[np.float64]:
        """Exact value of each code, indexed by code; shape (2**bits,)."""
        return self.operand_table.astype(np.float64) * self.operand_unit

    def encode(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        """Codes nearest to ``x``.

        Parameters
        ----------
        x : array_like of float16, float32 or float64
            Any shape.  Integers are refused, because they could be codes.

        Returns
        -------
        ndarray of uint8 (up to 8 bits) or uint16, of the shape of ``x``

        Raises
        ------
        TypeError
            If ``x`` is of another type.
        """
        return _rounding_table(self).encode(as_floats("x", x))

    def decode(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Values of ``codes``, to the nearest float32; exact if the unit is a power of two.

        Parameters
        ----------
        codes : array_like of int
            Any shape, 0 to ``2**bits - 1``.

        Returns
        -------
        ndarray of float32, of the shape of ``codes``

        Raises
        ------
        TypeError
            If ``codes`` are not integers.
        ValueError
            If a code is out of range.
        """
        return gather(_float32_values(self), self.checked_codes(codes))

    def operands(self, codes: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Integer value of ``codes`` in units of ``operand_unit``; arguments as in decode."""
        return gather(self.operand_table, self.checked_codes(codes))

    def accumulator_bits(self, length: int) -> int:
        """Bits of a signed integer that holds any sum of products.

        Parameters
        ----------
        length : int
            Number of products of two operands of ``operand_bits`` bits, at least 1.

        Returns
        -------
        int
            ``2 * operand_bits + floor(log2(length))``: the largest sum is ``length`` times the
            square of the most negative operand, ``length * 2**(2 * operand_bits - 2)``.

        Raises
        ------
        TypeError, ValueError
            If ``length`` is not a positive int.
        """
        check_int("length", length, 1, None)
        return 2 * self.operand_bits + length.bit_length() - 1

    def code_table(self) -> dict[str, list[Any]]:
        """All codes in order; see :meth:`golden.spec.Spec.code_table`."""
        codes = range(1 << self.bits)
        columns: dict[str, list[Any]] = {
            "code": list(codes),
            "binary": [f"{code:0{self.bits}b}" for code in codes],
            "hex": [f"{code:0{(self.bits + 3) // 4}x}" for code in codes],
            "value": self.value_table.tolist(),
        }
        return columns | self.code_fields()

    def code_fields(self) -> dict[str, list[Any]]:
        """Columns of the code table that only this number system has."""
        return {}

    def storage_bits(self, shape: Sequence[int]) -> int:
        """Bits of the codes."""
        return self.bits * int(np.prod(shape, dtype=np.int64))

    def matmul(
        self, w_codes: Any, activations: Spec, a_codes: Any, bias: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.float64]:
        """Matrix product with one rounding, to binary64; see :meth:`golden.spec.Spec.matmul`."""
        # That module takes specs of this one as arguments.
        from golden.dot import accumulator_unit, matmul, quantise_bias

        if not isinstance(activations, ElementSpec):
            raise TypeError(f"activations must be an ElementSpec, not {activations!r}")
        start = 0 if bias is None else quantise_bias(self, activations, bias)
        w, a = np.asarray(w_codes), np.asarray(a_codes)
        accumulators = matmul(activations, self, a, np.swapaxes(w, -1, -2), start)
        return accumulators.astype(np.float64) * accumulator_unit(self, activations)

    def checked_codes(self, codes: npt.ArrayLike) -> npt.NDArray[Any]:
        """``codes`` as an array; TypeError or ValueError as :meth:`decode` says."""
        return as_integers("codes", codes, 0, (1 << self.bits) - 1)


class DyadicSpec(ElementSpec):
    """An element format whose unit is a power of two.

    Encoding rounds once, to the nearest value; a tie goes to the even code.
    """

    @property
    @abstractmethod
    def operand_exp(self) -> int:
        """Exponent of the unit of :meth:`operands`: value = operand * 2**operand_exp."""

    @property
    def operand_unit(self) -> float:
        """Value of the operand 1: ``2**operand_exp``."""
        return 2.0**self.operand_exp

    def make_rounding(self) -> ValueTable:
        """Round to the nearest value, ties to the even code."""
        return ValueTable.of_codes(self.value_table, self.bits)

    def requantise(
        self, accumulators: npt.ArrayLike, exponent: int, *, relu: bool = False
    ) -> npt.NDArray[Any]:
        """Codes nearest to ``accumulators * 2**exponent``, rounded exactly once.

        Parameters
        ----------
        accumulators : array_like of int
            Any shape; must fit int64.
        exponent : int
            Base-2 logarithm of the unit of the accumulators, -1024 to 1024.
        relu : bool
            Replace negative accumulators by 0.

        Returns
        -------
        ndarray of uint8 (up to 8 bits) or uint16, of the shape of ``accumulators``

        Raises
        ------
        TypeError
            If ``accumulators`` are not integers or ``exponent`` is not an int.
        ValueError
            If an accumulator does not fit int64 or ``exponent`` is out of range.
        """
        check_int("exponent", exponent, -MAX_EXPONENT, MAX_EXPONENT)
        integers = as_integers("accumulators", accumulators, *INT64_RANGE)
        rounder = _integer_rounder(self, self.operand_exp - exponent)
        return rounder.encode(integers, relu=relu)

    def rescale(
        self, accumulators: npt.ArrayLike, unit: float, *, relu: bool = False
    ) -> npt.NDArray[Any]:
        """Codes of ``accumulators * unit``: one rounding of the product with the multiplier."""
        multiplier = Multiplier.of(unit / self.operand_unit)
        product = multiplier.product(accumulators)
        return _integer_rounder(self, multiplier.shift).encode(product, relu=relu)


@dataclass(frozen=True, kw_only=True)
class ScaledSpec(ElementSpec):
    """An element format whose unit is any number of binary32.

    Parameters
    ----------
    scale : float
        Factor outside the code, 2**-90 to 2**90; rounded to binary32 once, here.

    Raises
    ------
    TypeError
        If the scale is not a number.
    ValueError
        If it is out of range.
    """

    #: Where a number midway between two values goes.
    ties: ClassVar[Ties]

    #: Fraction bits to which ``x / operand_unit`` is rounded before the nearest value is chosen;
    #: None where it is not rounded.
    index_fraction_bits: ClassVar[int | None] = None

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.scale, float | int | np.floating) or isinstance(self.scale, bool):
            raise TypeError(f"scale must be a float, not {self.scale!r}")
        if not MIN_SCALE <= self.scale <= MAX_SCALE:
            raise ValueError(f"scale must be between 2**-90 and 2**90, not {self.scale}")
        object.__setattr__(self, "scale", float(np.float32(self.scale)))

    def show(self, name: str) -> str | None:
        """Value of parameter ``name`` for ``str``; the shortest that binary32 tells apart."""
        return str(np.float32(self.scale)) if name == "scale" else super().show(name)

    def make_rounding(self) -> ValueTable:
        """Round to the nearest value, by a table that all scales share."""
        return ScaledTable(_unit_table(replace(self, scale=1.0)), self.operand_unit)

    def rescale(
        self, accumulators: npt.ArrayLike, unit: float, *, relu: bool = False
    ) -> npt.NDArray[Any]:
        """Codes of ``accumulators * unit``: the unrounded product goes to the nearest value."""
        multiplier = Multiplier.of(unit / self.operand_unit)
        product = multiplier.product(accumulators)
        return self.encode_integers(product, multiplier.shift, relu=relu)

    def encode_integers(
        self, integers: npt.ArrayLike, fraction_bits: int, *, relu: bool = False
    ) -> npt.NDArray[Any]:
        """Codes nearest to ``integers * 2**-fraction_bits`` operands, ties as the format has them.

        Parameters
        ----------
        integers : array_like of int
            Any shape; must fit int64.
        fraction_bits : int
            0 to 1024.
        relu : bool
            Replace negative integers by 0.

        Returns
        -------
        ndarray of uint8 (up to 8 bits) or uint16, of the shape of ``integers``

        Raises
        ------
        TypeError, ValueError
            If an argument is not an int or out of range.
        """
        check_int("fraction_bits", fraction_bits, 0, MAX_EXPONENT)
        checked = as_integers("integers", integers, *INT64_RANGE)
        rounder = _integer_rounder(replace(self, scale=1.0), fraction_bits)
        return rounder.encode(checked, relu=relu)


# Keyed by the spec, so that equal specs share their tables.
@lru_cache(maxsize=64)
def _operand_table(spec: ElementSpec) -> npt.NDArray[np.int32]:
    table = spec.make_operands()
    table.flags.writeable = False
    return table


@lru_cache(maxsize=64)
def _float32_values(spec: ElementSpec) -> npt.NDArray[np.float32]:
    return spec.value_table.astype(np.float32)


@lru_cache(maxsize=64)
def _rounding_table(spec: ElementSpec) -> ValueTable:
    return spec.make_rounding()


@lru_cache(maxsize=16)
def _unit_table(spec: ScaledSpec) -> UnitTable:
    operands = spec.operand_table.astype(np.float64)
    return UnitTable(operands, spec.bits, spec.ties, spec.index_fraction_bits)


@lru_cache(maxsize=64)
def _integer_rounder(spec: ElementSpec, shift: int) -> IntegerRounder:
    table = _unit_table(spec) if isinstance(spec, ScaledSpec) else _rounding_table(spec)
    return IntegerRounder(spec.operand_table[table.codes], table, shift)


@dataclass(frozen=True, kw_only=True)
class ElementFormat(Format):
    """An element format whose parameters are given or left to be fitted.

    Parameters
    ----------
    bits : int
        Bits of a code.
    """

    bits: int

    @abstractmethod
    def spec(self) -> ElementSpec:
        """Spec with the parameters that were given, and defaults for the others."""

    @abstractmethod
    def fit(
        self, tensor: npt.ArrayLike, role: Role = "weights", method: Method = "sweep"
    ) -> ElementSpec:
        """Choose the parameters that were not given; see :meth:`golden.spec.Format.fit`."""

    def system(self, method: Method = "sweep") -> "NumberSystem":
        """Make the number system that codes weights and activations in this format."""
        # That module takes formats of this one as arguments.
        from golden.element_layers import ElementSystem

        return ElementSystem(format=self, method=method)


class ListedFormat(ElementFormat):
    """An element format whose specs are few enough to try them all."""

    def fit(
        self, tensor: npt.ArrayLike, role: Role = "weights", method: Method = "sweep"
    ) -> ElementSpec:
        """Choose the parameters that were not given; see :meth:`golden.spec.Format.fit`."""
        numbers = checked_tensor(tensor, role, method)
        if method == "paper":
            return self.rule(largest_magnitude(numbers), role)
        return least_error(numbers, self.candidates(numbers, role))

    @abstractmethod
    def rule(self, largest: float, role: Role) -> ElementSpec:
        """Spec by the paper's rule for a tensor whose largest magnitude is ``largest``."""

    @abstractmethod
    def candidates(self, tensor: npt.NDArray[Any], role: Role) -> Sequence[ElementSpec]:
        """Specs among which the sweep chooses, in order of preference."""


def squared_errors(
    tensor: npt.NDArray[Any], specs: Sequence[ElementSpec]
) -> npt.NDArray[np.float64]:
    """Sum of squared quantisation errors of a tensor under each spec.

    Parameters
    ----------
    tensor : ndarray of float16, float32 or float64
        Finite numbers of any shape.
    specs : sequence of ElementSpec
        The formats to compare.

    Returns
    -------
    ndarray of float64, shape (len(specs),)
        Specs that give every number the same value have the same sum, bit for bit.
    """
    return sorted_errors(np.sort(tensor, axis=None), specs)


def sorted_errors(
    numbers: npt.NDArray[Any], specs: Sequence[ElementSpec]
) -> npt.NDArray[np.float64]:
    """Give what :func:`squared_errors` does, for a tensor that is flat and sorted already."""
    if numbers.dtype == np.float16:
        numbers = numbers.astype(np.float32)
    tables = [_rounding_table(spec) for spec in specs]
    # In sorted numbers, a cut of a format is a position.  Between neighbouring positions of all
    # formats (a cell), every format has one value: its sum of squares follows from the count, the
    # sum and the sum of squares of the cell, taken about a centre in the cell to lose no digits.
    positions = [
        np.searchsorted(numbers, table.cuts(numbers.dtype), side="right") for table in tables
    ]
    blocks = np.arange(0, numbers.size, BLOCK)
    starts = np.unique(np.concatenate([*positions, blocks]))
    starts = starts[starts < numbers.size]
    counts = np.diff(starts, append=numbers.size)
    centres = numbers[starts].astype(np.float64)
    sums = np.empty_like(centres)
    squares = np.empty_like(centres)
    for low in blocks.tolist():
        first, last = np.searchsorted(starts, [low, low + BLOCK]).tolist()
        offsets = numbers[low : low + BLOCK] - np.repeat(centres[first:last], counts[first:last])
        sums[first:last] = np.add.reduceat(offsets, starts[first:last] - low)
        squares[first:last] = np.add.reduceat(offsets * offsets, starts[first:last] - low)
    errors = np.empty(len(specs))
    for i, (table, cuts) in enumerate(zip(tables, positions, strict=True)):
        distance = centres - table.values[np.searchsorted(cuts, starts, side="right")]
        errors[i] = np.sum(squares + distance * (2 * sums + distance * counts))
    return errors


def least_error(tensor: npt.NDArray[Any], specs: Sequence[ElementSpec]) -> ElementSpec:
    """First of the specs with the least sum of squared quantisation errors."""
    return specs[int(np.argmin(squared_errors(tensor, specs)))]
