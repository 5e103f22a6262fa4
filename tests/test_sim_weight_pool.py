"""What the bench of the look-up engine takes for granted, against exact fractions."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from golden.fixed import FixedSpec
from sim.coverage import Coverage
from sim.weight_pool import PoolBins, make_system
from tests.weight_pool_oracle import oracle_requantise, oracle_result, oracle_table

FIELDS = {"entries": 5, "lanes": 2, "max_outputs": 6, "length": 40}


@pytest.mark.parametrize("layout", ["full", "nibble"])
@pytest.mark.parametrize("has_sign", [False, True])
@pytest.mark.parametrize("act_bits", [1, 3, 8])
def test_random_layer(layout, has_sign, act_bits):
    """Settings and streams of a layer lead to its codes, pixel by pixel."""
    system = make_system(FIELDS | {"layout": layout})
    rng = np.random.default_rng([act_bits, has_sign])
    pool = system.random_pool(rng)
    layer = system.random_layer(
        rng,
        pool,
        outputs=5,
        channels=11,
        act_bits=act_bits,
        has_sign=has_sign,
        kernel=(1, 2),
        pixels=4,
    )
    assert layer.groups.shape == (4, 4, 8)
    assert not layer.groups[:, 1::2, 3:].any()
    table = oracle_table(pool.pool, 127, Fraction(2) ** pool.lut_range_exp, layout)
    settings = layer.settings
    assert (settings["top_plane"], settings["has_sign"]) == (act_bits - 1, has_sign)
    assert settings["last_row"] == 2
    real = Fraction(settings["mult"], 1 << settings["shift"])
    low = -settings["largest"] - 1 if settings["result_has_sign"] else 0
    for pixel, output in np.ndindex(4, 5):
        total = int(layer.bias_q[output])
        for codes, indices in zip(layer.groups[pixel].tolist(), layer.indices, strict=True):
            total += oracle_result(table, int(indices[output]), codes, act_bits, has_sign)
        assert layer.sums[pixel, output] == total
        if settings["relu"]:
            total = max(total, 0)
        code = oracle_requantise(total, real, low, settings["largest"])
        assert layer.expected[pixel, output] == code % 256


def test_layers_are_worth_it():
    """Codes that leave use their range, and all of the settings are drawn."""
    system = make_system(FIELDS)
    rng = np.random.default_rng(2)
    pool = system.random_pool(rng)
    layers = [
        system.random_layer(rng, pool, outputs=6, channels=8, act_bits=6, has_sign=False, pixels=9)
        for _ in range(12)
    ]
    for name in ("relu", "result_has_sign"):
        assert {layer.settings[name] for layer in layers} == {0, 1}
    assert all(len(np.unique(layer.expected)) > 8 for layer in layers)


def test_given_layer():
    """Narrow signed codes leave with their sign in all bits of the port."""
    system = make_system(FIELDS)
    pool = system.random_pool(np.random.default_rng(1))
    layer = system.layer(
        pool,
        FixedSpec(bits=4, frac_bits=0, signed=False),
        FixedSpec(bits=4, frac_bits=-2),
        codes=np.arange(9)[None],
        channels=9,
        indices=np.array([[0, 4], [2, 3]]),
        bias_q=np.array([1, 2]),
        sums=np.array([[200, -9]]),
        codes_out=np.array([[15, 7]]),
        relu=True,
    )
    assert layer.groups.tolist() == [[list(range(8)), [8] + [0] * 7]]
    assert layer.expected.tolist() == [[255, 7]]
    assert layer.settings["largest"] == 7
    assert layer.settings["relu"] == 1


def test_bins():
    """Rows, indices and what becomes of sums, by hand."""
    system = make_system(FIELDS)
    pool = system.random_pool(np.random.default_rng(1))
    layer = system.layer(
        pool,
        FixedSpec(bits=2, frac_bits=0),
        FixedSpec(bits=3, frac_bits=0),
        codes=np.array([[3, 1, 0, 2, 0, 0, 0, 0]] * 2),
        channels=8,
        indices=np.array([[0, 4, 4]]),
        bias_q=np.array([1, -2, 0]),
        # In steps of 4: 3.5 is too large, 3.25 is not; -4.5 is not too small, -4.75 is.
        sums=np.array([[14, 13, 6], [-18, -19, 10]]),
        codes_out=np.zeros((2, 3), int),
        relu=False,
    )
    layer = replace(layer, settings=dict(layer.settings) | {"mult": 1, "shift": 2})
    coverage = Coverage()
    bins = PoolBins(coverage, system.mac)
    bins.count(layer)
    counts = coverage.counts
    # Plane 0 is channels 0 and 1, plane 1 channels 0 and 3.
    assert {name: n for name, n in counts["row of table 0"].items() if n} == {"3": 2, "9": 2}
    assert {name: n for name, n in counts["index"].items() if n} == {"0": 1, "4": 2}
    assert {name for name, n in counts["activations"].items() if n} == {"2 bits, signed"}
    assert counts["first plane"] == {"added": 0, "subtracted": 2, "of zeros": 0}
    assert counts["bias"] == {"negative": 1, "positive": 1}
    assert counts["outputs"] == {"one row": 0, "several rows": 1, "lanes left over": 1}
    # 14 / 4 is a tie that would be 4, 6 / 4 becomes 2 and -18 / 4 becomes -4; 10 / 4 becomes 2.
    assert counts["result"] == {
        "below all values": 1,
        "above all values": 0,
        "zero": 0,
        "tie, rounded up": 3,
        "tie, rounded down": 1,
        "cleared by ReLU": 0,
    }
    rectified = replace(layer, settings=dict(layer.settings) | {"relu": 1, "shift": 1})
    bins.count(rectified)
    # 14, 13 and 10 halves are beyond 3, 6 halves are not; both negative sums are cleared.
    assert counts["result"]["above all values"] == 3
    assert counts["result"]["cleared by ReLU"] == 2
    assert counts["result"]["tie, rounded up"] == 3
