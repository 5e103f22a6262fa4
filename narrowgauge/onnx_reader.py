"""Trained networks from ONNX files, and their images from NumPy files.

:func:`read` accepts feed-forward classifiers of the layers of :mod:`golden.network`.  Whatever the
exporter wrote to compute shapes (``Shape``, ``Gather``, ``Concat`` and so on of constants) is
evaluated while reading.  What cannot be represented exactly is refused in words, never
approximated: there is one ``ValueError`` for everything that may be wrong with a file.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs
from onnx import helper, numpy_helper
from onnx.external_data_helper import uses_external_data
from onnx.reference import ReferenceEvaluator

from golden import network as layers
from narrowgauge.arrays import load_arrays

__all__ = ["Data", "load_data", "read"]

Constant = npt.NDArray[Any]
Shape = tuple[int, ...]

#: Oldest operator set whose ``Pad`` and ``Slice`` take their limits as inputs.
MIN_OPSET = 11

#: Stands for the batch size in shapes that the graph computes; no real size, -1 or 0 is equal.
BATCH = -(1 << 40)

#: A slice up to here or beyond has no end.
ENDLESS = (1 << 31) - 1

#: Operators that only move the numbers of their constant inputs; they leave BATCH as it is.
FOLDED = {
    "Cast",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


def read(path: str | PathLike[str]) -> layers.Network:
    """Read a network.

    Parameters
    ----------
    path : path
        ONNX file with its weights inside.

    Returns
    -------
    Network
        Its layers have the names of the nodes, or of their outputs where nodes have none.  A
        ``Softmax`` at the end is left out: it changes no decision, and the logits are compared.

    Raises
    ------
    ValueError
        If the file cannot be read or is not a valid ONNX model, or the model has a layer, an
        attribute, a weight or an input that is not supported.
    """
    model = _load(Path(path))
    return _Reader(model).network()


def _load(path: Path) -> onnx.ModelProto:
    """Parse a file and check that it is a whole and consistent ONNX model without side files."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise ValueError(f"model must be a readable file, not {path} ({error.strerror})") from None
    except DecodeError:
        raise ValueError(f"model must be a whole ONNX file, not {path}") from None
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            raise ValueError(
                f"weights must be inside the model file, not outside like tensor {tensor.name!r}"
            )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise ValueError(f"model must be a valid ONNX file, not {path} ({reason})") from None
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions or min(versions) < MIN_OPSET:
        raise ValueError(
            f"operator set of the model must be {MIN_OPSET} or later, not "
            f"{min(versions, default='missing')}"
        )
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors that a model's main graph holds."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


@dataclass(frozen=True)
class _Tensor:
    """A tensor that depends on the network's input.

    Parameters
    ----------
    source : str
        Name of the layer, or of the network's input, that makes it.
    shape : tuple of int
        Shape in the layout of ONNX, without the batch.
    """

    source: str
    shape: Shape


class _Reader:
    """Translates the nodes of a checked model, in order.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise ValueError(f"weights must be dense tensors, not sparse like {name!r}")
        self._opsets = model.opset_import
        self._graph = graph
        self._constants = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self._nodes: dict[str, layers.Node] = {}
        self._tensors: dict[str, _Tensor] = {}
        self._input = self._read_input()
        self._shapes = {self._input.source: _channels_last(self._input.shape)}
        self._uses: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self._uses[name] = self._uses.get(name, 0) + 1

    def network(self) -> layers.Network:
        """Translate all nodes; those on which the output does not depend are left out."""
        for node in self._graph.node:
            self._read_node(node)
        if len(self._graph.output) != 1:
            raise ValueError(f"outputs of the model must be one, not {len(self._graph.output)}")
        (output,) = self._graph.output
        if output.name not in self._tensors:
            raise ValueError(f"output {output.name!r} must depend on the input of the model")
        needed = self._needed(self._tensors[output.name].source)
        return layers.Network(
            input_name=self._input.source,
            input_shape=self._input.shape,
            nodes=tuple(node for name, node in self._nodes.items() if name in needed),
        )

    def _needed(self, last: str) -> set[str]:
        """Names of the layers that lead to the one named."""
        needed, waiting = set(), [last]
        while waiting:
            name = waiting.pop()
            if name in self._nodes and name not in needed:
                needed.add(name)
                waiting += self._nodes[name].inputs
        return needed

    def _read_input(self) -> _Tensor:
        inputs = [value for value in self._graph.input if value.name not in self._constants]
        if len(inputs) != 1:
            raise ValueError(f"inputs of the model must be one, not {len(inputs)}")
        (value,) = inputs
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise ValueError(f"input {value.name!r} must be float32")
        dimensions = value.type.tensor_type.shape.dim
        self._batches = {BATCH} | {entry.dim_value for entry in dimensions[:1] if entry.dim_value}
        sizes = tuple(dimension.dim_value for dimension in dimensions[1:])
        if len(sizes) not in (1, 3) or min(sizes) < 1:
            texts = [entry.dim_param or str(entry.dim_value or "?") for entry in dimensions]
            raise ValueError(
                f"input {value.name!r} must be [n, channels, height, width] or [n, features] "
                f"with fixed sizes after n, not [{', '.join(texts)}]"
            )
        tensor = _Tensor(value.name, sizes)
        self._tensors[value.name] = tensor
        return tensor

    def _read_node(self, node: onnx.NodeProto) -> None:
        inputs = [name for index, name in enumerate(node.input) if _given(node, index)]
        if node.domain not in ("", "ai.onnx"):
            raise _unsupported(node)
        if node.op_type in FOLDED and all(name in self._constants for name in inputs):
            self._fold(node, inputs)
            return
        if node.op_type == "Shape" and node.input[0] in self._tensors and not node.attribute:
            shape = (BATCH, *self._tensors[node.input[0]].shape)
            self._constants[node.output[0]] = np.array(shape, np.int64)
            return
        translate = self._TRANSLATIONS.get(node.op_type)
        if translate is None:
            raise _unsupported(node)
        if sum(map(bool, node.output)) != 1:
            raise _error(node, "outputs", "one", len(node.output))
        translate(self, node)

    def _fold(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        """Evaluate a node whose inputs are constants, with the reference implementation."""
        graph = helper.make_graph(
            [node],
            "constants",
            [
                helper.make_tensor_value_info(
                    name,
                    helper.np_dtype_to_tensor_dtype(self._constants[name].dtype),
                    self._constants[name].shape,
                )
                for name in dict.fromkeys(inputs)
            ],
            [onnx.ValueInfoProto(name=name) for name in node.output],
        )
        model = helper.make_model(graph, opset_imports=self._opsets)
        try:
            results = ReferenceEvaluator(model).run(
                None, {name: self._constants[name] for name in inputs}
            )
        except Exception as error:  # the evaluator raises whatever NumPy raises
            raise ValueError(f"{_title(node)} cannot be evaluated ({error})") from error
        self._constants.update(zip(node.output, map(np.asarray, results), strict=True))

    # What a node reads.

    def _data(self, node: onnx.NodeProto, index: int = 0) -> _Tensor:
        """Input that depends on the network's input."""
        name = node.input[index]
        if name not in self._tensors:
            raise _error(node, f"input {index}", "computed from the model's input", repr(name))
        return self._tensors[name]

    def _image(self, node: onnx.NodeProto) -> _Tensor:
        """Input of four axes that depends on the network's input."""
        data = self._data(node)
        if len(data.shape) != 3:
            raise _error(node, "input", "[n, channels, height, width]", ["n", *data.shape])
        return data

    def _constant(self, node: onnx.NodeProto, index: int) -> Constant:
        """Input that has to be a constant; the checker has seen to it that it is there."""
        name = node.input[index]
        if name not in self._constants:
            raise _error(node, f"input {index}", "a constant of the file", repr(name))
        return self._constants[name]

    def _integers(self, node: onnx.NodeProto, index: int) -> list[int]:
        """Constant input as a list of integers."""
        return [int(value) for value in self._constant(node, index).reshape(-1)]

    def _weights(self, node: onnx.NodeProto, index: int) -> npt.NDArray[np.float32]:
        """Constant input as weights, which have to be finite."""
        constant, name = self._constant(node, index), node.input[index]
        bad = np.argwhere(~np.isfinite(constant))
        if len(bad):
            place = tuple(map(int, bad[0]))
            raise _error(
                node, f"weights {name!r}", "finite", f"{constant[place]} at index {list(place)}"
            )
        return constant

    # What a node becomes.

    def _place(self, node: onnx.NodeProto, layer: layers.Node) -> None:
        """Append a layer and declare its result."""
        shape = layer.output_shape(*(self._shapes[name] for name in layer.inputs))
        self._nodes[layer.name] = layer
        self._shapes[layer.name] = shape
        onnx_shape = (shape[-1], *shape[:-1])
        self._tensors[node.output[0]] = _Tensor(layer.name, onnx_shape)

    def _name(self, node: onnx.NodeProto) -> str:
        name = node.name or node.output[0]
        while name in self._shapes:
            name += "'"
        return name

    def _conv(self, node: onnx.NodeProto) -> None:
        data, weight = self._image(node), self._weights(node, 1)
        attributes = _attributes(node, **_WINDOW, group=1)
        if attributes["kernel_shape"] not in (None, list(weight.shape[2:])):
            raise _error(node, "kernel_shape", list(weight.shape[2:]), attributes["kernel_shape"])
        bias = self._weights(node, 2) if _given(node, 2) else np.zeros(len(weight), np.float32)
        strides, pads = _window(node, attributes)
        self._place(
            node,
            layers.Conv(
                name=self._name(node),
                inputs=(data.source,),
                weight=weight,
                bias=bias,
                strides=strides,
                pads=pads,
                groups=attributes["group"],
            ),
        )

    def _gemm(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node, alpha=1.0, beta=1.0, transA=0, transB=0)
        _fixed(node, attributes, alpha=1.0, beta=1.0, transA=0)
        weight = self._weights(node, 1)
        bias = self._weights(node, 2) if _given(node, 2) else None
        self._linear(node, weight.T if attributes["transB"] else weight, bias)

    def _matmul(self, node: onnx.NodeProto) -> None:
        _attributes(node)
        self._linear(node, self._weights(node, 1), None)

    def _linear(
        self,
        node: onnx.NodeProto,
        weight: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32] | None,
    ) -> None:
        data = self._data(node)
        if len(data.shape) != 1:
            raise _error(node, "input", "[n, features]", ["n", *data.shape])
        biases = np.zeros(weight.shape[-1], np.float32)
        if bias is not None:
            if bias.size not in (1, len(biases)) or bias.shape[-1:] != (bias.size,)[: bias.ndim]:
                raise _error(node, "bias", f"[{len(biases)}]", list(bias.shape))
            biases = biases + bias.reshape(-1)
        self._place(
            node,
            layers.Linear(name=self._name(node), inputs=(data.source,), weight=weight, bias=biases),
        )

    def _add(self, node: onnx.NodeProto) -> None:
        _attributes(node)
        constants = [index for index in (0, 1) if node.input[index] in self._constants]
        if constants:
            self._add_bias(node, constants[0])
            return
        left, right = self._data(node, 0), self._data(node, 1)
        if left.shape != right.shape:
            raise _error(
                node, "inputs", "of the same shape", f"{list(left.shape)} and {list(right.shape)}"
            )
        self._place(node, layers.Add(name=self._name(node), inputs=(left.source, right.source)))

    def _add_bias(self, node: onnx.NodeProto, index: int) -> None:
        """Merge the addition of a constant to the dot products before it into their bias."""
        data, bias = self._data(node, 1 - index), self._weights(node, index)
        layer = self._nodes.get(data.source)
        alone = self._uses[node.input[1 - index]] == 1
        # One number for each channel, along the axis that has the channels.
        wanted = (data.shape[0],) + (1,) * (len(data.shape) - 1)
        trimmed = bias.shape[max(0, bias.ndim - len(wanted)) :]
        if not (
            isinstance(layer, layers.MacNode)
            and alone
            and trimmed == wanted
            and bias.size == data.shape[0]
        ):
            raise _error(node, "constant", "a bias right after a Conv, Gemm or MatMul", "elsewhere")
        self._nodes[layer.name] = replace(layer, bias=layer.bias + bias.reshape(-1))
        self._tensors[node.output[0]] = data

    def _relu(self, node: onnx.NodeProto) -> None:
        _attributes(node)
        source = self._data(node).source
        self._place(node, layers.Relu(name=self._name(node), inputs=(source,)))

    def _max_pool(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node, **_WINDOW, ceil_mode=0, storage_order=0)
        _fixed(node, attributes, ceil_mode=0, storage_order=0)
        data = self._image(node)
        strides, pads = _window(node, attributes)
        self._place(
            node,
            layers.MaxPool(
                name=self._name(node),
                inputs=(data.source,),
                kernel=tuple(attributes["kernel_shape"]),
                strides=strides,
                pads=pads,
            ),
        )

    def _average_pool(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node, **_WINDOW, ceil_mode=0, count_include_pad=0)
        _fixed(node, attributes, ceil_mode=0)
        data = self._image(node)
        strides, pads = _window(node, attributes)
        self._place(
            node,
            layers.AveragePool(
                name=self._name(node),
                inputs=(data.source,),
                kernel=tuple(attributes["kernel_shape"]),
                strides=strides,
                pads=pads,
                include_pad=bool(attributes["count_include_pad"]),
            ),
        )

    def _global_average_pool(self, node: onnx.NodeProto) -> None:
        _attributes(node)
        self._average_of(node, self._image(node))

    def _reduce_mean(self, node: onnx.NodeProto) -> None:
        """Mean over height and width, the way some exporters write a global average."""
        attributes = _attributes(node, axes=None, keepdims=1, noop_with_empty_axes=0)
        data = self._image(node)
        axes = self._integers(node, 1) if _given(node, 1) else attributes["axes"]
        if axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
            raise _error(node, "axes", "height and width", axes or "all")
        self._average_of(node, data)
        if not attributes["keepdims"]:
            self._flatten_of(node, self._tensors[node.output[0]])

    def _flatten(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node, axis=1)
        data = self._data(node)
        if attributes["axis"] % (len(data.shape) + 1) != 1:
            raise _error(node, "axis", 1, attributes["axis"])
        self._flatten_of(node, data)

    def _reshape(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node, allowzero=0)
        _fixed(node, attributes, allowzero=0)
        data, target = self._data(node), self._integers(node, 1)
        features = math.prod(data.shape)
        # 0 keeps the batch and -1 is whatever is left; other sizes are those of the graph itself.
        rows = [(size, columns) for size in self._batches | {0} for columns in (-1, features)]
        if tuple(target) not in [*rows, (-1, features)]:
            shown = ["n" if size == BATCH else size for size in target]
            raise _error(node, "shape", f"[n, {features}]", shown)
        self._flatten_of(node, data)

    def _pad(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node, mode=b"constant")
        _fixed(node, attributes, mode=b"constant")
        data, pads = self._data(node), self._integers(node, 1)
        if _given(node, 2) and np.any(self._constant(node, 2) != 0):
            raise _error(node, "value", 0, self._constant(node, 2))
        rank = len(data.shape) + 1
        axes = self._integers(node, 3) if _given(node, 3) else range(rank)
        if len(pads) != 2 * len(axes) or min(pads) < 0:
            raise _error(node, "pads", f"{2 * len(axes)} integers of at least 0", pads)
        before, after = [0] * rank, [0] * rank
        for index, axis in enumerate(axes):
            before[axis % rank], after[axis % rank] = pads[index], pads[index + len(axes)]
        if before[0] or after[0]:
            raise _error(node, "pads", "0 for the batch", [before[0], after[0]])
        self._place(
            node,
            layers.Pad(
                name=self._name(node),
                inputs=(data.source,),
                before=_channels_last(before[1:]),
                after=_channels_last(after[1:]),
            ),
        )

    def _slice(self, node: onnx.NodeProto) -> None:
        _attributes(node)
        data = self._data(node)
        starts, ends = self._integers(node, 1), self._integers(node, 2)
        axes = self._integers(node, 3) if _given(node, 3) else range(len(starts))
        steps = self._integers(node, 4) if _given(node, 4) else [1] * len(starts)
        if not len(starts) == len(ends) == len(axes) == len(steps):
            raise _error(node, "starts, ends, axes and steps", "of one length", "of several")
        ranges = [(0, size, 1) for size in data.shape]
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            index = axis % (len(data.shape) + 1) - 1
            if index < 0:
                # Exporters write [:] as a slice up to a huge end.
                if (start, step) != (0, 1) or end < ENDLESS:
                    raise _error(node, "axes", "others than the batch", axis)
                continue
            if step < 1:
                raise _error(node, "steps", "at least 1", step)
            ranges[index] = slice(start, end, step).indices(data.shape[index])
        self._place(
            node,
            layers.Slice(
                name=self._name(node),
                inputs=(data.source,),
                ranges=_channels_last(ranges),
            ),
        )

    def _concat(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node, axis=None)
        tensors = [self._data(node, index) for index in range(len(node.input))]
        rank = len(tensors[0].shape) + 1
        axis = attributes["axis"] % rank
        if axis == 0:
            raise _error(node, "axis", "another than the batch", attributes["axis"])
        # Channels, height, width are axes 1, 2, 3 of ONNX and 2, 0, 1 of channels-last images.
        self._place(
            node,
            layers.Concat(
                name=self._name(node),
                inputs=tuple(tensor.source for tensor in tensors),
                axis=(axis - 2) % (rank - 1),
            ),
        )

    def _same(self, node: onnx.NodeProto) -> None:
        """Identity, and Dropout outside training."""
        if _given(node, 2) and np.any(self._constant(node, 2)):
            raise _error(node, "training_mode", "false", "true")
        self._tensors[node.output[0]] = self._data(node)

    def _softmax(self, node: onnx.NodeProto) -> None:
        """Softmax as the last layer, which is left out."""
        if [node.output[0]] != [value.name for value in self._graph.output]:
            raise _error(node, "output", "that of the model", repr(node.output[0]))
        self._tensors[node.output[0]] = self._data(node)

    def _average_of(self, node: onnx.NodeProto, data: _Tensor) -> None:
        self._place(node, layers.GlobalAveragePool(name=self._name(node), inputs=(data.source,)))

    def _flatten_of(self, node: onnx.NodeProto, data: _Tensor) -> None:
        self._place(node, layers.Flatten(name=self._name(node), inputs=(data.source,)))

    _TRANSLATIONS: dict[str, Callable[["_Reader", onnx.NodeProto], None]] = {
        "Add": _add,
        "AveragePool": _average_pool,
        "Concat": _concat,
        "Conv": _conv,
        "Dropout": _same,
        "Flatten": _flatten,
        "Gemm": _gemm,
        "GlobalAveragePool": _global_average_pool,
        "Identity": _same,
        "MatMul": _matmul,
        "MaxPool": _max_pool,
        "Pad": _pad,
        "ReduceMean": _reduce_mean,
        "Relu": _relu,
        "Reshape": _reshape,
        "Slice": _slice,
        "Softmax": _softmax,
    }


def _channels_last(values: Sequence[Any]) -> tuple[Any, ...]:
    """One entry for each of channels, height, width, or for features, with channels last."""
    return (*values[1:], values[0])


#: Attributes of every layer with a window, and their defaults.
_WINDOW: dict[str, Any] = {
    "auto_pad": b"NOTSET",
    "dilations": None,
    "kernel_shape": None,
    "pads": None,
    "strides": None,
}


def _window(
    node: onnx.NodeProto, attributes: dict[str, Any]
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Strides and pads of a layer with a window of two axes."""
    if attributes["auto_pad"] not in (b"NOTSET", b"VALID"):
        raise _error(
            node, "auto_pad", "NOTSET or VALID", attributes["auto_pad"].decode(errors="replace")
        )
    if set(attributes["dilations"] or [1]) != {1}:
        raise _error(node, "dilations", "1", attributes["dilations"])
    strides = attributes["strides"] or [1, 1]
    pads = [0] * 4 if attributes["auto_pad"] == b"VALID" else attributes["pads"] or [0] * 4
    return tuple(strides), tuple(pads)


def _given(node: onnx.NodeProto, index: int) -> bool:
    """Whether an optional input is there; an empty name stands for one that is not."""
    return index < len(node.input) and bool(node.input[index])


def _attributes(node: onnx.NodeProto, **defaults: Any) -> dict[str, Any]:
    """Attributes of a node, with defaults; one that has no default is not supported."""
    values = dict(defaults)
    for attribute in node.attribute:
        if attribute.name not in defaults:
            raise _error(node, f"attribute {attribute.name!r}", "left out", "given")
        values[attribute.name] = helper.get_attribute_value(attribute)
    return values


def _fixed(node: onnx.NodeProto, attributes: dict[str, Any], **rules: Any) -> None:
    """Refuse attributes with another value than the one supported."""
    for name, rule in rules.items():
        if attributes[name] != rule:
            shown = [
                value.decode(errors="replace") if isinstance(value, bytes) else value
                for value in (rule, attributes[name])
            ]
            raise _error(node, f"attribute {name!r}", *shown)


def _title(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"


def _error(node: onnx.NodeProto, quantity: str, rule: object, value: object) -> ValueError:
    return ValueError(f"{quantity} of {_title(node)} must be {rule}, not {value}")


def _unsupported(node: onnx.NodeProto) -> ValueError:
    supported = ", ".join(sorted(_Reader._TRANSLATIONS))
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return ValueError(
        f"layer {node.name or node.output[0]!r} must be one of {supported}, not {kind}"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Images of one file, ready for a network.

    Parameters
    ----------
    images : ndarray of float32, [n, channels, height, width] or [n, features]
        Images on which accuracy is measured.
    labels : ndarray of int64, [n], or None
        Their classes.
    calibration : ndarray of float32, or None
        Other images of the same shape, on which ranges are fitted.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64] | None
    calibration: npt.NDArray[np.float32] | None


def load_data(path: str | PathLike[str]) -> Data:
    """Read images from a NumPy file.

    Parameters
    ----------
    path : path
        Either an ``.npy`` file of images, or an ``.npz`` file with ``x`` (images) and optionally
        ``y`` (classes, [n] integers), ``calibration`` (images), ``mean`` and ``std`` (numbers or
        one for each channel).  Images are [n, channels, height, width] or [n, features], and
        float or uint8.  The network sees (pixel - mean) / std; without ``mean`` and ``std`` that
        is pixel / 255 for uint8 and the number itself for float.

    Returns
    -------
    Data

    Raises
    ------
    ValueError
        If the file cannot be read, needs pickle, lacks ``x``, or an array has the wrong type or
        shape or is not finite.
    """
    arrays = load_arrays("data", path, single="x")
    if "x" not in arrays:
        raise ValueError(f"data must have the array x, not only {', '.join(arrays) or 'none'}")
    unknown = sorted(set(arrays) - {"x", "y", "calibration", "mean", "std"} - _IGNORED)
    if unknown:
        raise ValueError(
            f"arrays of the data must be x, y, calibration, mean and std, not {unknown[0]}"
        )
    images = _scaled(arrays, "x")
    calibration = _scaled(arrays, "calibration") if "calibration" in arrays else None
    if calibration is not None and calibration.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"calibration must have images of {list(images.shape[1:])} as x, "
            f"not of {list(calibration.shape[1:])}"
        )
    labels = None
    if "y" in arrays:
        y = arrays["y"]
        if y.dtype.kind not in "iu" or y.shape != images.shape[:1]:
            raise ValueError(
                f"y must be {len(images)} integers, not {y.dtype} of shape {list(y.shape)}"
            )
        if y.min() < 0:
            raise ValueError(f"y must be at least 0, not {y.min()} at index {int(y.argmin())}")
        labels = y.astype(np.int64)
    return Data(images=images, labels=labels, calibration=calibration)


#: Where the embedded images come from; of no use to a network.
_IGNORED = {"x_index", "calibration_index"}


def _scaled(arrays: dict[str, Constant], name: str) -> npt.NDArray[np.float32]:
    """Images as the network sees them."""
    images = arrays[name]
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ValueError(f"{name} must be float or uint8, not {images.dtype}")
    if images.ndim not in (2, 4) or not images.size:
        raise ValueError(
            f"{name} must be [n, channels, height, width] or [n, features] and not empty, "
            f"not {list(images.shape)}"
        )
    scaled = images.astype(np.float64)
    defaults = {"mean": 0.0, "std": 255.0 if images.dtype == np.uint8 else 1.0}
    shape = (-1,) + (1,) * (images.ndim - 2)
    mean, std = (np.asarray(arrays.get(key, default)) for key, default in defaults.items())
    for key, value in (("mean", mean), ("std", std)):
        if value.dtype.kind not in "fiu":
            raise ValueError(f"{key} must be numbers, not {value.dtype}")
        if value.size not in (1, images.shape[1]):
            raise ValueError(
                f"{key} must be one number or one for each of {images.shape[1]} channels, "
                f"not {value.size}"
            )
        if not np.all(np.isfinite(value)) or (key == "std" and np.any(value <= 0)):
            raise ValueError(f"{key} must be finite{', above 0' * (key == 'std')}, not {value}")
    with np.errstate(over="ignore"):
        result = ((scaled - mean.reshape(shape)) / std.reshape(shape)).astype(np.float32)
    bad = np.argwhere(~np.isfinite(result))
    if len(bad):
        place = tuple(map(int, bad[0]))
        raise ValueError(f"{name} must be finite, not {images[place]} at index {list(place)}")
    return result
