"""Layers and tensors of networks whose weights and activations are coded one by one.

Implements the protocols of :mod:`golden.inference` for every :class:`golden.element.ElementSpec`.
Dot products are exact.  Their one rounding goes straight to the nearest code where all units are
powers of two, and through the common requantiser where one is not (spec/README.md, section 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from golden.dot import accumulator_unit, encode_sums, quantise_bias
from golden.element import DyadicSpec, ElementFormat, ElementSpec
from golden.inference import TensorCodec
from golden.network import Floats, MacNode, Network, multiply
from golden.spec import Method

__all__ = [
    "ElementCodec",
    "ElementLayer",
    "ElementOperands",
    "ElementSystem",
    "element_spec",
]

FloatType = type[np.float32] | type[np.float64]

#: Every integer up to these magnitudes is exact in the type.
FLOAT32_INTEGERS = 1 << 24
FLOAT64_INTEGERS = 1 << 53

#: Numbers of float32 are normal from two to the first of these to below two to the second.
FLOAT32_MIN_EXP = -126
FLOAT32_MAX_EXP = 128

#: Low bits of a float64 significand that a float32 has not, as a mask.
SIGNIFICAND_MASK = np.uint64((1 << 52 - 23) - 1)

#: Float64 values that are narrowed at a time, in a buffer of half a megabyte.
NARROW_BLOCK = 1 << 16


@dataclass(frozen=True)
class ElementCodec:
    """Every element coded by itself.

    Parameters
    ----------
    spec : ElementSpec
        The format.
    """

    spec: ElementSpec

    def __str__(self) -> str:
        return str(self.spec)

    def encode(self, values: Floats) -> npt.NDArray[Any]:
        """Codes nearest to ``values``, rounded once."""
        return self.spec.encode(_narrowed(values))

    def quantise(self, values: Floats) -> npt.NDArray[np.float32]:
        """Values of the codes nearest to ``values``."""
        return self.spec.decode(self.encode(values))


def _narrowed(values: Floats) -> Floats:
    """Float32 numbers that round like float64 ``values`` to any format of at most 22 bits.

    A float32 encoder looks up its codes, a float64 one searches.  The low bits of the significand
    go, and the last bit kept becomes 1 if any of them was set (rounding to odd), so that no number
    reaches or crosses the middle between two numbers of a narrow format.  Exponents outside
    float32 are no matter: such values are far below or above every format.
    """
    if values.dtype != np.float64:
        return values
    flat = np.ascontiguousarray(values).reshape(-1)
    result = np.empty(flat.shape, np.float32)
    buffer = np.empty(min(flat.size, NARROW_BLOCK), np.uint64)
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, flat.size, NARROW_BLOCK):
            bits = flat[start : start + NARROW_BLOCK].view(np.uint64)
            block = buffer[: bits.size]
            np.bitwise_and(bits, SIGNIFICAND_MASK, out=block)
            # Carries into the last kept bit if any dropped bit is set.
            np.add(block, SIGNIFICAND_MASK, out=block)
            np.bitwise_or(block, bits, out=block)
            np.bitwise_and(block, ~SIGNIFICAND_MASK, out=block)
            result[start : start + NARROW_BLOCK] = block.view(np.float64)
    return result.reshape(values.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class ElementOperands:
    """Codes that one matrix product reads, and its exact result.

    Parameters
    ----------
    weight_spec, activation_spec : ElementSpec
        Formats of the codes.
    weight_codes : ndarray of unsigned integers, [k, n]
        One column for each output channel.
    activation_codes : ndarray of unsigned integers, [m, k]
        One row for each output pixel.
    bias_q : ndarray of int64, [n]
        Start values of the accumulators.
    accumulators : ndarray of int64, [m, n]
        Sums of products and bias, in units of ``accumulator_unit``.
    accumulator_unit : float
        Value of the accumulator 1.
    """

    weight_spec: ElementSpec
    activation_spec: ElementSpec
    weight_codes: npt.NDArray[Any]
    activation_codes: npt.NDArray[Any]
    bias_q: npt.NDArray[np.int64]
    accumulators: npt.NDArray[np.int64]
    accumulator_unit: float


class _ExactProduct:
    """Matrix product with coded weights that BLAS computes without rounding.

    Operands are integers, times a power of two if there is one, so a floating-point product is
    exact as long as every partial sum, in whatever order, fits the significand.  The tests below
    bound the sum of magnitudes of each column.  Weights that are too wide for float32 are cut in
    an upper and a lower part, which costs less than float64.

    Parameters
    ----------
    weights : ndarray of int64, [k, n]
        Operands of the weights.
    activations : ndarray of int32
        Operands that activations may have.
    bias_q : ndarray of int64, [n]
        Start values of the accumulators.
    weight_exp, unit_exp : int
        Base-2 logarithms of the factors that weights and accumulators get; that of activations is
        in the columns already.
    """

    def __init__(
        self,
        weights: npt.NDArray[np.int64],
        activations: npt.NDArray[np.int32],
        bias_q: npt.NDArray[np.int64],
        weight_exp: int,
        unit_exp: int,
    ) -> None:
        largest = int(np.abs(activations.astype(np.int64)).max())
        step = _common_step(activations)

        def fits(part: npt.NDArray[np.int64]) -> bool:
            bound = _largest_column(part) * largest // (_common_step(part) * step)
            return bound <= FLOAT32_INTEGERS

        total = _largest_column(weights) * largest + int(np.abs(bias_q).max())
        if total > FLOAT64_INTEGERS:
            raise ValueError(f"accumulators must be at most 2**53 units, not {total}")
        parts = [weights]
        if not fits(weights):
            half = max(1, int(np.abs(weights).max()).bit_length() // 2)
            upper = weights + (1 << half - 1) >> half << half
            parts = [upper, weights - upper]
        in_range = unit_exp >= FLOAT32_MIN_EXP and unit_exp + total.bit_length() <= FLOAT32_MAX_EXP
        exact = in_range and all(map(fits, parts))
        dtype: FloatType = np.float32 if exact else np.float64
        self._matrices: list[Floats] = [
            np.ldexp(part.astype(np.float64), weight_exp).astype(dtype)
            for part in (parts if exact else [weights])
        ]
        # Biases are multiples of the unit only, which can be finer than that of the products.
        self._sum_dtype: FloatType = (
            np.float32 if exact and total <= FLOAT32_INTEGERS else np.float64
        )
        self._bias: Floats = np.ldexp(bias_q.astype(np.float64), unit_exp).astype(self._sum_dtype)

    def __call__(self, columns: Floats) -> Floats:
        operands = columns.astype(self._matrices[0].dtype, copy=False)
        total: Floats = multiply(operands, self._matrices[0]).astype(self._sum_dtype, copy=False)
        for matrix in self._matrices[1:]:
            total += multiply(operands, matrix)
        total += self._bias
        return total


def _largest_column(weights: npt.NDArray[np.int64]) -> int:
    """Largest sum of magnitudes in a column."""
    return int(np.abs(weights).sum(axis=0).max())


def _common_step(integers: npt.NDArray[Any]) -> int:
    """Largest power of two that divides all of the integers; 1 for zeros."""
    merged = int(np.bitwise_or.reduce(integers.astype(np.int64), axis=None))
    return merged & -merged or 1


def element_spec(field: str, codec: TensorCodec) -> ElementSpec:
    """Format in which a codec of elements stores a tensor.

    Raises
    ------
    TypeError
        If ``codec`` is not an :class:`ElementCodec`.
    """
    if not isinstance(codec, ElementCodec):
        raise TypeError(f"{field} must be an ElementCodec, not {codec!r}")
    return codec.spec


class ElementLayer:
    """One layer whose weights are coded one by one; see :class:`golden.inference.PreparedLayer`.

    Results of :meth:`forward` are values where both formats are dyadic, else accumulators.

    Parameters
    ----------
    weight_spec, activation_spec : ElementSpec
        Formats of the weights and of the layer's input.
    weight_codes : ndarray of unsigned integers, [groups, k, n]
        The weights.
    bias_q : ndarray of int64, [groups, n]
        Start values of the accumulators.

    Raises
    ------
    ValueError
        If an accumulator could exceed 2**53 units, which only a huge bias or a dot product of
        millions of terms brings about.
    """

    def __init__(
        self,
        weight_spec: ElementSpec,
        activation_spec: ElementSpec,
        weight_codes: npt.NDArray[Any],
        bias_q: npt.NDArray[np.int64],
    ) -> None:
        self.weight_spec = weight_spec
        self.activation_spec = activation_spec
        self.weight_codes = weight_codes
        self.bias_q = bias_q
        self.accumulator_unit = accumulator_unit(weight_spec, activation_spec)
        #: Value of 1 in the results of forward.
        self.result_unit = self.accumulator_unit
        weight_exp = unit_exp = 0
        if isinstance(weight_spec, DyadicSpec) and isinstance(activation_spec, DyadicSpec):
            self.result_unit = 1.0
            weight_exp = weight_spec.operand_exp
            unit_exp = weight_exp + activation_spec.operand_exp
        self._products = [
            _ExactProduct(matrix, activation_spec.operand_table, bias, weight_exp, unit_exp)
            for matrix, bias in zip(
                weight_spec.operands(weight_codes).astype(np.int64), bias_q, strict=True
            )
        ]

    @property
    def storage_bits(self) -> int:
        """Bits of the codes of the weights."""
        return self.weight_spec.storage_bits(self.weight_codes.shape)

    def forward(self, group: int, columns: Floats) -> Floats:
        """Exact accumulators, as values if both formats are dyadic."""
        if self.result_unit != 1.0:
            # Values are rounded to float32, by far less than half an operand.
            columns = np.rint(columns * np.float32(1 / self.activation_spec.operand_unit))
        return self._products[group](columns)

    def store(self, results: Floats, codec: TensorCodec) -> npt.NDArray[np.float32]:
        """Values of the nearest codes; through the requantiser if a unit is no power of two.

        Raises
        ------
        TypeError
            If ``codec`` is not an :class:`ElementCodec`.
        """
        spec = element_spec("codec", codec)
        if self.result_unit == 1.0 and isinstance(spec, DyadicSpec):
            return codec.quantise(results)
        accumulators = np.rint(results * (self.result_unit / self.accumulator_unit))
        codes = encode_sums(
            self.weight_spec, self.activation_spec, spec, accumulators.astype(np.int64)
        )
        return spec.decode(codes)

    def values(self, results: Floats) -> Floats:
        """Results in real units, to the nearest binary64."""
        return results if self.result_unit == 1.0 else results * np.float64(self.result_unit)

    def operands(self, group: int, columns: Floats) -> ElementOperands:
        """Codes and exact accumulators."""
        results = self.forward(group, columns).astype(np.float64)
        accumulators = np.rint(results * (self.result_unit / self.accumulator_unit))
        return ElementOperands(
            weight_spec=self.weight_spec,
            activation_spec=self.activation_spec,
            weight_codes=self.weight_codes[group],
            activation_codes=self.activation_spec.encode(columns),
            bias_q=self.bias_q[group],
            accumulators=accumulators.astype(np.int64),
            accumulator_unit=self.accumulator_unit,
        )


@dataclass(frozen=True, kw_only=True)
class ElementSystem:
    """A :class:`NumberSystem` that codes weights and activations one by one in one format.

    Parameters
    ----------
    format : ElementFormat
        Format whose free parameters are fitted to each tensor.
    method : {"sweep", "paper"}
        How they are fitted: by least mean squared error, or by the rule of the paper.
    """

    format: ElementFormat
    method: Method = "sweep"

    @property
    def storage_bits(self) -> int:
        """Nothing is shared by the layers."""
        return 0

    def fit_network(self, network: Network) -> Self:
        """Nothing depends on the network as a whole."""
        return self

    def fit_tensor(self, name: str, values: Floats) -> ElementCodec:
        """Codec of the format fitted to activations."""
        return ElementCodec(self.format.fit(values, "activations", self.method))

    def prepare(
        self, node: MacNode, source: TensorCodec, calibration: Sequence[Floats]
    ) -> ElementLayer:
        """Fit the format to the weights of a layer and code them.

        Raises
        ------
        TypeError
            If ``source`` was not made by :meth:`fit_tensor`.
        """
        activation_spec = element_spec("source", source)
        weights = node.matrices()
        spec = self.format.fit(weights, "weights", self.method)
        return ElementLayer(
            spec,
            activation_spec,
            spec.encode(weights),
            quantise_bias(spec, activation_spec, node.biases()),
        )

    def sum_dtype(self, sources: Sequence[TensorCodec]) -> npt.DTypeLike:
        """Float32 if it holds every sum exactly, else float64, to which other scales are rounded.

        Raises
        ------
        ValueError
            If powers of two differ by more than float64 holds.
        """
        specs = [source.spec for source in sources if isinstance(source, ElementCodec)]
        dyadic = [spec for spec in specs if isinstance(spec, DyadicSpec)]
        if len(dyadic) < len(specs):
            return np.float64
        low = min(spec.operand_exp for spec in dyadic)
        high = max(spec.operand_exp + spec.operand_bits - 1 for spec in dyadic)
        bits = high + (len(specs) - 1).bit_length() - low
        if bits > FLOAT64_INTEGERS.bit_length() - 1:
            raise ValueError(
                f"tensors that are added must span at most 53 bits, not {bits} "
                f"({', '.join(map(str, specs))})"
            )
        return np.float32 if bits < FLOAT32_INTEGERS.bit_length() else np.float64
