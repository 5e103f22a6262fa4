"""Exact dot products of codes, and the start value of their accumulators.

An accumulator (the paper of the tapered format calls it quire) holds the sum of all products
without rounding; :meth:`golden.element.ElementSpec.requantise` then rounds once.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from golden.element import ElementSpec

__all__ = ["accumulator_exp", "dot", "integer_matmul", "matmul", "quantise_bias"]


def accumulator_exp(weight_spec: ElementSpec, activation_spec: ElementSpec) -> int:
    """Base-2 logarithm of the unit of an accumulator of products of two formats."""
    return weight_spec.operand_exp + activation_spec.operand_exp


def quantise_bias(
    weight_spec: ElementSpec, activation_spec: ElementSpec, bias: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Start value of the accumulator: the bias in its units, rounded to the nearest, ties to even.

    Parameters
    ----------
    weight_spec, activation_spec : ElementSpec
        Formats of the operands.
    bias : array_like of float
        Any shape; finite.

    Raises
    ------
    ValueError
        If a bias is not finite or needs more than 62 bits.
    """
    units = np.ldexp(np.asarray(bias, np.float64), -accumulator_exp(weight_spec, activation_spec))
    if not np.all(np.abs(units) < 2.0**62):
        raise ValueError("bias must be finite and below 2**62 units of the accumulator")
    return np.rint(units).astype(np.int64)


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
        Codes; the leading axes broadcast.
    bias_q : array_like of int
        Start value, broadcast against the result.

    Returns
    -------
    ndarray of int64, shape (...)
        In units of ``2**accumulator_exp(weight_spec, activation_spec)``.
    """
    w = weight_spec.operands(w_codes).astype(np.int64)
    a = activation_spec.operands(a_codes).astype(np.int64)
    return np.einsum("...k,...k->...", w, a) + np.asarray(bias_q, np.int64)


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
        Start value, broadcast against the result: shape (M, 1) for one bias per row of weights.

    Returns
    -------
    ndarray of int64, shape (..., M, N)
    """
    w = weight_spec.operands(w_codes)
    a = activation_spec.operands(a_codes)
    return integer_matmul(w, a) + np.asarray(bias_q, np.int64)


def integer_matmul(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Exact product of two integer matrices, in floating point where it holds every sum."""
    bound = int(np.abs(left).max(initial=0)) * int(np.abs(right).max(initial=0)) * left.shape[-1]
    for dtype, limit in ((np.float32, 1 << 24), (np.float64, 1 << 53)):
        if bound <= limit:
            return (left.astype(dtype) @ right.astype(dtype)).astype(np.int64)
    return left.astype(np.int64) @ right.astype(np.int64)
