"""Exact dot products of codes, and the start value of their accumulators.

An accumulator (the paper of the tapered format calls it quire) holds the sum of all products
without rounding; :meth:`golden.element.DyadicSpec.requantise` then rounds once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.element import DyadicSpec, ElementSpec
from golden.rounding import gather
from golden.spec import INT64_RANGE, as_integers, check_int

__all__ = [
    "accumulator_bits",
    "accumulator_exp",
    "accumulator_unit",
    "dot",
    "encode_sums",
    "matmul",
    "quantise_bias",
]

#: A floating-point type, and the magnitude up to which it holds every integer.
EXACT_TYPES = ((np.float32, 1 << 24), (np.float64, 1 << 53))


def accumulator_bits(weight_spec: ElementSpec, activation_spec: ElementSpec, length: int) -> int:
    """Bits of a signed integer that holds any sum of ``length`` products of two formats."""
    check_int("length", length, 1, None)
    largest = length
    for spec in (weight_spec, activation_spec):
        largest *= int(np.abs(spec.operand_table.astype(np.int64)).max())
    return largest.bit_length() + 1


def accumulator_unit(weight_spec: ElementSpec, activation_spec: ElementSpec) -> float:
    """Value of the accumulator 1 of products of two formats; exact."""
    return weight_spec.operand_unit * activation_spec.operand_unit


def accumulator_exp(weight_spec: DyadicSpec, activation_spec: DyadicSpec) -> int:
    """Base-2 logarithm of the unit of an accumulator of products of two formats."""
    return weight_spec.operand_exp + activation_spec.operand_exp


def quantise_bias(
    weight_spec: ElementSpec, activation_spec: ElementSpec, bias: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Start value of an accumulator: a bias in its units, to the nearest integer, ties to even.

    Parameters
    ----------
    weight_spec, activation_spec : ElementSpec
        Formats of the operands.
    bias : array_like of float
        Any shape.

    Returns
    -------
    ndarray of int64, of the shape of ``bias``
        RNE(bias / accumulator_unit), of the quotient in binary64; tapered: RNE(bias * 2**(2 *
        (bits - 1) - scale_exp)), spec/tapered.md, section 3 (chosen).

    Raises
    ------
    ValueError
        If a bias is not finite or has no place in the accumulator.
    """
    numbers = np.asarray(bias, np.float64)
    unit = accumulator_unit(weight_spec, activation_spec)
    good = np.abs(numbers) < 2.0**62 * unit
    if not good.all():
        raise ValueError(f"bias must be finite and below {2.0**62 * unit}, not {numbers[~good][0]}")
    return np.asarray(np.rint(numbers / unit), np.int64)


def dot(
    weight_spec: ElementSpec,
    activation_spec: ElementSpec,
    w_codes: npt.ArrayLike,
    a_codes: npt.ArrayLike,
    bias_q: npt.ArrayLike = 0,
) -> npt.NDArray[np.int64]:
    """Exact accumulators of dot products along the last axis.

    Parameters
    ----------
    weight_spec, activation_spec : ElementSpec
        Formats of the codes.
    w_codes, a_codes : array_like of int, shape (..., K)
        Codes; the leading axes broadcast.  K may be 0.
    bias_q : array_like of int
        Start values, broadcast against the result.

    Returns
    -------
    ndarray of int64, shape (...)
        In units of ``accumulator_unit(weight_spec, activation_spec)``.

    Raises
    ------
    TypeError, ValueError
        As in :meth:`matmul`.
    """
    w, a = np.asarray(w_codes), np.asarray(a_codes)
    for name, codes in (("w_codes", w), ("a_codes", a)):
        if codes.ndim < 1:
            raise ValueError(f"{name} must have at least 1 axis, not 0")
    _check_length(w.shape[-1], a.shape[-1])
    return _accumulate(np.vecdot, weight_spec, activation_spec, w, a, bias_q)


def matmul(
    weight_spec: ElementSpec,
    activation_spec: ElementSpec,
    w_codes: npt.ArrayLike,
    a_codes: npt.ArrayLike,
    bias_q: npt.ArrayLike = 0,
) -> npt.NDArray[np.int64]:
    """Exact accumulators of a matrix product of codes.

    Parameters
    ----------
    weight_spec, activation_spec : ElementSpec
        Formats of the codes.
    w_codes : array_like of int, shape (..., M, K)
        Codes of the weights.
    a_codes : array_like of int, shape (..., K, N)
        Codes of the activations.
    bias_q : array_like of int
        Start values, broadcast against the result: shape (M, 1) for one per row of weights.

    Returns
    -------
    ndarray of int64, shape (..., M, N)
        In units of ``accumulator_unit(weight_spec, activation_spec)``.

    Raises
    ------
    TypeError
        If codes or start values are not integers.
    ValueError
        If a code is out of range, the shapes do not fit, or a sum might leave 64 bits.
    """
    w, a = np.asarray(w_codes), np.asarray(a_codes)
    for name, codes in (("w_codes", w), ("a_codes", a)):
        if codes.ndim < 2:
            raise ValueError(f"{name} must have at least 2 axes, not {codes.ndim}")
    _check_length(w.shape[-1], a.shape[-2])
    return _accumulate(np.matmul, weight_spec, activation_spec, w, a, bias_q)


def encode_sums(
    weight_spec: ElementSpec,
    activation_spec: ElementSpec,
    result_spec: ElementSpec,
    accumulators: npt.ArrayLike,
    *,
    relu: bool = False,
) -> npt.NDArray[Any]:
    """Codes of exact sums of products: the one rounding of a dot product, as the hardware does it.

    Parameters
    ----------
    weight_spec, activation_spec, result_spec : ElementSpec
        Formats of the operands and of the codes.
    accumulators : array_like of int
        In units of ``accumulator_unit(weight_spec, activation_spec)``.
    relu : bool
        Replace negative sums by zero.

    Returns
    -------
    ndarray of uint8 (up to 8 bits) or uint16
        The nearest codes where all three units are powers of two; else those that the common
        requantiser gives (spec/README.md, section 4).

    Raises
    ------
    TypeError, ValueError
        As :meth:`golden.element.DyadicSpec.requantise` and
        :meth:`golden.element.ElementSpec.rescale`.
    """
    if (
        isinstance(weight_spec, DyadicSpec)
        and isinstance(activation_spec, DyadicSpec)
        and isinstance(result_spec, DyadicSpec)
    ):
        exponent = accumulator_exp(weight_spec, activation_spec)
        return result_spec.requantise(accumulators, exponent, relu=relu)
    unit = accumulator_unit(weight_spec, activation_spec)
    return result_spec.rescale(accumulators, unit, relu=relu)


def _check_length(w_length: int, a_length: int) -> None:
    if w_length != a_length:
        raise ValueError(f"w_codes and a_codes must have the same K, not {w_length} and {a_length}")


def _accumulate(
    operation: Callable[..., Any],
    weight_spec: ElementSpec,
    activation_spec: ElementSpec,
    w_codes: npt.NDArray[Any],
    a_codes: npt.NDArray[Any],
    bias_q: npt.ArrayLike,
) -> npt.NDArray[np.int64]:
    """Sum products by ``operation``, in the narrowest type that holds every sum exactly."""
    w_table, w_zeros = _stripped(weight_spec.operand_table)
    a_table, a_zeros = _stripped(activation_spec.operand_table)
    w = gather(w_table.astype(np.float64), weight_spec.checked_codes(w_codes))
    a_codes = activation_spec.checked_codes(a_codes)
    start = as_integers("bias_q", bias_q, *INT64_RANGE).astype(np.int64)

    # No sum of any of the products, in any order, is larger than this.
    largest = int(np.abs(w).sum(axis=-1).max(initial=0)) * int(np.abs(a_table).max())
    start_largest = max(int(start.max(initial=0)), -int(start.min(initial=0)))
    if (largest << w_zeros + a_zeros) + start_largest > INT64_RANGE[1]:
        raise ValueError("accumulators must be below 2**63; use fewer products or a smaller bias_q")
    dtype = next((dtype for dtype, limit in EXACT_TYPES if largest <= limit), np.int64)
    sums = operation(w.astype(dtype), gather(a_table.astype(dtype), a_codes))
    return start + (np.asarray(sums).astype(np.int64) << w_zeros + a_zeros)


def _stripped(operands: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], int]:
    """Operands without the low zero bits that all of them share, and the number of these bits."""
    common = int(np.bitwise_or.reduce(operands))
    zeros = (common & -common).bit_length() - 1
    return operands >> zeros, zeros
