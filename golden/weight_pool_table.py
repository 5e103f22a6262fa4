"""Look-up tables of weight pools: their entries, their layouts and what they cost."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from golden.spec import check_int

__all__ = [
    "INDEX_BITS",
    "MAX_ACT_BITS",
    "Layout",
    "check_exact",
    "compression_ratio",
    "make_table",
    "plane_weights",
    "subset_sums",
    "table_rows",
]

#: How the table is stored: whole, as the sum of two tables of half an address each, or only the
#: addresses without the highest bit, the others by complement.
Layout = Literal["full", "nibble", "half"]

#: Bits of a stored index (published).
INDEX_BITS = 8

#: Most planes of an activation.
MAX_ACT_BITS = 8


def plane_weights(act_bits: int, signed: bool) -> list[int]:
    """Factor of each plane, least significant first: the highest is negative if signed.

    Raises
    ------
    TypeError, ValueError
        If ``act_bits`` is not an int from 1 to 8.
    """
    check_int("act_bits", act_bits, 1, MAX_ACT_BITS)
    weights = [1 << plane for plane in range(act_bits)]
    if signed:
        weights[-1] = -weights[-1]
    return weights


def compression_ratio(
    pooled: int,
    unpooled: int,
    *,
    entries: int,
    group: int = 8,
    lut_bits: int = 8,
    index_bits: int = INDEX_BITS,
) -> float:
    """Bits of a network with 8-bit weights over its bits with a pool (reconstructed).

    Parameters
    ----------
    pooled, unpooled : int
        Weights that are indices, and weights that stay at 8 bits.
    entries, group, lut_bits : int
        Size of the pool and bits of an entry of its table, which is stored in full.
    index_bits : int
        8 (published), or ceil_log2(entries) for packed indices.

    Returns
    -------
    float
        8 * (W_p + W_u) / (W_p / g * B_idx + 8 * W_u + 2**g * S * B_L).

    Raises
    ------
    TypeError, ValueError
        If an argument is not an int or out of range.
    """
    for name, value, low in (
        ("pooled", pooled, 0),
        ("unpooled", unpooled, 0),
        ("entries", entries, 1),
        ("group", group, 1),
        ("lut_bits", lut_bits, 1),
        ("index_bits", index_bits, 0),
    ):
        check_int(name, value, low, None)
    table = (1 << group) * entries * lut_bits
    return 8 * (pooled + unpooled) / (pooled / group * index_bits + 8 * unpooled + table)


def table_rows(group: int, layout: Layout) -> int:
    """Rows that a layout stores.

    The half table has none for address 0; the sum of all weights takes its place.
    """
    return {"full": 1 << group, "nibble": 2 << group // 2, "half": 1 << group - 1}[layout]


def make_table(
    pool: npt.NDArray[np.float64], levels: int, range_exp: int, layout: Layout
) -> npt.NDArray[np.int32]:
    """Entries by address and pool index, as they are added.

    Parameters
    ----------
    pool : ndarray of float64, [entries, group]
        Finite numbers.
    levels : int
        L: entry that stands for the range, and largest entry that is stored.
    range_exp : int
        Base-2 logarithm of the range R.
    layout : {"full", "nibble", "half"}
        How the table is stored.

    Returns
    -------
    ndarray of int32, [2**group, entries]
        ``clamp(RNE(sum * L / R), -L, L)`` with exact sums.  In the layouts ``nibble`` and
        ``half``, stored entries are rounded and then combined; this is their definition (chosen).
    """
    integers, exp = _integers(pool)

    def entries(part: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        rounded = _shifted(subset_sums(part) * levels, exp - range_exp)
        return np.clip(rounded, -levels, levels).astype(np.int32)

    if layout == "nibble":
        low, high = (entries(part) for part in np.split(integers, 2, axis=1))
        return (high[:, None] + low[None]).reshape(-1, len(pool))
    table = entries(integers)
    if layout == "half":
        stored = table[: len(table) // 2]
        table = np.concatenate([stored, table[-1] - stored[::-1]])
    return table


def check_exact(pool: npt.NDArray[np.float64], lut_bits: int, unit: float) -> None:
    """Refuse a pool with a sum that is no multiple of ``unit``, or takes more than ``lut_bits``.

    Raises
    ------
    ValueError
        If there is one.
    """
    scaled = pool / unit
    sums = subset_sums(scaled)
    low, high, limit = float(sums.min()), float(sums.max()), 1 << lut_bits - 1
    if np.any(scaled != np.rint(scaled)) or not -limit <= low <= high < limit:
        raise ValueError(
            f"pool must have sums that are {lut_bits}-bit multiples of {unit} for exact entries, "
            f"not from {low * unit} to {high * unit}"
        )


def subset_sums(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sum of the weights [entries, length] whose bit is set, by address, [2**length, entries]."""
    sums = np.zeros((1, len(weights)), weights.dtype)
    for column in weights.T:
        sums = np.concatenate([sums, sums + column])
    return sums


def _shifted(integers: npt.NDArray[Any], shift: int) -> npt.NDArray[Any]:
    """``integers * 2**shift`` to the nearest integer, ties to even; Python integers."""
    if shift >= 0:
        return integers << shift
    floor = integers >> -shift
    doubled = integers - (floor << -shift) << 1
    half = 1 << -shift
    return floor + ((doubled > half) | ((doubled == half) & (floor & 1 == 1))).astype(object)


def _integers(pool: npt.NDArray[np.float64]) -> tuple[npt.NDArray[Any], int]:
    """Numbers as Python integers in units of a power of two, and its exponent."""
    mantissa, exp = np.frexp(pool)
    integers = np.ldexp(mantissa, 53).astype(np.int64).astype(object)
    exps = exp.astype(object) - 53
    lowest = min((e for i, e in zip(integers.flat, exps.flat, strict=True) if i), default=0)
    return integers << np.maximum(exps - lowest, 0), lowest
