"""Tables, codes and bit-serial products of weight pools against rationals and the vectors."""

import tracemalloc
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from golden import weight_pool_conv
from golden.fixed import FixedSpec
from golden.tapered import TaperedSpec
from golden.weight_pool import PoolCodes, WeightPoolFormat, WeightPoolSpec
from golden.weight_pool_conv import PoolProduct, plane_addresses
from golden.weight_pool_table import compression_ratio, plane_weights
from tests.golden_oracle import load_vectors
from tests.weight_pool_oracle import (
    nearest_even,
    oracle_convolve,
    oracle_entry,
    oracle_result,
    oracle_table,
)

seeded = settings(derandomize=True, deadline=None, database=None, max_examples=60)

BITS = {"full": 8, "nibble": 9, "half": 9}


def dyadic_pool(entries, group, seed=0, bits=9):
    """Random multiples of 2**-bits, with rows of zeros and of equal weights."""
    integers = np.random.default_rng(seed).integers(-96, 97, (entries, group))
    integers[0] = 0
    integers[1] = 96
    return np.ldexp(integers.astype(np.float64), -bits)


def float_pool(entries, group, seed=0):
    return (0.2 * np.random.default_rng(seed).standard_normal((entries, group))).astype(np.float32)


def vector_spec(pools, name, **parameters):
    entry = pools[name]
    source = pools[entry["P_same_as"]] if "P_same_as" in entry else entry
    pool = np.array(source["P"], np.float64)
    if "R_L" in entry:
        exp = int(np.log2(entry["R_L"]))
        return WeightPoolSpec(pool=pool, lut_bits=entry["B_L"], lut_range_exp=exp, **parameters)
    bits = {8: 11, 4: 10}[entry["g"]]
    return WeightPoolSpec(
        pool=pool, lut_bits=bits, lut_range_exp=bits - 1, exact=True, **parameters
    )


def test_vectors_worked():
    for case in load_vectors("weight_pool")["worked"]:
        pool = np.array([case["pool_vector"]], np.float64)
        spec = WeightPoolSpec(pool=pool, lut_bits=11, lut_range_exp=10, exact=True)
        codes = np.array(case["x"], np.int8).astype(np.uint8)
        addresses = plane_addresses(codes)[: case["M"]].tolist()
        assert addresses == case["planes"] == [int(text, 16) for text in case["planes_hex"]]
        assert spec.table[addresses, 0].tolist() == case["lut_values"]
        result = spec.results(case["x"], case["M"], signed=case["signed"])
        assert result.tolist() == [case["dot"]]
    # By hand, spec/weight_pool.md, section 2.
    assert 13 + 16 + 20 + 8 == 57
    assert -5 - 6 - 20 - 24 == -55


def test_vectors_pools():
    pools = load_vectors("weight_pool")["pools"]
    for name, entry in pools.items():
        spec = vector_spec(pools, name)
        rows = entry.get("lut") or entry["lut_rows_0_15"]
        assert spec.table[: len(rows)].tolist() == rows
        assert ("lut" not in entry) or len(spec.table) == len(rows)


def test_vectors_lut_entry():
    section = load_vectors("weight_pool")["lut_entry"]
    assert section["fields"] == ["B_L", "R_L", "v", "entry"]
    for bits, reach, value, entry in section["cases"]:
        pool = np.array([[value, 0, 0, 0], [0, 0, 0, value]])
        spec = WeightPoolSpec(pool=pool, lut_bits=bits, lut_range_exp=int(np.log2(reach)))
        assert spec.table[1, 0] == spec.table[8, 1] == entry


def test_vectors_act_quant():
    for section in load_vectors("weight_pool")["act_quant"]:
        bits, signed, reach = section["M"], section["signed"], section["R"]
        fitted = WeightPoolFormat(entries=1, act_bits=bits).fit(
            np.array([-reach if signed else 0.0, reach]), "activations", "paper"
        )
        assert fitted.signed == signed
        numbers = np.array([float(x) for x, _ in section["cases"]])
        codes = fitted.operands(fitted.encode(numbers))
        assert codes.tolist() == [code for _, code in section["cases"]]


def test_vectors_dot_all():
    vectors = load_vectors("weight_pool")
    for case in vectors["dot_all"]:
        spec = vector_spec(vectors["pools"], case["pool"])
        result = spec.results(case["x"], case["M"], signed=case["signed"])
        assert result.tolist() == case["res"]
        eight = np.zeros(8, np.uint8)
        eight[: len(case["x"])] = np.array(case["x"], np.int16).astype(np.uint8)
        assert plane_addresses(eight)[: case["M"]].tolist() == case["planes"]


def test_vectors_conv():
    vectors = load_vectors("weight_pool")
    for case in vectors["conv"]:
        spec = vector_spec(vectors["pools"], case["pool"])
        accumulators = spec.convolve(
            np.array([case["x"]]),
            case["idx"],
            case["M"],
            signed=case["signed"],
            strides=(case["stride"],) * 2,
            pads=(case["pad"],) * 4,
        )
        assert accumulators[0].tolist() == case["out"]


def test_vectors_assign():
    section = load_vectors("weight_pool")["assign"]
    pool = np.array(section["pool"], np.float64)
    for rule, key in (("cosine", "cos"), ("l2", "l2")):
        spec = WeightPoolSpec(pool=pool, lut_range_exp=7, match=rule)
        codes = spec.encode(np.array([case["v"] for case in section["cases"]], np.float32))
        assert codes.indices[:, 0].tolist() == [case[key] for case in section["cases"]]


def test_vectors_compression():
    for row in load_vectors("weight_pool")["compression"]["rows"]:
        entries = row["S"]
        ratio = compression_ratio(row["pooled"], row["unpooled"], entries=entries)
        assert round(ratio, 4) == row["cr_uint8"]
        packed = compression_ratio(
            row["pooled"], row["unpooled"], entries=entries, index_bits=entries.bit_length() - 1
        )
        assert round(packed, 4) == row["cr_packed"]


def test_compression_by_hand():
    # 1024 pooled weights: 128 indices of 4 bits; a table of 16 rows of 2 entries of 5 bits.
    ratio = compression_ratio(512, 3, entries=2, group=4, lut_bits=5, index_bits=4)
    assert ratio == 8 * 515 / (128 * 4 + 24 + 160)


@pytest.mark.parametrize(
    ("arguments", "parameters", "message"),
    [
        ((-1, 0), {"entries": 1}, "pooled must be at least 0, not -1"),
        ((0, -1), {"entries": 1}, "unpooled must be at least 0, not -1"),
        ((0, 0), {"entries": 0}, "entries must be at least 1, not 0"),
        ((0, 0), {"entries": 1, "group": 0}, "group must be at least 1, not 0"),
        ((0, 0), {"entries": 1, "lut_bits": 0}, "lut_bits must be at least 1, not 0"),
        ((0, 0), {"entries": 1, "index_bits": -1}, "index_bits must be at least 0, not -1"),
    ],
)
def test_compression_refuses(arguments, parameters, message):
    with pytest.raises(ValueError, match=message):
        compression_ratio(*arguments, **parameters)


@pytest.mark.parametrize("layout", BITS)
@pytest.mark.parametrize("group", [4, 8])
@pytest.mark.parametrize(
    ("lut_bits", "exp"), [(2, 0), (4, -1), (8, 0), (8, -2), (8, 3), (11, 0), (16, 1)]
)
def test_table(layout, group, lut_bits, exp):
    for pool in (dyadic_pool(5, group), float_pool(3, group)):
        spec = WeightPoolSpec(pool=pool, lut_bits=lut_bits, lut_range_exp=exp, layout=layout)
        levels = 2 ** (lut_bits - 1) - 1
        expected = oracle_table(pool, levels, Fraction(2) ** exp, layout)
        assert spec.table.tolist() == expected
        assert spec.table.dtype == np.int32
        assert not spec.table.flags.writeable
        assert spec.unit == 2.0**exp / levels
        magnitude = max(abs(entry) for row in expected for entry in row)
        assert magnitude < 1 << spec.entry_bits - 1


def test_table_ties():
    # Sums of +-R/2 lie halfway between two entries; 63.5 rounds to the even 64, -63.5 to -64.
    pool = np.array([[0.25, 0.25, -0.25, -0.25], [0.5, -0.5, 0.0, 0.0]])
    table = WeightPoolSpec(pool=pool, lut_bits=8).table
    assert table[0b0011].tolist() == [64, 0]
    assert table[0b1100].tolist() == [-64, 0]
    assert table[0b0001].tolist() == [32, 64]
    # 1.5 of 4 bits: 7 * 0.5 = 3.5 rounds to 4.
    assert WeightPoolSpec(pool=pool, lut_bits=4).table[0b0001, 1] == 4


def test_table_of_extreme_weights():
    # Sums that no binary64 holds: the small weight decides a tie.
    tiny = 2.0**-140
    pool = np.array(
        [[0.5, tiny, -tiny, 0.0], [-0.5, tiny, -tiny, 1e38], [5e-324, 1e-40, 0.0, -0.0]]
    )
    spec = WeightPoolSpec(pool=pool, lut_bits=4)
    assert spec.table.tolist() == oracle_table(pool, 7, 1, "full")
    # 3.5 goes up to 4 by evenness, but by size to 3 if a bit less.
    assert spec.table[[1, 3, 5], 0].tolist() == [4, 4, 3]
    assert spec.table[[1, 3, 5], 1].tolist() == [-4, -3, -4]


@pytest.mark.parametrize("group", [4, 8])
def test_layouts_agree_on_exact_entries(group):
    integers = np.random.default_rng(group).integers(-128, 128, (6, group)).astype(np.float64)
    integers[0], integers[1] = -128, 127
    bits = {4: 10, 8: 11}[group]
    tables = [
        WeightPoolSpec(
            pool=np.ldexp(integers, exp),
            lut_bits=bits,
            lut_range_exp=bits - 1 + exp,
            exact=True,
            layout=layout,
        ).table
        for layout, exp in product(BITS, (0, -9, 3))
    ]
    for address in range(1 << group):
        chosen = [i for i in range(group) if address >> i & 1]
        sums = integers[:, chosen].sum(axis=1).tolist()
        assert all(table[address].tolist() == sums for table in tables)


def test_layouts_differ_on_rounded_entries():
    pool = float_pool(8, 8)
    specs = [WeightPoolSpec(pool=pool, lut_range_exp=1, layout=layout) for layout in BITS]
    full, nibble, half = (spec.table for spec in specs)
    assert not np.array_equal(full, nibble)
    assert not np.array_equal(full, half)
    assert not np.array_equal(nibble, half)
    # Each entry is off by half a unit at most; two of them by one, and from each other by 3/2.
    assert np.abs(full - nibble).max() == 1
    assert np.abs(full - half).max() == 1
    assert np.array_equal(full[:128], half[:128])
    # 256, 2 * 16 and 128 rows of 8 entries of 8 bits.
    assert [spec.table_bits for spec in specs] == [16384, 2048, 8192]
    assert [spec.entry_bits for spec in specs] == list(BITS.values())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("act_bits", range(1, 9))
def test_exact_entries_give_the_dot_product(act_bits, signed):
    pool = np.random.default_rng(act_bits).integers(-128, 128, (7, 8)).astype(np.float64)
    spec = WeightPoolSpec(pool=pool, lut_bits=11, lut_range_exp=10, exact=True)
    low = -(1 << act_bits - 1) if signed else 0
    codes = np.random.default_rng(1).integers(low, low + (1 << act_bits), (50, 8))
    codes[0], codes[1] = low, low + (1 << act_bits) - 1
    expected = codes @ pool.astype(np.int64).T
    np.testing.assert_array_equal(spec.results(codes, act_bits, signed=signed), expected)
    patterns = codes & (1 << act_bits) - 1
    np.testing.assert_array_equal(spec.results(patterns, act_bits, signed=signed), expected)
    assert np.abs(expected).max() < 1 << spec.result_bits(act_bits) - 1


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("act_bits", [1, 2])
def test_every_code_of_a_group(act_bits, signed):
    spec = WeightPoolSpec(pool=float_pool(3, 4), lut_bits=5)
    table = spec.table.tolist()
    codes = list(product(range(1 << act_bits), repeat=4))
    results = spec.results(codes, act_bits, signed=signed).tolist()
    assert results == [
        [oracle_result(table, entry, code, act_bits, signed) for entry in range(3)]
        for code in codes
    ]


@pytest.mark.parametrize("layout", BITS)
@pytest.mark.parametrize("signed", [False, True])
def test_rounded_results(layout, signed):
    spec = WeightPoolSpec(pool=dyadic_pool(6, 8), layout=layout)
    table = oracle_table(spec.pool, 127, 1, layout)
    random = np.random.default_rng(3)
    for act_bits in range(1, 9):
        codes = random.integers(0, 1 << act_bits, (5, 8))
        codes[0] = (1 << act_bits) - 1
        codes[1] = 1 << act_bits - 1
        results = spec.results(codes, act_bits, signed=signed)
        assert results.dtype == np.int64
        expected = [
            [oracle_result(table, entry, code, act_bits, signed) for entry in range(6)]
            for code in codes.tolist()
        ]
        assert results.tolist() == expected


def test_result_bits():
    # spec/weight_pool.md, section 2: 32385 in 16 bits, 25 bits for 288 terms.
    spec = WeightPoolSpec(pool=np.full((1, 8), 100.0))
    assert spec.results([[255] + [0] * 7], 8).tolist() == [[32385]]
    assert spec.result_bits(8) == 16
    assert spec.accumulator_bits(3 * 3 * 256 // 8) == 25
    assert spec.accumulator_bits(1) == 16
    assert spec.accumulator_bits(256, act_bits=4) == 20
    with pytest.raises(ValueError, match="act_bits must be between 1 and 8, not 9"):
        spec.result_bits(9)
    with pytest.raises(ValueError, match="blocks must be at least 1, not 0"):
        spec.accumulator_bits(0)


@pytest.mark.parametrize("zero_point", [0, 1, 7, 15])
def test_zero_point(zero_point):
    pool = np.random.default_rng(2).integers(-128, 128, (5, 8)).astype(np.float64)
    spec = WeightPoolSpec(pool=pool, lut_bits=11, lut_range_exp=10, exact=True)
    codes = np.random.default_rng(4).integers(0, 16, (40, 8))
    expected = (codes - zero_point) @ pool.astype(np.int64).T
    np.testing.assert_array_equal(spec.results(codes, 4, zero_point=zero_point), expected)
    # With rounded entries, the row of all ones is the rounded sum.
    rounded = WeightPoolSpec(pool=float_pool(5, 8))
    plain = rounded.results(codes, 4)
    corrected = rounded.results(codes, 4, zero_point=zero_point)
    totals = [oracle_entry(list(map(Fraction, row)), 255, 127, 1) for row in rounded.pool.tolist()]
    np.testing.assert_array_equal(plain - corrected, zero_point * np.array([totals] * 40))


CONVOLUTIONS = [
    # images, rows, columns, channels, outputs, kernel, strides, pads
    (1, 5, 6, 16, 3, (3, 3), (1, 1), (1, 1, 1, 1)),
    (3, 4, 4, 8, 5, (3, 3), (2, 2), (1, 1, 1, 1)),
    (2, 7, 5, 11, 4, (2, 3), (2, 1), (0, 2, 1, 0)),
    (2, 6, 6, 9, 2, (1, 1), (2, 2), (0, 0, 0, 0)),
    (1, 9, 8, 8, 2, (5, 5), (3, 2), (2, 2, 2, 2)),
    (5, 1, 1, 30, 6, (1, 1), (1, 1), (0, 0, 0, 0)),
    (2, 6, 7, 8, 3, (3, 3), (1, 2), (1, 0, 1, 1)),
    (1, 4, 5, 4, 1, (3, 2), (4, 4), (0, 0, 0, 0)),
    (2, 3, 3, 8, 2, (3, 3), (1, 1), (0, 0, 0, 0)),
    (0, 3, 3, 8, 2, (3, 3), (1, 1), (0, 0, 0, 0)),
    (1, 3, 3, 8, 0, (3, 3), (1, 1), (0, 0, 0, 0)),
]


def convolution_sample(case, spec, act_bits, signed, seed=0):
    *shape, outputs, kernel, strides, pads = case
    random = np.random.default_rng(seed)
    low = -(1 << act_bits - 1) if signed else 0
    codes = random.integers(low, low + (1 << act_bits), shape)
    blocks = -(-shape[-1] // spec.group)
    indices = random.integers(0, spec.entries, (*kernel, blocks, outputs))
    return codes, indices, strides, pads


@pytest.mark.parametrize("block_bytes", [1, 1 << 16, 3 << 19])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolve(case, block_bytes, monkeypatch):
    monkeypatch.setattr(weight_pool_conv, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(weight_pool_conv, "MIN_PIXELS", 1)
    for group, act_bits, signed in ((8, 3, False), (4, 4, True), (8, 8, True)):
        spec = WeightPoolSpec(pool=float_pool(7, group))
        codes, indices, strides, pads = convolution_sample(case, spec, act_bits, signed)
        result = spec.convolve(codes, indices, act_bits, signed=signed, strides=strides, pads=pads)
        assert result.dtype == np.int64
        expected = oracle_convolve(spec, codes, indices, act_bits, signed, strides, pads)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("case", CONVOLUTIONS[:5], ids=str)
def test_convolve_with_zero_point_and_bias(case):
    spec = WeightPoolSpec(pool=float_pool(7, 8), layout="nibble")
    codes, indices, strides, pads = convolution_sample(case, spec, 5, False)
    bias = np.arange(case[4]) * 1000 - 7
    result = spec.convolve(
        codes, indices, 5, zero_point=13, strides=strides, pads=pads, bias_q=bias
    )
    expected = oracle_convolve(spec, codes, indices, 5, False, strides, pads, 13)
    np.testing.assert_array_equal(result - bias, expected)


def test_convolve_wide_accumulators():
    # 16-bit entries of 32767 * 255 * 300 blocks exceed 31 bits.
    spec = WeightPoolSpec(pool=np.full((2, 8), 9.0), lut_bits=16)
    codes = np.full((1, 1, 1, 2400), 255)
    indices = np.zeros((1, 1, 300, 1), np.int64)
    assert spec.convolve(codes, indices, 8).item() == 32767 * 255 * 300
    assert spec.convolve(codes, indices, 8, bias_q=-(1 << 46)).item() == 32767 * 76500 - (1 << 46)
    with pytest.raises(ValueError, match=r"accumulators must be below 2\*\*47, not 1407"):
        spec.convolve(codes, indices, 8, bias_q=(1 << 47) - 1)


def test_columns_are_read_like_images():
    spec = WeightPoolSpec(pool=float_pool(9, 8))
    for case in CONVOLUTIONS[:9]:
        codes, indices, strides, pads = convolution_sample(case, spec, 8, False, seed=5)
        start = np.arange(case[4])
        operation = PoolProduct(spec.table, plane_weights(8, False), indices, start, strides)
        expected = operation.from_images(codes.astype(np.uint8), pads)
        framed = np.pad(codes, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)))
        height, width = case[5]
        columns = [
            framed[i, r * strides[0] :, c * strides[1] :][:height, :width].ravel() / 64
            for i, r, c in np.ndindex(expected.shape[:3])
        ]
        for dtype in (np.float32, np.float64):
            result = operation.from_columns(
                np.array(columns, dtype), 64, expected.shape[1:3], dtype
            )
            assert result.dtype == dtype
            np.testing.assert_array_equal(result, expected.reshape(result.shape))


def test_memory():
    spec = WeightPoolSpec(pool=float_pool(64, 8))
    codes = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 64)).astype(np.uint8)
    indices = np.random.default_rng(1).integers(0, 64, (3, 3, 8, 64))
    spec.convolve(codes[:1, :3, :3], indices, 8)
    tracemalloc.start()
    result = spec.convolve(codes, indices, 8, pads=(1, 1, 1, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak + codes.nbytes <= 3 * (codes.nbytes + indices.nbytes + result.nbytes)


IMAGE = np.zeros((1, 3, 3, 8), np.int64)
KERNEL = np.zeros((1, 1, 1, 2), np.int64)


@pytest.mark.parametrize(
    ("codes", "indices", "parameters", "error", "message"),
    [
        (IMAGE / 2, KERNEL, {}, TypeError, "codes must be integers, not float64"),
        (IMAGE + 256, KERNEL, {}, ValueError, "codes must be between 0 and 255, not 256"),
        (IMAGE[0], KERNEL, {}, ValueError, "codes must have 4 axes, not 3"),
        (IMAGE[..., :0], KERNEL, {}, ValueError, r"indices must be \[height, width, 0, n\], not "),
        (IMAGE, KERNEL[..., :0, :], {}, ValueError, r"width, 1, n\], not \[1, 1, 0, 2\]"),
        (IMAGE, KERNEL[0], {}, ValueError, r"width, 1, n\], not \[1, 1, 2\]"),
        (IMAGE, KERNEL[:0], {}, ValueError, r"width, 1, n\], not \[0, 1, 1, 2\]"),
        (IMAGE, KERNEL + 5, {}, ValueError, "indices must be between 0 and 4, not 5"),
        (IMAGE, KERNEL / 2, {}, TypeError, "indices must be integers, not float64"),
        (
            IMAGE,
            np.repeat(KERNEL, 4, axis=1),
            {},
            ValueError,
            "width of the kernel must be at most 3, not 4",
        ),
        (
            IMAGE,
            np.repeat(KERNEL, 6, axis=0),
            {"pads": (1, 0, 1, 0)},
            ValueError,
            "height of the kernel must be at most 5, not 6",
        ),
        (IMAGE, KERNEL, {"act_bits": 9}, ValueError, "act_bits must be between 1 and 8, not 9"),
        (
            IMAGE,
            KERNEL,
            {"zero_point": 1, "signed": True},
            ValueError,
            "zero_point must be 0 for signed codes, not 1",
        ),
        (IMAGE, KERNEL, {"bias_q": 1 << 47}, ValueError, "bias_q must be between"),
        (IMAGE, KERNEL, {"bias_q": [1, 2, 3]}, ValueError, r"bias_q must be \[2\], not \[3\]"),
        (IMAGE, KERNEL, {"strides": (0, 1)}, ValueError, "strides must be at least 1, not 0"),
        (IMAGE, KERNEL, {"strides": (1, 1, 1)}, ValueError, "strides must be 2 integers, not 3"),
        (IMAGE, KERNEL, {"pads": (0, 0, 0, -1)}, ValueError, "pads must be at least 0, not -1"),
        (IMAGE, KERNEL, {"pads": (0, 0)}, ValueError, "pads must be 4 integers, not 2"),
        (IMAGE, KERNEL, {"pads": (0, 0, 0.0, 0)}, TypeError, r"pads must be an int, not 0\.0"),
    ],
)
def test_convolve_refuses(codes, indices, parameters, error, message):
    spec = WeightPoolSpec(pool=float_pool(5, 8))
    with pytest.raises(error, match=message):
        spec.convolve(codes, indices, **{"act_bits": 8, **parameters})


@pytest.mark.parametrize(
    ("codes", "act_bits", "parameters", "error", "message"),
    [
        ([0] * 7, 8, {}, ValueError, r"codes must be \[..., 8\], not \[7\]"),
        (3, 8, {}, ValueError, r"codes must be \[..., 8\], not \[\]"),
        ([0.5] * 8, 8, {}, TypeError, "codes must be integers, not float64"),
        ([8] * 8, 3, {}, ValueError, "codes must be between 0 and 7, not 8"),
        ([-1] * 8, 3, {}, ValueError, "codes must be between 0 and 7, not -1"),
        ([-5] * 8, 3, {"signed": True}, ValueError, "codes must be between -4 and 7, not -5"),
        ([0] * 8, 0, {}, ValueError, "act_bits must be between 1 and 8, not 0"),
        ([0] * 8, 8.0, {}, TypeError, r"act_bits must be an int, not 8\.0"),
        ([0] * 8, 3, {"zero_point": 8}, ValueError, "zero_point must be between 0 and 7, not 8"),
        ([0] * 8, 3, {"zero_point": 1, "signed": True}, ValueError, "zero_point must be 0 for"),
    ],
)
def test_results_refuse(codes, act_bits, parameters, error, message):
    with pytest.raises(error, match=message):
        WeightPoolSpec(pool=float_pool(5, 8)).results(codes, act_bits, **parameters)


@pytest.mark.parametrize("layout", BITS)
@pytest.mark.parametrize(
    "activations",
    [
        FixedSpec(bits=8, frac_bits=5, signed=False),
        FixedSpec(bits=4, frac_bits=-2),
        FixedSpec(bits=1, frac_bits=0),
    ],
    ids=str,
)
def test_matmul(layout, activations):
    spec = WeightPoolSpec(pool=float_pool(6, 8), lut_range_exp=1, layout=layout)
    random = np.random.default_rng(0)
    weights = float_pool(3, 21, seed=4)
    bias = random.normal(size=3)
    codes = random.integers(0, 1 << activations.bits, (4, 21)).astype(np.uint8)
    w_codes = spec.encode(weights)
    result = spec.matmul(w_codes, activations, codes, bias)
    assert result.dtype == np.float64
    unit = Fraction(2, 127) * Fraction(2) ** -activations.frac_bits
    table = spec.table.tolist()
    for row, output in np.ndindex(4, 3):
        cells = [*codes[row].tolist(), 0, 0, 0]
        total = nearest_even(Fraction(float(bias[output])) / unit)
        for block, index in enumerate(w_codes.indices[output].tolist()):
            part = cells[8 * block : 8 * block + 8]
            total += oracle_result(table, index, part, activations.bits, activations.signed)
        assert result[row, output] == float(total * unit)
    plain = spec.matmul(w_codes, activations, codes)
    np.testing.assert_allclose(result - plain, np.broadcast_to(bias, (4, 3)), atol=float(unit))


def test_matmul_of_nothing():
    spec = WeightPoolSpec(pool=float_pool(6, 8))
    activations = FixedSpec(bits=8)
    empty = spec.encode(np.zeros((3, 0), np.float32))
    result = spec.matmul(empty, activations, np.zeros((2, 0), np.uint8), np.array([0.0, 1.0, 2.0]))
    unit = 2.0**-7 / 127
    assert (
        result.tolist()
        == [[0, round(1 / unit) * 2.0**-7 / 127, round(2 / unit) * 2.0**-7 / 127]] * 2
    )
    assert spec.matmul(empty, activations, np.zeros((0, 0), np.uint8)).shape == (0, 3)


def test_matmul_refuses():
    spec = WeightPoolSpec(pool=float_pool(6, 8))
    w_codes = spec.encode(np.zeros((3, 16), np.float32))
    a_codes = np.zeros((2, 16), np.uint8)
    fixed = FixedSpec(bits=8)
    with pytest.raises(TypeError, match="activations must be a FixedSpec, not TaperedSpec"):
        spec.matmul(w_codes, TaperedSpec(bits=8), a_codes)
    with pytest.raises(ValueError, match="activations must have at most 8 bits, not 9"):
        spec.matmul(w_codes, FixedSpec(bits=9), a_codes)
    with pytest.raises(TypeError, match="codes must be PoolCodes, not 3"):
        spec.matmul(3, fixed, a_codes)
    with pytest.raises(
        ValueError, match=r"must be of \[n, k\] and \[m, k\], not \[3, 16\] and \[2, 15\]"
    ):
        spec.matmul(w_codes, fixed, a_codes[:, 1:])
    with pytest.raises(ValueError, match=r"not \[16\] and \[2, 16\]"):
        spec.matmul(spec.encode(np.zeros(16)), fixed, a_codes)
    with pytest.raises(ValueError, match="codes must be between 0 and 255"):
        spec.matmul(w_codes, fixed, a_codes.astype(int) + 256)
    with pytest.raises(TypeError, match="bias must be float16, float32 or float64, not int64"):
        spec.matmul(w_codes, fixed, a_codes, [1, 2, 3])
    for value in (np.inf, np.nan, 1e30, -1e30):
        with pytest.raises(ValueError, match="bias must be below"):
            spec.matmul(w_codes, fixed, a_codes, np.array([0, value, 0]))


def test_quantise_bias():
    spec = WeightPoolSpec(pool=float_pool(2, 8), lut_range_exp=-1)
    activations = FixedSpec(bits=8, frac_bits=6, signed=False)
    unit = Fraction(1, 2 * 127 * 64)
    numbers = [0.0, 1.0, -1 / 3, 1e-9, 0.5 / 127 / 128, *np.random.default_rng(0).normal(size=50)]
    expected = [nearest_even(Fraction(x) / unit) for x in numbers]
    assert spec.quantise_bias(activations, np.array(numbers)).tolist() == expected
    # Ties: the unit is 1 / 16 without rounding of entries.
    exact = WeightPoolSpec(pool=np.zeros((1, 4)), lut_bits=3, lut_range_exp=0, exact=True)
    ties = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32) / 16
    assert exact.quantise_bias(FixedSpec(bits=4, frac_bits=2), ties).tolist() == [0, 2, 2, 0, -2]
    assert exact.accumulator_unit(FixedSpec(bits=4, frac_bits=2)) == 1 / 16
    assert exact.values(np.array([3, -5]), FixedSpec(bits=4, frac_bits=2)).tolist() == [
        3 / 16,
        -5 / 16,
    ]


def test_encode_and_decode():
    spec = WeightPoolSpec(pool=float_pool(4, 4))
    weights = spec.pool.astype(np.float32)[[3, 1, 0, 2, 2, 1]].reshape(3, 8)
    codes = spec.encode(weights)
    assert codes.indices.dtype == np.uint8
    assert codes.indices.tolist() == [[3, 1], [0, 2], [2, 1]]
    assert codes.shape == (3, 8)
    np.testing.assert_array_equal(spec.decode(codes), weights)
    np.testing.assert_array_equal(spec.quantise(weights), weights)


def test_rest_of_an_axis_counts_as_zeros():
    pool = np.array([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    spec = WeightPoolSpec(pool=pool)
    codes = spec.encode(np.ones((2, 5), np.float32))
    assert codes.indices.tolist() == [[0, 1]] * 2
    np.testing.assert_array_equal(spec.decode(codes), np.ones((2, 5)))


def test_encode_is_total():
    pool = np.array([[0.0, 0, 0, 0], [3e38, 0, 0, 0], [-3e38, 0, 0, 0]])
    for dtype in (np.float16, np.float32, np.float64):
        spec = WeightPoolSpec(pool=pool, match="cosine" if dtype is np.float16 else "l2")
        special = np.array([[np.inf, 0, np.nan, 0], [-np.inf, -0.0, 0, 0], [np.nan] * 4], dtype)
        assert spec.encode(special).indices.ravel().tolist() == [1, 2, 0]
    assert spec.encode(np.array([1e300, 0, 0, 0])).indices.tolist() == [1]


@pytest.mark.parametrize("match", ["l2", "cosine"])
@given(
    arrays.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=11),
        elements=st.floats(width=16),
    )
)
@seeded
def test_shapes(match, x):
    spec = WeightPoolSpec(pool=float_pool(5, 4), match=match)
    codes = spec.encode(x)
    length = x.shape[-1] if x.shape else 1
    assert codes.indices.shape == (*x.shape[:-1], -(-length // 4))
    values = spec.decode(codes)
    assert values.shape == x.shape
    assert values.dtype == np.float32
    frozen = np.asfortranarray(x)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(spec.encode(frozen).indices, codes.indices)
    wide = np.repeat(x.reshape(*x.shape, 1), 2, axis=-1)[..., 1]
    np.testing.assert_array_equal(spec.encode(wide).indices, codes.indices)
    assert spec.storage_bits(x.shape) == 8 * codes.indices.size + 16 * 5 * 8


def test_encode_and_decode_refuse():
    spec = WeightPoolSpec(pool=float_pool(5, 4))
    with pytest.raises(TypeError, match="x must be float16, float32 or float64, not int64"):
        spec.encode(np.zeros(4, np.int64))
    with pytest.raises(TypeError, match="codes must be PoolCodes, not 5"):
        spec.decode(5)
    with pytest.raises(ValueError, match="indices must be between 0 and 4, not 5"):
        spec.decode(PoolCodes(indices=np.array([5], np.uint8), shape=(4,)))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"pool": np.zeros((2, 8), int)}, TypeError, "pool must be float16, float32 or float64"),
        (
            {"pool": np.zeros((2, 5))},
            ValueError,
            r"pool must be \[1 to 256, 4 or 8\], not \[2, 5\]",
        ),
        ({"pool": np.zeros((0, 8))}, ValueError, r"pool must be .*, not \[0, 8\]"),
        ({"pool": np.zeros((257, 8))}, ValueError, r"pool must be .*, not \[257, 8\]"),
        ({"pool": np.zeros(8)}, ValueError, r"pool must be .*, not \[8\]"),
        ({"pool": np.full((2, 8), np.nan)}, ValueError, "pool must be finite in binary32"),
        ({"pool": np.full((2, 8), 1e39)}, ValueError, "pool must be finite in binary32"),
        ({"lut_bits": 1}, ValueError, "lut_bits must be between 2 and 16, not 1"),
        ({"lut_bits": 17}, ValueError, "lut_bits must be between 2 and 16, not 17"),
        ({"lut_range_exp": 65}, ValueError, "lut_range_exp must be between -64 and 64, not 65"),
        ({"lut_range_exp": 0.5}, TypeError, r"lut_range_exp must be an int, not 0\.5"),
        ({"exact": 1}, TypeError, "exact must be a bool, not 1"),
        ({"layout": "quarter"}, ValueError, "layout must be full, nibble or half, not 'quarter'"),
        ({"match": "dot"}, ValueError, "match must be cosine or l2, not 'dot'"),
        ({"exact": True}, ValueError, "pool must have sums that are 8-bit multiples of 0.0078125"),
        ({"exact": True, "pool": np.full((1, 4), 0.25)}, ValueError, "not from 0.0 to 1.0"),
        ({"exact": True, "pool": np.full((1, 4), -0.251)}, ValueError, "for exact entries"),
        ({"exact": True, "pool": np.full((1, 4), -0.2578125)}, ValueError, "not from -1.03125 to"),
    ],
)
def test_spec_refuses(parameters, error, message):
    with pytest.raises(error, match=message):
        WeightPoolSpec(**{"pool": float_pool(2, 8), **parameters})


def test_spec_is_a_value():
    pool = float_pool(3, 4)
    spec = WeightPoolSpec(pool=pool, lut_bits=6)
    pool[0] = 7
    assert spec == WeightPoolSpec(pool=float_pool(3, 4), lut_bits=6)
    assert hash(spec) == hash(WeightPoolSpec(pool=float_pool(3, 4), lut_bits=6))
    assert spec != WeightPoolSpec(pool=pool, lut_bits=6)
    assert spec != WeightPoolSpec(pool=float_pool(3, 4), lut_bits=7)
    assert spec != 3
    with pytest.raises(ValueError, match="read-only"):
        spec.pool[0] = 0
    assert str(spec) == "weight_pool3:group=4,lut_bits=6,lut_range_exp=0,layout=full,match=l2"
    parsed = WeightPoolFormat.from_texts(
        3, dict(part.split("=") for part in str(spec).partition(":")[2].split(","))
    )
    assert parsed.with_pool(spec.pool) == spec


def test_exact_range_is_twos_complement():
    # 4 * -32 = -128 fits 8 bits; 4 * 32 = 128 does not.
    spec = WeightPoolSpec(pool=np.full((1, 4), -0.25), exact=True)
    assert spec.table[-1].tolist() == [-128]
    assert spec.levels == 128
    assert spec.unit == 2.0**-7
    assert "exact=yes" in str(spec)


def test_code_table():
    table = WeightPoolSpec(pool=np.zeros((2, 8)), lut_bits=4, lut_range_exp=1).code_table()
    assert table["code"] == list(range(16))
    assert table["binary"][9] == "1001"
    assert table["hex"][10] == "a"
    assert table["entry"] == [0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1]
    assert table["value"] == [entry * 2 / 7 for entry in table["entry"]]


def test_plane_weights():
    assert plane_weights(4, False) == [1, 2, 4, 8]
    assert plane_weights(4, True) == [1, 2, 4, -8]
    assert plane_weights(1, True) == [-1]
    with pytest.raises(ValueError, match="act_bits must be between 1 and 8, not 9"):
        plane_weights(9, False)


def test_storage():
    spec = WeightPoolFormat(entries=64).spec()
    # 16 KiB for 64 entries of 8 bits; 3 * 2 indices.
    assert spec.storage_bits((3, 9)) == 6 * 8 + 8 * 16384
    assert spec.index_storage_bits((3, 9)) == 48
    assert spec.storage_bits((0, 9)) == 8 * 16384


def test_format_strings():
    texts = {
        "group": "4",
        "lut_bits": "9",
        "lut_range_exp": "-2",
        "act_bits": "6",
        "exact": "no",
        "layout": "half",
        "match": "cosine",
        "seed": "3",
    }
    fmt = WeightPoolFormat.from_texts(32, texts)
    expected = WeightPoolFormat(
        entries=32,
        group=4,
        lut_bits=9,
        lut_range_exp=-2,
        act_bits=6,
        exact=False,
        layout="half",
        match="cosine",
        seed=3,
    )
    assert fmt == expected
    assert str(fmt) == "weight_pool32:" + ",".join(f"{k}={v}" for k, v in texts.items())
    assert str(WeightPoolFormat(entries=128)) == "weight_pool128"
    spec = fmt.spec()
    assert spec.pool.tolist() == [[0.0] * 4] * 32
    assert (spec.lut_bits, spec.lut_range_exp, spec.exact, spec.layout, spec.match) == (
        9, -2, False, "half", "cosine",
    )  # fmt: skip
    default = WeightPoolFormat().spec()
    assert default.pool.shape == (64, 8)
    assert (default.lut_bits, default.exact, default.layout, default.match) == (
        8,
        False,
        "full",
        "l2",
    )
    assert WeightPoolFormat(exact=True).spec().lut_bits == 11
    assert WeightPoolFormat(exact=True, group=4).spec().lut_bits == 10


@pytest.mark.parametrize(
    ("size", "texts", "message"),
    [
        (0, {}, "entries must be between 1 and 256, not 0"),
        (257, {}, "entries must be between 1 and 256, not 257"),
        (64, {"group": "3"}, "group must be between 4 and 8, not 3"),
        (64, {"group": "6"}, r"pool must be \[1 to 256, 4 or 8\], not \[64, 6\]"),
        (64, {"lut_bits": "1"}, "lut_bits must be between 2 and 16, not 1"),
        (64, {"lut_range_exp": "65"}, "lut_range_exp must be between -64 and 64, not 65"),
        (64, {"act_bits": "9"}, "act_bits must be between 1 and 8, not 9"),
        (64, {"seed": "-1"}, "seed must be at least 0, not -1"),
        (64, {"seed": "x"}, "seed must be an integer, not 'x'"),
        (64, {"exact": "1"}, "exact must be yes or no, not '1'"),
        (64, {"layout": "x"}, "layout must be full, nibble or half, not 'x'"),
        (64, {"match": "x"}, "match must be cosine or l2, not 'x'"),
        (64, {"depth": "1"}, "parameter of weight_pool must be one of group, .*, not 'depth'"),
    ],
)
def test_format_refuses(size, texts, message):
    with pytest.raises(ValueError, match=message):
        WeightPoolFormat.from_texts(size, texts)


def test_fit_weights():
    weights = float_pool(40, 24, seed=1)
    fmt = WeightPoolFormat(entries=16, seed=2)
    spec = fmt.fit(weights)
    assert isinstance(spec, WeightPoolSpec)
    assert spec.entries == 16
    assert spec == fmt.fit(weights, method="paper") == fmt.fit(weights.copy(order="F"))
    assert spec != WeightPoolFormat(entries=16, seed=3).fit(weights)
    # Better than one vector, and as good as it can be with one entry for each.
    error = np.mean((spec.quantise(weights) - weights) ** 2)
    assert error < 0.6 * np.mean(weights**2)
    lossless = WeightPoolFormat(entries=128).fit(weights)
    np.testing.assert_array_equal(lossless.quantise(weights), weights)


@pytest.mark.parametrize("scale", [1.0, 2.0**-9, 3e4])
@pytest.mark.parametrize("layout", BITS)
def test_fit_of_the_range(scale, layout):
    pool = float_pool(6, 8).astype(np.float64) * scale
    fmt = WeightPoolFormat(entries=6, layout=layout)
    spec = fmt.with_pool(pool)
    sums = oracle_table(pool, Fraction(1), Fraction(1), "full")
    rows = [[Fraction(w) for w in row] for row in pool.tolist()]
    sums = [
        [sum((w for i, w in enumerate(row) if a >> i & 1), Fraction(0)) for row in rows]
        for a in range(256)
    ]
    largest = max(abs(v) for row in sums for v in row)
    top = next(e for e in range(-40, 40) if Fraction(2) ** e >= largest)
    errors = {}
    for exp in range(top, top - 4, -1):
        table = oracle_table(pool, 127, Fraction(2) ** exp, layout)
        unit = Fraction(2) ** exp / 127
        errors[exp] = sum(
            (entry * unit - v) ** 2
            for entries, row in zip(table, sums, strict=True)
            for entry, v in zip(entries, row, strict=True)
        )
    assert spec.lut_range_exp == min(errors, key=errors.get)
    assert WeightPoolFormat(entries=6, lut_range_exp=5).with_pool(pool).lut_range_exp == 5


def test_range_of_powers_of_two():
    # The largest sum is 1: the range 1 holds it, and nothing needs more.
    pool = np.array([[0.25, 0.25, 0.25, 0.25]])
    assert WeightPoolFormat(entries=1, group=4).with_pool(pool).lut_range_exp == 0
    assert WeightPoolFormat(entries=1, group=4).with_pool(2 * pool).lut_range_exp == 1
    assert WeightPoolFormat(entries=1, group=4).with_pool(0 * pool).lut_range_exp == 0


def test_fit_of_integers():
    pool = float_pool(6, 8).astype(np.float64)
    spec = WeightPoolFormat(entries=6, exact=True).with_pool(pool)
    assert spec.exact
    assert spec.lut_bits == 11
    integers = spec.pool / spec.unit
    np.testing.assert_array_equal(integers, np.rint(integers))
    largest = np.abs(pool).max()
    assert 63 < np.abs(integers).max() <= 127
    np.testing.assert_allclose(spec.pool, pool, atol=spec.unit / 2)
    assert largest / spec.unit <= 127 < 2 * largest / spec.unit
    # As wide as the widest sum needs.
    narrow = WeightPoolFormat(entries=6, exact=True, lut_bits=6).with_pool(pool)
    assert np.abs(narrow.pool / narrow.unit).max() <= 3
    pinned = WeightPoolFormat(entries=6, exact=True, lut_range_exp=-2).with_pool(pool)
    assert np.abs(pinned.pool / pinned.unit).max() == 127
    with pytest.raises(ValueError, match="lut_bits must leave 2 bits for a weight, not 1"):
        WeightPoolFormat(entries=6, exact=True, lut_bits=4).with_pool(pool)


def test_with_pool_refuses():
    fmt = WeightPoolFormat(entries=6)
    with pytest.raises(ValueError, match=r"pool must be \[6, 8\], not \[5, 8\]"):
        fmt.with_pool(float_pool(5, 8))
    with pytest.raises(TypeError, match="pool must be float16, float32 or float64, not int64"):
        fmt.with_pool(np.zeros((6, 8), int))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("role", ["weights", "activations"])
@pytest.mark.parametrize("method", ["sweep", "paper"])
def test_fit_of_little(dtype, role, method):
    fmt = WeightPoolFormat(entries=4, act_bits=5)
    for tensor in (np.zeros((0,)), np.zeros((3, 0)), np.zeros((2, 9)), np.array(0.75), np.ones(1)):
        spec = fmt.fit(tensor.astype(dtype), role, method)
        assert isinstance(spec, WeightPoolSpec if role == "weights" else FixedSpec)
        np.testing.assert_allclose(spec.quantise(tensor.astype(dtype)), tensor, atol=0.04)


def oracle_squares(numbers, bits, signed, exp):
    unit = Fraction(2) ** (exp - bits + signed)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return sum(
        (Fraction(x) - min(max(nearest_even(Fraction(x) / unit), low), high) * unit) ** 2
        for x in numbers
    )


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_fit_of_activations(bits, signed):
    numbers = np.random.default_rng(bits).exponential(size=80)
    if signed:
        numbers[::2] *= -1
    top = next(e for e in range(-9, 9) if 2.0**e >= np.abs(numbers).max())
    fmt = WeightPoolFormat(entries=4, act_bits=bits)
    paper = fmt.fit(numbers, "activations", "paper")
    assert paper == FixedSpec(bits=bits, frac_bits=bits - signed - top, signed=signed)
    errors = {
        exp: oracle_squares(numbers.tolist(), bits, signed, exp)
        for exp in range(top, top - bits - 1, -1)
    }
    best = min(errors, key=errors.get)
    sweep = fmt.fit(numbers, "activations")
    assert sweep == FixedSpec(bits=bits, frac_bits=bits - signed - best, signed=signed)


def test_fit_of_activations_at_limits():
    fmt = WeightPoolFormat(entries=4)
    assert fmt.fit(np.array([4.0]), "activations", "paper").frac_bits == 6
    assert fmt.fit(np.array([4.001]), "activations", "paper").frac_bits == 5
    assert fmt.fit(np.array([1e-30]), "activations", "paper").frac_bits == 64
    assert fmt.fit(np.array([3e38]), "activations", "paper").frac_bits == -64


def test_fit_refuses():
    fmt = WeightPoolFormat(entries=4)
    weights = np.zeros((3, 8), np.float32)
    weights[1, 5] = np.nan
    with pytest.raises(
        ValueError, match=r"tensor must be finite in binary32, not nan at index \(1, 5\)"
    ):
        fmt.fit(weights)
    with pytest.raises(ValueError, match="not nan"):
        fmt.fit(weights, "activations")
    with pytest.raises(TypeError, match="tensor must be float"):
        fmt.fit(np.zeros(3, int))
    with pytest.raises(ValueError, match="role must be weights or activations, not 'x'"):
        fmt.fit(weights, "x")
    with pytest.raises(ValueError, match="method must be sweep or paper, not 'x'"):
        fmt.fit(weights, "weights", "x")
