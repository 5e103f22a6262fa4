"""What the benches take for granted about number systems, against exact fractions."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from golden.dybit import DybitSpec
from golden.fixed import FixedSpec
from golden.tapered import TaperedSpec
from sim import dybit, elp_bsd, fixed, system, tapered
from sim.system import EncoderSetting, Layer

SYSTEMS = {
    "fixed4": fixed.make_system({"bits": 4, "length": 64}),
    "fixed8": fixed.make_system({"bits": 8}),
    "tapered5": tapered.make_system({"bits": 5, "max_run": 5}),
    "tapered8": tapered.make_system({"bits": 8, "max_run": 8}),
    "dybit4": dybit.make_system({"bits": 4, "weight_bits": 3, "length": 8}),
    "dybit8": dybit.make_system({"bits": 8}),
    "elp_bsd4": elp_bsd.make_system({"bits": 8, "sets": ["E4-1", "E4-2"]}),
    "elp_bsd4 shifting": elp_bsd.make_system({"sets": ["E4-2"], "multiplier": False}),
    "elp_bsd6": elp_bsd.make_system({"bits": 6, "sets": ["E6-2"], "length": 64}),
    "tapered8 runs 4 to 7": tapered.make_system({"bits": 8, "min_run": 4, "max_run": 7}),
}
each_system = pytest.mark.parametrize("number_system", SYSTEMS.values(), ids=SYSTEMS)


def values_of(spec):
    return [Fraction(float(value)) for value in spec.decode(np.arange(1 << spec.bits))]


@each_system
def test_layers_can_be_set(number_system):
    """Whatever is drawn is legal for the hardware, and not always the same."""
    rng = np.random.default_rng(1)
    layers = [number_system.random_layer(rng) for _ in range(300)]
    settings = [number_system.mac.settings(*layer) for layer in layers]
    for port in settings[0]:
        flag = port.endswith(("_has_sign", "_set"))
        count = 2 if flag else min(4, number_system.mac.bits - 1)
        assert len({row[port] for row in settings}) >= count


@each_system
def test_every_product_shows(number_system):
    """A result code of a pair layer is the sum itself, as long as it is in range."""
    mac = number_system.mac
    for layer in number_system.pair_layers().values():
        assert number_system.mac.settings(*layer)
        results = set(values_of(layer.result))
        low, high = system.consecutive(layer.result)
        step = Fraction(layer.result.operand_unit)
        assert {step * count for count in range(low, high + 1)} <= results
        assert high - low >= 1 << mac.bits - 1
        weights, activations = (set(values_of(spec)) for spec in layer[:2])
        assert all((w * a / step).denominator == 1 for w in weights for a in activations)
        assert mac.settings(*layer)


def test_codes_are_drawn_from_all():
    rng = np.random.default_rng(1)
    codes = system.draw_codes(rng, 4, (100, 20))
    counts = np.bincount(codes.ravel(), minlength=16)
    assert codes.shape == (100, 20)
    assert len(counts) == 16
    assert counts.min() > 50
    # Zero and what is next to the limits come more often than the others.
    assert counts[[0, 1, 7, 8, 9, 15]].min() > counts[[2, 3, 4, 5, 6, 10, 11, 12, 13, 14]].max()


@pytest.mark.parametrize("name", ["fixed4", "tapered5", "dybit4"])
def test_ties(name):
    """Ties lie half-way between neighbouring values, and those next to them do not."""
    number_system = SYSTEMS[name]
    mac, rng = number_system.mac, np.random.default_rng(1)
    limit = 1 << mac.sum_width - 1
    found = 0
    for setting in number_system.encoder_settings():
        unit = Fraction(2) ** setting.exponent * setting.mult
        if unit == 0:
            continue
        values = sorted(set(values_of(setting.result)))
        middles = {(a + b) / 2 / unit for a, b in itertools.pairwise(values)}
        wanted = {
            int(middle // 1) + offset
            for middle in middles
            for offset in (-1, 0, 1)
            if abs(middle) < limit - 1
        }
        totals = set(system.tie_totals(mac, setting, 1000, rng).tolist())
        assert wanted <= totals
        assert all(-limit <= total < limit for total in totals)
        found += sum(middle.denominator == 1 for middle in middles)
    assert found > 100


def test_limits():
    mac = SYSTEMS["fixed4"].mac
    assert mac.sum_width == 14
    totals = system.edge_totals(mac).tolist()
    assert totals[0] == -8192
    assert totals[-1] == 8191
    assert {-8191, -4097, -4096, -4095, -1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 4097} <= set(totals)
    wide = system.wide_totals(mac, 2000, np.random.default_rng(1))
    assert -8192 <= wide.min() < -4096
    assert 4096 < wide.max() <= 8191
    assert np.mean(np.abs(wide) < 16) > 0.1


def test_biases():
    """In units of 2**-14, but for IS = 1, whose unit is finer by one bit for each factor."""
    mac = SYSTEMS["tapered8"].mac
    long, short = TaperedSpec(bits=8, max_run=4), TaperedSpec(bits=8, max_run=1)
    shifts = [
        int(system.hardware_bias(mac, Layer(w, a, long), np.int64(1)))
        for w, a in [(long, long), (long, short), (short, long), (short, short)]
    ]
    assert shifts == [1, 2, 2, 4]
    # 4096 products of 512 * 512 units of 2**-12; a bias may be as large as those that are left.
    assert system.largest_bias(mac, Layer(long, long, long), 4000) == 96 * 512 * 512 * 4
    assert system.largest_bias(mac, Layer(short, short, long), 4000) == 96 * 512 * 512
    plain = FixedSpec(bits=8)
    layer = Layer(plain, plain, plain)
    assert system.largest_bias(SYSTEMS["fixed8"].mac, layer, 4096) == 0
    assert system.hardware_bias(SYSTEMS["fixed8"].mac, layer, np.array([-3, 5])).tolist() == [-3, 5]


def test_products_and_sums():
    """By hand: activations are rows, weights columns."""
    spec = FixedSpec(bits=4, frac_bits=0)
    layer = Layer(spec, spec, spec)
    activations = np.array([[1, 2, 15], [8, 0, 1]])  # 1 2 -1 and -8 0 1
    weights = np.array([[3], [4], [5]])
    sums = system.exact_sums(layer, activations, weights, np.array([100]))
    assert sums.tolist() == [[106], [81]]
    assert system.products(layer, activations[0], weights[:, 0]).tolist() == [3, 8, -5]
    assert system.rounded(layer, np.array([7, 9, -9, -1]), relu=False).tolist() == [7, 7, 8, 15]
    assert system.rounded(layer, np.array([7, 9, -9, -1]), relu=True).tolist() == [7, 7, 0, 0]


def test_tapered_operands():
    """Values of the specification's table, in units of 2**-6; limits act as the nearest run."""
    settings = {
        setting.ports["run_limit"]: setting.operands
        for setting in SYSTEMS["tapered8"].decoder_settings()
    }
    assert sorted(settings) == list(range(8))
    for run_limit, code, value in [
        (7, 0x77, 3.875), (7, 0x89, -3.875), (7, 0x7F, 7), (7, 0x80, -8), (7, 0x01, 0.015625),
        (2, 0x5A, 1.8125), (2, 0xA6, -1.8125), (3, 0x7F, 3.9375), (1, 0x40, 1),
    ]:  # fmt: skip
        assert settings[run_limit][code] == value * 64
    assert settings[0].tolist() == settings[1].tolist()  # IS = 1 is decoded as IS = 2
    short = list(SYSTEMS["tapered8 runs 4 to 7"].decoder_settings())
    assert [short[limit].operands[0x80] for limit in range(8)] == [
        -run * 64 for run in (4, 4, 4, 4, 5, 6, 7, 7)
    ]


def test_tapered_operand_forms():
    fields = {
        "significand": np.array([5, 5, 0]),
        "shift": np.array([2, 0, 1]),
        "negative": np.array([0, 1, 0]),
    }
    assert SYSTEMS["tapered8"].operand_values(fields).tolist() == [20, -5, 0]
    integer = tapered.make_system({"bits": 8, "form": "integer"})
    assert integer.operand_values(np.array([-7, 3])).tolist() == [-7, 3]


def test_fixed_operands():
    assert list(SYSTEMS["fixed8"].decoder_settings()) == []
    assert SYSTEMS["fixed8"].operand_values(np.array([3])).tolist() == [3]


def test_encoder_settings():
    """Every value that the ports can have, and what it means."""
    rows = list(SYSTEMS["tapered5"].encoder_settings())
    assert len({tuple(row.ports.values()) for row in rows}) == 8 * 16
    meaning = {tuple(row.ports.values()): (row.result.max_run, row.exponent) for row in rows}
    assert meaning[0, -8] == (1, -16)
    assert meaning[4, 7] == (5, -1)
    assert meaning[7, 0] == (5, -8)
    fixed_rows = list(SYSTEMS["fixed4"].encoder_settings())
    assert [row.ports["shift"] for row in fixed_rows] == list(range(16))
    assert [row.exponent for row in fixed_rows] == [-shift for shift in range(16)]


def test_consecutive_results():
    """Integers about zero of which each has a code."""
    assert system.consecutive(FixedSpec(bits=8)) == (-128, 127)
    assert system.consecutive(FixedSpec(bits=3, signed=False)) == (0, 7)
    assert system.consecutive(DybitSpec(bits=4)) == (-4, 4)
    assert system.consecutive(DybitSpec(bits=4, signed=False)) == (0, 8)


def test_scaled_results():
    """By hand: the product of a sum and the multiplier is rounded, ties away from zero."""
    plain, dybit4 = FixedSpec(bits=4, frac_bits=1), DybitSpec(bits=4, scale=4.0)
    sums = np.array([-7, -1, 0, 1, 3, 5, 100])
    setting = EncoderSetting({}, plain, -2, 3)  # times 3/2, in units of 1/2
    assert system.encoded(setting, sums).tolist() == [8, 14, 0, 2, 4, 7, 7]
    setting = EncoderSetting({}, dybit4, -1, 3)  # times 3/2, in units of 1
    assert system.encoded(setting, sums).tolist() == [14, 10, 0, 2, 4, 6, 7]
    setting = EncoderSetting({}, dybit4, 1)
    assert system.encoded(setting, sums).tolist() == [15, 10, 0, 2, 5, 6, 7]
    with pytest.raises(ValueError, match=r"operand_unit must be a power of two, not 0\.75"):
        system.encoded(EncoderSetting({}, DybitSpec(bits=4, scale=3.0), 0), sums)


def test_dybit_operands():
    """Codes of activations without a sign, with one, and of weights, as in the specification."""
    weights, unsigned, signed = SYSTEMS["dybit4"].decoder_settings()
    assert (weights.ports, weights.spec) == ({}, DybitSpec(bits=3))
    assert weights.operands.tolist() == [0, 1, 2, 4, 0, -1, -2, -4]
    assert unsigned.ports == {"has_sign": 0}
    assert unsigned.operands.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 32, 64]
    assert signed.ports == {"has_sign": 1}
    assert signed.operands.tolist()[:9] == [0, 2, 4, 6, 8, 12, 16, 32, 0]
    assert signed.operands.tolist()[9:] == [-2, -4, -6, -8, -12, -16, -32]
    fields = {
        "significand": np.array([5, 5, 0]),
        "shift": np.array([2, 0, 1]),
        "negative": np.array([0, 1, 0]),
    }
    assert SYSTEMS["dybit4"].operand_values(fields).tolist() == [20, -5, 0]


def test_dybit_encoder_settings():
    """A unit of a result without a sign is half of one with a sign."""
    rows = list(SYSTEMS["dybit4"].encoder_settings())
    assert len({tuple(row.ports.values()) for row in rows}) == len(rows) == 64 * 6 * 2
    meaning = {tuple(row.ports.values()): row for row in rows}
    signed = meaning[5, 3, 1]
    assert signed.ports == {"shift": 5, "mult": 3, "has_sign": 1}
    assert (signed.exponent, signed.mult) == (-5, 3)
    assert meaning[5, 3, 0].exponent == -4
    assert meaning[0, 0, 1].result == DybitSpec(bits=4, scale=4.0)
    assert meaning[0, 0, 0].result == DybitSpec(bits=4, scale=8.0, signed=False)


def test_elp_bsd_settings():
    """Every set has products of its own; activations are decoded to integers."""
    elp_bsd4 = SYSTEMS["elp_bsd4"]
    assert [
        (str(layer.weights.set), layer.activations.signed)
        for layer in elp_bsd4.pair_layers().values()
    ] == [
        ("E4-1", False),
        ("E4-1", True),
        ("E4-2", False),
        ("E4-2", True),
    ]
    unsigned, signed = elp_bsd4.decoder_settings()
    assert (unsigned.ports, signed.ports) == ({"has_sign": 0}, {"has_sign": 1})
    assert unsigned.operands.tolist() == list(range(256))
    assert signed.operands.tolist() == [*range(128), *range(-128, 0)]
    assert elp_bsd4.operand_values(np.array([-7, 3])).tolist() == [-7, 3]
    rows = list(elp_bsd4.encoder_settings())
    assert len({tuple(row.ports.values()) for row in rows}) == len(rows) == 64 * 6 * 2
    meaning = {tuple(row.ports.values()): row for row in rows}
    assert meaning[5, 3, 0].result == FixedSpec(bits=8, frac_bits=0, signed=False)
    assert (meaning[5, 3, 1].exponent, meaning[5, 3, 1].mult) == (-5, 3)
    assert elp_bsd4.mac.sets == ("E4-1", "E4-2")
    rows = list(SYSTEMS["elp_bsd4 shifting"].encoder_settings())
    assert [row.mult for row in rows] == [1] * 128
    assert all("mult" not in row.ports for row in rows)
