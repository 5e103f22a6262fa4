"""Memories of a row cost what they are used for, and nothing else of the row changes."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from narrowgauge.machine import Memory
from narrowgauge.memories import memory_facts, memory_rows, with_costs
from narrowgauge.pool_machine import _index_rows
from synth.library import load
from synth.memory import choose_model, memory_cost, off_chip

LIBRARY = load("nangate45")
MODEL = choose_model("nangate45", LIBRARY)


def node(name, source, weights):
    return SimpleNamespace(name=name, inputs=(source,), weight=np.zeros(weights))


#: Two layers: 6 x 50 numbers to 100, and those to 10.
NETWORK = SimpleNamespace(
    mac_nodes=(node("first", "input", 30_000), node("second", "first", 1000)),
    shapes={"input": (6, 50), "first": (100,), "second": (10,)},
)
MEMORIES = (
    Memory(name="activations", row_bits=128, holds="inputs", row_values=16),
    Memory(name="table", row_bits=64, rows=512, banks=2),
    Memory(name="results", row_bits=32, holds="outputs", row_values=8),
)


def row():
    return {
        "spec": "fixed8",
        "energy_per_mac_pj": 1.0,
        "storage_bits_per_weight": 8.5,
        "layers": [
            {"macs": 30_000, "products_per_cycle": 200.0},
            {"macs": 1000, "products_per_cycle": 10.0},
        ],
        "memories": memory_rows(
            MEMORIES,
            NETWORK,
            {"activations": 0.25, "table": 0.5, "results": 0.125},
            {"results": 0.125, "table": 0.125},
        ),
    }


def test_sizes_and_rates():
    sizes = [(entry["rows"], entry["banks"], entry["row_bits"]) for entry in row()["memories"]]
    # 300 numbers are 19 rows of 16, 100 are 13 of 8.
    assert sizes == [(19, 1, 128), (512, 2, 64), (13, 1, 32)]
    rates = [(entry["reads_per_mac"], entry["writes_per_mac"]) for entry in row()["memories"]]
    assert rates == [(0.25, 0.0), (0.375, 0.125), (0.0, 0.125)]
    (unused,) = memory_rows(MEMORIES[1:2], NETWORK, {}, {})
    assert unused["accesses_per_mac"] == unused["writes_per_mac"] == 0


def test_costs_add_up():
    """Reads, writes and leakage of each; 150 and 100 cycles of 2 ns for 31 000 products."""
    before = row()
    result = with_costs(before, MODEL, off_chip("ddr"), LIBRARY, NETWORK, 2.0)
    ns_per_mac = 2.0 * (30_000 / 200 + 1000 / 10) / 31_000
    total = area = leakage = 0.0
    for entry, (rows, width, banks) in zip(
        result["memories"], ((19, 128, 1), (256, 64, 2), (13, 32, 1)), strict=True
    ):
        cost = memory_cost(MODEL, LIBRARY, rows, width)
        assert (entry["read_pj"], entry["write_pj"]) == (cost.read_pj, cost.write_pj)
        assert entry["area_um2"] == pytest.approx(banks * cost.area_um2)
        assert entry["leakage_uw"] == pytest.approx(banks * cost.leakage_uw)
        energy = (
            entry["reads_per_mac"] * cost.read_pj
            + entry["writes_per_mac"] * cost.write_pj
            # 1 uW is 0.001 pJ in 1 ns.
            + banks * cost.leakage_uw * ns_per_mac / 1000
        )
        assert entry["energy_per_mac_pj"] == pytest.approx(energy)
        total += energy
        area += entry["area_um2"]
        leakage += entry["leakage_uw"]
    assert [entry["kind"] for entry in result["memories"]] == ["sram", "sram", "registers"]
    assert result["memory_energy_per_mac_pj"] == pytest.approx(total)
    assert result["memory_area_um2"] == pytest.approx(area)
    assert result["memory_leakage_uw"] == pytest.approx(leakage)
    # 8.5 bits of 31 000 weights, 1.3 nJ for 64 of them, for 31 000 products.
    assert result["off_chip_energy_per_mac_pj"] == pytest.approx(8.5 * 1300 / 64)
    assert result["energy_per_mac_pj"] == 1.0
    assert before == row()


def test_without_a_model():
    result = with_costs(row(), None, None, LIBRARY, NETWORK, 2.0)
    for key in ("energy_per_mac_pj", "area_um2", "leakage_uw"):
        assert result[f"memory_{key}"] is None
    assert result["off_chip_energy_per_mac_pj"] is None
    for entry in result["memories"]:
        assert entry["kind"] is entry["read_pj"] is entry["energy_per_mac_pj"] is None
        assert entry["rows"] > 0


def test_model_without_leakage_and_area():
    """Energies of accesses alone; what the table does not say stays unknown."""
    model = choose_model("horowitz2014", LIBRARY)
    result = with_costs(row(), model, off_chip("none"), LIBRARY, NETWORK, 2.0)
    table = result["memories"][1]
    assert table["leakage_uw"] is table["area_um2"] is table["access_ns"] is None
    # 256 rows of 64 bits are a quarter of 8 KB: half of 10 pJ, as a quarter of 32 KB is.
    assert table["read_pj"] == pytest.approx(5.0)
    assert not table["in_range"]
    assert table["energy_per_mac_pj"] == pytest.approx(0.5 * 5.0)
    assert result["memory_area_um2"] is None
    assert math.isfinite(result["memory_energy_per_mac_pj"])


def test_facts_name_every_source():
    facts = memory_facts(MODEL, off_chip("3.5"))
    assert facts["model"]["name"] == "nangate45"
    assert [source["name"] for source in facts["model"]["sources"]] == ["cacti", "orfs"]
    assert all(source["text"] and source["licence"] for source in facts["model"]["sources"])
    assert facts["off_chip"] == {
        "name": "own",
        "pj_per_bit": 3.5,
        "source": "given on the command line",
    }
    assert memory_facts(None, None) == {"model": None, "off_chip": None}
    paper = memory_facts(choose_model("jouppi2021", LIBRARY), None)["model"]["sources"][0]
    assert paper["repository"] == paper["licence"] == ""


def test_rows_of_indices():
    """The layer with most: 5 blocks of 11 outputs on 4 lanes in either of two groups."""
    streams = [
        SimpleNamespace(name=name, operands=SimpleNamespace(indices=np.zeros(shape, np.uint8)))
        for name, shape in (("a", (5, 11)), ("a", (5, 11)), ("b", (7, 16)))
    ]
    assert _index_rows(SimpleNamespace(lanes=4, group=8), streams) == 2 * 5 * 3
    assert _index_rows(SimpleNamespace(lanes=4, group=8), []) == 1
