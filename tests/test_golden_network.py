"""Networks: structure, float32 run, and exact runs against a slow one in rational arithmetic."""

import math
import tracemalloc
import weakref
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest

from golden import element_layers, inference, network
from golden.dot import accumulator_exp, matmul
from golden.dybit import DybitSpec
from golden.element import DyadicSpec
from golden.element_layers import ElementCodec, ElementLayer
from golden.fixed import FixedSpec
from golden.formats import parse
from golden.inference import accuracy, quantise, sqnr_db
from golden.network import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Network,
    Node,
    Pad,
    Relu,
    Slice,
)
from golden.tapered import TaperedSpec


def floats(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def conv(name, source, *weight_shape, seed=0, **parameters):
    return Conv(
        name=name,
        inputs=(source,),
        weight=floats(*weight_shape, seed=seed, scale=0.5),
        bias=floats(weight_shape[0], seed=seed + 1),
        **parameters,
    )


def linear(name, source, features, outputs, seed=0):
    return Linear(
        name=name,
        inputs=(source,),
        weight=floats(features, outputs, seed=seed),
        bias=floats(outputs, seed=seed + 1),
    )


def small_network():
    """Every layer once, on images of 2 channels of 6x5: an odd size, borders on one side only."""
    return Network(
        input_name="image",
        input_shape=(2, 6, 5),
        nodes=(
            conv("conv", "image", 4, 2, 3, 3, seed=1, pads=(1, 1, 1, 1)),
            Relu(name="relu", inputs=("conv",)),
            conv("wide", "relu", 6, 2, 3, 2, seed=3, strides=(2, 1), pads=(1, 0, 0, 1), groups=2),
            Slice(name="slice", inputs=("relu",), ranges=((0, 6, 2), (0, 5, 1), (1, 4, 1))),
            Pad(name="pad", inputs=("slice",), before=(0, 0, 1), after=(0, 0, 2)),
            Add(name="add", inputs=("wide", "pad")),
            Relu(name="relu2", inputs=("add",)),
            conv("depth", "relu2", 6, 1, 2, 2, seed=5, groups=6),
            MaxPool(
                name="max", inputs=("depth",), kernel=(2, 3), strides=(1, 1), pads=(1, 1, 0, 1)
            ),
            AveragePool(
                name="mean", inputs=("max",), kernel=(3, 2), strides=(1, 2), pads=(1, 0, 0, 1)
            ),
            GlobalAveragePool(name="global", inputs=("relu2",)),
            Flatten(name="flatten", inputs=("mean",)),
            Flatten(name="flatten2", inputs=("global",)),
            Concat(name="concat", inputs=("flatten", "flatten2"), axis=0),
            linear("logits", "concat", 12 + 6, 3, seed=7),
        ),
    )


# A second implementation, in the layout of ONNX, with loops and rational numbers, that shares
# nothing with the first but the description of the layers and the table of each format.


class Nearest:
    """Value of the code nearest to a rational number; a tie goes to the even code."""

    def __init__(self, spec):
        self.codes = np.argsort(spec.value_table).tolist()
        self.values = [Fraction(value) for value in spec.value_table[self.codes].tolist()]

    def __call__(self, x):
        low, high = 0, len(self.values) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.values[middle] <= x else (low, middle)
        best = min(
            (low, high), key=lambda i: (abs(self.values[i] - x), self.codes[i] % 2, self.codes[i])
        )
        return self.values[best]


nearest = lru_cache(Nearest)


def images_of(array):
    """Nested dictionaries {(channel, row, column): rational} of one image."""
    return {index: Fraction(float(value)) for index, value in np.ndenumerate(array)}


def extent(image):
    return tuple(max(index[axis] for index in image) + 1 for axis in range(3))


def slow_conv(node, image, weights, bias):
    _, rows, columns = extent(image)
    filters, per_group, height, width = node.weight.shape
    top, left, bottom, right = node.pads
    result = {}
    for f in range(filters):
        first = f // (filters // node.groups) * per_group
        for y in range((rows + top + bottom - height) // node.strides[0] + 1):
            for x in range((columns + left + right - width) // node.strides[1] + 1):
                total = bias[f]
                for c in range(per_group):
                    for i in range(height):
                        for j in range(width):
                            place = (
                                first + c,
                                y * node.strides[0] + i - top,
                                x * node.strides[1] + j - left,
                            )
                            total += weights[f, c, i, j] * image.get(place, 0)
                result[f, y, x] = total
    return result


def slow_pool(node, image, combine):
    channels, rows, columns = extent(image)
    top, left, bottom, right = node.pads
    result = {}
    for c in range(channels):
        for y in range((rows + top + bottom - node.kernel[0]) // node.strides[0] + 1):
            for x in range((columns + left + right - node.kernel[1]) // node.strides[1] + 1):
                window = [
                    image.get((c, y * node.strides[0] + i - top, x * node.strides[1] + j - left))
                    for i in range(node.kernel[0])
                    for j in range(node.kernel[1])
                ]
                result[c, y, x] = combine([value for value in window if value is not None])
    return result


def mean(values):
    return sum(values) / len(values)


def slow_run(quantised, image):
    """Logits and all stored tensors of the small network for one image, [channel, row, column]."""
    nodes = {node.name: node for node in quantised.network.nodes}
    nearest_of = {name: nearest(codec.spec) for name, codec in quantised.codecs.items()}

    def stored(name, tensor, relu=False):
        return {
            index: nearest_of[name](max(value, Fraction(0)) if relu else value)
            for index, value in tensor.items()
        }

    def coded(name, source):
        layer = quantised.layers[name]
        round_weight = nearest(layer.weight_spec)
        unit = Fraction(2) ** (layer.weight_spec.operand_exp + source.operand_exp)
        weights = {
            index: round_weight(Fraction(float(value)))
            for index, value in np.ndenumerate(nodes[name].weight)
        }
        bias = [round(Fraction(float(value)) / unit) * unit for value in nodes[name].bias]
        return weights, bias

    spec = {name: codec.spec for name, codec in quantised.codecs.items()}
    tensors = {"image": stored("image", images_of(image))}
    tensors["conv"] = stored(
        "conv",
        slow_conv(nodes["conv"], tensors["image"], *coded("conv", spec["image"])),
        relu=True,
    )
    tensors["wide"] = stored(
        "wide", slow_conv(nodes["wide"], tensors["conv"], *coded("wide", spec["conv"]))
    )
    # Channels 1, 2, 3 of every other row; one channel of zeros before them, two behind.
    total = {
        (c, y, x): value + (tensors["conv"][c, 2 * y, x] if 1 <= c <= 3 else 0)
        for (c, y, x), value in tensors["wide"].items()
    }
    tensors["add"] = stored("add", total, relu=True)
    tensors["depth"] = stored(
        "depth", slow_conv(nodes["depth"], tensors["add"], *coded("depth", spec["add"]))
    )
    largest = slow_pool(nodes["max"], tensors["depth"], max)
    tensors["mean"] = stored("mean", slow_pool(nodes["mean"], largest, mean))
    channels = {
        (c, 0, 0): mean([value for index, value in tensors["add"].items() if index[0] == c])
        for c in range(6)
    }
    tensors["global"] = stored("global", channels)
    row = [tensors["mean"][index] for index in sorted(tensors["mean"])]
    row += [tensors["global"][index] for index in sorted(tensors["global"])]
    tensors["concat"] = stored("concat", dict(enumerate(row)))
    weights, bias = coded("logits", spec["concat"])
    logits = [
        bias[n] + sum(weights[k, n] * value for k, value in tensors["concat"].items())
        for n in range(3)
    ]
    return logits, tensors


@pytest.mark.parametrize(
    "text", ["fixed8", "tapered8", "fixed4", "tapered5", "tapered16:max_run=4,scale_exp=-1"]
)
def test_exact_run_matches_rational_arithmetic(text):
    net = small_network()
    images = floats(3, 2, 6, 5, seed=11)
    quantised = quantise(net, parse(text).system(), floats(5, 2, 6, 5, seed=12))
    tensors = {}
    (batch,) = net.batches(images)
    logits = network.execute(net, batch, quantised, tensors.__setitem__)
    for n, image in enumerate(images):
        expected, slow = slow_run(quantised, image)
        assert [Fraction(float(value)) for value in logits[n]] == expected
        assert set(slow) == set(quantised.codecs)
        for name, tensor in slow.items():
            fast = tensors[name][n]
            if fast.ndim == 3:
                fast = fast.transpose(2, 0, 1)
            assert [Fraction(float(v)) for v in fast.reshape(-1)] == [
                tensor[index] for index in sorted(tensor)
            ], name


def test_reference_run_matches_rational_arithmetic():
    """The float32 run is as close to the slow run as 16 bits let it be."""
    net = small_network()
    images = floats(2, 2, 6, 5, seed=11)
    quantised = quantise(net, parse("fixed16").system(), images)
    for image, logits in zip(images, net.run(images), strict=True):
        expected, _ = slow_run(quantised, image)
        np.testing.assert_allclose(logits, [float(value) for value in expected], rtol=5e-3)


@pytest.mark.parametrize("text", ["fixed8", "tapered8", "fixed16"])
def test_batches_do_not_matter(text, monkeypatch):
    images = floats(7, 2, 6, 5, seed=3)
    whole = quantise(small_network(), parse(text).system(), images).run(images)
    monkeypatch.setattr(network, "BATCH_BYTES", 1)
    one_by_one = quantise(small_network(), parse(text).system(), images)
    assert one_by_one.network.batch == 1
    assert whole.shape == (7, 3)
    np.testing.assert_array_equal(one_by_one.run(images), whole)


def test_memory_does_not_grow_with_the_images():
    net = small_network()
    quantised = quantise(net, parse("fixed8").system(), floats(4, 2, 6, 5))
    peaks = []
    for batches in (2, 8):
        images = np.zeros((batches * net.batch, 2, 6, 5), np.float32)
        tracemalloc.start()
        try:
            net.run(images)
            quantised.run(images)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_tensors_are_let_go():
    """No more than the input and the result of a layer, and the network's input, are alive."""
    names = ["x"] + [f"conv{i}" for i in range(8)]
    net = chain(*(conv(name, source, 2, 2, 1, 1) for source, name in pairwise(names)))
    alive, counts = [], []

    def observe(name, values):
        alive.append(weakref.ref(values))
        counts.append(sum(reference() is not None for reference in alive))

    (batch,) = net.batches(floats(2, 2, 4, 4))
    network.execute(net, batch, network.Float32Arithmetic(net), observe)
    assert len(counts) == 11
    assert max(counts) <= 3


# Exact products: each way in which they are computed, at operands that strain it.

LENGTHS = {
    # Spec of weights, of activations, products, and how: float type, parts of weights, sum type.
    "single": (FixedSpec(bits=8), FixedSpec(bits=8), 200, (np.float32, 1, np.float32)),
    "fine bias": (
        TaperedSpec(bits=8, max_run=2),
        TaperedSpec(bits=8, max_run=2),
        400,
        (np.float32, 1, np.float64),
    ),
    "brim": (FixedSpec(bits=8), FixedSpec(bits=8), 1024, (np.float32, 1, np.float32)),
    "over the brim": (FixedSpec(bits=8), FixedSpec(bits=8), 1030, (np.float32, 2, np.float64)),
    "cut": (TaperedSpec(bits=8), TaperedSpec(bits=8), 600, (np.float32, 2, np.float64)),
    "double": (FixedSpec(bits=16), FixedSpec(bits=16), 600, (np.float64, 1, np.float64)),
    "tiny": (
        FixedSpec(bits=8, frac_bits=64),
        FixedSpec(bits=8, frac_bits=63),
        20,
        (np.float64, 1, np.float64),
    ),
    "huge": (
        FixedSpec(bits=16, frac_bits=-56),
        FixedSpec(bits=2, frac_bits=-56),
        4,
        (np.float64, 1, np.float64),
    ),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_products_are_exact(case):
    """Random codes, and the largest operands of either sign, against integers of any size."""
    weight_spec, activation_spec, length, (dtype, parts, sum_dtype) = LENGTHS[case]
    random = np.random.default_rng(5)
    weights = random.integers(0, 1 << weight_spec.bits, (length, 6))
    activations = random.integers(0, 1 << activation_spec.bits, (9, length))
    for column, pick in enumerate((np.argmin, np.argmax)):
        weights[:, column] = pick(weight_spec.operand_table)
        activations[column] = pick(activation_spec.operand_table)
    # One odd term among the largest ones, so that a sum that lost its last bit shows.
    weights[0, :2] = np.flatnonzero(weight_spec.operand_table == weight_spec.operand_table.max())[0]
    odd = np.abs(activation_spec.operand_table)
    activations[2:4] = np.argmax(activation_spec.operand_table)
    activations[2:4, 0] = np.flatnonzero(odd == odd[odd > 0].min())[0]
    bias = random.integers(-5, 6, 6)

    layer = ElementLayer(weight_spec, activation_spec, weights[None], bias[None])
    product = layer._products[0]
    assert [matrix.dtype for matrix in product._matrices] == [dtype] * parts
    assert product._sum_dtype == sum_dtype

    w = weight_spec.operands(weights).astype(object)
    a = activation_spec.operands(activations).astype(object)
    expected = a @ w + bias.astype(object)
    unit = Fraction(2) ** (weight_spec.operand_exp + activation_spec.operand_exp)
    result = layer.forward(0, activation_spec.decode(activations))
    assert [Fraction(float(value)) / unit for value in result.reshape(-1)] == expected.reshape(
        -1
    ).tolist()

    operands = layer.operands(0, activation_spec.decode(activations))
    assert operands.accumulators.tolist() == expected.tolist()
    assert Fraction(operands.accumulator_unit) == unit
    np.testing.assert_array_equal(operands.activation_codes, activations)
    np.testing.assert_array_equal(operands.weight_codes, weights)
    np.testing.assert_array_equal(
        matmul(weight_spec, activation_spec, weights.T, activations.T, bias[:, None]).T,
        operands.accumulators,
    )


@pytest.mark.parametrize("bits", [2, 5, 8, 13])
@pytest.mark.parametrize("stem", ["fixed", "tapered"])
def test_double_precision_results_round_once(stem, bits):
    """Midpoints of a format and their neighbours in float64, most of which float32 cannot tell."""
    spec = parse(f"{stem}{bits}").spec()
    values = np.unique(spec.value_table)
    middles = (values[:-1] + values[1:]) / 2
    cases = [middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf), values]
    exact = nearest(spec)
    for x in (*cases, np.array([1e300, -1e300, 1e-300, -0.0])):
        codes = ElementCodec(spec).encode(x)
        assert codes.shape == x.shape
        assert [Fraction(v) for v in spec.value_table[codes].tolist()] == [
            exact(Fraction(v)) for v in x.tolist()
        ]


def test_rounding_of_many_double_precision_results():
    """More than one block, and not contiguous."""
    spec = parse("tapered8").spec()
    x = np.random.default_rng(1).uniform(-9, 9, (3, element_layers.NARROW_BLOCK))[:, ::2]
    exact = nearest(spec)
    codes = ElementCodec(spec).encode(x)
    assert codes.shape == x.shape
    some = (slice(None), slice(None, None, 997))
    assert [Fraction(v) for v in spec.value_table[codes[some]].reshape(-1).tolist()] == [
        exact(Fraction(v)) for v in x[some].reshape(-1).tolist()
    ]


@pytest.mark.parametrize(
    ("frac_bits", "dtype"), [((0, 0), np.float32), ((0, 16), np.float32), ((17, 0), np.float64)]
)
def test_sums_of_tensors_are_exact(frac_bits, dtype):
    """Two tensors of 8 bits, 16 or 17 bits apart: 24 or 25 bits with the carry."""
    specs = [FixedSpec(bits=8, frac_bits=bits) for bits in frac_bits]
    system = parse("fixed8").system()
    assert system.sum_dtype([ElementCodec(spec) for spec in specs]) == dtype
    for left in specs[0].value_table[[1, 127, 128]]:
        for right in specs[1].value_table[[1, 127, 128]]:
            total = np.add(dtype(left), dtype(right))
            assert Fraction(float(total)) == Fraction(left) + Fraction(right)


def test_sums_of_scaled_tensors_are_rounded_to_double_precision():
    specs = [DybitSpec(bits=4, scale=0.3), FixedSpec(bits=4)]
    system = parse("dybit4").system()
    assert system.sum_dtype([ElementCodec(spec) for spec in specs]) == np.float64


def test_results_are_stored_by_an_element_codec():
    fixed = FixedSpec(bits=4)
    layer = ElementLayer(fixed, fixed, np.zeros((1, 2, 1), int), np.zeros((1, 1), np.int64))
    with pytest.raises(TypeError, match="codec must be an ElementCodec, not"):
        layer.store(np.zeros((1, 1), np.float32), Halves())


def test_averages_are_rounded_to_double_precision_only():
    x = np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1)
    whole = GlobalAveragePool(name="g", inputs=("x",))
    window = AveragePool(name="a", inputs=("x",), kernel=(3, 1))
    border = AveragePool(name="a", inputs=("x",), kernel=(3, 1), pads=(1, 0, 1, 0))
    counted = AveragePool(
        name="a", inputs=("x",), kernel=(3, 1), pads=(1, 0, 1, 0), include_pad=True
    )
    assert whole.apply(x).reshape(-1).tolist() == [1 / 3]
    assert window.apply(x).reshape(-1).tolist() == [1 / 3]
    assert border.apply(x).reshape(-1).tolist() == [1 / 2, 1 / 3, 0]
    assert counted.apply(x).reshape(-1).tolist() == [1 / 3, 1 / 3, 0]


def test_flatten_has_the_order_of_onnx():
    x = np.arange(12).reshape(1, 2, 3, 2)  # row, column, channel
    expected = [[0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]]
    assert Flatten(name="f", inputs=("x",)).apply(x).tolist() == expected


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 100])
def test_products_are_cut_into_parts(rows, monkeypatch):
    """Whole parts, a rest, a single part, and parts that are not worth it."""
    left, right = floats(rows, 5, seed=1), floats(5, 3, seed=2)
    expected = np.einsum("mk,kn->mn", left.astype(np.float64), right.astype(np.float64))
    for limit in (1, 8 * 15 + 1, 9 * 15 + 1, 1 << 19):
        monkeypatch.setattr(network, "THREADED_MACS", limit)
        result = network.multiply(left, right)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_no_part_is_large_enough_for_threads(monkeypatch):
    sizes = []
    matmul = np.matmul

    def spy(left, right, out):
        sizes.append(left.shape[-2] * left.shape[-1] * right.shape[-1])
        return matmul(left, right, out=out)

    monkeypatch.setattr(np, "matmul", spy)
    result = network.multiply(floats(3000, 144), floats(144, 16))
    assert result.shape == (3000, 16)
    assert len(sizes) == 2
    assert max(sizes) < 1 << 19
    assert max(sizes) > 1 << 18


# Structure.


def chain(*nodes, shape=(2, 4, 4)):
    """Network of the given layers and a classifier behind them."""
    flat = Flatten(name="flatten", inputs=(nodes[-1].name,))
    features = math.prod(
        Network(input_name="x", input_shape=shape, nodes=(*nodes, flat)).shapes["flatten"]
    )
    return Network(
        input_name="x",
        input_shape=shape,
        nodes=(*nodes, flat, linear("logits", "flatten", features, 3)),
    )


def described(net):
    return [(step.name, step.inputs, step.relu, step.stored) for step in net.steps]


def test_relu_is_fused_with_the_layer_before_it():
    net = chain(conv("a", "x", 2, 2, 3, 3), Relu(name="r", inputs=("a",)))
    assert described(net) == [
        ("a", ("x",), True, True),
        ("flatten", ("a",), False, False),
        ("logits", ("flatten",), False, False),
    ]


def test_relu_is_not_fused_when_something_else_reads_its_input():
    net = chain(
        conv("a", "x", 2, 2, 1, 1),
        Relu(name="r", inputs=("a",)),
        Add(name="s", inputs=("a", "r")),
    )
    assert described(net)[:3] == [
        ("a", ("x",), False, True),
        ("r", ("a",), False, False),
        ("s", ("a", "r"), False, True),
    ]


def test_relu_behind_a_layer_that_moves_numbers_stays():
    net = chain(MaxPool(name="m", inputs=("x",), kernel=(2, 2)), Relu(name="r", inputs=("m",)))
    assert [step.name for step in net.steps] == ["m", "r", "flatten", "logits"]
    assert not any(step.stored or step.relu for step in net.steps)


def test_last_computed_result_is_not_rounded():
    nodes = (
        conv("a", "x", 2, 2, 3, 3),
        Relu(name="r", inputs=("a",)),
        conv("b", "r", 3, 2, 2, 2, seed=8),
        Relu(name="r2", inputs=("b",)),
        Flatten(name="f", inputs=("r2",)),
    )
    net = Network(input_name="x", input_shape=(2, 4, 4), nodes=nodes)
    assert described(net) == [
        ("a", ("x",), True, True),
        ("b", ("a",), True, False),
        ("f", ("b",), False, False),
    ]
    images = floats(30, 2, 4, 4, seed=5)
    quantised = quantise(net, parse("fixed4").system(), images)
    assert list(quantised.codecs) == ["x", "a"]
    logits = quantised.run(images)
    assert np.any(logits > 0)
    assert logits.min() == 0
    # Finer than any code: multiples of the unit of the accumulators, not all of any coarser one.
    unit = 2.0 ** (
        quantised.layers["b"].weight_spec.operand_exp
        + quantised.layers["b"].activation_spec.operand_exp
    )
    assert np.all(logits % unit == 0)
    assert np.any(logits % (2 * unit) != 0)


def test_results_that_are_read_twice_are_rounded_though_one_is_the_output():
    nodes = (
        linear("a", "x", 3, 3),
        Relu(name="r", inputs=("a",)),
        Add(name="s", inputs=("a", "r")),
    )
    net = Network(input_name="x", input_shape=(3,), nodes=nodes)
    assert [step.stored for step in net.steps] == [True, False, False]


def test_macs_and_shapes():
    net = small_network()
    assert dict(net.macs) == {
        "conv": 6 * 5 * 4 * 18,
        "wide": 3 * 5 * 6 * 12,
        "depth": 2 * 4 * 6 * 4,
        "logits": 18 * 3,
    }
    assert net.shapes["image"] == (6, 5, 2)
    assert net.shapes["wide"] == (3, 5, 6)
    assert net.shapes["mean"] == (1, 2, 6)
    assert [node.length for node in net.mac_nodes] == [18, 12, 4, 18]


def test_weights_cannot_be_changed():
    weight = floats(3, 2)
    node = Linear(name="a", inputs=("x",), weight=weight, bias=np.zeros(2, np.float32))
    weight[0, 0] = 99
    assert node.weight[0, 0] != 99
    with pytest.raises(ValueError, match="read-only"):
        node.weight[0, 0] = 1


def test_columns_run_over_kernel_rows_columns_and_channels():
    node = conv("a", "x", 1, 2, 2, 2)
    image = np.arange(2 * 3 * 2).reshape(1, 2, 3, 2).astype(np.float32)  # [n, h, w, c]
    np.testing.assert_array_equal(
        node.columns(image), [[[0, 1, 2, 3, 6, 7, 8, 9], [2, 3, 4, 5, 8, 9, 10, 11]]]
    )
    expected = [node.weight[0, c, y, x] for y in range(2) for x in range(2) for c in range(2)]
    np.testing.assert_array_equal(node.matrices(), np.reshape(expected, (1, 8, 1)))


# Number systems of another kind, and results.


class Halves:
    """Codec of multiples of one half."""

    def encode(self, values):
        return np.rint(2 * values).astype(np.int64)

    def quantise(self, values):
        return (self.encode(values) / 2).astype(np.float32)


class RowScaledLayer:
    """Inputs scaled row by row to integers of -7 to 7; weights as they are."""

    def __init__(self, node):
        self.matrices, self.biases = node.matrices(), node.biases()

    def forward(self, group, columns):
        scale = np.abs(columns).max(axis=1, keepdims=True) / 7 + (columns == 0).all(1)[:, None]
        return np.rint(columns / scale) * scale @ self.matrices[group] + self.biases[group]

    def store(self, results, codec):
        return codec.quantise(results)

    def values(self, results):
        return results

    def operands(self, group, columns):
        return group, columns.shape


class RowScaled:
    """A number system that is not a format: one scale for each vector of inputs."""

    def __init__(self):
        self.seen = {}

    def fit_network(self, network):
        self.seen["network"] = network
        return self

    def fit_tensor(self, name, values):
        self.seen[name] = values.shape
        return Halves()

    def prepare(self, node, source, calibration):
        self.seen[node.name, "inputs"] = [rows.shape for rows in calibration]
        assert isinstance(source, Halves)
        return RowScaledLayer(node)

    def sum_dtype(self, sources):
        return np.float32


def test_network_runs_with_a_number_system_of_its_own():
    system = RowScaled()
    net = small_network()
    images = floats(6, 2, 6, 5)
    quantised = quantise(net, system, images)
    assert system.seen["conv"] == (6, 6, 5, 4)
    assert system.seen["wide", "inputs"] == [(6 * 3 * 5, 12)] * 2
    assert system.seen["logits", "inputs"] == [(6, 18)]
    assert system.seen["network"] is net
    assert quantised.run(images).shape == (6, 3)
    assert quantised.evaluate(images).tensor_sqnr_db["image"] > 0
    streams = list(quantised.streams(images[:2]))
    assert [(s.name, *s.operands) for s in streams[:3]] == [
        ("conv", 0, (60, 18)),
        ("wide", 0, (30, 12)),
        ("wide", 1, (30, 12)),
    ]

    # The same by hand for one layer.
    net = Network(input_name="x", input_shape=(2,), nodes=(linear("a", "x", 2, 2),))
    x = np.array([[2.1, -0.6]], np.float32)
    weight, bias = net.nodes[0].weight, net.nodes[0].bias
    expected = 2 * weight[0] - 4 / 7 * weight[1] + bias  # 2, -0.5 are 7, -1.75 of 2/7
    np.testing.assert_allclose(quantise(net, RowScaled(), x).run(x)[0], expected, rtol=1e-6)


def test_calibration_inputs_are_limited_and_spread(monkeypatch):
    monkeypatch.setattr(inference, "CALIBRATION_ROWS", 10)
    system = RowScaled()
    quantise(small_network(), system, floats(6, 2, 6, 5))
    ((rows, _),) = system.seen["conv", "inputs"]
    assert rows == 10
    assert system.seen["conv"] == (6, 6, 5, 4)  # tensors are fitted on all values


@pytest.mark.parametrize("text", ["tapered8", "fixed6", "dybit8", "dybit3", "elp_bsd4"])
def test_streams_are_what_the_hardware_reads_and_writes(text):
    net = small_network()
    images = floats(4, 2, 6, 5, seed=2)
    quantised = quantise(net, parse(text).system(), images)
    streams = list(quantised.streams(images))
    assert [(s.name, s.group) for s in streams] == [
        ("conv", 0),
        ("wide", 0),
        ("wide", 1),
        *(("depth", group) for group in range(6)),
        ("logits", 0),
    ]
    for s in streams:
        o = s.operands
        # Exact integers, not through the layer, and one rounding of them.
        a = o.activation_spec.operand_table[o.activation_codes].astype(object)
        w = o.weight_spec.operand_table[o.weight_codes].astype(object)
        np.testing.assert_array_equal(o.accumulators, a @ w + o.bias_q.astype(object))
        if s.output_codec is None:
            assert s.name == "logits"
            unit = o.weight_spec.operand_unit * o.activation_spec.operand_unit
            assert o.accumulator_unit == unit
            np.testing.assert_array_equal(quantised.run(images), o.accumulators * unit)
            assert s.output_codes is None
            continue
        spec = s.output_codec.spec
        if all(isinstance(f, DyadicSpec) for f in (o.weight_spec, o.activation_spec, spec)):
            codes = spec.requantise(
                o.accumulators, accumulator_exp(o.weight_spec, o.activation_spec), relu=s.relu
            )
        else:
            codes = spec.rescale(o.accumulators, o.accumulator_unit, relu=s.relu)
        np.testing.assert_array_equal(codes, s.output_codes)
    assert [s.relu for s in streams] == [True] + 9 * [False]
    first = streams[0].operands.activation_codes.reshape(4, 6, 5, 18)
    assert np.all(first[:, 0, :, :6] == 0)  # the border above is the code of zero
    padded = quantised.codecs["image"].encode(images)
    np.testing.assert_array_equal(
        first[:, 2, 2].reshape(4, 3, 3, 2), padded.transpose(0, 2, 3, 1)[:, 1:4, 1:4]
    )


def test_evaluation_compares_with_the_reference():
    net = small_network()
    images = floats(20, 2, 6, 5, seed=4)
    labels = np.argmax(net.run(images), axis=1)
    quantised = quantise(net, parse("fixed5").system(), images)
    result = quantised.evaluate(images, labels)
    np.testing.assert_array_equal(result.logits, quantised.run(images))
    np.testing.assert_array_equal(result.float_logits, net.run(images))
    assert result.float_accuracy == 1
    assert result.accuracy == np.mean(np.argmax(result.logits, axis=1) == labels)
    assert list(result.tensor_sqnr_db) == [
        "image", "conv", "wide", "add", "depth", "mean", "global", "concat",
    ]  # fmt: skip
    stored = ElementCodec(quantised.codecs["image"].spec).quantise(images)
    energy = np.sum(images.astype(np.float64) ** 2)
    error = np.sum((stored - images).astype(np.float64) ** 2)
    assert result.tensor_sqnr_db["image"] == pytest.approx(10 * math.log10(energy / error))
    signal = result.float_logits.astype(np.float64)
    noise = result.logits - signal
    assert result.sqnr_db == pytest.approx(
        10 * math.log10(np.sum(signal**2) / np.sum(noise**2)), abs=1e-9
    )
    without = quantised.evaluate(images)
    assert without.accuracy is None
    assert without.float_accuracy is None
    assert without.sqnr_db == result.sqnr_db


def test_sqnr_of_several_batches_is_that_of_all_images(monkeypatch):
    images = floats(9, 2, 6, 5, seed=4)
    quantised = quantise(small_network(), parse("fixed5").system(), images)
    whole = quantised.evaluate(images).tensor_sqnr_db
    monkeypatch.setattr(network, "BATCH_BYTES", 10_000)
    cut = quantise(small_network(), parse("fixed5").system(), images)
    assert 1 < cut.network.batch < 9
    assert dict(cut.evaluate(images).tensor_sqnr_db) == pytest.approx(dict(whole))


def test_sqnr():
    assert sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 3.5])) == pytest.approx(20)
    assert sqnr_db(np.array([3.0]), np.array([3.0])) == math.inf
    assert sqnr_db(np.array([0.0]), np.array([1.0])) == -math.inf


def test_accuracy_takes_the_first_of_equal_logits():
    logits = np.array([[1.0, 1.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert accuracy(logits, [0, 1, 1, 1]) == 0.75
    assert accuracy(logits, [1, 1, 1, 1]) == 0.5


def test_more_bits_are_closer_to_the_reference():
    images = floats(16, 2, 6, 5, seed=4, scale=0.3)
    for stem in ("fixed", "tapered"):
        steps = [
            quantise(small_network(), parse(f"{stem}{bits}").system(), images)
            .evaluate(images)
            .sqnr_db
            for bits in (4, 6, 8, 10)
        ]
        assert all(more > less + 6 for less, more in pairwise(steps))


@pytest.mark.parametrize("method", ["sweep", "paper"])
@pytest.mark.parametrize("text", ["tapered8", "fixed5"])
def test_formats_are_fitted_to_each_tensor_of_the_reference(text, method):
    net = small_network()
    images = floats(16, 2, 6, 5, seed=4, scale=0.1)
    number_format = parse(text)
    system = number_format.system(method)
    quantised = quantise(net, system, images)
    tensors = {}
    (batch,) = net.batches(images)
    network.execute(net, batch, network.Float32Arithmetic(net), tensors.__setitem__)

    def fitted(method, activations="activations"):
        return (
            [number_format.fit(tensors[name], activations, method) for name in quantised.codecs],
            [number_format.fit(node.weight, "weights", method) for node in net.mac_nodes],
        )

    specs = (
        [codec.spec for codec in quantised.codecs.values()],
        [quantised.layers[node.name].weight_spec for node in net.mac_nodes],
    )
    assert specs == fitted(method)
    assert [str(codec) for codec in quantised.codecs.values()] == [str(spec) for spec in specs[0]]
    # The case tells roles and methods apart, where the format does.
    if text == "tapered8":
        assert specs[0] != fitted(method, "weights")[0]
        assert fitted("sweep")[1] != fitted("paper")[1]
    else:
        assert fitted("sweep")[0] != fitted("paper")[0]


# What is refused.

WEIGHT, BIAS = floats(2, 2, 3, 3), floats(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Relu(name="", inputs=("x",)), "name must not be empty"),
        (
            lambda: Relu(name="r", inputs=("x", "y")),
            "inputs of Relu 'r' must be one tensor, not 2",
        ),
        (lambda: Add(name="a", inputs=("x",)), "inputs of Add 'a' must be two tensors, not 1"),
        (
            lambda: Concat(name="c", inputs=(), axis=0),
            "inputs of Concat 'c' must be at least one tensor, not 0",
        ),
        (
            lambda: Conv(name="c", inputs=("x",), weight=WEIGHT.astype(np.float64), bias=BIAS),
            "weight of Conv 'c' must be float32, not float64",
        ),
        (
            lambda: Conv(name="c", inputs=("x",), weight=WEIGHT[0], bias=BIAS),
            r"weight of Conv 'c' must be a tensor of 4 axes, none empty, not \[2, 3, 3\]",
        ),
        (
            lambda: Conv(name="c", inputs=("x",), weight=WEIGHT, bias=BIAS[:1]),
            r"bias of Conv 'c' must be \[2\], not \[1\]",
        ),
        (
            lambda: conv("c", "x", 2, 2, 3, 3, strides=(0, 1)),
            r"strides of Conv 'c' must be 2 integers of at least 1, not \[0, 1\]",
        ),
        (
            lambda: conv("c", "x", 2, 2, 3, 3, pads=(1, 1)),
            r"pads of Conv 'c' must be 4 integers of at least 0, not \[1, 1\]",
        ),
        (
            lambda: conv("c", "x", 2, 2, 3, 3, groups=3),
            "groups of Conv 'c' must be a divisor of 2 filters, not 3",
        ),
        (
            lambda: MaxPool(name="m", inputs=("x",), kernel=(2, 0)),
            r"kernel of MaxPool 'm' must be 2 integers of at least 1, not \[2, 0\]",
        ),
        (
            lambda: MaxPool(name="m", inputs=("x",), kernel=(2, 3), pads=(0, 0, 2, 0)),
            r"pads of MaxPool 'm' must be below the kernel \[2, 3\], not \[0, 0, 2, 0\]",
        ),
        (
            lambda: chain(conv("c", "x", 2, 3, 3, 3)),
            "input of Conv 'c' must be of 3 channels, not 2",
        ),
        (
            lambda: chain(conv("c", "x", 2, 2, 5, 1)),
            r"kernel of Conv 'c' must be at most the padded input, not \[5, 1\]",
        ),
        (
            lambda: Network(input_name="x", input_shape=(4,), nodes=(conv("c", "x", 2, 4, 1, 1),)),
            r"input of Conv 'c' must be an image of \[height, width, channels\], not \[4\]",
        ),
        (
            lambda: Network(
                input_name="x",
                input_shape=(4,),
                nodes=(GlobalAveragePool(name="g", inputs=("x",)),),
            ),
            "input of GlobalAveragePool 'g' must be an image",
        ),
        (
            lambda: Network(input_name="x", input_shape=(4,), nodes=(linear("l", "x", 3, 2),)),
            r"input of Linear 'l' must be \[3\], not \[4\]",
        ),
        (
            lambda: chain(
                MaxPool(name="m", inputs=("x",), kernel=(2, 2)), Add(name="a", inputs=("x", "m"))
            ),
            r"inputs of Add 'a' must be of the same shape, not \[4, 4, 2\], \[3, 3, 2\]",
        ),
        (
            lambda: chain(Concat(name="c", inputs=("x", "x"), axis=3)),
            "axis of Concat 'c' must be between 0 and 2, not 3",
        ),
        (
            lambda: chain(
                MaxPool(name="m", inputs=("x",), kernel=(2, 2)),
                Concat(name="c", inputs=("x", "m"), axis=2),
            ),
            "inputs of Concat 'c' must be equal apart from the axis",
        ),
        (
            lambda: chain(
                Flatten(name="f", inputs=("x",)), Concat(name="c", inputs=("f", "x"), axis=0)
            ),
            "inputs of Concat 'c' must be equal apart from the axis",
        ),
        (
            lambda: chain(Pad(name="p", inputs=("x",), before=(0, 0, 1), after=(0, 0, -1))),
            r"after of Pad 'p' must be 3 integers of at least 0, not \[0, 0, -1\]",
        ),
        (
            lambda: chain(Pad(name="p", inputs=("x",), before=(0, 0), after=(0, 0, 1))),
            r"before of Pad 'p' must be 3 integers of at least 0, not \[0, 0\]",
        ),
        (
            lambda: chain(Slice(name="s", inputs=("x",), ranges=((0, 1, 1),))),
            "ranges of Slice 's' must be of 3 axes, not 1",
        ),
        (
            lambda: chain(Slice(name="s", inputs=("x",), ranges=((0, 5, 1), (0, 4, 1), (0, 2, 1)))),
            r"range of Slice 's' must be a part of 0 to 4 with a step above 0, not \[0, 5, 1\]",
        ),
        (
            lambda: Network(input_name="x", input_shape=(4, 4), nodes=()),
            r"input_shape must be \[channels, height, width\] or \[features\], not \[4, 4\]",
        ),
        (
            lambda: Network(input_name="x", input_shape=(4,), nodes=()),
            "nodes must hold at least one layer, not 0",
        ),
        (
            lambda: chain(Relu(name="x", inputs=("x",))),
            "name of a layer must be unique, not again 'x'",
        ),
        (
            lambda: chain(Relu(name="r", inputs=("later",)), Relu(name="later", inputs=("r",))),
            "input of Relu 'r' must be the network's or an earlier layer, not 'later'",
        ),
        (
            lambda: Network(
                input_name="x",
                input_shape=(4,),
                nodes=(linear("lost", "x", 4, 2), linear("l", "x", 4, 2)),
            ),
            "layer 'lost' must be read by another layer, or be last",
        ),
        (
            lambda: Network(
                input_name="x", input_shape=(1, 4, 4), nodes=(Relu(name="r", inputs=("x",)),)
            ),
            r"output of the network must be one row of logits for each image, not \[4, 4, 1\]",
        ),
        (
            lambda: accuracy(np.zeros((3, 2)), [1, 2]),
            r"labels must be \[3\], not \[2\]",
        ),
        (
            lambda: small_network().run(floats(2, 3, 6, 5)),
            r"images must be \[n, 2, 6, 5\] with n > 0, not \[2, 3, 6, 5\]",
        ),
        (
            lambda: small_network().run(floats(0, 2, 6, 5)),
            r"images must be \[n, 2, 6, 5\] with n > 0, not \[0, 2, 6, 5\]",
        ),
        (
            lambda: quantise(small_network(), parse("fixed8").system(), np.float32(1)),
            r"images must be \[n, 2, 6, 5\] with n > 0, not \[\]",
        ),
        (
            lambda: small_network().run(np.full((2, 2, 6, 5), [[[[1e39]]]])),
            "images must be finite in float32, not like image 0",
        ),
        (
            lambda: ElementLayer(
                FixedSpec(bits=16),
                FixedSpec(bits=16),
                np.ones((1, 2, 1), np.uint16),
                np.full((1, 1), 1 << 53),
            ),
            r"accumulators must be at most 2\*\*53 units, not 9007199254806528",
        ),
        (
            lambda: (
                parse("fixed8")
                .system()
                .sum_dtype(
                    [
                        ElementCodec(FixedSpec(bits=8, frac_bits=frac_bits))
                        for frac_bits in (-30, 20)
                    ]
                )
            ),
            r"tensors that are added must span at most 53 bits, not 58 \(fixed8:frac_bits=-30, ",
        ),
    ],
)
def test_bad_networks_and_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_not_a_number_is_refused_with_its_place():
    images = floats(5, 2, 6, 5)
    images[3, 1, 2, 2] = np.nan
    with pytest.raises(ValueError, match="images must be finite in float32, not like image 3"):
        small_network().run(images)
    with pytest.raises(ValueError, match="not like image 3"):
        quantise(small_network(), parse("fixed8").system(), images)


def test_overflow_of_the_reference_names_the_layer():
    weight = np.full((2, 2), 3e38, np.float32)
    nodes = (
        Linear(name="first", inputs=("x",), weight=weight, bias=np.zeros(2, np.float32)),
        linear("second", "first", 2, 2),
    )
    net = Network(input_name="x", input_shape=(2,), nodes=nodes)
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match="activations of 'first': tensor must be finite"),
    ):
        quantise(net, parse("fixed8").system(), np.full((1, 2), 3e38, np.float32))


def test_pixels_that_are_not_scaled_are_refused():
    with pytest.raises(TypeError, match="images must be floating-point numbers, not uint8"):
        small_network().run(np.zeros((1, 2, 6, 5), np.uint8))


def test_source_of_another_number_system_is_refused():
    with pytest.raises(TypeError, match="source must be an ElementCodec, not"):
        parse("fixed8").system().prepare(linear("l", "x", 2, 2), Halves(), [])


@pytest.mark.parametrize("method", ["output_shape", "apply"])
def test_a_bare_node_does_nothing(method):
    with pytest.raises(NotImplementedError):
        getattr(Node(name="n", inputs=("x",)), method)()
