"""Matching and clustering of weight vectors against rational arithmetic."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from golden import weight_pool_kmeans
from golden.weight_pool_kmeans import check_match, cluster, cut, match

seeded = settings(derandomize=True, deadline=None, database=None, max_examples=60)

RULES = ["cosine", "l2"]


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def oracle_match(vectors, pool, rule):
    """First of the best entries; squares of cosines keep everything rational."""
    rows = [[Fraction(x) for x in row] for row in np.asarray(pool, float).tolist()]
    indices = []
    for vector in np.asarray(vectors, float).tolist():
        x = [Fraction(value) for value in vector]
        scores = []
        for row in rows:
            if rule == "l2":
                scores.append(-sum((a - b) ** 2 for a, b in zip(x, row, strict=True)))
                continue
            dot = sum(a * b for a, b in zip(x, row, strict=True))
            length = sum(b * b for b in row)
            scores.append(dot * abs(dot) / length if length else Fraction(0))
        indices.append(scores.index(max(scores)))
    return indices


@pytest.mark.parametrize("rule", RULES)
def test_match(rule):
    for group in (4, 8):
        vectors, pool = floats(700, group, seed=group), floats(9, group, seed=1)
        result = match(vectors, pool.astype(np.float64), rule)
        assert result.dtype == np.uint8
        assert result.tolist() == oracle_match(vectors, pool, rule)


@pytest.mark.parametrize("rule", RULES)
def test_match_of_exact_ties(rule):
    # Small integers: many vectors are equally near to several entries.
    random = np.random.default_rng(0)
    pool = random.integers(-1, 2, (40, 4)).astype(np.float64)
    vectors = random.integers(-2, 3, (400, 4)).astype(np.float32)
    expected = oracle_match(vectors, pool, rule)
    assert match(vectors, pool, rule).tolist() == expected
    assert match(vectors, pool / 3, rule).tolist() == oracle_match(vectors, pool / 3, rule)
    # Parallel entries tie for every vector, whatever rounding does to their directions.
    stretched = np.concatenate([pool[:7] * scale for scale in (1, 3, 7, 0.1, 11)])
    assert match(vectors, stretched, rule).tolist() == oracle_match(vectors, stretched, rule)


@pytest.mark.parametrize("rule", RULES)
def test_match_of_near_ties(rule):
    # Differences far below the rounding of binary64 products decide.
    tiny = 2.0**-60
    pool = np.array([[1.0, 0, 0, tiny], [1.0, 0, tiny, 0], [1.0, tiny, 0, 0], [1, tiny, 0, tiny]])
    vectors = np.array([[3.0, 0, 0, 1], [3.0, 0, 1, 0], [3.0, 1, 0, 0], [3, 1, 1, 0], [3, 0, 0, 0]])
    assert match(vectors, pool, rule).tolist() == oracle_match(vectors, pool, rule)
    assert match(vectors, pool, "cosine").tolist()[:4] == [0, 1, 2, 1]


@pytest.mark.parametrize("rule", RULES)
def test_match_of_rounded_ties(rule):
    # Vectors moved into the plane between two entries, as far as binary64 can tell.
    pool = floats(2, 8, seed=4).astype(np.float64)
    directions = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    normal, height = directions[0] - directions[1], 0.0
    if rule == "l2":
        normal, height = pool[0] - pool[1], float((pool[0] ** 2 - pool[1] ** 2).sum() / 2)
    vectors = floats(60, 8, seed=5).astype(np.float64)
    distance = (vectors @ normal - height) / (normal @ normal)
    between = vectors - distance[:, None] * normal
    expected = oracle_match(between, pool, rule)
    assert match(between, pool, rule).tolist() == expected
    assert 0 < sum(expected) < 60


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("exp", [-148, -140, -100, 100, 125])
def test_match_of_extreme_sizes(rule, exp):
    vectors, pool = floats(60, 4, seed=2), floats(5, 4, seed=3).astype(np.float64)
    scaled = np.ldexp(vectors, exp)
    for entries in (pool, np.ldexp(pool, exp), np.ldexp(pool, -exp)):
        assert match(scaled, entries, rule).tolist() == oracle_match(scaled, entries, rule)
    mixed = np.ldexp(vectors, np.arange(60)[:, None] * 4 - 120)
    assert match(mixed, pool, rule).tolist() == oracle_match(mixed, pool, rule)
    # Products with the first direction vanish, though it is the nearest.
    smallest = np.full((2, 4), 5e-324) * [[1], [-1]]
    entries = np.array([[1.0, 1, 1, 1], [1, 0.1, 0, 0], [-1, -1, -1, -1], [-1, 0, -0.1, 0]])
    assert match(smallest, entries, rule).tolist() == oracle_match(smallest, entries, rule)


def test_match_of_zeros():
    pool = np.array([[-1.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    vectors = np.array([[0.0, 0, 0, 0], [-0.0, 0, 0, 0], [1, 0, 0, 0], [1, -1, 0, 0]])
    # Cosines: all 0; all 0; -1, 0, 0, 0; -0.7, 0, 0, -0.7.
    assert match(vectors, pool, "cosine").tolist() == [0, 0, 1, 1]
    assert match(vectors, pool, "l2").tolist() == [1, 1, 1, 1]
    assert match(np.zeros((0, 4)), pool, "l2").shape == (0,)


@given(
    arrays.arrays(np.float32, (7, 4), elements=st.floats(-4, 4, width=16)),
    arrays.arrays(np.float64, (5, 4), elements=st.floats(-2, 2, width=16)),
    st.sampled_from(RULES),
)
@seeded
def test_match_property(vectors, pool, rule):
    assert match(vectors, pool, rule).tolist() == oracle_match(vectors, pool, rule)


def test_check_match():
    for rule in RULES:
        check_match(rule)
    with pytest.raises(ValueError, match="match must be cosine or l2, not 'dot'"):
        check_match("dot")


def test_cut():
    weights = np.arange(1.0, 13).reshape(2, 6)
    assert cut(weights, 4).tolist() == [
        [[1, 2, 3, 4], [5, 6, 0, 0]],
        [[7, 8, 9, 10], [11, 12, 0, 0]],
    ]
    assert np.shares_memory(cut(weights, 3), weights)
    assert cut(weights, 3).tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    assert cut(np.zeros((3, 0)), 8).shape == (3, 0, 8)
    assert cut(np.zeros((0, 9)), 8).shape == (0, 2, 8)


def oracle_cluster(vectors, entries, seed, tolerance):
    """spec/weight_pool.md, section 3, for integers; returns pool, iterations and re-seedings."""
    points = [tuple(row) for row in vectors.tolist() if any(row)]
    distinct = sorted(set(points))
    draws = np.random.default_rng(seed).choice(len(distinct), entries, replace=False)
    centres = [distinct[i] for i in draws]
    reseeded = iterations = 0
    while iterations < 100:
        iterations += 1
        indices = oracle_match(points, centres, "cosine")
        moved = []
        for entry in range(entries):
            members = [p for p, i in zip(points, indices, strict=True) if i == entry]
            if members:
                sums = [Fraction(sum(column)) for column in zip(*members, strict=True)]
                moved.append(tuple(float(total / len(members)) for total in sums))
            else:
                moved.append(None)
        # The smallest cosine first; equal ones are told apart by neither.
        similarity = []
        for point, index in zip(points, indices, strict=True):
            centre = [Fraction(x) for x in centres[index]]
            dot = sum(Fraction(a) * b for a, b in zip(point, centre, strict=True))
            lengths = sum(b * b for b in centre) * sum(Fraction(a) ** 2 for a in point)
            square = dot**2 / lengths if lengths else Fraction(0)
            similarity.append(round(math.copysign(math.sqrt(square), dot) * 2**40))
        order = sorted(range(len(points)), key=similarity.__getitem__)
        replacements = list(dict.fromkeys(points[i] for i in order))
        for entry in range(entries):
            if moved[entry] is None:
                moved[entry] = replacements.pop(0)
                reseeded += 1
        change = sum(
            sum((a - b) ** 2 for a, b in zip(old, new, strict=True)) ** 0.5
            for old, new in zip(centres, moved, strict=True)
        )
        centres = moved
        if change**2 < tolerance:
            break
    return np.array(centres, np.float32), iterations, reseeded


@pytest.mark.parametrize(
    ("entries", "count", "span", "tolerance"),
    [(5, 60, 9, 1e-4), (8, 80, 30, 1e-4), (3, 40, 3, 1e-4), (6, 70, 9, 25.0), (8, 80, 30, 400.0)],
)
def test_cluster(entries, count, span, tolerance):
    most = 0
    for seed in range(4):
        random = np.random.default_rng(seed)
        vectors = random.integers(-span, span + 1, (count, 4)).astype(np.float32)
        vectors[::9] = 0
        expected, iterations, _ = oracle_cluster(vectors, entries, seed, tolerance)
        pool = cluster(vectors, entries, seed=seed, tolerance=tolerance)
        assert pool.dtype == np.float64
        np.testing.assert_array_equal(pool, expected)
        most = max(most, iterations)
    assert most > 2


def test_cluster_with_empty_clusters():
    # More entries than directions: starts on one ray leave clusters empty.
    reseedings = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        directions = np.array([[1, 2, 0, 0], [3, 0, 1, -1], [0, -1, 5, 2], [0, 0, 0, 1]])
        vectors = directions[random.integers(0, 4, 40)] * random.integers(1, 4, (40, 1))
        expected, _, reseeded = oracle_cluster(vectors, 6, seed, 1e-4)
        np.testing.assert_array_equal(cluster(vectors.astype(float), 6, seed=seed), expected)
        reseedings.append(reseeded)
    assert min(reseedings) > 1


def test_cluster_continues_an_empty_cluster():
    # All starts are on one ray, and the only other vector is the least similar one.
    ray = [[float(i), 0, 0, 0] for i in range(1, 20)]
    vectors = np.array([*ray, [0, 1, 0, 0]])
    for seed in range(4):
        pool = cluster(vectors, 2, seed=seed)
        assert sorted(map(tuple, pool.tolist())) == [(0, 1, 0, 0), (10, 0, 0, 0)]


def test_empty_clusters_continue_at_distinct_vectors():
    # One ray: all belong to the first cluster, and the others start again and again.
    vectors = np.repeat([[1.0, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]], 5, axis=0)
    pool = cluster(vectors, 3)
    assert sorted(pool[:, 0].tolist()) == [1, 2, 2]


def test_cluster_stops_at_100_iterations(monkeypatch):
    calls = []
    means = weight_pool_kmeans._means

    def counted(points, centres):
        calls.append(0)
        return means(points, centres)

    monkeypatch.setattr(weight_pool_kmeans, "_means", counted)
    cluster(floats(400, 8), 9, tolerance=0.0)
    assert len(calls) == 100
    calls.clear()
    cluster(floats(400, 8), 9, tolerance=float("inf"))
    assert len(calls) == 1


def test_cluster_of_separate_bundles():
    directions = np.eye(8, dtype=np.float32)
    vectors = np.repeat(directions, 50, axis=0) * 3 + 0.1 * floats(400, 8)
    pool = cluster(vectors, 8, seed=5)
    means = vectors.reshape(8, 50, 8).mean(axis=1)
    if len(set(match(means, pool, "cosine").tolist())) == 8:
        np.testing.assert_allclose(np.sort(pool.max(axis=1)), np.sort(means.max(axis=1)), rtol=1e-5)
    nearest = pool[match(vectors, pool, "cosine")]
    assert np.mean((nearest - vectors) ** 2) < 0.7 * np.mean(vectors**2)


def test_cluster_of_few():
    vectors = np.array([[0, 0, 0, 0], [2.0, 1, 0, 0], [1, 5, 5, 5], [2, 1, 0, 0], [-0.0, 0, 0, 0]])
    pool = cluster(vectors, 3)
    assert pool.tolist() == [[1, 5, 5, 5], [2, 1, 0, 0], [0, 0, 0, 0]]
    assert cluster(vectors, 2).shape == (2, 4)
    assert cluster(np.zeros((5, 8), np.float32), 4).tolist() == [[0.0] * 8] * 4
    assert cluster(np.zeros((0, 8), np.float32), 4).tolist() == [[0.0] * 8] * 4
    one = cluster(np.array([[1.0, 2, 3, 4]]), 1)
    assert one.tolist() == [[1, 2, 3, 4]]
    # Zeros of either sign are the same vector.
    signs = np.array([[1.0, 0, 0, 0], [1.0, -0.0, 0, 0]])
    assert cluster(signs, 2).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_cluster_looks_at_a_sample():
    vectors = floats(3000, 8)
    vectors[1::2] = 0
    whole = cluster(vectors, 6, seed=1)
    np.testing.assert_array_equal(cluster(vectors, 6, seed=1, sample=1500), whole)
    # As many distinct vectors as entries: no iteration can add others.
    pool = cluster(vectors, 40, seed=1, sample=40, tolerance=float("inf"))
    rows = {tuple(row) for row in vectors.astype(float).tolist()}
    assert all(tuple(row) in rows for row in pool.tolist())
    assert len({tuple(row) for row in pool.tolist()}) == 40
    again = cluster(vectors, 40, seed=1, sample=40, tolerance=float("inf"))
    np.testing.assert_array_equal(again, pool)
    other = cluster(vectors, 40, seed=2, sample=40, tolerance=float("inf"))
    assert not np.array_equal(other, pool)


def test_cluster_is_seeded():
    vectors = floats(300, 8)
    np.testing.assert_array_equal(cluster(vectors, 6, seed=3), cluster(vectors, 6, seed=3))
    np.testing.assert_array_equal(
        cluster(vectors, 6, seed=3), cluster(np.asfortranarray(vectors), 6, seed=3)
    )
    assert not np.array_equal(cluster(vectors, 6, seed=3), cluster(vectors, 6, seed=4))


def test_memory():
    vectors = floats(200_000, 8)
    cluster(vectors[:100], 4)
    for run in (
        lambda: cluster(vectors, 16, tolerance=float("inf")),
        lambda: match(vectors, vectors[:64].astype(np.float64), "l2"),
    ):
        tracemalloc.start()
        result = run()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # With the vectors, at most three times what goes in and comes out; and blocks.
        assert peak + vectors.nbytes <= 3 * (vectors.nbytes + result.nbytes) + (1 << 21)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"entries": 0}, ValueError, "entries must be between 1 and 256, not 0"),
        ({"entries": 257}, ValueError, "entries must be between 1 and 256, not 257"),
        ({"entries": 2.0}, TypeError, r"entries must be an int, not 2\.0"),
        ({"seed": -1}, ValueError, "seed must be at least 0, not -1"),
        ({"sample": 0}, ValueError, "sample must be at least 1, not 0"),
        ({"tolerance": -1.0}, ValueError, r"tolerance must be at least 0, not -1\.0"),
        ({"tolerance": float("nan")}, ValueError, "tolerance must be at least 0, not nan"),
    ],
)
def test_cluster_refuses(parameters, error, message):
    with pytest.raises(error, match=message):
        cluster(floats(20, 8), **{"entries": 3, **parameters})
