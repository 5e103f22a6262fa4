"""Number systems in which each element is coded by itself.

:class:`ElementSpec` is one format with all its parameters, driven by the exact integer value of
each code; :class:`ElementFormat` is a format with some parameters left to be fitted to a tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from golden.rounding import BLOCK, IntegerRounder, ValueTable, gather

__all__ = [
    "INT64_RANGE",
    "ElementFormat",
    "ElementSpec",
    "Method",
    "Role",
    "as_integers",
    "check_int",
    "largest_magnitude",
    "least_error",
    "parse_int",
    "squared_errors",
]

#: What a tensor is in its layer.
Role = Literal["weights", "activations"]

#: How parameters are chosen: by a search for the least mean squared error, or by the closed form
#: of the paper.
Method = Literal["sweep", "paper"]

#: Limits of an accumulator.
INT64_RANGE = (-(1 << 63), (1 << 63) - 1)

#: Largest magnitude of the exponent of an accumulator.
MAX_EXPONENT = 1024


class ElementSpec(ABC):
    """One number format with all its parameters.

    Subclasses are frozen dataclasses of the parameters.  They give the integer value of every
    code; the rest follows from these integers.  One whose scale is not a power of two has its own
    :attr:`value_table`, and its own requantiser.

    Every code is an unsigned integer below ``2**bits`` and stands for
    ``operands(code) * 2**operand_exp``.  Encoding rounds once, to the nearest value; a tie goes to
    the even code.  Out of range saturates, NaN counts as 0.
    """

    #: Name of the number system.
    stem: ClassVar[str]

    bits: int

    @property
    @abstractmethod
    def operand_exp(self) -> int:
        """Exponent of the unit of :meth:`operands`: value = operand * 2**operand_exp."""

    @property
    @abstractmethod
    def operand_bits(self) -> int:
        """Bits of a signed operand, as the hardware carries it."""

    @abstractmethod
    def make_operands(self) -> npt.NDArray[np.int32]:
        """Operand of each code, indexed by code, computed from the definition of the format."""

    def __str__(self) -> str:
        parameters = ((f.name, getattr(self, f.name)) for f in fields(self))  # type: ignore[arg-type]
        text = ",".join(f"{name}={value}" for name, value in parameters if name != "bits")
        return f"{self.stem}{self.bits}:{text}"

    @property
    def operand_table(self) -> npt.NDArray[np.int32]:
        """Operand of each code, indexed by code; read-only, shape (2**bits,)."""
        return _operand_table(self)

    @property
    def value_table(self) -> npt.NDArray[np.float64]:
        """Exact value of each code, indexed by code; shape (2**bits,)."""
        return np.ldexp(self.operand_table.astype(np.float64), self.operand_exp)

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
        return _rounding_table(self).encode(_as_floats("x", x))

    def decode(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Values of ``codes``, exact in float32.

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

    def quantise(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Values that ``x`` has after coding: ``decode(encode(x))``."""
        return self.decode(self.encode(x))

    def operands(self, codes: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Integer value of ``codes`` in units of ``2**operand_exp``; arguments as in decode."""
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

    def checked_codes(self, codes: npt.ArrayLike) -> npt.NDArray[Any]:
        """``codes`` as an array; TypeError or ValueError as :meth:`decode` says."""
        return as_integers("codes", codes, 0, (1 << self.bits) - 1)


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
    return ValueTable(spec.value_table, spec.bits)


@lru_cache(maxsize=64)
def _integer_rounder(spec: ElementSpec, shift: int) -> IntegerRounder:
    return IntegerRounder(np.unique(spec.operand_table), _rounding_table(spec), shift)


@dataclass(frozen=True, kw_only=True)
class ElementFormat(ABC):
    """A number format whose parameters are given or left to be fitted.

    Subclasses add one field per parameter, None where it is not given.

    Parameters
    ----------
    bits : int
        Bits of a code.
    """

    #: Name of the number system.
    stem: ClassVar[str]

    #: Reads the value of each parameter of a format string.
    parameters: ClassVar[Mapping[str, Callable[[str, str], Any]]]

    bits: int

    @property
    def pinned(self) -> Mapping[str, Any]:
        """The parameters that were given, by name."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "bits"}
        return MappingProxyType({name: value for name, value in given.items() if value is not None})

    def __str__(self) -> str:
        text = ",".join(f"{name}={self.show(name)}" for name in self.pinned)
        return f"{self.stem}{self.bits}" + (f":{text}" if text else "")

    def show(self, name: str) -> str:
        """Value of parameter ``name`` as a format string has it."""
        return str(getattr(self, name))

    @classmethod
    def from_texts(cls, bits: int, texts: Mapping[str, str]) -> Self:
        """Make a format from the texts of its parameters.

        Raises
        ------
        ValueError
            If a parameter is unknown, cannot be read or is out of range.
        """
        values = {}
        for name, text in texts.items():
            if name not in cls.parameters:
                known = ", ".join(cls.parameters)
                raise ValueError(f"parameter of {cls.stem} must be one of {known}, not {name!r}")
            values[name] = cls.parameters[name](name, text)
        return cls(bits=bits, **values)

    @abstractmethod
    def spec(self) -> ElementSpec:
        """Spec with the parameters that were given, and defaults for the others."""

    def fit(
        self, tensor: npt.ArrayLike, role: Role = "weights", method: Method = "sweep"
    ) -> ElementSpec:
        """Choose the parameters that were not given.

        Parameters
        ----------
        tensor : array_like of float16, float32 or float64
            Any shape; finite in binary32.  An empty tensor counts as zeros.
        role : {"weights", "activations"}
            What the tensor is.
        method : {"sweep", "paper"}
            Least mean squared error (in binary64; the first of equal candidates), or the rule of
            the paper.

        Returns
        -------
        ElementSpec
            The parameters that were given are kept.

        Raises
        ------
        TypeError
            If the tensor is of another type.
        ValueError
            If a number is not finite in binary32, or ``role`` or ``method`` is unknown.
        """
        numbers = self.checked_tensor(tensor, role, method)
        if method == "paper":
            return self.rule(largest_magnitude(numbers), role)
        return least_error(numbers, self.candidates(numbers, role))

    @abstractmethod
    def rule(self, largest: float, role: Role) -> ElementSpec:
        """Spec by the paper's rule for a tensor whose largest magnitude is ``largest``."""

    @abstractmethod
    def candidates(self, tensor: npt.NDArray[Any], role: Role) -> Sequence[ElementSpec]:
        """Specs among which the sweep chooses, in order of preference."""

    @staticmethod
    def checked_tensor(tensor: npt.ArrayLike, role: Role, method: Method) -> npt.NDArray[Any]:
        """``tensor`` as an array, after a check of the arguments of :meth:`fit`."""
        if role not in get_args(Role):
            raise ValueError(f"role must be weights or activations, not {role!r}")
        if method not in get_args(Method):
            raise ValueError(f"method must be sweep or paper, not {method!r}")
        numbers = _as_floats("tensor", tensor)
        limit = float(np.finfo(np.float32).max)
        # NaN compares with nothing.
        if not largest_magnitude(numbers) <= limit:
            good = np.abs(numbers.astype(np.float64)) <= limit
            index = tuple(np.argwhere(~good)[0].tolist())
            value = numbers[index]
            raise ValueError(f"tensor must be finite in binary32, not {value} at index {index}")
        return numbers


def largest_magnitude(tensor: npt.NDArray[Any]) -> float:
    """Largest magnitude in a tensor; 0 if it is empty, NaN if it has a NaN."""
    return max(-float(tensor.min(initial=0)), float(tensor.max(initial=0)))


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
    numbers = np.sort(tensor, axis=None)
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


def check_int(name: str, value: object, low: int, high: int | None) -> None:
    """Refuse a value that is not an int from ``low`` to ``high``, or from ``low`` if that is None.

    Raises
    ------
    TypeError
        If it is not an int.
    ValueError
        If it is out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if high is None and value < low:
        raise ValueError(f"{name} must be at least {low}, not {value}")
    if high is not None and not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")


def parse_int(name: str, text: str) -> int:
    """Integer that a format string gives for parameter ``name``; ValueError if it is none."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{name} must be an integer, not {text!r}")
    return int(text)


def _as_floats(name: str, x: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(x)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be float16, float32 or float64, not {array.dtype}")
    return array


def as_integers(name: str, x: npt.ArrayLike, low: int, high: int) -> npt.NDArray[Any]:
    """``x`` as an array of integers, refused unless all are from ``low`` to ``high``."""
    array = np.asarray(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    limits = np.iinfo(array.dtype)
    if limits.min < low or limits.max > high:
        for extreme in (array.min(initial=0), array.max(initial=0)):
            if not low <= extreme <= high:
                raise ValueError(f"{name} must be between {low} and {high}, not {extreme}")
    return array
