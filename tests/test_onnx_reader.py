"""The ONNX reader against ONNX's own reference implementation, and what it refuses."""

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from golden.network import Conv, Linear
from narrowgauge import onnx_reader
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import load_data, read

SHARED = Path(__file__).parents[1] / ".." / "shared"


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make(nodes, constants=None, shape=("n", 4, 6, 5), opset=13, result=(None, None)):
    """Model with one input ``x``; ``constants`` are its initializers."""
    graph = helper.make_graph(
        [helper.make_node(*arguments, **attributes) for arguments, attributes in nodes],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets)


def node(kind, inputs, output="y", name="layer", **attributes):
    return (kind, inputs, [output]), {"name": name, **attributes}


#: Behind a layer under test, because a network ends with one row of logits.
FLATTEN = node("Flatten", ["y"], "out", name="flatten")


def saved(model, tmp_path, name="model.onnx"):
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return path


def int64(*values):
    return np.array(values, np.int64)


LAYERS = {
    "Conv": make(
        [node("Conv", ["x", "w", "b"]), FLATTEN], {"w": floats(3, 4, 3, 2), "b": floats(3)}
    ),
    "Conv, no bias, strides, uneven pads": make(
        [node("Conv", ["x", "w"], strides=[2, 3], pads=[1, 0, 2, 1]), FLATTEN],
        {"w": floats(3, 4, 3, 2)},
    ),
    "Conv, groups": make(
        [node("Conv", ["x", "w", "b"], group=2, pads=[1, 1, 1, 1], dilations=[1, 1]), FLATTEN],
        {"w": floats(6, 2, 3, 3), "b": floats(6)},
    ),
    "Conv, depthwise, two filters for a channel": make(
        [node("Conv", ["x", "w"], group=4, kernel_shape=[2, 2], auto_pad="VALID"), FLATTEN],
        {"w": floats(8, 1, 2, 2)},
    ),
    "Conv, one pixel": make([node("Conv", ["x", "w"]), FLATTEN], {"w": floats(3, 4, 1, 1)}),
    "Conv, one pixel, strides": make(
        [node("Conv", ["x", "w"], strides=[2, 2]), FLATTEN], {"w": floats(3, 4, 1, 1)}
    ),
    "Conv and Add of a bias": make(
        [node("Conv", ["x", "w", "b"], "c"), node("Add", ["c", "b2"], name="add"), FLATTEN],
        {"w": floats(3, 4, 3, 2), "b": floats(3), "b2": floats(1, 3, 1, 1, seed=4)},
    ),
    "Relu": make([node("Relu", ["x"]), FLATTEN]),
    "MaxPool": make([node("MaxPool", ["x"], kernel_shape=[2, 3]), FLATTEN]),
    "MaxPool, strides, pads": make(
        [node("MaxPool", ["x"], kernel_shape=[3, 3], strides=[2, 1], pads=[1, 2, 0, 1]), FLATTEN]
    ),
    "AveragePool": make([node("AveragePool", ["x"], kernel_shape=[6, 5]), FLATTEN]),
    "AveragePool, pads": make(
        [
            node("AveragePool", ["x"], kernel_shape=[3, 2], strides=[2, 1], pads=[2, 1, 0, 1]),
            FLATTEN,
        ]
    ),
    "AveragePool, pads that count": make(
        [
            node(
                "AveragePool",
                ["x"],
                kernel_shape=[3, 2],
                pads=[2, 1, 0, 1],
                count_include_pad=1,
                ceil_mode=0,
            ),
            FLATTEN,
        ]
    ),
    "GlobalAveragePool": make([node("GlobalAveragePool", ["x"]), FLATTEN]),
    "ReduceMean": make([node("ReduceMean", ["x"], axes=[2, 3]), FLATTEN]),
    "ReduceMean, negative axes, fewer axes": make(
        [node("ReduceMean", ["x"], "out", axes=[-1, -2], keepdims=0)]
    ),
    "ReduceMean, axes as input": make(
        [node("ReduceMean", ["x", "axes"]), FLATTEN], {"axes": int64(2, 3)}, opset=18
    ),
    "Add": make([node("Relu", ["x"], "r", name="r"), node("Add", ["r", "x"]), FLATTEN]),
    "Add of itself": make([node("Add", ["x", "x"]), FLATTEN]),
    "Concat of channels": make(
        [node("Relu", ["x"], "r", name="r"), node("Concat", ["r", "x"], axis=1), FLATTEN]
    ),
    "Concat of rows": make(
        [node("Relu", ["x"], "r", name="r"), node("Concat", ["x", "r"], axis=2), FLATTEN]
    ),
    "Concat of columns": make(
        [node("Relu", ["x"], "r", name="r"), node("Concat", ["x", "r"], axis=-1), FLATTEN]
    ),
    "Pad": make([node("Pad", ["x", "p"]), FLATTEN], {"p": int64(0, 1, 0, 2, 0, 0, 3, 1)}),
    "Pad with a value and axes": make(
        [node("Pad", ["x", "p", "v", "a"]), FLATTEN],
        {"p": int64(1, 2, 0, 4), "v": np.float32(0), "a": int64(-1, 1)},
        opset=18,
    ),
    "Slice": make(
        [node("Slice", ["x", "s", "e"]), FLATTEN],
        {"s": int64(0, 1, 2), "e": int64((1 << 63) - 1, 3, -1)},
    ),
    "Slice of axes with steps": make(
        [node("Slice", ["x", "s", "e", "a", "t"]), FLATTEN],
        {"s": int64(-3, 1), "e": int64(99, 99), "a": int64(-1, 1), "t": int64(2, 2)},
    ),
    "Reshape": make([node("Reshape", ["x", "s"], "out")], {"s": int64(-1, 120)}),
    "Reshape that keeps the batch": make([node("Reshape", ["x", "s"], "out")], {"s": int64(0, -1)}),
    "Reshape as torch writes x.view(x.size(0), -1)": make(
        [
            node("Shape", ["x"], "shape", name="shape"),
            node("Gather", ["shape", "zero"], "batch", name="gather", axis=0),
            node("Unsqueeze", ["batch", "axes"], "row", name="unsqueeze"),
            node("Concat", ["row", "minus"], "target", name="concat", axis=0),
            node("Reshape", ["x", "target"], "out"),
        ],
        {"zero": np.int64(0), "axes": int64(0), "minus": int64(-1)},
    ),
    "Identity and Dropout": make(
        [
            node("Identity", ["x"], "i", name="i"),
            node("Dropout", ["i"], name="d"),
            FLATTEN,
        ]
    ),
    "Gemm": make(
        [node("Gemm", ["x", "w", "b"], "out")],
        {"w": floats(7, 3), "b": floats(3)},
        shape=("n", 7),
    ),
    "Gemm, transposed": make(
        [node("Gemm", ["x", "w", "b"], "out", transB=1, alpha=1.0)],
        {"w": floats(3, 7), "b": floats(1, 3)},
        shape=("n", 7),
    ),
    "Gemm, one bias for all": make(
        [node("Gemm", ["x", "w", "b"], "out")],
        {"w": floats(7, 3), "b": floats(1)[0]},
        shape=("n", 7),
    ),
    "Gemm, no bias": make([node("Gemm", ["x", "w"], "out")], {"w": floats(7, 3)}, shape=("n", 7)),
    "MatMul": make([node("MatMul", ["x", "w"], "out")], {"w": floats(7, 3)}, shape=("n", 7)),
    "MatMul and Add": make(
        [node("MatMul", ["x", "w"]), node("Add", ["b", "y"], "out", name="add")],
        {"w": floats(7, 3), "b": floats(3)},
        shape=("n", 7),
    ),
    "weights computed from constants": make(
        [
            node("Transpose", ["w"], "t", name="t", perm=[1, 0]),
            node("Gemm", ["x", "t"], "out"),
        ],
        {"w": floats(3, 7)},
        shape=("n", 7),
    ),
    "weights of a Constant": make(
        [
            node("Constant", [], "w", name="w", value=numpy_helper.from_array(floats(7, 3))),
            node("Gemm", ["x", "w"], "out"),
        ],
        shape=("n", 7),
    ),
    "a batch of 1 that is fixed": make(
        [node("Reshape", ["x", "s"], "out")], {"s": int64(1, -1)}, shape=(1, 4, 6, 5)
    ),
    "something that leads nowhere": make(
        [
            node("Relu", ["x"], "lost", name="lost"),
            node("Flatten", ["x"], "out", name="flatten"),
        ]
    ),
    "nodes without names, or with one twice": make(
        [
            node("Relu", ["x"], "a", name=""),
            node("Relu", ["a"], "b", name="x"),
            node("Relu", ["b"], "y", name="x"),
            FLATTEN,
        ]
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_layers_match_the_reference(case, tmp_path):
    model = LAYERS[case]
    net = read(saved(model, tmp_path))
    batch = 1 if "fixed" in case else 3
    images = floats(batch, *net.input_shape, seed=9)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": images})
    assert expected.size
    logits = net.run(images)
    assert logits.shape == expected.shape
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_embedded_network_matches_the_reference():
    embedded = digits()
    images = embedded.data.images[:64]
    (expected,) = ReferenceEvaluator(str(embedded.model_path)).run(None, {"image": images})
    logits = read(embedded.model_path).run(images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_resnet_with_exported_shape_arithmetic_matches_the_reference():
    path = SHARED / "models" / "resnet20_cifar10.onnx"
    if not path.is_file():
        pytest.skip("the ResNet-20 of the benchmarks is not here")
    net = read(path)
    assert len(net.mac_nodes) == 20
    assert sum(net.macs.values()) == 40_551_040
    images = floats(2, 3, 32, 32)
    (expected,) = ReferenceEvaluator(str(path)).run(None, {"image": images})
    np.testing.assert_allclose(net.run(images), expected, rtol=1e-4, atol=1e-4)


def test_softmax_at_the_end_is_left_out(tmp_path):
    nodes = [node("Gemm", ["x", "w"]), node("Softmax", ["y"], "out", name="s", axis=1)]
    model = make(nodes, {"w": floats(7, 3)}, shape=("n", 7))
    net = read(saved(model, tmp_path))
    assert [layer.name for layer in net.nodes] == ["layer"]
    images = floats(5, 7)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": images})
    exponentials = np.exp(net.run(images))
    np.testing.assert_allclose(
        exponentials / exponentials.sum(axis=1, keepdims=True), expected, rtol=1e-5
    )


def test_names_and_fused_biases(tmp_path):
    net = read(saved(LAYERS["MatMul and Add"], tmp_path))
    (layer,) = net.nodes
    assert isinstance(layer, Linear)
    assert (layer.name, layer.inputs) == ("layer", ("x",))
    np.testing.assert_array_equal(layer.bias, floats(3))
    net = read(saved(LAYERS["nodes without names, or with one twice"], tmp_path))
    assert [layer.name for layer in net.nodes] == ["a", "x'", "x''", "flatten"]
    net = read(saved(LAYERS["Conv and Add of a bias"], tmp_path))
    assert [type(layer) for layer in net.nodes[:1]] == [Conv]
    assert len(net.nodes) == 2


def test_paths_may_be_strings(tmp_path):
    assert read(str(saved(LAYERS["Relu"], tmp_path))).input_shape == (4, 6, 5)


# Files that are not models.


def test_unreadable_files(tmp_path):
    with pytest.raises(ValueError, match=r"model must be a readable file, not .*\(No such file"):
        read(tmp_path / "missing.onnx")
    with pytest.raises(ValueError, match=r"model must be a readable file, not .*\(Is a directory"):
        read(tmp_path)


def test_files_that_are_not_onnx(tmp_path):
    path = tmp_path / "text.onnx"
    for content in (b"this is no model", b"", b"\x00" * 100, pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model must be a (whole|valid) ONNX file, not"):
            read(path)


def test_truncated_files(tmp_path):
    """Cut anywhere, also where the rest is still well-formed."""
    whole = digits().model_path.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in [1, 2, 17, 100, *range(1000, len(whole), 9973), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"(ONNX file|model must|must be)"):
            read(path)


def test_external_weights(tmp_path):
    model = make(
        [node("Gemm", ["x", "weights"], "out")], {"weights": floats(64, 32)}, shape=("n", 64)
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="side.bin", size_threshold=0)
    with pytest.raises(
        ValueError,
        match="weights must be inside the model file, not outside like tensor 'weights'",
    ):
        read(path)


def test_external_constant(tmp_path):
    tensor = numpy_helper.from_array(floats(7, 3), "value")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    model = make(
        [node("Constant", [], "w", name="w", value=tensor), node("Gemm", ["x", "w"], "out")],
        shape=("n", 7),
    )
    with pytest.raises(ValueError, match="weights must be inside the model file"):
        read(saved(model, tmp_path))


def changed(original, change):
    model = onnx.ModelProto()
    model.CopyFrom(LAYERS[original] if isinstance(original, str) else original)
    change(model)
    return model


def add_sparse(model):
    values = numpy_helper.from_array(floats(1), "scattered")
    indices = numpy_helper.from_array(int64(2), "where")
    model.graph.sparse_initializer.add(values=values, indices=indices, dims=[5])


def poison(value, name="w", place=(2, 1, 0, 1)):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name == name:
                array = numpy_helper.to_array(tensor).copy()
                array[place] = value
                tensor.CopyFrom(numpy_helper.from_array(array, name))

    return change


def two_inputs(model):
    model.graph.input.add().CopyFrom(
        helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])
    )


def two_outputs(model):
    model.graph.output.add().CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, 4 * [None])
    )


def with_input(shape, kind=TensorProto.FLOAT):
    def change(model):
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, shape))

    return change


CAST = make([node("Cast", ["x"], to=TensorProto.FLOAT), FLATTEN])
WEIGHTS = {"w": floats(3, 4, 3, 2)}
KERNEL = {"kernel_shape": [2, 2]}
GEMM = {"w": floats(7, 3), "b": floats(3)}

REFUSED = {
    "a graph with a sparse tensor": (
        changed("Relu", add_sparse),
        "weights must be dense tensors, not sparse like 'scattered'",
    ),
    "an old operator set": (
        make([node("Relu", ["x"]), FLATTEN], opset=10),
        "operator set of the model must be 11 or later, not 10",
    ),
    "inconsistent shapes": (
        make([node("Conv", ["x", "w"]), FLATTEN], {"w": floats(3, 5, 3, 2)}),
        "input of Conv 'layer' must be of 5 channels, not 4",
    ),
    "a node that reads nothing known": (
        make([node("Relu", ["nowhere"]), FLATTEN]),
        "model must be a valid ONNX file, not .*nowhere",
    ),
    "two inputs": (changed("Relu", two_inputs), "inputs of the model must be one, not 2"),
    "two outputs": (changed("Relu", two_outputs), "outputs of the model must be one, not 2"),
    "an output that is constant": (
        make([node("Identity", ["w"], "out")], {"w": floats(3, 4)}),
        "output 'out' must depend on the input of the model",
    ),
    "an input of integers": (
        changed(CAST, with_input(["n", 4, 6, 5], TensorProto.INT64)),
        "input 'x' must be float32",
    ),
    "an input of three axes": (
        changed("Relu", with_input(["n", 4, 6])),
        r"input 'x' must be \[n, channels, height, width\] or .* after n, not \[n, 4, 6\]",
    ),
    "an input of unknown size": (
        changed("Relu", with_input(["n", 4, "height", None])),
        r"with fixed sizes after n, not \[n, 4, height, \?\]",
    ),
    "a layer": (
        make([node("Sigmoid", ["x"]), FLATTEN]),
        "layer 'layer' must be one of Add, AveragePool, .*Softmax, not Sigmoid",
    ),
    "a layer of another domain": (
        changed(
            "Relu",
            lambda model: (
                model.opset_import.add(domain="com.example", version=1),
                model.graph.node[0].__setattr__("domain", "com.example"),
            ),
        ),
        r"layer 'layer' must be one of .*, not com\.example\.Relu",
    ),
    "a part of a shape": (
        make(
            [node("Shape", ["x"], "y", start=1), node("Cast", ["y"], "out", to=1)],
            opset=15,
            result=[None],
        ),
        "layer 'layer' must be one of .*, not Shape",
    ),
    "a second output": (
        make([(("MaxPool", ["x"], ["y", "places"]), {"name": "layer", **KERNEL}), FLATTEN]),
        "outputs of MaxPool 'layer' must be one, not 2",
    ),
    "constants that cannot be evaluated": (
        make(
            [
                node("Gather", ["s", "i"], "t", name="gather"),
                node("Reshape", ["x", "t"], "out"),
            ],
            {"s": int64(-1, 120), "i": int64(0, 7)},
        ),
        "Gather 'gather' cannot be evaluated .*out of bounds",
    ),
    "dynamic weights": (
        make([node("Flatten", ["x"], "f", name="f"), node("Gemm", ["f", "f"], "out", transB=1)]),
        "input 1 of Gemm 'layer' must be a constant of the file, not 'f'",
    ),
    "an image that is a constant": (
        make([node("Conv", ["c", "w"]), FLATTEN], {"c": floats(1, 4, 6, 5), **WEIGHTS}),
        "input 0 of Conv 'layer' must be computed from the model's input, not 'c'",
    ),
    "NaN in weights": (
        changed("Conv", poison(np.nan)),
        r"weights 'w' of Conv 'layer' must be finite, not nan at index \[2, 1, 0, 1\]",
    ),
    "infinity in a bias": (
        changed("Conv", poison(-np.inf, "b", (1,))),
        r"weights 'b' of Conv 'layer' must be finite, not -inf at index \[1\]",
    ),
    "dilation": (
        make([node("Conv", ["x", "w"], dilations=[1, 2]), FLATTEN], WEIGHTS),
        r"dilations of Conv 'layer' must be 1, not \[1, 2\]",
    ),
    "automatic pads": (
        make([node("Conv", ["x", "w"], auto_pad="SAME_UPPER"), FLATTEN], WEIGHTS),
        "auto_pad of Conv 'layer' must be NOTSET or VALID, not SAME_UPPER",
    ),
    "a convolution in one dimension": (
        make(
            [node("Flatten", ["x"], "f", name="f"), node("Conv", ["f", "w"]), FLATTEN],
            {"w": floats(3, 4, 3)},
        ),
        "model must be a valid ONNX file, not .*Input tensor must have at least 3 dimensions",
    ),
    "an average over a row": (
        make([node("GlobalAveragePool", ["x"], "out")], shape=("n", 7)),
        r"input of GlobalAveragePool 'layer' must be \[n, channels, height, width\], not \['n', 7",
    ),
    "another size of the kernel": (
        make([node("Conv", ["x", "w"], kernel_shape=[2, 2]), FLATTEN], WEIGHTS),
        r"kernel_shape of Conv 'layer' must be \[3, 2\], not \[2, 2\]",
    ),
    "weights of one axis": (
        make([node("MatMul", ["x", "w"], "out")], {"w": floats(7)}, shape=("n", 7), result=[None]),
        r"weight of Linear 'layer' must be a tensor of 2 axes, none empty, not \[7\]",
    ),
    "ceil_mode": (
        make([node("MaxPool", ["x"], ceil_mode=1, strides=[2, 2], **KERNEL), FLATTEN]),
        "attribute 'ceil_mode' of MaxPool 'layer' must be 0, not 1",
    ),
    "column-major indices": (
        make([node("MaxPool", ["x"], storage_order=1, **KERNEL), FLATTEN]),
        "attribute 'storage_order' of MaxPool 'layer' must be 0, not 1",
    ),
    "ceil_mode of an average": (
        make([node("AveragePool", ["x"], ceil_mode=1, **KERNEL), FLATTEN]),
        "attribute 'ceil_mode' of AveragePool 'layer' must be 0, not 1",
    ),
    "Gemm with a factor": (
        make([node("Gemm", ["x", "w", "b"], "out", alpha=0.5)], GEMM, shape=("n", 7)),
        r"attribute 'alpha' of Gemm 'layer' must be 1\.0, not 0\.5",
    ),
    "Gemm with a transposed input": (
        make([node("Gemm", ["x", "w", "b"], "out", transA=1)], GEMM, shape=(7, 7)),
        "attribute 'transA' of Gemm 'layer' must be 0, not 1",
    ),
    "MatMul of images": (
        make([node("MatMul", ["x", "w"]), FLATTEN], {"w": floats(5, 3)}),
        r"input of MatMul 'layer' must be \[n, features\], not \['n', 4, 6, 5\]",
    ),
    "a bias for each image": (
        make(
            [node("Gemm", ["x", "w", "b"], "out")],
            {"w": floats(7, 3), "b": floats(3, 1)},
            shape=(3, 7),
        ),
        r"bias of Gemm 'layer' must be \[3\], not \[3, 1\]",
    ),
    "Add that broadcasts": (
        make([node("GlobalAveragePool", ["x"], "g", name="g"), node("Add", ["x", "g"]), FLATTEN]),
        r"inputs of Add 'layer' must be of the same shape, not \[4, 6, 5\] and \[4, 1, 1\]",
    ),
    "Add of a constant to the input": (
        make([node("Add", ["x", "b"]), FLATTEN], {"b": floats(1, 4, 1, 1)}),
        "constant of Add 'layer' must be a bias right after a Conv, Gemm or MatMul, not elsewhere",
    ),
    "Add of a constant for each column": (
        make(
            [node("Conv", ["x", "w"], "c", name="c"), node("Add", ["c", "b"]), FLATTEN],
            {"w": floats(3, 4, 3, 3), "b": floats(3)},  # three channels and three columns
        ),
        "constant of Add 'layer' must be a bias right after",
    ),
    "Add of a bias to a result that is used elsewhere": (
        make(
            [
                node("Conv", ["x", "w"], "c", name="c"),
                node("Add", ["c", "b"], "d"),
                node("Add", ["c", "d"], name="sum"),
                FLATTEN,
            ],
            {**WEIGHTS, "b": floats(3, 1, 1)},
        ),
        "constant of Add 'layer' must be a bias right after",
    ),
    "Flatten of rows": (
        make([node("Flatten", ["x"], "out", axis=2)]),
        "axis of Flatten 'layer' must be 1, not 2",
    ),
    "Reshape to an image": (
        make([node("Reshape", ["x", "s"]), FLATTEN], {"s": int64(0, 2, 12, 5)}),
        r"shape of Reshape 'layer' must be \[n, 120\], not \[0, 2, 12, 5\]",
    ),
    "Reshape to one row for all": (
        make([node("Reshape", ["x", "s"], "out")], {"s": int64(1, -1)}),
        r"shape of Reshape 'layer' must be \[n, 120\], not \[1, -1\]",
    ),
    "Reshape that takes 0 for 0": (
        make([node("Reshape", ["x", "s"], "out", allowzero=1)], {"s": int64(-1, 120)}, opset=14),
        "attribute 'allowzero' of Reshape 'layer' must be 0, not 1",
    ),
    "ReduceMean of everything": (
        make([node("ReduceMean", ["x"]), FLATTEN]),
        "axes of ReduceMean 'layer' must be height and width, not all",
    ),
    "ReduceMean of channels": (
        make([node("ReduceMean", ["x"], axes=[1, 2]), FLATTEN]),
        r"axes of ReduceMean 'layer' must be height and width, not \[1, 2\]",
    ),
    "Pad that reflects": (
        make([node("Pad", ["x", "p"], mode="reflect"), FLATTEN], {"p": int64(*[0, 0, 1, 1] * 2)}),
        "attribute 'mode' of Pad 'layer' must be constant, not reflect",
    ),
    "Pad with ones": (
        make(
            [node("Pad", ["x", "p", "v"]), FLATTEN],
            {"p": int64(*[0, 0, 1, 1] * 2), "v": np.float32(1)},
        ),
        r"value of Pad 'layer' must be 0, not 1\.0",
    ),
    "Pad that cuts": (
        make([node("Pad", ["x", "p"]), FLATTEN], {"p": int64(*[0, 0, -1, 0] * 2)}),
        r"pads of Pad 'layer' must be 8 integers of at least 0, not \[0, 0, -1, 0",
    ),
    "Pad of the batch": (
        make([node("Pad", ["x", "p"]), FLATTEN], {"p": int64(1, 0, 0, 0, 0, 0, 0, 0)}),
        r"pads of Pad 'layer' must be 0 for the batch, not \[1, 0\]",
    ),
    "Slice of the batch": (
        make([node("Slice", ["x", "s", "e"]), FLATTEN], {"s": int64(1), "e": int64(2)}),
        "axes of Slice 'layer' must be others than the batch, not 0",
    ),
    "Slice of all but the first image": (
        make([node("Slice", ["x", "s", "e"]), FLATTEN], {"s": int64(1), "e": int64((1 << 63) - 1)}),
        "axes of Slice 'layer' must be others than the batch, not 0",
    ),
    "Slice backwards": (
        make(
            [node("Slice", ["x", "s", "e", "a", "t"]), FLATTEN],
            {"s": int64(9), "e": int64(-99), "a": int64(1), "t": int64(-1)},
        ),
        "steps of Slice 'layer' must be at least 1, not -1",
    ),
    "Slice of nothing": (
        make(
            [node("Slice", ["x", "s", "e", "a"]), FLATTEN],
            {"s": int64(3), "e": int64(3), "a": int64(1)},
        ),
        "range of Slice 'layer' must be a part of 0 to 4",
    ),
    "Slice with lengths that differ": (
        make(
            [
                node("Gather", ["s", "i"], "g", name="g"),
                node("Slice", ["x", "g", "e", "a"]),
                FLATTEN,
            ],
            {"s": int64(0, 0), "i": int64(0, 1), "e": int64(3), "a": int64(1)},
        ),
        "starts, ends, axes and steps of Slice 'layer' must be of one length, not of several",
    ),
    "Concat of the batch": (
        make([node("Concat", ["x", "x"], axis=0), FLATTEN]),
        "axis of Concat 'layer' must be another than the batch, not 0",
    ),
    "Dropout in training": (
        make([node("Dropout", ["x", "", "t"]), FLATTEN], {"t": np.array(True)}),
        "training_mode of Dropout 'layer' must be false, not true",
    ),
    "Softmax inside": (
        make([node("Softmax", ["x"]), FLATTEN]),
        "output of Softmax 'layer' must be that of the model, not 'y'",
    ),
    "logits that are images": (
        make([node("Relu", ["x"], "out")], result=4 * [None]),
        "output of the network must be one row of logits for each image",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, tmp_path):
    model, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        read(saved(model, tmp_path))
    assert "\n" not in str(caught.value)


def test_attributes_of_later_operator_sets_are_refused():
    """The checker refuses what it does not know, and so far the reader knows all the rest."""
    relu = helper.make_node("Relu", ["x"], ["y"], name="layer", strange=1)
    with pytest.raises(
        ValueError, match="attribute 'strange' of Relu 'layer' must be left out, not given"
    ):
        onnx_reader._attributes(relu)


def test_damaged_files(tmp_path):
    """Bytes changed by chance: the file is still a network, or there is one clear error."""
    whole = np.frombuffer(digits().model_path.read_bytes(), np.uint8)
    names = np.flatnonzero(whole > 0)  # weights are nearly everywhere: prefer the structure
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        damaged = whole.copy()
        damaged[random.choice(names[:1500])] = random.integers(256)
        path = tmp_path / "damaged.onnx"
        path.write_bytes(damaged.tobytes())
        try:
            read(path)
        except ValueError:
            refused += 1
    assert refused > 100


# Images.


def npz(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


PIXELS = np.random.default_rng(4).integers(0, 256, (5, 3, 4, 4), np.uint8)


def test_pixels_are_scaled(tmp_path):
    data = load_data(npz(tmp_path, x=PIXELS, y=np.arange(5), calibration=PIXELS[:2, :, ::-1]))
    np.testing.assert_array_equal(data.images, (PIXELS / 255).astype(np.float32))
    assert data.images.dtype == np.float32
    np.testing.assert_array_equal(data.labels, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(data.calibration, data.images[:2, :, ::-1])


def test_mean_and_deviation_of_channels(tmp_path):
    path = npz(tmp_path, x=PIXELS, mean=np.array([1.0, 2, 3]), std=np.array([4.0, 5, 8]))
    data = load_data(path)
    for channel, (mean, std) in enumerate([(1, 4), (2, 5), (3, 8)]):
        expected = (PIXELS[:, channel] - np.float64(mean)) / std
        np.testing.assert_array_equal(data.images[:, channel], expected.astype(np.float32))
    assert data.labels is None
    assert data.calibration is None


def test_floating_point_images_are_taken_as_they_are(tmp_path):
    images = floats(4, 7).astype(np.float64)
    data = load_data(npz(tmp_path, x=images, y=np.zeros(4, np.uint8)))
    np.testing.assert_array_equal(data.images, images.astype(np.float32))
    assert data.labels.dtype == np.int64
    half = load_data(npz(tmp_path, x=images, std=np.float32(2)))
    np.testing.assert_array_equal(half.images, (images / 2).astype(np.float32))


def test_a_single_array(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, PIXELS)
    np.testing.assert_array_equal(load_data(str(path)).images, (PIXELS / 255).astype(np.float32))


NAN = np.ones((5, 3, 4, 4))
NAN[2, 1, 0, 3] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "data must have the array x, not only images"),
        ({}, "data must have the array x, not only none"),
        (
            {"x": PIXELS, "labels": np.arange(5)},
            "arrays of the data must be x, y, calibration, mean and std, not labels",
        ),
        ({"x": PIXELS.astype(np.int64)}, "x must be float or uint8, not int64"),
        (
            {"x": PIXELS[0]},
            r"x must be \[n, channels, height, width\] or \[n, features\] and .* not \[3, 4, 4\]",
        ),
        ({"x": PIXELS[:0]}, r"x must be .* and not empty, not \[0, 3, 4, 4\]"),
        ({"x": NAN}, r"x must be finite, not nan at index \[2, 1, 0, 3\]"),
        ({"x": np.full((1, 1), 1e39)}, r"x must be finite, not 1e\+39 at index \[0, 0\]"),
        (
            {"x": PIXELS, "calibration": NAN},
            r"calibration must be finite, not nan at index \[2, 1, 0, 3\]",
        ),
        (
            {"x": PIXELS, "calibration": PIXELS[:, :2]},
            r"calibration must have images of \[3, 4, 4\] as x, not of \[2, 4, 4\]",
        ),
        (
            {"x": PIXELS, "y": np.arange(4)},
            r"y must be 5 integers, not int64 of shape \[4\]",
        ),
        (
            {"x": PIXELS, "y": np.zeros(5)},
            r"y must be 5 integers, not float64 of shape \[5\]",
        ),
        ({"x": PIXELS, "y": [0, 1, -2, 0, 0]}, "y must be at least 0, not -2 at index 2"),
        (
            {"x": PIXELS, "mean": np.zeros(2)},
            "mean must be one number or one for each of 3 channels, not 2",
        ),
        ({"x": PIXELS, "std": np.zeros(3)}, r"std must be finite, above 0, not \[0\. 0\. 0\.\]"),
        ({"x": PIXELS, "mean": np.inf}, "mean must be finite, not inf"),
        (
            {"x": PIXELS, "mean": np.array("no")},
            "mean must be numbers, not <U2",
        ),
        (
            {"x": np.array([{}, {}], object)},
            "data must be a whole .npy or .npz file without pickled objects, not .*Object arrays",
        ),
    ],
)
def test_bad_data(arrays, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_data(npz(tmp_path, **arrays))


def test_data_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"data must be a readable file, not .*\(No such file"):
        load_data(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match=r"data must be a readable file, not .*\(Is a directory"):
        load_data(tmp_path)
    path = tmp_path / "bad.npz"
    whole = digits().data_path.read_bytes()
    pickled = pickle.dumps({"x": [1, 2, 3]})
    for content in (b"", b"text", pickled, *(whole[:cut] for cut in (5, 3000, len(whole) - 9))):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"data must be a whole \.npy or \.npz file"):
            load_data(path)


def test_damaged_data(tmp_path):
    """A changed byte in a compressed archive is found, or changes nothing that is read."""
    whole = np.frombuffer(digits().data_path.read_bytes(), np.uint8)
    random = np.random.default_rng(8)
    path = tmp_path / "damaged.npz"
    refused = 0
    for _ in range(200):
        damaged = whole.copy()
        damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(damaged.tobytes())
        try:
            load_data(path)
        except ValueError:
            refused += 1
    assert refused > 100
