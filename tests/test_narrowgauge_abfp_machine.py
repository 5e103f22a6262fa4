"""The ABFP tile in the comparison."""

from dataclasses import replace

import numpy as np
import pytest

from golden.bfloat16 import to_bits
from golden.formats import parse
from golden.inference import quantise
from narrowgauge.abfp_machine import AbfpMachine, draw_vectors
from narrowgauge.catalogue import Options
from narrowgauge.machine import Settings
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import read

FORM = parse("abfp8:tile=8,gain=2")


@pytest.fixture(scope="module")
def streams():
    embedded = digits()
    network = quantise(read(embedded.model_path), FORM.system(), embedded.data.calibration)
    return list(network.streams(embedded.data.images[:2]))


@pytest.fixture(scope="module")
def machine(streams):
    options = Options(rows=3, lanes=4, length=16)
    return AbfpMachine(FORM, streams, Settings(clock_ns=4.0, options=options))


def test_attributes(machine, streams):
    assert machine.products_per_cycle == 12
    # The longest dot product of the network.
    assert machine.length == 288
    assert [memory.name for memory in machine.memories] == [
        "store", "weights", "weight_scales", "biases", "activations", "results",
    ]  # fmt: skip
    assert machine.memories[1].banks == 3
    assert machine.memories[4].row_bits == machine.memories[5].row_bits == 16 * 4
    assert machine.memories[1].rows == 3 * 288 // 4
    assert machine.memories[1].row_bits == 32
    assert all(machine.runs(stream) for stream in streams)


def test_run(machine, streams):
    """A layer with a dot product that fills no whole vectors, and channels that fill no tile."""
    stream = streams[0]
    assert stream.operands.inputs.shape[1] == 9
    run = machine.run([stream])
    # 12 vectors are 6 pixels of 2 vectors; of 16 channels, the last tile has one.
    tops = np.resize(np.arange(0, 16, 3), 64)
    assert run.products == int(np.minimum(16 - tops, 3).sum()) * 6 * 9
    assert run.length == 9
    assert run.nets_annotated == 1
    assert run.energy_pj["multiply"] > 0
    # Each word of 4 elements is written and read once by each of 64 streams.
    words = 64 * 6 * 2 * 2
    assert run.accesses["store"] * run.products == pytest.approx(2 * words)
    assert run.writes["store"] * run.products == pytest.approx(words)
    assert run.accesses["activations"] * run.products == pytest.approx(words)
    # A result of 9 products is a quarter of a word.
    assert run.accesses["results"] == run.writes["results"] == pytest.approx(1 / (9 * 4))
    assert "weights" not in run.writes or run.writes["weights"] == 0


def test_cut(machine, streams):
    """Dot products cut to whole vectors are those of the first elements alone."""
    stream = streams[0]
    operands = stream.operands
    batch, products = draw_vectors(machine.hardware, stream, 1, 8)
    assert batch.elements.shape == (64, 12, 8)
    assert products % (12 * 8) == 0
    spec = FORM.spec()
    part = spec.encode(operands.inputs[:, :8].astype(np.float32))
    weights = replace(
        operands.weights,
        codes=operands.weights.codes[:, :8],
        scales=operands.weights.scales[:, :1],
    )
    totals = spec.matmul(weights, spec, part, operands.bias)
    known = set(to_bits(np.maximum(totals, 0)).ravel().tolist()) | {0}
    assert set(batch.results.ravel().tolist()) <= known
    assert machine.hardware.run(batch).cycles > 0


def test_values(machine, streams):
    embedded = digits()
    network = quantise(read(embedded.model_path), FORM.system(), embedded.data.calibration)
    layer = next(iter(network.layers.values()))
    text, values = machine.values(layer)
    assert text == str(layer.weight_spec)
    assert len(values) == 255
    assert values[0] == -1


def test_noise_is_refused(streams):
    form = replace(FORM, noise_bits=4)
    with pytest.raises(ValueError, match="noise_bits must not be given to compare hardware"):
        AbfpMachine(form, streams, Settings())
