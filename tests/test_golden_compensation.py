"""Compensation of quantisation errors against a slow reference in rationals, and its statistics."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.compensation import (
    MAX_GAP,
    MAX_LEVEL,
    Grouping,
    InputStatistics,
    assign,
    balance,
    balance_means,
    bracket,
    to_units,
)
from golden.elp_bsd import DIGIT_SETS, DigitSet
from golden.network import Conv, Linear
from tests.golden_oracle import load_vectors

seeded = settings(derandomize=True, deadline=None, database=None, max_examples=60)

UNIT = 4096
CLAMP = 1 << 23

#: The widest gaps and most levels that a digit set can have.
WIDE_SETS = [
    DigitSet(positions=((8,),)),
    DigitSet(positions=((8,), (8,), (8,))),
    DigitSet(positions=((0, 8),), zero_code=True),
    DigitSet(positions=(tuple(range(8)), tuple(range(1, 9)), tuple(range(8)))),
]
SETS = [*DIGIT_SETS.values(), *WIDE_SETS]
each_set = pytest.mark.parametrize("digits", SETS, ids=str)


def oracle_bracket(unit, levels):
    """Nearest level and alternative of a weight, spec/elp_bsd.md, section 3, steps 2 and 3."""
    x = Fraction(unit, UNIT)
    nearest = min(levels, key=lambda level: (abs(level - x), abs(level), level))
    above = [level for level in levels if level > x]
    below = [level for level in levels if level < x]
    if x in levels or not above or not below:
        return nearest, nearest
    (other,) = {min(above), max(below)} - {nearest}
    return nearest, other


def oracle_balance(units, levels):
    """Levels after compensation of one group, and its members in the order of their moves."""
    chosen, others = map(list, zip(*(oracle_bracket(unit, levels) for unit in units), strict=True))
    order = []
    while True:
        total = sum(q * UNIT - unit for q, unit in zip(chosen, units, strict=True))
        best = None
        for i, (q, other, unit) in enumerate(zip(chosen, others, units, strict=True)):
            step = (other - q) * UNIT
            gain = abs(total) - abs(total + step)
            if i in order or step == 0 or step * total >= 0 or gain <= 0:
                continue
            ratio = Fraction((other * UNIT - unit) ** 2 - (q * UNIT - unit) ** 2, gain)
            if best is None or ratio < best[0]:
                best = ratio, i
        if best is None:
            return chosen, order
        chosen[best[1]] = others[best[1]]
        order.append(best[1])


def check_balance(units, levels):
    """Compare a group with the oracle, and its errors with their definition."""
    state = balance(np.array(units, np.int32)[:, None], levels)
    expected, order = oracle_balance(units, levels)
    got = [levels[index] for index in state.indices[:, 0]]
    assert got == expected
    moves = state.order[:, 0].tolist()
    assert [moves.index(i) for i in range(max(moves, default=-1) + 1)] == order
    assert sum(move >= 0 for move in moves) == len(order)
    errors = [q * UNIT - unit for q, unit in zip(expected, units, strict=True)]
    assert state.errors[:, 0].tolist() == errors


def test_vectors():
    system = load_vectors("elp_bsd")
    levels = {entry["name"]: entry["levels"] for entry in system["formats"]}
    codes = {entry["name"]: entry["canonical_code"] for entry in system["formats"]}
    assert len(system["compensation"]) == 34
    for entry in system["compensation"]:
        own, own_codes = np.array(levels[entry["format"]]), np.array(codes[entry["format"]])
        units = np.array(entry["U"], np.int32)[:, None]
        nearest, alternative = bracket(units, own.tolist())
        assert own[nearest[:, 0]].tolist() == entry["nearest"]
        assert own[alternative[:, 0]].tolist() == entry["alternative"]
        assert (own[nearest] * UNIT - units).sum() == entry["S_before"]
        state = balance(units, own.tolist())
        assert own[state.indices[:, 0]].tolist() == entry["levels"]
        assert own_codes[state.indices[:, 0]].tolist() == entry["codes"]
        assert state.errors.sum() == entry["S_after"]
        moves = state.order[:, 0].tolist()
        assert [moves.index(i) for i in range(max(moves) + 1)] == entry["moved_in_order"]


def test_vectors_units():
    """U, level and alternative of single weights."""
    system = load_vectors("elp_bsd")
    levels = {entry["name"]: entry["levels"] for entry in system["formats"]}
    for entry in system["encode"]:
        own = np.array(levels[entry["format"]])
        weights = np.array([float(case[0]) for case in entry["cases"]])
        units = to_units(weights, entry["alpha"])
        assert units.tolist() == [case[1] for case in entry["cases"]]
        nearest, alternative = bracket(units, own.tolist())
        assert own[nearest].tolist() == [case[2] for case in entry["cases"]]
        assert own[alternative].tolist() == [case[3] for case in entry["cases"]]


@pytest.mark.parametrize("scale", [1.0, 0.07, 3e-27, 1.7e20])
def test_units(scale):
    """RNE of the exact quotient, also just beside midpoints between integers."""
    scale = np.float32(scale)
    rng = np.random.default_rng(1)
    whole = np.concatenate([np.arange(-40, 40), rng.integers(-CLAMP, CLAMP, 400)])
    with np.errstate(over="ignore"):
        middle = ((whole + 0.5) / UNIT * float(scale)).astype(np.float32)
    weights = np.concatenate(
        [middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(0))]
    )
    exact = [round(Fraction(float(w)) / Fraction(float(scale)) * UNIT) for w in weights]
    expected = [min(max(unit, -CLAMP), CLAMP) for unit in exact]
    assert to_units(weights, float(scale)).tolist() == expected


def test_units_of_special_weights():
    weights = np.array([np.nan, np.inf, -np.inf, -0.0, 1e300, -1e300, 1e-300, 5e-324])
    expected = [0, CLAMP, -CLAMP, 0, CLAMP, -CLAMP, 0, 0]
    assert to_units(weights, 1.0).tolist() == expected
    # A float64 is rounded to binary32 first: this one to 0.5, which is a tie.
    assert to_units(np.array([0.5 / UNIT * (1 + 2.0**-40)]), 1.0).tolist() == [0]
    assert to_units(np.array([], np.float16), 1.0).shape == (0,)
    assert to_units(np.ones((2, 3), np.float16)[:, ::2], 0.5).tolist() == [[8192, 8192]] * 2


@each_set
def test_bracket(digits):
    """Every level and midpoint with both neighbours, and the clamp."""
    levels = digits.levels
    points = [level * UNIT for level in levels]
    points += [(low + high) * UNIT // 2 for low, high in pairwise(levels)]
    points += [0, CLAMP, -CLAMP, 100, -100]
    units = sorted({min(max(p + d, -CLAMP), CLAMP) for p in points for d in (-1, 0, 1)})
    units = units[:: 1 + len(levels) // 50]
    nearest, alternative = bracket(np.array(units, np.int32), levels)
    got = [(levels[n], levels[a]) for n, a in zip(nearest, alternative, strict=True)]
    assert got == [oracle_bracket(unit, levels) for unit in units]


@given(
    digits=st.sampled_from(SETS),
    data=st.data(),
    size=st.integers(1, 20),
)
@seeded
def test_balance(digits, data, size):
    """Any group: near levels, anywhere, beyond the outermost and clamped."""
    outer = digits.levels[-1] * UNIT
    near = st.builds(
        lambda level, offset: level * UNIT + offset,
        st.sampled_from(digits.levels),
        st.integers(-UNIT, UNIT),
    )
    unit = near | st.integers(-outer, outer) | st.integers(-CLAMP, CLAMP)
    check_balance(data.draw(st.lists(unit, min_size=size, max_size=size)), digits.levels)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("E4-2", [0] * 9),
        ("E4-1", [0] * 9),
        ("E4-2", [5 * UNIT] * 9),
        ("E4-2", [5 * UNIT]),
        ("E4-2", [2000]),
        ("E4-2", [13 * UNIT] * 9),
        ("E4-2", [12 * UNIT, -CLAMP, 5 * UNIT]),
    ],
)
def test_balance_edges(name, units):
    check_balance(units, DIGIT_SETS[name].levels)


def test_balance_by_hand():
    """The edge cases that section 4 of the specification works out."""
    levels = np.array(DIGIT_SETS["E4-2"].levels)
    zeros = balance(np.zeros((9, 1), np.int32), levels.tolist())
    assert levels[zeros.indices[:, 0]].tolist() == [1] * 4 + [-1] * 5
    fives = balance(np.full((9, 1), 5 * UNIT, np.int32), levels.tolist())
    assert levels[fives.indices[:, 0]].tolist() == [6] * 4 + [4] * 5
    alone = balance(np.array([[5 * UNIT - 1, 5 * UNIT + 1, 0]], np.int32), levels.tolist())
    assert levels[alone.indices[0]].tolist() == [4, 6, -1]
    with_zero = balance(np.zeros((9, 3), np.int32), DIGIT_SETS["E5-2"].levels)
    assert (with_zero.order == -1).all()


def test_balance_worked_example():
    """The group that docs/elp_bsd.md compensates by hand."""
    levels = np.array(DIGIT_SETS["E4-2"].levels)
    units = to_units(np.array([[1.4], [1.4], [2.4], [-3.0]]), 1.0)
    state = balance(units, levels.tolist())
    assert levels[state.indices[:, 0]].tolist() == [2, 1, 2, -3]
    assert state.errors[:, 0] / UNIT == pytest.approx([0.6, -0.4, -0.4, 0], abs=1e-3)


def test_balance_nearly_equal_ratios():
    """Ratios that differ by 2 parts in 10**10, the larger one first."""
    levels = DIGIT_SETS["E4-1"].levels
    # Steps and errors of the first two, with S = -262141: the first would go beyond zero, at the
    # cost of 87380 * 262144 / 262138 for what it takes from S, the second at that of 87382.
    units = [64 * UNIT + 87382, 32 * UNIT + 21845, 128 * UNIT + 152914]
    assert Fraction(87380 * 262144, 262138) > 87382
    state = balance(np.array(units, np.int32)[:, None], levels)
    assert state.order[:, 0].tolist() == [-1, 0, -1]
    check_balance(units, levels)


@each_set
def test_balance_many_groups(digits):
    """Groups do not disturb each other; large groups of the widest gaps stay exact."""
    rng = np.random.default_rng(2)
    outer = digits.levels[-1] * UNIT
    units = rng.integers(-outer, outer, (16, 40)).astype(np.int32)
    units[:, 30:] = np.abs(units[:, 30:])
    units[:, 35:] = units[:1, 35:]
    units = units[:, :: 1 + len(digits.levels) // 50]
    state = balance(units, digits.levels)
    for column in range(units.shape[1]):
        expected, _ = oracle_balance(units[:, column].tolist(), digits.levels)
        assert [digits.levels[index] for index in state.indices[:, column]] == expected
    assert balance(units[:, :0], digits.levels).indices.shape == (16, 0)


def test_limits():
    """Every digit set respects the limits that the proof of exactness rests on."""
    for digits in SETS:
        assert max(map(abs, digits.levels)) <= MAX_LEVEL
        assert max(high - low for low, high in pairwise(digits.levels)) <= MAX_GAP


def kernel(filters, channels, height, width, groups=1):
    rng = np.random.default_rng(filters + 10 * channels)
    weight = rng.normal(size=(filters, channels, height, width)).astype(np.float32)
    return Conv(
        name="conv",
        inputs=("x",),
        weight=weight,
        bias=np.zeros(filters, np.float32),
        groups=groups,
    )


def linear(features, outputs):
    weight = np.random.default_rng(3).normal(size=(features, outputs)).astype(np.float32)
    bias = np.zeros(outputs, np.float32)
    return Linear(name="fc", inputs=("x",), weight=weight, bias=bias)


def test_groups_of_convolution():
    """A group is the kernel of one filter and one channel."""
    node = kernel(4, 6, 3, 2)
    (part,) = Grouping.of(node).parts(node.matrices())
    assert part.shape == (6, 1, 6, 4)
    for filters, channel in product(range(4), range(6)):
        np.testing.assert_array_equal(
            part[:, 0, channel, filters], node.weight[filters, channel].reshape(-1)
        )
    assert Grouping.of(node).blocks(36).tolist() == list(range(6)) * 6


def test_groups_of_depthwise():
    node = kernel(5, 1, 3, 3, groups=5)
    (part,) = Grouping.of(node).parts(node.matrices())
    assert part.shape == (9, 5, 1, 1)
    for channel in range(5):
        np.testing.assert_array_equal(part[:, channel, 0, 0], node.weight[channel, 0].reshape(-1))


@pytest.mark.parametrize("node", [linear(37, 3), kernel(3, 37, 1, 1)], ids=["linear", "1x1"])
def test_groups_of_runs(node):
    """Runs of 16 inputs, the last one shorter."""
    matrix = node.matrices()
    whole, rest = Grouping.of(node).parts(matrix)
    assert whole.shape == (16, 1, 2, 3)
    assert rest.shape == (5, 1, 1, 3)
    np.testing.assert_array_equal(whole[:, 0, 1, 2], matrix[0, 16:32, 2])
    np.testing.assert_array_equal(rest[:, 0, 0, 1], matrix[0, 32:, 1])
    assert Grouping.of(node).blocks(37).tolist() == [0] * 16 + [1] * 16 + [2] * 5


@pytest.mark.parametrize(("features", "sizes"), [(16, [16]), (15, [15]), (0, []), (48, [16])])
def test_groups_without_rest(features, sizes):
    parts = Grouping(window=1).parts(np.zeros((1, features, 2)))
    assert [part.shape[0] for part in parts] == sizes


def test_bad_grouping():
    with pytest.raises(TypeError, match=r"window must be an int, not 9\.0"):
        Grouping(window=9.0)
    with pytest.raises(ValueError, match="window must be at least 1, not 0"):
        Grouping(window=0)
    with pytest.raises(ValueError, match="k must be a multiple of 9, not 10"):
        Grouping(window=9).parts(np.zeros((1, 10, 1)))


LAYERS = [
    kernel(6, 5, 3, 3),
    kernel(40, 1, 3, 3, groups=40),
    kernel(4, 8, 1, 3, groups=2),
    kernel(3, 70, 1, 1),
    linear(37, 5),
    linear(1, 3),
    linear(3, 20000),
]


@pytest.mark.parametrize("compensated", [False, True])
@pytest.mark.parametrize("node", LAYERS, ids=lambda node: str(node.weight.shape))
def test_assign(node, compensated):
    """A whole layer, some of its groups against the oracle, and all its sums."""
    digits = DIGIT_SETS["E4-2"]
    levels, weights = np.array(digits.levels), node.matrices()
    units = to_units(weights, np.float32(0.25))
    grouping = Grouping.of(node)
    result = assign(units, digits.levels, grouping, compensated=compensated)
    blocks = grouping.blocks(units.shape[1])
    errors = levels[result.indices] * UNIT - units
    rng = np.random.default_rng(4)
    for _ in range(40):
        group, column = rng.integers(units.shape[0]), rng.integers(units.shape[2])
        block = rng.choice(blocks)
        members = np.flatnonzero(blocks == block)
        own = units[group, members, column].tolist()
        if compensated:
            expected, order = oracle_balance(own, digits.levels)
        else:
            expected, order = [oracle_bracket(unit, digits.levels)[0] for unit in own], []
        assert levels[result.indices[group, members, column]].tolist() == expected
        assert result.moved[group, members, column].sum() == len(order)
        assert result.sums[group, block, column] == errors[group, members, column].sum()
    assert result.sums.shape == (units.shape[0], blocks.max() + 1, units.shape[2])
    assert result.squares == sum(int(error) ** 2 for error in errors.reshape(-1))
    assert result.square_sums == sum(int(total) ** 2 for total in result.sums.reshape(-1))


def test_assign_sums_are_exact():
    """Sums of squares beyond 2**63: all weights at the clamp, in several blocks."""
    units = np.full((1, 9 * 3000, 2), -CLAMP, np.int32)
    levels = DIGIT_SETS["E3-1"].levels
    result = assign(units, levels, Grouping(window=9), compensated=True)
    error = CLAMP - 8 * UNIT
    assert result.squares == 54000 * error**2 > 1 << 61
    assert result.square_sums == 6000 * (9 * error) ** 2 > 1 << 63


def designed_inputs(size, mean, shared, own):
    """Every combination of signs: inputs mean + shared * z + own * z_i, uncorrelated exactly."""
    signs = np.array(list(product((-1, 1), repeat=size + 1)), np.float32)
    return mean + shared * signs[:, :1] + own * signs[:, 1:]


@pytest.mark.parametrize("node", [kernel(2, 1, 2, 2), linear(4, 2)], ids=["kernel", "run"])
def test_statistics_by_hand(node):
    inputs = designed_inputs(4, 0.5, 2.0, 1.0)
    statistics = InputStatistics.measure([inputs], Grouping.of(node))
    assert statistics.means.tolist() == [[0.5]]
    assert statistics.mean_square == pytest.approx(0.25, rel=1e-12)
    assert statistics.variance == pytest.approx(5, rel=1e-12)
    assert statistics.correlation == pytest.approx(0.8, rel=1e-12)


@pytest.mark.parametrize("node", LAYERS[:5], ids=lambda node: str(node.weight.shape))
def test_statistics_against_covariance(node):
    rng = np.random.default_rng(5)
    grouping = Grouping.of(node)
    groups, length, _ = node.matrices().shape
    shared = rng.normal(size=(groups, 300, 1))
    calibration = [
        (rng.normal(1, 0.5, (300, length)) + common).astype(np.float32) for common in shared
    ]
    blocks = grouping.blocks(length)
    variances, covariances, means = [], [], []
    for columns in calibration:
        matrix = np.cov(columns.astype(np.float64), rowvar=False, bias=True).reshape(length, -1)
        variances += np.diag(matrix).tolist()
        for i, j in product(range(length), repeat=2):
            if i != j and blocks[i] == blocks[j]:
                covariances.append(matrix[i, j])
        own = [columns[:, blocks == b].mean(dtype=np.float64) for b in range(blocks.max() + 1)]
        means.append(own)
    statistics = InputStatistics.measure(calibration, grouping)
    assert statistics.variance == pytest.approx(np.mean(variances), rel=1e-9)
    expected = np.mean(covariances) / np.mean(variances) if covariances else 0
    assert statistics.correlation == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(statistics.means, means, rtol=1e-12)
    squares = [np.array(own)[blocks] ** 2 for own in means]
    assert statistics.mean_square == pytest.approx(np.mean(squares), rel=1e-9)


def test_statistics_without_pairs_or_variance():
    single = InputStatistics.measure([np.ones((3, 1), np.float32)], Grouping(window=1))
    assert (single.variance, single.correlation, single.mean_square) == (0, 0, 1)
    constant = InputStatistics.measure([np.full((3, 9), 2, np.float32)], Grouping(window=9))
    assert (constant.variance, constant.correlation, constant.mean_square) == (0, 0, 4)
    with pytest.raises(ValueError, match="calibration must have at least one row, not 0"):
        InputStatistics.measure([np.ones((0, 9), np.float32)], Grouping(window=9))


@pytest.mark.parametrize("compensated", [False, True])
def test_score(compensated):
    """The score is the mean squared error of the output of inputs that fit its model."""
    node = kernel(3, 1, 2, 2)
    inputs = designed_inputs(4, 0.75, 1.5, 0.5)
    scale, digits = 0.25, DIGIT_SETS["E4-2"]
    statistics = InputStatistics.measure([inputs], Grouping.of(node))
    units = to_units(node.matrices(), scale)
    result = assign(units, digits.levels, Grouping.of(node), compensated=compensated)
    quantised = np.array(digits.levels)[result.indices[0]] * scale
    outputs = inputs.astype(np.float64) @ (quantised - units[0] * (scale / UNIT))
    assert result.score(statistics, scale) == pytest.approx((outputs**2).mean(axis=0).sum())
    np.testing.assert_allclose(
        result.mean_errors(statistics, scale)[0], outputs.mean(axis=0), rtol=1e-9
    )


def oracle_means(units, indices, moved, levels, means, blocks, limit):
    """Second pass over one column, in plain integers; changes ``indices`` and ``moved``."""
    while True:
        errors = [levels[q] * UNIT - unit for q, unit in zip(indices, units, strict=True)]
        sums = [0] * len(means)
        for error, block in zip(errors, blocks, strict=True):
            sums[block] += error
        total = sum(m * s for m, s in zip(means, sums, strict=True))
        best = None
        for i, unit in enumerate(units):
            nearest, other = oracle_bracket(unit, levels)
            step = (other - nearest) * UNIT
            change = means[blocks[i]] * step
            gain = abs(total) - abs(total + change)
            if moved[i] or gain <= 0 or change * total >= 0:
                continue
            if abs(sums[blocks[i]] + step) > limit:
                continue
            ratio = Fraction((errors[i] + step) ** 2 - errors[i] ** 2, gain)
            if best is None or ratio < best[0]:
                best = ratio, i, levels.index(other)
        if best is None:
            return
        _, i, index = best
        indices[i], moved[i] = index, True


@pytest.mark.parametrize("compensated", [False, True])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", ["E4-1", "E4-2", "E6-2"])
@pytest.mark.parametrize(
    "node", [kernel(8, 6, 3, 3), kernel(6, 4, 3, 3, groups=2), linear(37, 6)], ids=lambda n: n.name
)
def test_second_pass(node, name, negative, coarse, compensated):
    """Every output against the oracle; coarse weights have exact levels and ties among them."""
    digits, grouping = DIGIT_SETS[name], Grouping.of(node)
    levels, scale = digits.levels, np.float32(3 / digits.levels[-1])
    units = to_units(node.matrices(), scale)
    if coarse:
        units = (units + 341 & ~1023).astype(np.int32)
    groups, length, columns = units.shape
    blocks = grouping.blocks(length)
    rng = np.random.default_rng(6)
    means = rng.uniform(-1 if negative else 0, 1, (groups, blocks.max() + 1))
    if coarse:
        means = np.rint(4 * means) / 4
    statistics = InputStatistics(means=means, mean_square=1.0, variance=1.0, correlation=0.5)
    first = assign(units, levels, grouping, compensated=compensated)
    second = balance_means(first, statistics)

    largest = np.abs(means).max()
    limit = max(high - low for low, high in pairwise(levels)) * UNIT // 2
    moves = 0
    for group, column in product(range(groups), range(columns)):
        indices = first.indices[group, :, column].tolist()
        moved = first.moved[group, :, column].tolist()
        integers = [round(Fraction(float(m * (1024 / largest)))) for m in means[group]]
        own = units[group, :, column].tolist()
        oracle_means(own, indices, moved, levels, integers, blocks.tolist(), limit)
        assert second.indices[group, :, column].tolist() == indices
        assert second.moved[group, :, column].tolist() == moved
        moves += sum(moved) - int(first.moved[group, :, column].sum())
    errors = np.array(levels)[second.indices] * UNIT - units
    assert second.squares == int((errors.astype(np.int64) ** 2).sum())
    for group, block in product(range(groups), range(blocks.max() + 1)):
        np.testing.assert_array_equal(
            second.sums[group, block], errors[group, blocks == block].sum(axis=0)
        )
    before = np.abs(first.mean_errors(statistics, scale))
    after = np.abs(second.mean_errors(statistics, scale))
    assert after.mean() <= before.mean()
    if not coarse:
        assert moves > 0
        assert after.mean() < before.mean() * 0.75


def test_second_pass_without_means():
    node = kernel(3, 2, 3, 3)
    grouping, levels = Grouping.of(node), DIGIT_SETS["E4-2"].levels
    first = assign(to_units(node.matrices(), 0.25), levels, grouping, compensated=True)
    silent = InputStatistics(means=np.zeros((1, 2)), mean_square=0.0, variance=0.0, correlation=0.0)
    second = balance_means(first, silent)
    np.testing.assert_array_equal(second.indices, first.indices)


# spec/elp_bsd.md, section 4, synthetic check: largest level over sigma, share moved, mean |S| over
# sigma before and after, weight MSE ratio, and output SQNR in dB by shared part of the inputs.
SYNTHETIC = {
    "E4-1": (4.0, 0.21, 0.46, 0.08, 1.15, {0: (14.6, 15.3), 0.5: (14.6, 17.5), 0.9: (14.7, 22.9)}),
    "E4-2": (2.6, 0.11, 0.25, 0.06, 1.14, {0: (19.6, 20.4), 0.5: (19.6, 22.6), 0.9: (19.7, 27.9)}),
    "E6-2": (3.4, 0.12, 0.10, 0.02, 1.13, {0: (26.9, 28.3), 0.5: (26.9, 30.6), 0.9: (27.0, 35.9)}),
}


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_check(name):
    top, share, sum_before, sum_after, ratio, outputs = SYNTHETIC[name]
    rng = np.random.default_rng(7)
    filters, channels, samples = 32, 64, 1000
    weights = rng.normal(size=(1, 9 * channels, filters))
    levels = DIGIT_SETS[name].levels
    scale, grouping = float(np.float32(top / levels[-1])), Grouping(window=9)
    units = to_units(weights, scale)
    states = [assign(units, levels, grouping, compensated=moves) for moves in (False, True)]
    errors = [np.array(levels)[state.indices[0]] * scale - weights[0] for state in states]
    assert states[1].moved.mean() == pytest.approx(share, abs=0.015)
    for state, expected in zip(states, (sum_before, sum_after), strict=True):
        sums = np.abs(state.sums).mean() * scale / UNIT
        assert sums == pytest.approx(expected, abs=0.012)
    assert (errors[1] ** 2).mean() / (errors[0] ** 2).mean() == pytest.approx(ratio, abs=0.04)
    for shared, expected in outputs.items():
        common = rng.normal(size=(samples, 1, channels)) * np.sqrt(shared)
        inputs = common + rng.normal(size=(samples, 9, channels)) * np.sqrt(1 - shared)
        inputs = np.maximum(inputs, 0).reshape(samples, -1)
        signal = ((inputs @ weights[0]) ** 2).mean()
        sqnr = [10 * np.log10(signal / ((inputs @ error) ** 2).mean()) for error in errors]
        assert sqnr == pytest.approx(expected, abs=1)
