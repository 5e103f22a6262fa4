"""Networks in ABFP, gains by saturation, and differential noise."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from golden.abfp import AbfpFormat, AbfpSpec
from golden.abfp_layers import (
    AbfpLayer,
    AbfpSystem,
    NoiseHistogram,
    choose_gain,
    differential_noise,
    saturated_shares,
)
from golden.abfp_tile import GAINS
from golden.bfloat16 import Bfloat16Codec, rounded, to_bits
from golden.inference import quantise as quantise_network
from golden.network import Add, Conv, Flatten, GlobalAveragePool, Linear, Network, Relu
from tests.abfp_oracle import accumulator, bfloat16, float32_sum
from tests.golden_oracle import load_vectors


def linear(name, source, weight, bias):
    return Linear(name=name, inputs=(source,), weight=np.float32(weight), bias=np.float32(bias))


def two_layers(rng, spread=1.0):
    """Features 11 -> 6, ReLU, -> 4."""
    nodes = (
        linear("hidden", "x", spread * rng.laplace(size=(11, 6)), rng.normal(size=6)),
        Relu(name="relu", inputs=("hidden",)),
        linear("logits", "relu", rng.normal(size=(6, 4)), rng.normal(size=4)),
    )
    return Network(input_name="x", input_shape=(11,), nodes=nodes)


def exact_layer(inputs, node, tile):
    """Accumulators of a layer for one input vector, by rationals."""
    results = []
    for weights, bias in zip(node.weight.T, node.bias, strict=True):
        weights = [bfloat16(Fraction(float(w))) for w in weights]
        total, _ = accumulator(weights, inputs, tile)
        results.append(float32_sum(total, Fraction(float(bias))))
    return results


@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize("tile", [4, 8])
def test_network_against_rationals(tile, exp_only):
    """Tensors are bfloat16, rounded once; logits are the accumulators of the last layer."""
    rng = np.random.default_rng(tile)
    net = two_layers(rng)
    fmt = AbfpFormat(bits=6, tile=tile, activation_bits=8, gain=2, exp_only=exp_only)
    run = quantise_network(net, fmt.system(), rng.normal(size=(5, 11)))
    images = rng.normal(size=(3, 11))
    logits = run.run(images)
    spec = fmt.spec().tile_spec(fmt.fit(np.zeros(0), "activations"))
    for image, row in zip(images, logits, strict=True):
        values = [bfloat16(Fraction(float(np.float32(x)))) for x in image]
        hidden = exact_layer(values, net.nodes[0], spec)
        values = [bfloat16(max(value, Fraction(0))) for value in hidden]
        expected = exact_layer(values, net.nodes[2], spec)
        assert [Fraction(x) for x in row] == expected


def conv(name, source, weight, pads=(1, 1, 1, 1), **parameters):
    return Conv(
        name=name,
        inputs=(source,),
        weight=np.float32(weight),
        bias=np.linspace(-0.3, 0.4, len(weight), dtype=np.float32),
        pads=pads,
        **parameters,
    )


def residual_network(rng):
    """Convolutions, one of them depthwise and one with strides, a residual sum, an average."""
    nodes = (
        conv("first", "x", rng.normal(scale=0.3, size=(6, 3, 3, 3))),
        Relu(name="r1", inputs=("first",)),
        conv("depthwise", "r1", rng.normal(scale=0.5, size=(6, 1, 3, 3)), groups=6),
        Add(name="sum", inputs=("depthwise", "r1")),
        Relu(name="r2", inputs=("sum",)),
        conv("strided", "r2", rng.normal(scale=0.2, size=(8, 6, 3, 3)), strides=(2, 2)),
        Relu(name="r3", inputs=("strided",)),
        GlobalAveragePool(name="average", inputs=("r3",)),
        Flatten(name="flat", inputs=("average",)),
        linear("logits", "flat", rng.normal(size=(8, 5)), rng.normal(size=5)),
    )
    return Network(input_name="x", input_shape=(3, 6, 6), nodes=nodes)


def test_network_with_convolutions():
    rng = np.random.default_rng(3)
    net = residual_network(rng)
    run = quantise_network(net, AbfpFormat(tile=16).system(), rng.normal(size=(20, 3, 6, 6)))
    images = rng.normal(size=(4, 3, 6, 6)).astype(np.float32)

    def layer(node, x):
        """The layer by its traces."""
        prepared = run.layers[node.name]
        spec = prepared.weight_spec
        results = []
        for group, columns in enumerate(node.columns(x)):
            w = spec.encode(node.matrices()[group].T)
            trace = spec.trace(w, spec, spec.encode(columns))
            results.append(trace.totals + node.biases()[group])
        return np.concatenate(results, axis=1).reshape(len(x), *node.output_shape(x.shape[1:]))

    nodes = {node.name: node for node in net.nodes}
    x = rounded(images.transpose(0, 2, 3, 1))
    first = rounded(np.maximum(layer(nodes["first"], x), 0))
    total = rounded(layer(nodes["depthwise"], first)) + first
    summed = rounded(np.maximum(total, 0))
    strided = rounded(np.maximum(layer(nodes["strided"], summed), 0))
    average = rounded(nodes["average"].apply(strided))
    expected = layer(nodes["logits"], nodes["flat"].apply(average))
    np.testing.assert_array_equal(run.run(images), expected)

    evaluation = run.evaluate(images)
    assert 20 < evaluation.sqnr_db < 60
    wide = AbfpFormat(tile=16, exp_only=True, gain=1).system()
    rough = quantise_network(net, wide, rng.normal(size=(20, 3, 6, 6))).evaluate(images)
    assert rough.sqnr_db < evaluation.sqnr_db


def test_streams():
    """Operands are what the hardware reads: their trace gives the stored results."""
    rng = np.random.default_rng(4)
    net = residual_network(rng)
    images = rng.normal(size=(2, 3, 6, 6)).astype(np.float32)
    for noise_bits in (None, 8):
        fmt = AbfpFormat(tile=8, noise_bits=noise_bits)
        run = quantise_network(net, fmt.system(), images)
        streams = list(run.streams(images))
        assert [stream.name for stream in streams].count("depthwise") == 6
        assert len(streams) == 9
        for stream in streams:
            operands = stream.operands
            assert (operands.noise is None) == (noise_bits is None)
            trace = operands.tile.trace(
                operands.weights.codes,
                operands.weights.scales,
                operands.activations.codes,
                operands.activations.scales,
                operands.noise,
            )
            results = trace.totals + operands.bias
            np.testing.assert_array_equal(operands.accumulators, results)
            if stream.output_codes is None:
                assert stream.name == "logits"
            elif stream.name == "depthwise":
                np.testing.assert_array_equal(stream.output_codes, to_bits(results))
            else:
                np.testing.assert_array_equal(stream.output_codes, to_bits(np.maximum(results, 0)))


def test_noise_of_a_network():
    """The same images meet the same noise; another seed, layer or image another."""
    rng = np.random.default_rng(5)
    net = two_layers(rng)
    calibration, images = rng.normal(size=(8, 11)), rng.normal(size=(300, 11))
    fmt = AbfpFormat(tile=8, noise_bits=8, gain=1)
    noisy = quantise_network(net, fmt.system(), calibration)
    first = noisy.run(images)
    np.testing.assert_array_equal(noisy.run(images), first)
    np.testing.assert_array_equal(
        quantise_network(net, fmt.system(), calibration).run(images), first
    )
    other = quantise_network(net, AbfpSystem(format=fmt, seed=1), calibration).run(images)
    quiet = quantise_network(net, replace(fmt, noise_bits=None).system(), calibration).run(images)
    assert np.mean(other != first) > 0.5
    exact = quantise_network(net, fmt.system(), calibration).evaluate(images).float_logits
    # Twice the variance at each conversion, 1/6 instead of 1/12 of a step.
    ratio = np.var(first - exact) / np.var(quiet - exact)
    assert 1.5 < ratio < 2.5

    columns = rounded(images)
    words = noisy.layers["hidden"].operands(0, columns).noise
    assert words.shape == (2, 300, 6)
    assert words.dtype == np.uint8
    assert len(np.unique(words)) == 256
    assert np.mean(words == noisy.layers["hidden"].operands(0, columns[::-1]).noise) < 0.05
    twin = linear("twin", "x", net.nodes[0].weight, net.nodes[0].bias)
    layer = fmt.system().prepare(twin, Bfloat16Codec(), [columns])
    assert np.mean(words == layer.operands(0, columns).noise) < 0.05
    wide = AbfpFormat(tile=8, noise_bits=12, gain=1).system()
    words = wide.prepare(twin, Bfloat16Codec(), [columns]).operands(0, columns).noise
    assert words.max() > 4000
    assert words.dtype == np.uint16


@pytest.mark.parametrize("exp_only", [False, True])
def test_gain_by_saturation(exp_only):
    """The largest gain that saturates at most 0.1 % of the conversions of the layer."""
    rng = np.random.default_rng(6)
    chosen = set()
    for tile, correlation in ((4, 0.9), (8, 0.3), (16, 0.2), (32, 0.1), (64, 0.05), (128, 0.0)):
        weight = rng.laplace(size=(256, 20)).astype(np.float32)
        rows = rng.normal(size=(100, 256)) + correlation * weight.T[rng.integers(0, 20, 100)]
        node = linear("node", "x", weight, np.zeros(20))
        system = AbfpFormat(tile=tile, exp_only=exp_only).system()
        layer = system.prepare(node, Bfloat16Codec(), [rows.astype(np.float32)])
        shares = {}
        for gain in GAINS:
            spec = AbfpSpec(tile=tile, gain=gain, exp_only=exp_only)
            w, x = spec.encode(weight.T), spec.encode(rows.astype(np.float32))
            trace = spec.trace(w, spec, x)
            shares[gain] = trace.saturations / trace.conversions.size
        gain = max(gain for gain in GAINS if shares[gain] <= 0.001)
        assert layer.weight_spec.gain == gain
        assert layer.tile.gain == gain
        found = saturated_shares(spec.tile_spec(spec), [w], [spec.encode(rows.astype(np.float32))])
        assert found == shares
        chosen.add(gain)
    assert len(chosen) > 2


def test_gain_of_all_groups():
    """One gain for a layer: the conversions of its groups count together."""
    rng = np.random.default_rng(7)
    node = conv("c", "x", rng.normal(size=(4, 1, 3, 3)), groups=4)
    # One group whose inputs look like its kernel, and three whose dot products are small.
    columns = [np.zeros((750, 9), np.float32) for _ in range(4)]
    for rows in columns:
        rows[np.arange(750), rng.integers(0, 9, 750)] = rng.normal(size=750)
    columns[2][:] = node.matrices()[2][:, 0]
    system = AbfpFormat(tile=16).system()
    spec = system.format.spec()
    weights = [spec.encode(matrix.T) for matrix in node.matrices()]
    inputs = [spec.encode(rows) for rows in columns]
    shares = saturated_shares(spec.tile_spec(spec), weights, inputs)
    for gain, share in shares.items():
        geared = replace(spec, gain=gain)
        counts = [
            geared.trace(w, geared, a).saturations for w, a in zip(weights, inputs, strict=True)
        ]
        assert share == sum(counts) / (4 * 750)
    gain = system.prepare(node, Bfloat16Codec(), columns).weight_spec.gain
    assert shares[gain] <= 0.001 < shares[2 * gain]
    alone = saturated_shares(spec.tile_spec(spec), weights[2:3], inputs[2:3])
    assert alone[2 * gain] == 1
    others = [system.prepare(node, Bfloat16Codec(), [columns[index]] * 4) for index in (0, 1, 3)]
    assert all(layer.weight_spec.gain > gain for layer in others)
    with pytest.raises(ValueError, match="zip"):
        saturated_shares(spec.tile_spec(spec), weights, [])


def test_choose_gain():
    shares = {1: 0.0, 2: 0.0, 4: 0.001, 8: 0.0010001, 16: 0.5}
    assert choose_gain(shares, 8) == 4
    assert choose_gain(dict.fromkeys(GAINS, 0.0), 1) == 16
    assert choose_gain(dict.fromkeys(GAINS, np.nan), 8) == 8


def test_gain_that_is_given_or_cannot_be_chosen():
    rng = np.random.default_rng(8)
    node = linear("node", "x", rng.normal(size=(20, 3)), np.zeros(3))
    rows = [rng.normal(size=(9, 20)).astype(np.float32)]
    for gain in GAINS:
        layer = AbfpFormat(tile=32, gain=gain).system().prepare(node, Bfloat16Codec(), rows)
        assert layer.weight_spec == AbfpSpec(tile=32, gain=gain)
    layer = AbfpFormat(tile=64).system().prepare(node, Bfloat16Codec(), [rows[0][:0]])
    assert layer.weight_spec == AbfpSpec(tile=64, gain=4)
    # Zeros saturate nothing.
    layer = AbfpFormat(tile=64).system().prepare(node, Bfloat16Codec(), [rows[0] * 0])
    assert layer.weight_spec.gain == 16


def test_layer():
    rng = np.random.default_rng(9)
    node = conv("c", "x", rng.normal(size=(8, 3, 3, 3)), groups=2)
    layer = (
        AbfpFormat(bits=6, tile=8)
        .system()
        .prepare(node, Bfloat16Codec(), [np.zeros((1, 27), np.float32)] * 2)
    )
    assert isinstance(layer, AbfpLayer)
    # 8 filters of 27 elements in 4 tiles.
    assert layer.storage_bits == 8 * (27 * 6 + 4 * 16)
    results = np.float32([[1.00390625, -2.0]])
    np.testing.assert_array_equal(layer.values(results), results)
    np.testing.assert_array_equal(layer.store(results, Bfloat16Codec()), [[1.0, -2.0]])


def test_system():
    system = AbfpFormat(bits=8).system()
    assert system == AbfpSystem(format=AbfpFormat(bits=8))
    assert system.fit_network(None) is system
    assert system.fit_tensor("x", np.zeros((2, 3), np.float32)) == Bfloat16Codec()
    assert system.sum_dtype([Bfloat16Codec()] * 2) == np.float32


def test_bad_system():
    system = AbfpFormat(bits=8).system()
    with pytest.raises(TypeError, match="format must be an AbfpFormat, not 'abfp8'"):
        AbfpSystem(format="abfp8")
    with pytest.raises(ValueError, match="seed must be at least 0, not -1"):
        AbfpSystem(format=AbfpFormat(), seed=-1)
    with pytest.raises(
        ValueError, match=r"tensor must be finite in binary32, not inf at index \(1"
    ):
        system.fit_tensor("x", np.float32([0, np.inf]))
    node = linear("node", "x", [[1, np.nan]], [0, 0])
    with pytest.raises(ValueError, match=r"tensor must be finite .* nan at index \(0, 0, 1\)"):
        system.prepare(node, Bfloat16Codec(), [np.zeros((1, 1), np.float32)])
    node = linear("node", "x", [[1, 2]], [0, np.inf])
    with pytest.raises(ValueError, match=r"bias must be finite in binary32, not inf"):
        system.prepare(node, Bfloat16Codec(), [np.zeros((1, 1), np.float32)])


def test_vectors_dnf():
    entry = load_vectors("abfp")["dnf"]
    histogram = NoiseHistogram.of(np.float64(entry["dy"]), entry["bins"])
    np.testing.assert_array_equal(histogram.edges, entry["edges"])
    np.testing.assert_array_equal(histogram.counts, entry["counts"])
    tolerance = entry["tolerance"]
    np.testing.assert_allclose(histogram.probabilities, entry["p"], rtol=0, atol=tolerance)
    for position, _, value in entry["samples_u_bin_value"]:
        assert abs(histogram.sample(position) - value) <= tolerance


def test_histogram():
    rng = np.random.default_rng(10)
    noise = rng.normal(size=(200, 50)) ** 3
    histogram = NoiseHistogram.of(noise)
    counts, edges = np.histogram(noise, bins=100)
    np.testing.assert_array_equal(histogram.counts, counts)
    np.testing.assert_allclose(histogram.edges, edges, rtol=1e-12)
    assert abs(histogram.probabilities.sum() - 1) < 1e-12
    assert histogram.probabilities.min() == 0.5 / 10_050
    drawn = histogram.sample(rng.random((300, 400)))
    assert drawn.shape == (300, 400)
    assert noise.min() <= drawn.min() < drawn.max() <= noise.max()
    # Rare bins get half a count each, which widens the tails.
    assert abs(drawn.mean() - noise.mean()) < 0.1
    got, _ = np.histogram(drawn, edges)
    np.testing.assert_allclose(got / drawn.size, histogram.probabilities, atol=0.005)
    ascending = histogram.sample(np.linspace(0, 1, 1000, endpoint=False))
    assert (np.diff(ascending) > 0).all()
    assert ascending[0] == noise.min()


def test_histogram_of_one_value():
    histogram = NoiseHistogram.of(np.full(7, 0.25, np.float32), 5)
    assert histogram.counts.tolist() == [0, 0, 0, 0, 7]
    np.testing.assert_array_equal(histogram.sample([0.0, 0.1, 0.9999]), 0.25)


def test_bad_histogram():
    with pytest.raises(ValueError, match="differences must not be empty"):
        NoiseHistogram.of(np.zeros(0))
    with pytest.raises(ValueError, match="differences must be finite, not nan"):
        NoiseHistogram.of([0.0, np.nan])
    with pytest.raises(TypeError, match="differences must be float16, float32 or float64"):
        NoiseHistogram.of([1, 2])
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        NoiseHistogram.of([1.0, 2.0], 0)
    histogram = NoiseHistogram.of([1.0, 2.0])
    with pytest.raises(ValueError, match=r"positions must be from 0 to below 1, not 1\.0"):
        histogram.sample([0.5, 1.0])
    with pytest.raises(ValueError, match="positions must be from 0 to below 1, not nan"):
        histogram.sample(np.nan)
    with pytest.raises(TypeError, match="positions must be float16, float32 or float64"):
        histogram.sample(0)


def test_differential_noise():
    """dy = ABFP layer(x) - float32 layer(x), per output, of a layer with groups."""
    rng = np.random.default_rng(11)
    node = conv("c", "x", rng.normal(size=(4, 2, 3, 3)), groups=2)
    x = rng.normal(size=(3, 5, 5, 4)).astype(np.float32)
    layer = AbfpFormat(tile=8, gain=1).system().prepare(node, Bfloat16Codec(), [])
    noise = differential_noise(node, layer, x)
    assert noise.shape == (75, 4)
    exact = node.products(
        x, lambda group, columns: columns @ node.matrices()[group] + node.biases()[group]
    )
    results = node.products(
        x, lambda group, columns: rounded(layer.forward(group, rounded(columns)))
    )
    np.testing.assert_array_equal(noise, (results - exact).reshape(75, 4))
    # Three tiles of noise n / (127 * G) / sqrt(12) full-scale products.
    assert 0.05 < noise.std() < 1
    assert abs(noise.mean()) < 0.1
    finer = AbfpFormat(tile=8, gain=2).system().prepare(node, Bfloat16Codec(), [])
    assert differential_noise(node, finer, x).std() < noise.std()
    histogram = NoiseHistogram.of(noise)
    assert histogram.counts.sum() == 300
