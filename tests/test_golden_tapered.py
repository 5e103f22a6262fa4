"""Tapered fixed point against exact rationals, the tables of its specification and its vectors."""

from fractions import Fraction

import numpy as np
import pytest

from golden.dot import accumulator_exp, dot
from golden.formats import parse
from golden.tapered import (
    TaperedFormat,
    TaperedSpec,
    eq5_quire_bits,
    paper_parameters,
    universal_quire_bits,
)
from tests.golden_oracle import Rounder, load_vectors, tapered_values

EVERY_SMALL = [(bits, max_run) for bits in range(2, 9) for max_run in range(1, bits + 1)]
WIDE = [(bits, max_run) for bits in (9, 12, 16) for max_run in (1, 2, 3, bits - 1, bits)]

# spec/tapered.md, section 1: values of codes 0 .. 2**bits - 1.
PUBLISHED_TABLES = {
    (3, 1): [0, 0.25, 0.5, 0.75, -1, -0.75, -0.5, -0.25],
    (3, 2): [0, 0.5, 1, 1.5, -2, -1.5, -1, -0.5],
    (3, 3): [0, 0.5, 1, 2, -3, -2, -1, -0.5],
}
# The same for codes 0 .. 2**(bits - 1) - 1, and the code after them.
EIGHTHS = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
HALF_TABLES = {
    (4, 1): [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, -1],
    (4, 2): [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, -2],
    (4, 3): [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, -3],
    (4, 4): [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, -4],
    (5, 3): [*EIGHTHS, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, -3],
    (5, 4): [*EIGHTHS, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, -4],
    (5, 5): [*EIGHTHS, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, -5],
}


def spec_of(entry, suffix=""):
    return TaperedSpec(
        bits=entry["n"], max_run=entry["IS" + suffix], scale_exp=entry.get("SC" + suffix, 0)
    )


def all_codes(spec):
    return np.arange(1 << spec.bits)


@pytest.mark.parametrize(("bits", "max_run"), PUBLISHED_TABLES)
def test_published_table(bits, max_run):
    spec = TaperedSpec(bits=bits, max_run=max_run)
    np.testing.assert_array_equal(spec.decode(all_codes(spec)), PUBLISHED_TABLES[bits, max_run])


@pytest.mark.parametrize(("bits", "max_run"), HALF_TABLES)
def test_published_half_table(bits, max_run):
    spec = TaperedSpec(bits=bits, max_run=max_run)
    values = spec.decode(all_codes(spec))
    half = 1 << bits - 1
    np.testing.assert_array_equal(values[: half + 1], HALF_TABLES[bits, max_run])
    np.testing.assert_array_equal(values[half + 1 :], -values[1:half][::-1])


@pytest.mark.parametrize(
    ("bits", "max_run", "code", "value"),
    [
        (8, 8, 0x77, 3.875),  # published, Fig. 2
        (8, 8, 0x89, -3.875),
        (8, 8, 0x7F, 7),
        (8, 8, 0x80, -8),
        (8, 8, 0x81, -7),
        (8, 8, 0x01, 0.015625),
        (8, 8, 0xFF, -0.015625),
        (8, 3, 0x5A, 1.8125),
        (8, 3, 0xA6, -1.8125),
        (8, 4, 0x7F, 3.9375),
        (8, 4, 0x80, -4),
        (7, 3, 0x2B, 1.6875),
        (6, 4, 0x31, -0.9375),
    ],
)
def test_published_codes(bits, max_run, code, value):
    spec = TaperedSpec(bits=bits, max_run=max_run)
    assert spec.decode(code) == value
    assert spec.encode(float(value)) == code
    assert spec.operands(code) == value * (1 << bits - 1)


@pytest.mark.parametrize("scale_exp", [-4, -1, 0, 3])
@pytest.mark.parametrize(("bits", "max_run"), EVERY_SMALL)
def test_every_code(bits, max_run, scale_exp):
    """Decode against the bit-string definition; encode is its inverse."""
    spec = TaperedSpec(bits=bits, max_run=max_run, scale_exp=scale_exp)
    codes = all_codes(spec)
    exact = tapered_values(bits, max_run, scale_exp)
    values = spec.decode(codes)
    assert values.dtype == np.float32
    assert [Fraction(float(value)) for value in values] == list(exact)
    operands = spec.operands(codes)
    unit = Fraction(2) ** spec.operand_exp
    assert [int(operand) * unit for operand in operands] == list(exact)
    low, high = -(1 << spec.operand_bits - 1), (1 << spec.operand_bits - 1) - 1
    assert low <= operands.min()
    assert operands.max() <= high
    for dtype in (np.float32, np.float64):
        encoded = spec.encode(values.astype(dtype))
        assert encoded.dtype == np.uint8
        np.testing.assert_array_equal(encoded, codes)


@pytest.mark.parametrize(("bits", "max_run"), WIDE)
def test_wide_codes(bits, max_run):
    """The same above 8 bits, where codes are uint16."""
    spec = TaperedSpec(bits=bits, max_run=max_run)
    codes = all_codes(spec)
    values = spec.decode(codes)
    unit = 1 << bits - 1
    exact = tapered_values(bits, max_run)
    assert spec.operands(codes).tolist() == [value * unit for value in exact]
    np.testing.assert_array_equal(values, np.array([float(value) for value in exact], np.float32))
    encoded = spec.encode(values)
    assert encoded.dtype == np.uint16
    np.testing.assert_array_equal(encoded, codes)


@pytest.mark.parametrize(("bits", "max_run"), EVERY_SMALL)
def test_order_zero_negation_and_extremes(bits, max_run):
    """The properties of the table in spec/tapered.md, section 1."""
    spec = TaperedSpec(bits=bits, max_run=max_run)
    half = 1 << bits - 1
    values = spec.decode(all_codes(spec)).astype(float)
    as_signed = np.concatenate([values[half:], values[:half]])
    assert np.all(np.diff(as_signed) > 0)
    assert np.flatnonzero(values == 0).tolist() == [0]
    for code in range(1, 2 * half):
        if code != half:
            assert values[2 * half - code] == -values[code]
    assert values[half] == -max_run
    assert values[half - 1] == max_run - 2.0 ** -(bits - max_run)
    assert values[1] == 2.0 ** -(bits - 1 if max_run == 1 else bits - 2)


@pytest.mark.parametrize("bits", range(2, 9))
def test_short_runs_are_fixed_point(bits):
    """IS = 1 and IS = 2 are two's complement; IS = 1 is IS = 2 with the scale one less."""
    signed = np.concatenate([np.arange(1 << bits - 1), np.arange(-(1 << bits - 1), 0)])
    codes = np.arange(1 << bits)
    one, two = (TaperedSpec(bits=bits, max_run=max_run) for max_run in (1, 2))
    np.testing.assert_array_equal(one.decode(codes), signed / (1 << bits - 1))
    np.testing.assert_array_equal(two.decode(codes), signed / (1 << bits - 2))
    for scale_exp in range(-3, 4):
        np.testing.assert_array_equal(
            TaperedSpec(bits=bits, max_run=1, scale_exp=scale_exp).decode(codes),
            TaperedSpec(bits=bits, max_run=2, scale_exp=scale_exp - 1).decode(codes),
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("bits", "max_run"), EVERY_SMALL)
def test_encode_around_every_midpoint(bits, max_run, dtype):
    spec = TaperedSpec(bits=bits, max_run=max_run)
    nearest = Rounder(tapered_values(bits, max_run))
    points = nearest.points(dtype)
    expected = [nearest(float(point)) for point in points]
    np.testing.assert_array_equal(spec.encode(points), expected)


@pytest.mark.parametrize("scale_exp", [-4, -3, 3])
@pytest.mark.parametrize(("bits", "max_run"), [(3, 3), (5, 4), (8, 1), (8, 4), (8, 8)])
def test_encode_with_scale(bits, max_run, scale_exp):
    spec = TaperedSpec(bits=bits, max_run=max_run, scale_exp=scale_exp)
    nearest = Rounder(tapered_values(bits, max_run, scale_exp))
    for dtype in (np.float32, np.float64):
        points = nearest.points(dtype)
        np.testing.assert_array_equal(spec.encode(points), [nearest(float(p)) for p in points])


@pytest.mark.parametrize(("bits", "max_run"), WIDE)
def test_encode_wide(bits, max_run):
    """Up to 16 bits: every table size, and the search where there is no table."""
    spec = TaperedSpec(bits=bits, max_run=max_run)
    nearest = Rounder(tapered_values(bits, max_run))
    rng = np.random.default_rng(bits)
    for dtype in (np.float32, np.float64):
        points = rng.choice(nearest.points(dtype), 2000)
        np.testing.assert_array_equal(spec.encode(points), [nearest(float(p)) for p in points])


@pytest.mark.parametrize(
    ("largest", "bits", "weights", "activations"),
    [
        # Worked out by hand from Algorithm 1: (IS, SC) of weights, IS of activations.
        (0.0, 8, (1, 0), 1),
        (0.05, 8, (1, -3), 1),  # -4 without the limit
        (0.0625, 8, (1, -3), 1),
        (0.1, 8, (1, -3), 1),
        (0.2, 8, (1, -2), 1),
        (0.25, 8, (1, -1), 1),
        (0.3, 8, (1, -1), 1),
        (0.499, 8, (1, -1), 1),
        (0.5, 8, (1, 0), 1),
        (0.99999, 8, (1, 0), 1),
        (1.0, 8, (2, 0), 2),
        (2.12, 8, (3, 0), 3),
        (7.999, 8, (8, 0), 8),
        (10.21, 8, (8, 0), 8),
        (10.21, 5, (5, 0), 5),
        (3e38, 3, (3, 0), 3),
        (1e-45, 3, (1, -3), 1),
    ],
)
def test_paper_rule(largest, bits, weights, activations):
    assert paper_parameters(bits, largest, "weights") == weights
    assert paper_parameters(bits, largest, "activations") == (activations, 0)
    tensor = np.array([[0.0, -largest], [largest / 2, 0.0]])
    fmt = TaperedFormat(bits=bits)
    spec = fmt.fit(tensor, method="paper")
    assert (spec.max_run, spec.scale_exp) == weights
    assert fmt.fit(tensor, "activations", "paper") == TaperedSpec(bits=bits, max_run=activations)
    assert fmt.fit(-tensor, method="paper") == spec


def test_fit_of_nothing_and_zeros():
    for tensor in (np.zeros((0, 3), np.float32), np.zeros(5), np.float32(0)):
        for method in ("sweep", "paper"):
            spec = TaperedFormat(bits=8).fit(tensor, method=method)
            assert spec == TaperedSpec(bits=8, max_run=1, scale_exp=0)


def brute_force(tensor, specs):
    """Index of the first spec with the least mean squared error, by its definition."""
    errors = [np.mean((tensor - spec.quantise(tensor).astype(float)) ** 2) for spec in specs]
    return int(np.argmin(errors))


@pytest.mark.parametrize("bits", [3, 5, 8])
@pytest.mark.parametrize("shape", ["normal", "laplace", "uniform"])
def test_sweep_is_brute_force(bits, shape):
    rng = np.random.default_rng(bits)
    for spread in (0.01, 0.2, 0.7, 3.0):
        tensor = (spread * getattr(rng, shape)(size=(30, 20))).astype(np.float32)
        weights = [
            TaperedSpec(bits=bits, max_run=max_run, scale_exp=scale_exp)
            for max_run in range(1, bits + 1)
            for scale_exp in (0, -1, -2, -3)
        ]
        fmt = TaperedFormat(bits=bits)
        assert fmt.fit(tensor) == weights[brute_force(tensor, weights)]
        activations = [TaperedSpec(bits=bits, max_run=max_run) for max_run in range(1, bits + 1)]
        best = activations[brute_force(tensor, activations)]
        assert fmt.fit(tensor, role="activations") == best


def test_sweep_takes_first_of_equal_candidates():
    """0.5 is exact in every format up to IS = 3, so IS = 1 and SC = 0 must win."""
    assert TaperedFormat(bits=8).fit(np.float32([0.5])) == TaperedSpec(bits=8, max_run=1)
    # (1, -1) and (2, -2) are the same codes; so are (1, 0) and (2, -1).
    assert TaperedFormat(bits=4).fit(np.float32([0.0625])).max_run == 1


@pytest.mark.parametrize(
    ("shape", "bits", "rule_db", "sweep_db"),
    [
        # spec/tapered.md, section 3, which states a seed dependence of 0.4 dB.
        ("normal", 5, 22.4, 25.1),
        ("normal", 8, 40.5, 42.9),
        ("laplace", 5, 17.8, 22.6),
        ("laplace", 8, 35.8, 40.7),
    ],
)
def test_gain_of_the_sweep(shape, bits, rule_db, sweep_db):
    rng = np.random.default_rng(0)
    ratios = {"paper": [], "sweep": []}
    for _ in range(10):
        data = getattr(rng, shape)(size=20_000)
        data *= 0.95 / np.abs(data).max()
        for method, list_of_db in ratios.items():
            spec = TaperedFormat(bits=bits).fit(data, method=method)
            noise = data - spec.quantise(data)
            list_of_db.append(10 * np.log10(np.mean(data**2) / np.mean(noise**2)))
    # The sweep clips tails; the rule keeps the largest sample, so its ratio scatters more.
    assert abs(np.median(ratios["sweep"]) - sweep_db) < 0.5
    assert abs(np.median(ratios["paper"]) - rule_db) < 1.0


def test_fit_keeps_what_was_given():
    rng = np.random.default_rng(5)
    tensor = rng.normal(scale=0.1, size=500).astype(np.float32)
    free = TaperedFormat(bits=8).fit(tensor)
    assert free.max_run != 7
    assert free.scale_exp != 2
    assert parse("tapered8:max_run=7").fit(tensor).max_run == 7
    assert parse("tapered8:scale_exp=2").fit(tensor).scale_exp == 2
    assert parse("tapered8:scale_exp=2").fit(tensor, method="paper") == TaperedSpec(
        bits=8, max_run=1, scale_exp=2
    )
    # The scale is that of weights; activations have none.
    for method in ("sweep", "paper"):
        spec = parse("tapered8:scale_exp=2").fit(tensor, "activations", method)
        assert spec.scale_exp == 0
    assert parse("tapered8:max_run=7,scale_exp=2").fit(tensor) == TaperedSpec(
        bits=8, max_run=7, scale_exp=2
    )


def test_fit_with_restricted_runs():
    rng = np.random.default_rng(5)
    small = rng.uniform(-1, 1, size=500).astype(np.float32) * np.float32(0.99)
    fmt = TaperedFormat(bits=8)
    assert fmt.fit(small).max_run == 1
    assert fmt.fit(small, runs=[6, 4, 5]).max_run == 4
    assert parse("tapered8:runs=4-6").fit(small).max_run == 4
    assert parse("tapered8:runs=4-6").fit(small, runs=[2, 5, 6]).max_run == 5
    # Algorithm 1 wants 1, 3 and 8: the next that is allowed, else the last.
    for largest, expected in ((0.99, 2), (2.12, 5), (10.0, 5)):
        tensor = np.float32([largest])
        assert fmt.fit(tensor, method="paper", runs=[5, 2]).max_run == expected
        assert parse("tapered8:runs=2-5").fit(tensor, method="paper").max_run == (
            3 if largest == 2.12 else expected
        )


def test_default_spec():
    assert TaperedFormat(bits=8).spec() == TaperedSpec(bits=8, max_run=8, scale_exp=0)
    assert TaperedSpec(bits=5) == TaperedSpec(bits=5, max_run=5, scale_exp=0)
    assert parse("tapered8:runs=4-6").spec().max_run == 6
    assert parse("tapered8:runs=4-6,max_run=5").spec().max_run == 5
    assert parse("tapered6:max_run=3,scale_exp=-2").spec() == TaperedSpec(
        bits=6, max_run=3, scale_exp=-2
    )


@pytest.mark.parametrize(
    ("bits", "length", "width"),
    [(3, 1, 10), (5, 1, 16), (8, 1, 22), (8, 9, 26), (8, 64, 28), (8, 576, 32), (8, 9216, 36)],
)
def test_universal_quire(bits, length, width):
    """spec/tapered.md, section 4; the width that is needed is at most one bit less."""
    assert universal_quire_bits(bits, length) == width
    assert TaperedSpec(bits=bits).accumulator_bits(length) in (width - 1, width)


@pytest.mark.parametrize(
    ("bits", "runs", "length", "width"),
    [(8, (1, 1), 1, 16), (8, (3, 3), 1, 18), (8, (1, 8), 1, 18), (5, (5, 5), 100, 21)],
)
def test_eq5_quire(bits, runs, length, width):
    """By hand: 16 = 2 * 7 + 2; 18 = 2 * 8 + 2; 18 = 7 + 9 + 2; 21 = 7 + 2 * 6 + 2."""
    weights, activations = (TaperedSpec(bits=bits, max_run=run) for run in runs)
    assert eq5_quire_bits(weights, activations, length) == width


def test_vectors_tables():
    tables = load_vectors("tapered")["tables"]
    assert len(tables) == 33
    for entry in tables:
        spec = spec_of(entry)
        assert spec.operands(all_codes(spec)).tolist() == entry["fix"]
        if "values" in entry:
            assert spec.decode(all_codes(spec)).tolist() == entry["values"]


def test_vectors_spot():
    for entry in load_vectors("tapered")["spot"]:
        spec = spec_of(entry)
        assert format(entry["code"], f"0{spec.bits}b") == entry["bits"]
        assert spec.decode(entry["code"]) == entry["value"]
        assert spec.operands(entry["code"]) == entry["fix"]


def test_vectors_encode():
    entries = load_vectors("tapered")["encode"]
    assert len(entries) == 54
    for entry in entries:
        numbers, codes = zip(*entry["cases"], strict=True)
        numbers = np.array([float(number) for number in numbers])
        np.testing.assert_array_equal(spec_of(entry).encode(numbers), codes)


def test_vectors_alg1():
    for entry in load_vectors("tapered")["alg1"]:
        fmt = TaperedFormat(bits=entry["n"])
        weights = fmt.fit(np.array([entry["w_amax"]]), "weights", "paper")
        activations = fmt.fit(np.array([-entry["a_amax"]]), "activations", "paper")
        assert (weights.max_run, weights.scale_exp) == (entry["IS_w"], entry["SC_w"])
        assert (activations.max_run, activations.scale_exp) == (entry["IS_a"], 0)


def test_vectors_dot():
    entries = load_vectors("tapered")["dot"]
    assert len(entries) == 54
    for entry in entries:
        weights, activations = spec_of(entry, "_w"), spec_of(entry, "_a")
        quire = dot(weights, activations, entry["w"], entry["a"], entry["bias_q"])
        assert quire == entry["quire"]
        exponent = accumulator_exp(weights, activations)
        assert float(quire) * 2.0**exponent == entry["value"]
        output = TaperedSpec(bits=entry["n"], max_run=entry["IS_out"])
        assert output.requantise(quire, exponent, relu=entry["relu"]) == entry["out"]


def test_vectors_widths():
    widths = load_vectors("tapered")["widths"]
    for bits, expected in widths["operand_bits"].items():
        assert TaperedSpec(bits=int(bits)).operand_bits == expected
    for bits, expected in widths["eq5_without_log2m"].items():
        specs = [TaperedSpec(bits=int(bits), max_run=run + 1) for run in range(int(bits))]
        assert [eq5_quire_bits(spec, spec, 1) for spec in specs] == expected
    for bits, expected in widths["universal_without_log2m"].items():
        assert universal_quire_bits(int(bits), 1) == expected
    for entry in widths["universal_examples"]:
        assert universal_quire_bits(entry["n"], entry["m"]) == entry["bits"]


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"bits": 1}, ValueError, "bits must be between 2 and 16, not 1"),
        ({"bits": 17}, ValueError, "bits must be between 2 and 16, not 17"),
        ({"bits": 8.0}, TypeError, r"bits must be an int, not 8\.0"),
        ({"bits": True}, TypeError, "bits must be an int, not True"),
        ({"max_run": 0}, ValueError, "max_run must be between 1 and 8, not 0"),
        ({"max_run": 9}, ValueError, "max_run must be between 1 and 8, not 9"),
        ({"max_run": "4"}, TypeError, "max_run must be an int, not '4'"),
        ({"scale_exp": -5}, ValueError, "scale_exp must be between -4 and 3, not -5"),
        ({"scale_exp": 4}, ValueError, "scale_exp must be between -4 and 3, not 4"),
        ({"scale_exp": None}, TypeError, "scale_exp must be an int, not None"),
    ],
)
def test_bad_spec(parameters, error, message):
    with pytest.raises(error, match=message):
        TaperedSpec(**{"bits": 8, **parameters})


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"bits": 1}, ValueError, "bits must be between 2 and 16, not 1"),
        ({"max_run": 9}, ValueError, "max_run must be between 1 and 8, not 9"),
        ({"runs": 4}, TypeError, "runs must be a tuple of two ints, not 4"),
        ({"runs": (1, 2, 3)}, TypeError, r"runs must be a tuple of two ints, not \(1, 2, 3\)"),
        ({"runs": (0, 4)}, ValueError, "runs must be between 1 and 8, not 0"),
        ({"runs": (5, 4)}, ValueError, "runs must be between 5 and 8, not 4"),
        ({"runs": (5, 9)}, ValueError, "runs must be between 5 and 8, not 9"),
        ({"runs": (2, 4), "max_run": 5}, ValueError, "max_run must be between 2 and 4, not 5"),
    ],
)
def test_bad_format(parameters, error, message):
    with pytest.raises(error, match=message):
        TaperedFormat(**{"bits": 8, **parameters})


@pytest.mark.parametrize(
    ("text", "runs", "error", "message"),
    [
        ("tapered8", [], ValueError, r"runs must have a max_run of tapered8 among them, not \[\]"),
        ("tapered8:max_run=3", [4], ValueError, "runs must have a max_run of tapered8:max_run=3"),
        ("tapered8:runs=2-3", [4, 8], ValueError, r"among them, not \[4, 8\]"),
        ("tapered8", [9], ValueError, "runs must be between 1 and 8, not 9"),
        ("tapered8", [2.0], TypeError, r"runs must be an int, not 2\.0"),
    ],
)
def test_bad_runs(text, runs, error, message):
    with pytest.raises(error, match=message):
        parse(text).fit(np.zeros(3), runs=runs)


def test_bad_lengths():
    spec = TaperedSpec(bits=8)
    with pytest.raises(ValueError, match="length must be at least 1, not 0"):
        eq5_quire_bits(spec, spec, 0)
    with pytest.raises(ValueError, match="length must be at least 1, not -1"):
        universal_quire_bits(8, -1)
    with pytest.raises(ValueError, match="bits must be between 2 and 16, not 1"):
        universal_quire_bits(1, 1)
