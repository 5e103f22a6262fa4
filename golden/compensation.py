"""Compensation of quantisation errors by moves to a neighbouring level, in the style of CoNLoCNN.

Inputs that a dot product reads together are correlated, so the errors of their weights should
cancel.  Of each group of such weights, some leave the nearest level for the other one that
brackets them, until the sum of errors is as close to zero as moves can bring it
(spec/elp_bsd.md, section 4: the idea is published, the algorithm chosen).

Everything is decided on integers.  A weight w with scale alpha is U = RNE(w / alpha * 2**12) units,
a level q is q * 2**12 units, and an error is E = q * 2**12 - U.  The module knows levels only, not
the codes that stand for them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from golden.network import Conv, Floats, MacNode
from golden.spec import check_int

__all__ = [
    "FRACTION_BITS",
    "MAX_GAP",
    "MAX_LEVEL",
    "Assignment",
    "Balance",
    "Grouping",
    "InputStatistics",
    "assign",
    "balance",
    "balance_means",
    "bracket",
    "to_units",
]

#: Base-2 logarithm of the units in a level of 1.
FRACTION_BITS = 12

#: Weights are clamped to this many units of either sign.
MAX_UNITS = 1 << 23

#: Levels are below the clamp, so that clamping changes no nearest level.
MAX_LEVEL = (MAX_UNITS >> FRACTION_BITS) - 1

#: Largest difference of neighbouring levels.  With it, ratios are compared exactly; see
#: :func:`_balanced` and :func:`_cheapest`.
MAX_GAP = 1 << 9

#: Low bits of a weight in units that do not matter: levels and midpoints have none of them set.
DROPPED = FRACTION_BITS - 2

#: Consecutive inputs in a group where there is no kernel.
RUN = 16

#: Significant bits of a mean input in the second pass (chosen).
MEAN_BITS = 10

#: Weights that are balanced at a time; the arrays for them stay in a second-level cache.
BLOCK = 1 << 15

Integers = npt.NDArray[np.integer[Any]]


def to_units(weights: npt.NDArray[np.floating[Any]], scale: float) -> npt.NDArray[np.int32]:
    """Weights in units: RNE(w / scale * 2**12), clamped to +-2**23 (section 3, step 1).

    Parameters
    ----------
    weights : ndarray of float16, float32 or float64
        Any shape; float64 is rounded to binary32 first.  NaN counts as 0.
    scale : float
        Value of the level 1, positive and exact in binary32.

    Returns
    -------
    ndarray of int32, of the shape of ``weights``
    """
    units = np.empty(weights.shape, np.int32)
    # A float64 that binary32 cannot hold becomes infinite and is clamped.
    with np.errstate(over="ignore"):
        numbers = weights.astype(np.float32, copy=False)
    # The quotient of two binary32 numbers, rounded to binary64, is a midpoint between integers
    # below 2**24 only if the exact quotient is: otherwise they differ by 2**-48 of their size.
    source, target = numbers.reshape(-1), units.reshape(-1)
    for start in range(0, source.size, BLOCK):
        quotients = source[start : start + BLOCK].astype(np.float64)
        quotients /= scale / (1 << FRACTION_BITS)
        np.rint(quotients, out=quotients)
        np.copyto(quotients, 0, where=np.isnan(quotients))
        np.clip(quotients, -MAX_UNITS, MAX_UNITS, out=quotients)
        target[start : start + BLOCK] = quotients
    return units


class _Bracket(NamedTuple):
    """What section 3 says of a weight, by its units without their low bits."""

    nearest: npt.NDArray[np.int16]  #: index of the nearest level
    alternative: npt.NDArray[np.int16]  #: index of the other level that brackets it, or the same
    units: npt.NDArray[np.float64]  #: nearest level in units
    steps: npt.NDArray[np.float64]  #: from the nearest level to the alternative, in units


@lru_cache(maxsize=16)
def _bracket_table(levels: tuple[int, ...]) -> _Bracket:
    values = np.array(levels, np.int64)
    # Twice the midpoints in levels are integers.  A tie goes to the smaller magnitude, and between
    # equal magnitudes down; so up only where both levels are at most zero.
    sums = values[:-1] + values[1:]
    last_down = (sums << FRACTION_BITS - 1) - (sums < 0)
    # An odd entry stands for all units between two multiples of half a level.
    narrowed = np.arange(-(MAX_UNITS >> DROPPED), (MAX_UNITS >> DROPPED) + 1)
    units = narrowed << DROPPED
    chosen = np.searchsorted(last_down, units, side="left")
    side = np.sign(units - (values[chosen] << FRACTION_BITS))
    other = np.clip(chosen + side, 0, len(values) - 1)
    return _Bracket(
        chosen.astype(np.int16),
        other.astype(np.int16),
        (values[chosen] << FRACTION_BITS).astype(np.float64),
        ((values[other] - values[chosen]) << FRACTION_BITS).astype(np.float64),
    )


def _narrowed(units: Integers) -> npt.NDArray[np.intp]:
    """Entry of the table of brackets for each weight in units."""
    # Multiples of half a level are even and keep their low bits zero; all others become odd.
    mask = (1 << DROPPED) - 1
    narrowed = (units & mask) + mask
    narrowed |= units
    narrowed >>= DROPPED
    narrowed += MAX_UNITS >> DROPPED
    return narrowed.astype(np.intp, copy=False)


def bracket(
    units: Integers, levels: Sequence[int]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Nearest level of each weight, and the level to which it may move (section 3).

    Parameters
    ----------
    units : ndarray of int32
        Weights as :func:`to_units` gives them, of any shape.
    levels : sequence of int
        Levels, ascending, below 2**11 in magnitude.

    Returns
    -------
    nearest : ndarray of int16, of the shape of ``units``
        Index of the nearest level.  A tie goes to the smaller magnitude, and between levels of
        equal magnitude to the negative one.
    alternative : ndarray of int16, of the shape of ``units``
        Index of the other level that brackets the weight; the same as ``nearest`` where the
        weight is a level or lies beyond the outermost one.
    """
    table = _bracket_table(tuple(levels))
    narrowed = _narrowed(units)
    return table.nearest.take(narrowed), table.alternative.take(narrowed)


class Balance(NamedTuple):
    """Groups of weights after their moves."""

    indices: npt.NDArray[np.int16]  #: index of the level of each weight, [members, count]
    order: npt.NDArray[np.int16]  #: which move of its group moved a weight, -1 for none
    errors: npt.NDArray[np.int64]  #: error of each weight in units, [members, count]


def balance(units: Integers, levels: Sequence[int]) -> Balance:
    """Move weights of each group until their sum of errors is smallest (section 4).

    Each weight moves at most once, and only to its alternative.  Of the moves that bring the sum
    closer to zero, the one comes next that adds least squared error for what it takes from the
    magnitude of the sum; of equal ones that of the first member.  Groups advance together.

    Parameters
    ----------
    units : ndarray of int32, [members, count]
        Weights as :func:`to_units` gives them, one column for each group.
    levels : sequence of int
        Levels, ascending; neighbours at most ``MAX_GAP`` apart.

    Returns
    -------
    Balance
    """
    table = _bracket_table(tuple(levels))
    narrowed = _narrowed(units)
    errors = table.units.take(narrowed) - units
    steps = table.steps.take(narrowed)
    order = _balanced(steps, _costs(errors, steps), errors.sum(axis=0))
    moved = order >= 0
    indices = np.where(moved, table.alternative.take(narrowed), table.nearest.take(narrowed))
    np.add(errors, steps, out=errors, where=moved)
    return Balance(indices, order, errors.astype(np.int64))


def _costs(
    errors: npt.NDArray[np.float64], steps: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Squared error that each move adds, divided by 2**12.

    (E + step)**2 - E**2 is step * (step + 2 * E), of which the first factor is a multiple of 2**12.
    No cost is negative, because a step ends at least as far from the weight as it starts.
    """
    return (2 * errors + steps) * (steps / (1 << FRACTION_BITS))


def _balanced(
    steps: npt.NDArray[np.float64], costs: npt.NDArray[np.float64], sums: npt.NDArray[np.float64]
) -> npt.NDArray[np.int16]:
    """Order in which the members of each column move, -1 for those that stay.

    All numbers are integers below 2**53, of which binary64 holds every sum.  Ratios of cost to gain
    are rounded, and still compare as if they were exact: with a gap of at most 2**9 between levels,
    a cost is at most 2**30 and a gain at most 2**21.  By cross-multiplication, ratios that differ
    do so by 2**-51 of their size or more, and rounding moves each by at most 2**-53 of it.
    """
    order = np.full(steps.shape, -1, np.int16)
    active = np.arange(steps.shape[1])
    for move in range(len(steps)):
        # How far each step goes towards zero, and by how much it shortens the sum: a step that
        # ends beyond zero leaves its excess.
        reach = steps * -np.sign(sums)
        gains = np.minimum(reach, 2 * np.abs(sums) - reach)
        # Moves without a gain get infinity, or NaN if they do not cost anything either.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = costs / np.maximum(gains, 0, out=gains)
        least = np.fmin.reduce(ratios, axis=0)
        found = np.flatnonzero(least < np.inf)
        if not found.size:
            break
        active = active[found]
        # The first of equals.
        member = (ratios.take(found, axis=1) == least[found]).argmax(axis=0)
        steps, costs = steps.take(found, axis=1), costs.take(found, axis=1)
        column = np.arange(found.size)
        order[member, active] = move
        sums = sums[found] + steps[member, column]
        steps[member, column] = 0  # moves no more
    return order


def _cheapest(
    costs: npt.NDArray[np.int64], gains: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Member with the least ratio of cost to gain in each column, the first of equals; its gain.

    A gain of 0 marks members that must not be chosen; the result has it if there are no others.
    Ratios are compared by cross-multiplication.  A cost is at most 2**30 as in :func:`_balanced`,
    a gain at most 2**21 times the 2**10 of a mean: products are below 2**62.
    """
    ratios = np.where(gains > 0, costs, 1)  # with a gain of 0: infinite
    members = np.broadcast_to(np.arange(len(gains))[:, None], gains.shape).copy()
    gains = gains.copy()
    # Each round leaves the better of every two neighbours in the first one's place.
    while len(gains) > 1:
        pairs, rest = slice(0, -1, 2), slice(1, None, 2)
        better = ratios[rest] * gains[pairs] < ratios[pairs] * gains[rest]
        for array in (ratios, gains, members):
            np.copyto(array[pairs], array[rest], where=better)
        ratios, gains, members = ratios[::2], gains[::2], members[::2]
    return members[0], gains[0]


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which weights of a layer are compensated together (section 4).

    Parameters
    ----------
    window : int
        Weights of a kernel.  Above 1, a group is the kernel of one filter and input channel; with
        1, it is 16 consecutive inputs of one filter or output, and the last group is shorter.

    Raises
    ------
    TypeError, ValueError
        If ``window`` is not a positive int.
    """

    window: int

    def __post_init__(self) -> None:
        check_int("window", self.window, 1, None)

    @classmethod
    def of(cls, node: MacNode) -> Self:
        """Make the grouping of a layer."""
        return cls(window=node.kernel[0] * node.kernel[1] if isinstance(node, Conv) else 1)

    def parts(self, matrices: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Divide arrays [matrix, k, column] into views [members, matrix, block, column].

        k is ordered as in :meth:`golden.network.MacNode.matrices`: kernel position, then channel.
        A group is what has the same matrix, block and column.

        Raises
        ------
        ValueError
            If k is not a multiple of the window.
        """
        count, length, columns = matrices.shape
        if self.window > 1:
            if length % self.window:
                raise ValueError(f"k must be a multiple of {self.window}, not {length}")
            kernels = matrices.reshape(count, self.window, -1, columns)
            return [kernels.transpose(1, 0, 2, 3)]
        whole = length - length % RUN
        views = [
            matrices[:, :whole].reshape(count, -1, RUN, columns),
            matrices[:, whole:].reshape(count, 1, -1, columns),
        ]
        return [view.transpose(2, 0, 1, 3) for view in views if view.shape[1] and view.shape[2]]

    def blocks(self, length: int) -> npt.NDArray[np.intp]:
        """Block of each k, counted through all parts; [length]."""
        indices = np.arange(length)
        return indices % (length // self.window) if self.window > 1 else indices // RUN


@dataclass(frozen=True, kw_only=True, eq=False)
class InputStatistics:
    """What compensation has to know about the inputs of a layer.

    Parameters
    ----------
    means : ndarray of float64, [groups, blocks]
        Mean input of each block of inputs that are grouped together.
    mean_square : float
        Square of these means, averaged over the inputs.
    variance : float
        Variance of an input, averaged over the inputs.
    correlation : float
        Covariance of two inputs of one block, averaged over such pairs, over the variance; 0 if
        there are no pairs or nothing varies.
    """

    means: npt.NDArray[np.float64]
    mean_square: float
    variance: float
    correlation: float

    @classmethod
    def measure(cls, calibration: Sequence[Floats], grouping: Grouping) -> Self:
        """Statistics of the inputs of a layer.

        Parameters
        ----------
        calibration : sequence of ndarray of float32, [rows, k], one for each matrix of the layer
            Inputs of the float network.
        grouping : Grouping
            Which of them are read together.

        Raises
        ------
        ValueError
            If there are no rows.
        """
        means, mean_squares, variances, covariances = [], [], [], []
        pairs = 0
        for columns in calibration:
            if not len(columns):
                raise ValueError("calibration must have at least one row, not 0")
            mean = columns.mean(axis=0, dtype=np.float64)
            squares = np.einsum("rk,rk->k", columns, columns, dtype=np.float64)
            variance = np.maximum(squares / len(columns) - mean**2, 0)
            variances.append(variance)
            block_means = []
            # Inputs take the place of weights here: rows are the matrices, of one column each.
            for part, own in zip(
                grouping.parts(columns[:, :, None]),
                grouping.parts(variance[None, :, None]),
                strict=True,
            ):
                size, _, blocks, _ = part.shape
                sums = part.sum(axis=0, dtype=np.float64)[..., 0]
                block_mean = sums.mean(axis=0) / size
                block_means.append(block_mean)
                mean_squares.append(np.repeat(block_mean**2, size))
                # The variance of a sum has every variance once and every covariance twice.
                covariances.append(sums.var(axis=0) - own.sum(axis=0)[0, :, 0])
                pairs += blocks * size * (size - 1)
            means.append(np.concatenate(block_means))
        variance = float(np.mean(np.concatenate(variances)))
        covariance = float(np.concatenate(covariances).sum()) / pairs if pairs else 0.0
        return cls(
            means=np.array(means),
            mean_square=float(np.mean(np.concatenate(mean_squares))),
            variance=variance,
            correlation=covariance / variance if variance else 0.0,
        )

    @property
    def alone(self) -> float:
        """Factor of the squared errors: the variance that each input has for itself."""
        return self.variance * (1 - self.correlation)

    @property
    def together(self) -> float:
        """Factor of the squared sum of errors: what the inputs of a group have in common."""
        return self.variance * self.correlation + self.mean_square

    def score(self, squares: int, square_sums: int, scale: float) -> float:
        """J of section 4 times the variance: expected squared error of all outputs of a pixel.

        Parameters
        ----------
        squares : int
            Sum of the squared errors of the weights, in squared units.
        square_sums : int
            Sum over the groups of the squared sum of errors.
        scale : float
            Value of the level 1.
        """
        unit = scale / (1 << FRACTION_BITS)
        return (self.alone * squares + self.together * square_sums) * unit**2


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignment:
    """Levels of all weights of a layer.

    Parameters
    ----------
    grouping : Grouping
        Which weights belong together.
    levels : tuple of int
        Levels, ascending.
    units : ndarray of int32, [groups, k, n]
        The weights in units.
    indices : ndarray of int16, [groups, k, n]
        Index of the level of each weight.
    moved : ndarray of bool, [groups, k, n]
        Whether it is the alternative instead of the nearest.
    sums : ndarray of int64, [groups, blocks, n]
        Sum of errors S of each group in units.
    squares : int
        Sum of the squared errors in squared units, exact.
    """

    grouping: Grouping
    levels: tuple[int, ...]
    units: npt.NDArray[np.int32]
    indices: npt.NDArray[np.int16]
    moved: npt.NDArray[np.bool_]
    sums: npt.NDArray[np.int64]
    squares: int

    @property
    def square_sums(self) -> int:
        """Sum over the groups of S**2, exact."""
        return _sum_of_squares(self.sums)

    def score(self, statistics: InputStatistics, scale: float) -> float:
        """Compute the expected squared error of the outputs; see :class:`InputStatistics`."""
        return statistics.score(self.squares, self.square_sums, scale)

    def mean_errors(self, statistics: InputStatistics, scale: float) -> npt.NDArray[np.float64]:
        """Error of the mean of each output, which a bias can take away; [groups, n].

        alpha * sum over c of mu_c * S_c / 2**12, in real units.
        """
        sums = np.einsum("gb,gbn->gn", statistics.means, self.sums)
        return sums * (scale / (1 << FRACTION_BITS))


def _sum_of_squares(integers: npt.NDArray[np.int64]) -> int:
    """Sum of squares of integers below 2**46 in magnitude, exact."""
    # Halves of 23 bits and a sum over few numbers keep each total below 2**63.
    total = 0
    flat = integers.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        low = flat[start : start + BLOCK] & (1 << 23) - 1
        high = flat[start : start + BLOCK] >> 23
        total += int(low @ low) + (int(low @ high) << 24) + (int(high @ high) << 46)
    return total


def assign(
    units: npt.NDArray[np.int32],
    levels: Sequence[int],
    grouping: Grouping,
    *,
    compensated: bool,
) -> Assignment:
    """Choose the level of every weight of a layer.

    Parameters
    ----------
    units : ndarray of int32, [groups, k, n]
        The weights as :func:`to_units` gives them.
    levels : sequence of int
        Levels, ascending; neighbours at most ``MAX_GAP`` apart.
    grouping : Grouping
        Which weights belong together.
    compensated : bool
        Whether weights move as :func:`balance` has it, or stay at the nearest level.

    Raises
    ------
    ValueError
        If the grouping does not fit k.
    """
    choose = balance if compensated else _at_nearest
    indices = np.empty(units.shape, np.int16)
    moved = np.zeros(units.shape, bool)
    sums, squares = [], 0
    for source, index, flags in zip(
        grouping.parts(units), grouping.parts(indices), grouping.parts(moved), strict=True
    ):
        part_sums = np.empty(source.shape[1:], np.int64)
        for at in _slices(source.shape):
            members, *places = source[:, *at].shape
            state = choose(source[:, *at].reshape(members, -1), levels)
            index[:, *at] = state.indices.reshape(members, *places)
            flags[:, *at] = state.order.reshape(members, *places) >= 0
            part_sums[at] = state.errors.sum(axis=0).reshape(places)
            squares += _sum_of_squares(state.errors)
        sums.append(part_sums)
    return Assignment(
        grouping=grouping,
        levels=tuple(levels),
        units=units,
        indices=indices,
        moved=moved,
        sums=np.concatenate(sums, axis=1),
        squares=squares,
    )


def _at_nearest(units: Integers, levels: Sequence[int]) -> Balance:
    table = _bracket_table(tuple(levels))
    narrowed = _narrowed(units)
    errors = (table.units.take(narrowed) - units).astype(np.int64)
    return Balance(table.nearest.take(narrowed), np.full(units.shape, -1, np.int16), errors)


def _slices(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Cut the groups [members, matrix, block, column] of a part into pieces of about ``BLOCK``."""
    members, matrices, blocks, columns = shape
    high = max(1, BLOCK // (members * max(1, columns)))
    wide = max(1, high // max(1, blocks))
    for matrix in range(0, matrices, wide):
        for block in range(0, blocks, high):
            yield slice(matrix, matrix + wide), slice(block, block + high)


def balance_means(assignment: Assignment, statistics: InputStatistics) -> Assignment:
    """Second pass: bring the mean error of each output closer to zero (section 4, optional).

    Of each output, weights that have not moved yet do so as in :func:`balance`, but for the sum
    over its groups of m * S, m the mean input of the group as an integer of 10 bits (chosen), and
    only where the S of the group then is at most half of the largest gap between levels.  Of equal
    ratios, the first k goes first.

    Parameters
    ----------
    assignment : Assignment
        Result of :func:`assign`.
    statistics : InputStatistics
        Means of the inputs of the layer.

    Returns
    -------
    Assignment
    """
    levels = assignment.levels
    table = _bracket_table(levels)
    limit = max(high - low for low, high in pairwise(levels)) << FRACTION_BITS - 1
    largest = np.abs(statistics.means).max()
    means = np.zeros(statistics.means.shape, np.int64)
    if largest:
        means = np.rint(statistics.means * ((1 << MEAN_BITS) / largest)).astype(np.int64)
    blocks = assignment.grouping.blocks(assignment.units.shape[1])
    indices, moved = assignment.indices.copy(), assignment.moved.copy()
    sums = assignment.sums.copy()
    added = 0
    for group, units in enumerate(assignment.units):
        narrowed = _narrowed(units)
        float_steps = table.steps.take(narrowed)
        costs = _costs(table.units.take(narrowed) - units, float_steps).astype(np.int64)
        steps = float_steps.astype(np.int64)
        steps[moved[group]] = 0
        for k, column in _mean_moves(steps, costs, sums[group], means[group], blocks, limit):
            moved[group, k, column] = True
            indices[group, k, column] = table.alternative[narrowed[k, column]]
            added += int(costs[k, column].sum()) << FRACTION_BITS
    return replace(
        assignment,
        indices=indices,
        moved=moved,
        sums=sums,
        squares=assignment.squares + added,
    )


def _mean_moves(
    steps: npt.NDArray[np.int64],
    costs: npt.NDArray[np.int64],
    sums: npt.NDArray[np.int64],
    means: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.intp],
    limit: int,
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Make the moves of one matrix [k, n]; ``sums`` [blocks, n] follow.

    Yields the k and the column of the moves that are made together, at most one in each column.
    """
    steps = steps.copy()
    factors = means[blocks][:, None]
    totals = means @ sums
    active = np.arange(steps.shape[1])
    while active.size:
        reach = factors * steps * -np.sign(totals)
        gains = np.minimum(reach, 2 * np.abs(totals) - reach)
        gains[np.abs(sums[:, active][blocks] + steps) > limit] = 0
        k, gain = _cheapest(costs, np.maximum(gains, 0, out=gains))
        found = np.flatnonzero(gain)
        active, k = active[found], k[found]
        steps, costs, totals = steps[:, found], costs[:, found], totals[found]
        column = np.arange(found.size)
        taken = steps[k, column]
        totals += factors[k, 0] * taken
        sums[blocks[k], active] += taken
        steps[k, column] = 0
        yield k, active
