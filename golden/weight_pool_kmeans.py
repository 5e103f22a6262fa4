"""Vectors of weights: cutting them, matching them with a pool, and finding a pool by clustering.

Which pool vector is nearest is decided exactly: products in binary64 decide where they are far
enough apart, rational numbers where they are not.  So no result depends on the order in which a
BLAS adds, and the same weights and seed give the same pool and indices on every machine.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from golden.spec import check_int

__all__ = ["Match", "check_match", "cluster", "cut", "match"]

#: How a weight vector finds its pool vector: largest cosine (paper), or least distance (for
#: networks that are not retrained).
Match = Literal["cosine", "l2"]

#: Vectors that are compared with a pool at a time; the scores of 128 entries take half a megabyte.
BLOCK = 512

#: Relative distance of two scores beyond which rounding cannot have swapped them: a score has
#: fewer than 2 * 8 roundings of 2**-53 each.
TOLERANCE = 2.0**-48

#: Two directions whose cosine is closer to 1 may be the same.
PARALLEL = 1e-9

#: Scores below this may have lost digits to underflow.
UNDERFLOW = 2.0**-900

#: Clustering looks at this many vectors at most, drawn by seed (chosen).
SAMPLE = 1 << 15

MAX_ITERATIONS = 100

#: Fraction bits of the cosines by which a vector for an empty cluster is chosen.
COSINE_BITS = 40


def check_match(rule: object) -> None:
    """Refuse anything but a rule of :data:`Match` with a ValueError."""
    if rule not in get_args(Match):
        raise ValueError(f"match must be {' or '.join(get_args(Match))}, not {rule!r}")


def cut(weights: npt.NDArray[Any], group: int) -> npt.NDArray[Any]:
    """Cut the last axis into vectors, the last one filled up with zeros.

    Parameters
    ----------
    weights : ndarray, [..., k]
        Weights, input channels last.
    group : int
        Length of a vector.

    Returns
    -------
    ndarray, [..., ceil(k / group), group]
        A view where nothing is filled up and strides allow it.
    """
    length = weights.shape[-1]
    blocks = -(-length // group)
    if length % group:
        filled = np.zeros((*weights.shape[:-1], blocks * group), weights.dtype)
        filled[..., :length] = weights
        weights = filled
    return weights.reshape(*weights.shape[:-1], blocks, group)


def match(
    vectors: npt.NDArray[Any], pool: npt.NDArray[np.float64], rule: Match
) -> npt.NDArray[np.uint8]:
    """Index of the pool vector that stands for each weight vector.

    Parameters
    ----------
    vectors : ndarray of float, [n, group]
        Finite numbers.
    pool : ndarray of float64, [entries, group]
        Finite numbers; at most 256 entries.
    rule : {"cosine", "l2"}
        Largest cosine, which is 0 if either vector is zero (published; zeros: chosen), or least
        Euclidean distance (chosen).  The first of equal entries wins.

    Returns
    -------
    ndarray of uint8, [n]
        Exact for any finite numbers.
    """
    matcher = _Matcher(pool, rule)
    indices = np.empty(len(vectors), np.uint8)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float64)
        indices[start : start + BLOCK] = matcher(block)
    return indices


class _Matcher:
    """One pool, prepared for many blocks of vectors."""

    def __init__(self, pool: npt.NDArray[np.float64], rule: Match) -> None:
        self._rule = rule
        self._pool = pool
        # Of entries that no vector can tell apart, only the first.
        self._entries = _first_of_equals(map(tuple, pool.tolist()), range(len(pool)))
        kept = pool[self._entries]
        if rule == "cosine":
            kept = _directions(kept)
            if np.count_nonzero(kept @ kept.T > 1 - PARALLEL) > len(kept):
                directions = [_primitive(_fractions(pool[entry])) for entry in self._entries]
                self._entries = _first_of_equals(directions, self._entries)
                kept = _directions(pool[self._entries])
        self._columns = np.ascontiguousarray(kept.T)
        self._offsets = -(kept * kept).sum(axis=1) / 2 if rule == "l2" else np.zeros(len(kept))
        self._largest = math.sqrt(2 * float(-self._offsets.min())) if rule == "l2" else 1.0

    def __call__(self, block: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Find the indices of a few vectors."""
        scores = block @ self._columns
        if self._rule == "l2":
            scores += self._offsets
        best = scores.argmax(axis=1)
        indices = self._entries[best]

        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        tolerance = TOLERANCE * self._largest * norms + UNDERFLOW
        if self._rule == "l2":
            tolerance += TOLERANCE * self._largest**2
        highest = scores[np.arange(len(block)), best]
        candidates = scores >= (highest - tolerance)[:, None]
        # Mostly each vector has one candidate only, and counting all at once is fast.
        if np.count_nonzero(candidates) > len(block):
            close = candidates.sum(axis=1) > 1
            if self._rule == "cosine":
                # Zeros have the same cosine to all, and the first one already.
                close &= block.any(axis=1)
            if close.any():
                self._settle(block, candidates, close, indices)
        return indices

    def _settle(
        self,
        block: npt.NDArray[np.float64],
        candidates: npt.NDArray[np.bool_],
        close: npt.NDArray[np.bool_],
        indices: npt.NDArray[np.intp],
    ) -> None:
        """Decide those that are ``close`` in rational numbers."""
        distinct, first, inverse = np.unique(
            block[close], axis=0, return_index=True, return_inverse=True
        )
        rows = np.flatnonzero(close)[first]
        settled = np.empty(len(rows), np.intp)
        for i, row in enumerate(rows.tolist()):
            scores = {
                entry: self._score(_fractions(distinct[i]), _fractions(self._pool[entry]))
                for entry in self._entries[candidates[row]].tolist()
            }
            # The first of equal ones, because entries ascend.
            settled[i] = max(scores, key=scores.__getitem__)
        indices[close] = settled[inverse.reshape(-1)]

    def _score(self, vector: Sequence[Fraction], entry: Sequence[Fraction]) -> Fraction:
        """Rational number that rises with the cosine, or falls with the distance."""
        product, square = _dot(vector, entry), _dot(entry, entry)
        if self._rule == "l2":
            return 2 * product - square
        return product * abs(product) / (square or 1)


def _first_of_equals(keys: Iterable[object], entries: Iterable[int]) -> npt.NDArray[np.intp]:
    """Keep the first entry of each key."""
    first: dict[object, int] = {}
    for key, entry in zip(keys, entries, strict=True):
        first.setdefault(key, entry)
    return np.array(list(first.values()))


def _directions(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows with length 1; zeros stay zeros."""
    # Powers of two keep squares of tiny numbers from vanishing.
    _, exp = np.frexp(np.abs(rows).max(axis=1, initial=0, keepdims=True))
    scaled = np.ldexp(rows, -exp)
    norms = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    return scaled / np.where(norms, norms, 1)


def _fractions(row: npt.NDArray[np.float64]) -> list[Fraction]:
    return [Fraction(value) for value in row.tolist()]


def _dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def _primitive(row: Sequence[Fraction]) -> tuple[int, ...]:
    """Shortest vector of integers in the direction of ``row``."""
    common = math.lcm(*(value.denominator for value in row))
    integers = [int(value * common) for value in row]
    divisor = math.gcd(*integers) or 1
    return tuple(value // divisor for value in integers)


def cluster(
    vectors: npt.NDArray[Any],
    entries: int,
    *,
    seed: int = 0,
    tolerance: float = 1e-4,
    sample: int = SAMPLE,
) -> npt.NDArray[np.float64]:
    """Pool of k-means with cosine distance over weight vectors.

    Published (spec/weight_pool.md, section 3): assignment by largest cosine; a new centre is the
    plain mean of the raw vectors; the end is when the squared sum of the centres' moves is below
    ``tolerance``.  Chosen: vectors of zeros take no part; starts are drawn from the distinct
    vectors; at most 100 iterations; an empty cluster continues at the vector that is least similar
    to its own centre; fewer distinct vectors than entries are the pool, in ascending order, with
    zeros after them; of more than ``sample`` vectors, as many are drawn.

    Parameters
    ----------
    vectors : ndarray of float, [n, group]
        Finite in binary32; n may be 0.
    entries : int
        Pool vectors, 1 to 256.
    seed : int
        Of the draws, at least 0.
    tolerance : float
        Where to stop; the paper has 1e-4, and 1e-3 for some networks with 128 entries.
    sample : int
        Most vectors to look at.

    Returns
    -------
    ndarray of float64, [entries, group]
        Centres, rounded to binary32.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it must be.
    """
    check_int("entries", entries, 1, 256)
    check_int("seed", seed, 0, None)
    check_int("sample", sample, 1, None)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, not {tolerance!r}")
    random = np.random.default_rng(seed)
    nonzero = np.flatnonzero(vectors.any(axis=1))
    if len(nonzero) > sample:
        nonzero = np.sort(random.choice(nonzero, sample, replace=False, shuffle=False))
    points = vectors[nonzero].astype(np.float64)
    distinct = np.unique(points, axis=0)
    if len(distinct) < entries:
        pool = np.zeros((entries, vectors.shape[1]))
        pool[: len(distinct)] = distinct
        return _rounded(pool)

    centres = distinct[random.choice(len(distinct), entries, replace=False)]
    for _ in range(MAX_ITERATIONS):
        moved = _means(points, centres)
        moves = np.sqrt(((moved - centres) ** 2).sum(axis=1))
        centres = moved
        if moves.sum() ** 2 < tolerance:
            break
    return _rounded(centres)


def _means(
    points: npt.NDArray[np.float64], centres: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Centres after one iteration."""
    indices = match(points, centres, "cosine")
    entries = len(centres)
    counts = np.bincount(indices, minlength=entries)
    # Adds in the order of the points.
    sums = [np.bincount(indices, column, entries) for column in points.T]
    means = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        means[empty] = _least_similar(points, centres[indices], len(empty))
    return means


def _least_similar(
    points: npt.NDArray[np.float64], own: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.float64]:
    """Distinct points with the smallest cosine to their own centres, the first of equal ones.

    Cosines that are equal up to 2**-40 count as equal, so that rounding does not tell points on
    one ray apart.
    """
    products = (points * own).sum(axis=1)
    lengths = np.sqrt((points * points).sum(axis=1) * (own * own).sum(axis=1))
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    chosen: dict[tuple[float, ...], int] = {}
    for index in np.argsort(np.rint(np.ldexp(cosines, COSINE_BITS)), kind="stable").tolist():
        chosen.setdefault(tuple(points[index].tolist()), index)
        if len(chosen) == count:
            break
    return points[list(chosen.values())]


def _rounded(pool: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return pool.astype(np.float32).astype(np.float64)
