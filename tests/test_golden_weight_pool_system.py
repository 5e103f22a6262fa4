"""Networks with weight pools: which layers are pooled, and exact runs against slow sums."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from golden.element_layers import ElementCodec, ElementLayer
from golden.fixed import FixedSpec
from golden.inference import quantise
from golden.network import Add, Conv, Flatten, GlobalAveragePool, Linear, Network, Relu
from golden.tapered import TaperedFormat, TaperedSpec
from golden.weight_pool import WeightPoolFormat, WeightPoolSpec
from golden.weight_pool_system import (
    PoolOperands,
    WeightPoolLayer,
    WeightPoolSystem,
    pooled_layers,
    weight_vectors,
)
from tests.weight_pool_oracle import nearest_even, oracle_requantise, oracle_result

FORMAT = WeightPoolFormat(entries=16)


def floats(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def conv(name, source, *weight_shape, seed=0, **parameters):
    return Conv(
        name=name,
        inputs=(source,),
        weight=floats(*weight_shape, seed=seed, scale=0.3),
        bias=floats(weight_shape[0], seed=seed + 100),
        **parameters,
    )


def relu(name, source):
    return Relu(name=name, inputs=(source,))


def linear(name, source, features, outputs, seed=0):
    return Linear(
        name=name,
        inputs=(source,),
        weight=floats(features, outputs, seed=seed, scale=0.3),
        bias=floats(outputs, seed=seed + 100),
    )


PADDED = {"pads": (1, 1, 1, 1)}


def residual_network():
    """A stem, two branches with a shortcut, a convolution of two groups, a wide and a last FC."""
    nodes = (
        conv("stem", "image", 16, 3, 3, 3, seed=1, **PADDED),
        relu("stem_relu", "stem"),
        conv("left", "stem_relu", 18, 16, 3, 3, seed=2, strides=(2, 2), **PADDED),
        conv("shortcut", "stem_relu", 18, 16, 1, 1, seed=3, strides=(2, 2)),
        Add(name="sum", inputs=("left", "shortcut")),
        conv("point", "sum", 18, 18, 1, 1, seed=4),
        relu("point_relu", "point"),
        conv("grouped", "point_relu", 6, 9, 3, 3, seed=5, groups=2, **PADDED),
        conv("narrow", "grouped", 4, 6, 1, 1, seed=6),
        Flatten(name="flat", inputs=("narrow",)),
        linear("wide", "flat", 4 * 4 * 4, 12, seed=7),
        relu("wide_relu", "wide"),
        linear("last", "wide_relu", 12, 5, seed=8),
    )
    return Network(input_name="image", input_shape=(3, 7, 8), nodes=nodes)


def images(count=6, seed=9):
    return floats(count, 3, 7, 8, seed=seed)


def test_pooled_layers():
    # "sum" has one reader, so "point" is no shortcut; "narrow" has 6 input channels.
    assert pooled_layers(residual_network()) == ("left", "point", "grouped", "wide")


@pytest.mark.parametrize("channels", [8, 9])
def test_least_channels(channels):
    nodes = (
        conv("stem", "image", channels, 3, 1, 1),
        conv("body", "stem", 5, channels, 7, 8),
        Flatten(name="flat", inputs=("body",)),
    )
    network = Network(input_name="image", input_shape=(3, 7, 8), nodes=nodes)
    assert pooled_layers(network) == (("body",) if channels > 8 else ())


def test_shortcuts():
    def network(*nodes):
        tail = (
            GlobalAveragePool(name="mean", inputs=("sum",)),
            Flatten(name="flat", inputs=("mean",)),
        )
        stem = conv("stem", "image", 16, 3, 1, 1)
        return Network(input_name="image", input_shape=(3, 4, 4), nodes=(stem, *nodes, *tail))

    # MobileNet-v2: the projection feeds the addition, but nothing else reads what it reads.
    inverted = network(
        conv("expand", "stem", 24, 16, 1, 1),
        conv("depthwise", "expand", 24, 1, 3, 3, groups=24, **PADDED),
        conv("project", "depthwise", 16, 24, 1, 1),
        Add(name="sum", inputs=("stem", "project")),
    )
    assert pooled_layers(inverted) == ("expand", "project")
    # A shortcut without stride, in either place of the addition.
    wider = network(
        conv("body", "stem", 24, 16, 3, 3, **PADDED),
        conv("down", "stem", 24, 16, 1, 1),
        Add(name="sum", inputs=("down", "body")),
    )
    assert pooled_layers(wider) == ("body",)
    # A ReLU in between: both are bodies.
    twins = network(
        conv("one", "stem", 24, 16, 1, 1),
        relu("one_relu", "one"),
        conv("two", "stem", 24, 16, 3, 3, **PADDED),
        Add(name="sum", inputs=("one_relu", "two")),
    )
    assert pooled_layers(twins) == ("one", "two")
    # A stride alone marks a shortcut, and so does it if the input is read by nothing else.
    strided = network(
        conv("a", "stem", 16, 16, 1, 1, seed=3),
        conv("b", "stem", 16, 16, 3, 3, strides=(2, 2), **PADDED),
        conv("down", "a", 16, 16, 1, 1, strides=(2, 2)),
        Add(name="sum", inputs=("down", "b")),
    )
    assert pooled_layers(strided) == ("a", "b")


def test_weight_vectors():
    node = conv("c", "x", 4, 5, 2, 3, groups=2)
    vectors = weight_vectors(node, 4)
    assert vectors.shape == (2 * 3 * 2, 4, 4)
    for ky, kx, block, output, i in np.ndindex(2, 3, 2, 4, 4):
        channel = 4 * block + i
        expected = node.weight[output, channel, ky, kx] if channel < 5 else 0
        assert vectors[(ky * 3 + kx) * 2 + block, output, i] == expected
    node = linear("f", "x", 11, 3)
    vectors = weight_vectors(node, 8)
    assert vectors.shape == (2, 3, 8)
    np.testing.assert_array_equal(vectors.transpose(1, 0, 2).reshape(3, 16)[:, :11], node.weight.T)
    assert not vectors[1, :, 3:].any()


def check_stream(stream, operands, unit, table):
    """One matrix product against its operands, code by code."""
    assert isinstance(operands, PoolOperands)
    activations = operands.activation_spec
    group, blocks = operands.spec.group, len(operands.indices)
    length = operands.activation_codes.shape[1]
    positions = length // operands.channels
    per_position = blocks // positions
    rows = np.random.default_rng(0).permutation(len(operands.activation_codes))[:7].tolist()
    for row in rows:
        codes = operands.activation_codes[row].reshape(positions, operands.channels)
        filled = np.zeros((positions, per_position * group), np.int64)
        filled[:, : operands.channels] = codes
        cells = filled.reshape(blocks, group).tolist()
        for output in range(operands.indices.shape[1]):
            total = int(operands.bias_q[output])
            for block in range(blocks):
                index = int(operands.indices[block, output])
                total += oracle_result(
                    table, index, cells[block], activations.bits, activations.signed
                )
            assert operands.accumulators[row, output] == total
            if stream.output_codes is None:
                continue
            codec = stream.output_codec.spec
            low, high = (-128, 127) if codec.signed else (0, 255)
            kept = max(total, 0) if stream.relu else total
            expected = oracle_requantise(kept, Fraction(unit / codec.operand_unit), low, high)
            assert codec.operands(stream.output_codes[row, output]) == expected


@pytest.mark.parametrize("layout", ["full", "nibble", "half"])
def test_run(layout):
    network = residual_network()
    fmt = replace(FORMAT, layout=layout)
    quantised = quantise(network, fmt.system(), images())
    spec = quantised.system.spec
    table = spec.table.tolist()
    pooled = {"left": False, "point": False, "grouped": False, "wide": False}
    for stream in quantised.streams(images(4, seed=11)):
        layer = quantised.layers[stream.name]
        if stream.name not in pooled:
            assert isinstance(layer, ElementLayer)
            assert layer.weight_spec.bits == 8
            continue
        pooled[stream.name] = True
        assert layer.spec is spec
        node = next(node for node in network.mac_nodes if node.name == stream.name)
        unit = (
            Fraction(2) ** spec.lut_range_exp / 127 * Fraction(layer.activation_spec.operand_unit)
        )
        assert layer.spec.accumulator_unit(layer.activation_spec) == float(unit)
        biases = node.bias.reshape(node.groups, -1)[stream.group].tolist()
        expected = [nearest_even(Fraction(bias) / unit) for bias in biases]
        assert stream.operands.bias_q.tolist() == expected
        check_stream(stream, stream.operands, float(unit), table)
    assert all(pooled.values())
    # The input of "point" is signed, as nothing rectifies the sum.
    signed = {name: quantised.layers[name].activation_spec.signed for name in pooled}
    assert signed == {"left": False, "point": True, "grouped": False, "wide": True}


def test_run_is_near_the_float_network_with_pool_weights():
    # One entry for each vector: nothing but the rounding of entries and activations is left.
    fmt = WeightPoolFormat(entries=256, lut_bits=14)
    small = conv("body", "stem", 9, 16, 1, 1, seed=2)
    nodes = (
        conv("stem", "image", 16, 3, 3, 3, seed=1),
        small,
        Flatten(name="flat", inputs=("body",)),
        linear("last", "flat", 9 * 5 * 6, 5, seed=3),
    )
    network = Network(input_name="image", input_shape=(3, 7, 8), nodes=nodes)
    quantised = quantise(network, fmt.system(), images(64))
    np.testing.assert_array_equal(
        quantised.system.spec.quantise(small.weight[:, :, 0, 0]), small.weight[:, :, 0, 0]
    )
    assert quantised.evaluate(images(20, seed=4)).sqnr_db > 30


def test_last_layer_in_real_units():
    network = residual_network()
    system = WeightPoolSystem(format=FORMAT, layers=("last",))
    quantised = quantise(network, system, images())
    stream = list(quantised.streams(images(3, seed=2)))[-1]
    spec = quantised.system.spec
    activations = stream.operands.activation_spec
    unit = Fraction(2) ** spec.lut_range_exp / 127 * Fraction(activations.operand_unit)
    check_stream(stream, stream.operands, float(unit), spec.table.tolist())
    expected = [
        [float(int(accumulator) * unit) for accumulator in row]
        for row in stream.operands.accumulators
    ]
    np.testing.assert_array_equal(quantised.run(images(3, seed=2)), expected)
    assert isinstance(quantised.layers["left"], ElementLayer)


def test_match_of_layers():
    network = residual_network()
    for rule in ("l2", "cosine"):
        quantised = quantise(network, replace(FORMAT, match=rule).system(), images())
        spec = quantised.system.spec
        node = next(node for node in network.mac_nodes if node.name == "point")
        indices = quantised.layers["point"].indices
        for output, block in np.ndindex(18, 3):
            vector = np.zeros(8)
            part = node.weight[output, 8 * block : 8 * block + 8, 0, 0]
            vector[: len(part)] = part
            if rule == "l2":
                scores = -((spec.pool - vector) ** 2).sum(axis=1)
            else:
                scores = spec.pool @ vector / np.linalg.norm(spec.pool, axis=1)
            assert indices[block, output] == np.argmax(scores)


def test_pool_of_all_layers():
    # All vectors of the pooled layers together are few enough to be the pool.
    network = residual_network()
    quantised = quantise(network, WeightPoolFormat(entries=256).system(), images(2))
    names = ("point", "wide")
    system = WeightPoolSystem(format=WeightPoolFormat(entries=256), layers=names)
    fitted = system.fit_network(network)
    expected = {
        tuple(vector)
        for node in network.mac_nodes
        if node.name in names
        for vector in weight_vectors(node, 8).reshape(-1, 8).tolist()
    }
    pool = [tuple(row) for row in fitted.spec.pool.tolist()]
    assert set(pool) - {(0.0,) * 8} == expected
    assert set(fitted.outputs) == set(names)
    assert quantised.system.spec != fitted.spec


def retrained(network, seed=0):
    pool = floats(16, 8, seed=seed, scale=0.2)
    random = np.random.default_rng(seed)
    shapes = {"left": (18, 18), "point": (3, 18)}
    return pool, {name: random.integers(0, 16, shape) for name, shape in shapes.items()}


def test_retrained_network():
    network = residual_network()
    pool, indices = retrained(network)
    system = WeightPoolSystem(format=FORMAT, pool=pool, indices=indices)
    quantised = quantise(network, system, images())
    np.testing.assert_array_equal(quantised.system.spec.pool, pool)
    for name, given in indices.items():
        np.testing.assert_array_equal(quantised.layers[name].indices, given)
    assert isinstance(quantised.layers["grouped"], ElementLayer)
    table = quantised.system.spec.table.tolist()
    for stream in quantised.streams(images(2, seed=3)):
        if stream.name in indices:
            unit = quantised.system.spec.accumulator_unit(stream.operands.activation_spec)
            check_stream(stream, stream.operands, unit, table)
    # Others may be matched with the same pool.
    both = WeightPoolSystem(
        format=FORMAT, pool=pool, indices=indices, layers=("left", "point", "grouped")
    )
    layer = quantise(network, both, images()).layers["grouped"]
    assert isinstance(layer, WeightPoolLayer)
    np.testing.assert_array_equal(layer.spec.pool, pool)
    # Without indices, the usual layers are matched.
    matched = WeightPoolSystem(format=FORMAT, pool=pool).fit_network(network)
    assert set(matched.outputs) == set(pooled_layers(network))


def test_storage():
    network = residual_network()
    quantised = quantise(network, FORMAT.system(), images())
    bits = {name: layer.storage_bits for name, layer in quantised.layers.items()}
    # 9 * 2, 3, 9 * 2 and 8 groups of channels.
    assert bits["left"] == 8 * 18 * 18
    assert bits["point"] == 8 * 3 * 18
    assert bits["grouped"] == 8 * 18 * 6
    assert bits["wide"] == 8 * 8 * 12
    assert bits["shortcut"] == 8 * 16 * 18
    assert quantised.system.storage_bits == 256 * 16 * 8
    assert FORMAT.system().storage_bits == 0
    nothing = WeightPoolSystem(format=FORMAT, layers=()).fit_network(network)
    assert nothing.storage_bits == 0


@pytest.mark.parametrize("act_bits", [1, 3, 8])
def test_act_bits(act_bits):
    fmt = replace(FORMAT, act_bits=act_bits)
    system = fmt.system("paper")
    signed = system.fit_tensor("x", np.array([-1.0, 1.0], np.float32)).spec
    assert signed == FixedSpec(bits=act_bits, frac_bits=act_bits - 1)
    unsigned = system.fit_tensor("x", np.array([0.0, 1.0], np.float32)).spec
    assert unsigned == FixedSpec(bits=act_bits, frac_bits=act_bits, signed=False)
    quantised = quantise(residual_network(), fmt.system(), images())
    assert np.isfinite(quantised.run(images(2))).all()


def test_sum_dtype():
    system = FORMAT.system()
    near, far = (ElementCodec(FixedSpec(bits=8, frac_bits=exp)) for exp in (0, 30))
    assert system.sum_dtype([near, near]) == np.float32
    assert system.sum_dtype([near, far]) == np.float64


def layer_of(node, output, entries=4, activations=None, indices=None, **parameters):
    spec = WeightPoolSpec(pool=floats(entries, 8), **parameters)
    if indices is None:
        indices = np.zeros((len(weight_vectors(node, 8)), len(node.bias)), np.uint8)
    return WeightPoolLayer(spec, activations or FixedSpec(bits=8), node, indices, output)


def test_layer_refuses():
    node = conv("c", "x", 4, 9, 3, 3)
    layer = layer_of(node, (2, 3))
    assert layer.forward(0, np.zeros((12, 81), np.float32)).shape == (12, 4)
    assert layer.forward(0, np.zeros((0, 81), np.float32)).shape == (0, 4)
    for shape in ((11, 81), (12, 80), (81,)):
        with pytest.raises(ValueError, match=r"columns must be \[a multiple of 6, 81\], not \["):
            layer.forward(0, np.zeros(shape, np.float32))
    with pytest.raises(TypeError, match="codec must be an ElementCodec, not 3"):
        layer.store(np.zeros((6, 4)), 3)
    with pytest.raises(TypeError, match="activations must be a FixedSpec, not TaperedSpec"):
        layer_of(node, (2, 3), activations=TaperedSpec(bits=8))
    with pytest.raises(ValueError, match="activations must have at most 8 bits, not 9"):
        layer_of(node, (2, 3), activations=FixedSpec(bits=9))
    with pytest.raises(ValueError, match=r"indices of 'c' must be \[18, 4\], not \[17, 4\]"):
        layer_of(node, (2, 3), indices=np.zeros((17, 4), int))
    with pytest.raises(ValueError, match="indices of 'c' must be between 0 and 3, not 4"):
        layer_of(node, (2, 3), indices=np.full((18, 4), 4))
    with pytest.raises(TypeError, match="indices of 'c' must be integers, not float64"):
        layer_of(node, (2, 3), indices=np.zeros((18, 4)))
    huge = replace(node, bias=np.full(4, 1e30, np.float32))
    with pytest.raises(ValueError, match="bias must be below"):
        layer_of(huge, (2, 3))


def test_result_type():
    # 15-bit entries: 18 blocks of 16383 * 128 need more than 24 bits.
    node = conv("c", "x", 4, 9, 3, 3)
    columns = np.full((1, 81), -1.0, np.float32)
    for lut_bits, dtype in ((8, np.float32), (15, np.float64)):
        layer = layer_of(node, (1, 1), lut_bits=lut_bits)
        result = layer.forward(0, columns)
        assert result.dtype == dtype
        assert result.tolist() == layer.operands(0, columns).accumulators.tolist()


def test_system_refuses():
    network = residual_network()
    pool, indices = retrained(network)
    with pytest.raises(ValueError, match="indices must come with their pool, not without"):
        WeightPoolSystem(format=FORMAT, indices=indices)
    with pytest.raises(ValueError, match=r"indices must be of layers to pool, not of \['point'\]"):
        WeightPoolSystem(format=FORMAT, pool=pool, indices=indices, layers=("left",))
    with pytest.raises(ValueError, match=r"layers must be of stem, left, .*, not 'right'"):
        WeightPoolSystem(format=FORMAT, layers=("right",)).fit_network(network)
    with pytest.raises(ValueError, match=r"pool must be \[16, 8\], not \[15, 8\]"):
        WeightPoolSystem(format=FORMAT, pool=pool[:15]).fit_network(network)
    wrong = {**indices, "point": indices["point"][:2]}
    system = WeightPoolSystem(format=FORMAT, pool=pool, indices=wrong)
    with pytest.raises(ValueError, match=r"indices of 'point' must be \[3, 18\], not \[2, 18\]"):
        quantise(network, system, images())
    fitted = FORMAT.system().fit_network(network)
    node = next(node for node in network.mac_nodes if node.name == "left")
    with pytest.raises(TypeError, match="source must be an ElementCodec, not 3"):
        fitted.prepare(node, 3, [])
    foreign = ElementCodec(TaperedFormat(bits=8).spec())
    with pytest.raises(TypeError, match="activations must be a FixedSpec, not TaperedSpec"):
        fitted.prepare(node, foreign, [])


@pytest.mark.parametrize("name", ["left", "wide"])
def test_weights_must_be_finite(name):
    network = residual_network()
    nodes = []
    for node in network.nodes:
        if node.name == name:
            weight = np.array(node.weight)
            weight.reshape(-1)[3] = np.inf
            node = replace(node, weight=weight)
        nodes.append(node)
    broken = replace(network, nodes=tuple(nodes))
    with pytest.raises(ValueError, match="must be finite in binary32, not inf at index"):
        FORMAT.system().fit_network(broken)
