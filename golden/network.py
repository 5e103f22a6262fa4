"""Trained networks as lists of layers, and one executor for every arithmetic.

A :class:`Network` holds layers in the order in which they run.  Images and logits have the layout
of ONNX, ``[n, channels, height, width]`` and ``[n, classes]``; inside, tensors are channels-last,
``[n, height, width, channels]``, so that a convolution is one strided copy and one matrix product
whose result already has the layout of the next layer.

Every layer either *computes* (convolution, matrix product, addition, average, concatenation: its
results are new numbers, which a narrow number system has to round) or *moves* (ReLU, maximum,
flatten, pad, slice: its results are numbers that were there before).  :func:`execute` runs a
network with any :class:`Arithmetic`; the float32 reference is the simplest one and
:mod:`golden.inference` has the narrow ones.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

__all__ = [
    "Add",
    "Arithmetic",
    "AveragePool",
    "Concat",
    "Conv",
    "Flatten",
    "Float32Arithmetic",
    "GlobalAveragePool",
    "Linear",
    "MacNode",
    "MaxPool",
    "Network",
    "Node",
    "Pad",
    "Relu",
    "Slice",
    "Step",
    "execute",
    "multiply",
]

Floats = npt.NDArray[np.floating[Any]]
Shape = tuple[int, ...]

#: Bytes of the largest matrix of one batch; a few of them stay in a core's second-level cache.
BATCH_BYTES = 1 << 22

#: Multiply-adds below which OpenBLAS, the BLAS of NumPy's wheels, works without threads.
THREADED_MACS = 1 << 19

#: Rows below which it does not pay to cut a product.
MIN_ROWS = 8


class Arithmetic(Protocol):
    """What :func:`execute` asks of a number system that is prepared for one network."""

    def forward(self, name: str, group: int, columns: Floats) -> Floats:
        """Products of ``columns`` [m, k] with the weights of a group, bias added: a new [m, n]."""

    def sum_dtype(self, sources: Sequence[str]) -> npt.DTypeLike:
        """Float type in which the sum of the tensors of these steps is taken."""

    def store(self, name: str, values: Floats) -> Floats:
        """Values, as float32, that the step's result has once it is stored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One layer of a network.

    Parameters
    ----------
    name : str
        Name of the layer and of the tensor it makes.
    inputs : tuple of str
        Names of the layers, or of the network's input, whose tensors it reads.

    Raises
    ------
    ValueError
        If the name is empty or the number of inputs is wrong.
    """

    name: str
    inputs: tuple[str, ...]

    #: Whether the results are new numbers, which have to be rounded when they are stored.
    computes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        self._check_inputs()

    def _check_inputs(self) -> None:
        if len(self.inputs) != 1:
            raise self._error("inputs", "one tensor", len(self.inputs))

    def _error(self, quantity: str, rule: str, value: object) -> ValueError:
        kind = type(self).__name__
        return ValueError(f"{quantity} of {kind} {self.name!r} must be {rule}, not {value}")

    def _check_map(self, shape: Shape) -> None:
        if len(shape) != 3:
            raise self._error("input", "an image of [height, width, channels]", list(shape))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the result without the batch; ValueError if the inputs do not fit."""
        raise NotImplementedError  # every kind of node has its own

    def apply(self, *tensors: Floats) -> Floats:
        """Compute the result for a batch; a new array wherever ``computes`` is true."""
        raise NotImplementedError  # every kind of node has its own


def _check_window(node: Node, **sizes: tuple[int, ...]) -> None:
    """Check strides, pads and kernel of a layer that slides a window over an image."""
    rules = {"kernel": (2, 1), "strides": (2, 1), "pads": (4, 0)}
    for quantity, value in sizes.items():
        count, low = rules[quantity]
        if len(value) != count or not all(isinstance(size, int) and size >= low for size in value):
            raise node._error(quantity, f"{count} integers of at least {low}", list(value))


def _slid(node: Node, shape: Shape, kernel: Shape, strides: Shape, pads: Shape) -> Shape:
    """Height and width after sliding a window; pads are top, left, bottom, right."""
    node._check_map(shape)
    sizes = []
    for axis in (0, 1):
        room = shape[axis] + pads[axis] + pads[axis + 2] - kernel[axis]
        if room < 0:
            raise node._error("kernel", "at most the padded input", list(kernel))
        sizes.append(room // strides[axis] + 1)
    return tuple(sizes)


def _padded(x: Floats, pads: Shape, value: float) -> Floats:
    """Images with a border of ``value``; pads are top, left, bottom, right."""
    top, left, bottom, right = pads
    if not any(pads):
        return x
    count, height, width, channels = x.shape
    framed = np.full((count, top + height + bottom, left + width + right, channels), value, x.dtype)
    framed[:, top : top + height, left : left + width] = x
    return framed


@dataclass(frozen=True, kw_only=True, eq=False)
class MacNode(Node):
    """A layer of dot products: a matrix product for each of its groups.

    Parameters
    ----------
    weight : ndarray of float32
        Weights in the layout of ONNX.
    bias : ndarray of float32, [n]
        Added to each dot product.

    Raises
    ------
    ValueError
        If a tensor is not float32 or has the wrong shape.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    computes: ClassVar[bool] = True

    #: Number of axes of ``weight``, and the one along which outputs are counted.
    weight_axes: ClassVar[int]
    output_axis: ClassVar[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        for quantity, axes in (("weight", self.weight_axes), ("bias", 1)):
            tensor = np.array(getattr(self, quantity))
            if tensor.dtype != np.float32:
                raise self._error(quantity, "float32", tensor.dtype)
            if tensor.ndim != axes or not tensor.size:
                raise self._error(
                    quantity, f"a tensor of {axes} axes, none empty", list(tensor.shape)
                )
            tensor.setflags(write=False)
            object.__setattr__(self, quantity, tensor)
        if len(self.bias) != self.weight.shape[self.output_axis]:
            raise self._error(
                "bias", f"[{self.weight.shape[self.output_axis]}]", list(self.bias.shape)
            )

    @property
    def groups(self) -> int:
        """Number of independent matrix products."""
        return 1

    @property
    def length(self) -> int:
        """Number of products in each dot product."""
        return self.weight.size // len(self.bias)

    def matrices(self) -> npt.NDArray[np.float32]:
        """Weights as [groups, k, n], in the order of :meth:`columns`."""
        raise NotImplementedError  # every kind of node has its own

    def columns(self, x: Floats) -> Floats:
        """Lay out the inputs of all dot products of a batch as [groups, m, k].

        There is one row for each output pixel: rows run over image, output row and output column,
        k over kernel row, kernel column and, innermost, input channel.
        """
        raise NotImplementedError  # every kind of node has its own

    def biases(self) -> npt.NDArray[np.float32]:
        """Bias as [groups, n]."""
        return self.bias.reshape(self.groups, -1)

    def products(self, x: Floats, forward: Callable[[int, Floats], Floats]) -> Floats:
        """Compute the result for a batch, each group's by ``forward(group, columns)``."""
        results = [forward(group, columns) for group, columns in enumerate(self.columns(x))]
        return results[0] if len(results) == 1 else np.concatenate(results, axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(MacNode):
    """Two-dimensional convolution, as ONNX defines ``Conv`` without dilation.

    Parameters
    ----------
    weight : ndarray of float32, [filters, channels/groups, height, width]
        Kernels.
    bias : ndarray of float32, [filters]
        Added to each dot product.
    strides : tuple of int
        Steps along height and width.
    pads : tuple of int
        Rows and columns of zeros: top, left, bottom, right.
    groups : int
        Parts into which channels and filters are divided; as many as channels is depthwise.

    Raises
    ------
    ValueError
        If the filters do not divide into the groups, or a size is out of range.
    """

    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    weight_axes: ClassVar[int] = 4
    output_axis: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window(self, strides=self.strides, pads=self.pads)
        if self.groups < 1 or len(self.weight) % self.groups:
            raise self._error("groups", f"a divisor of {len(self.weight)} filters", self.groups)

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of a kernel."""
        return self.weight.shape[2], self.weight.shape[3]

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        slid = _slid(self, shape, self.kernel, self.strides, self.pads)
        channels = self.weight.shape[1] * self.groups
        if shape[2] != channels:
            raise self._error("input", f"of {channels} channels", shape[2])
        return (*slid, len(self.weight))

    def matrices(self) -> npt.NDArray[np.float32]:
        filters, channels, height, width = self.weight.shape
        grouped = self.weight.reshape(self.groups, -1, channels, height, width)
        matrices = grouped.transpose(0, 3, 4, 2, 1).reshape(
            self.groups, height * width * channels, filters // self.groups
        )
        return np.ascontiguousarray(matrices)

    def columns(self, x: Floats) -> Floats:
        rows, columns, _ = self.output_shape(x.shape[1:])
        framed = _padded(x, self.pads, 0)
        count, channels = len(x), self.weight.shape[1]
        (height, width), (down, right) = self.kernel, self.strides
        image, line, pixel, channel = framed.strides
        windows = as_strided(
            framed,
            (self.groups, count, rows, columns, height, width, channels),
            (channels * channel, image, down * line, right * pixel, line, pixel, channel),
            writeable=False,
        )
        # The reshape makes the one copy, or none at all for a kernel of one pixel.
        return windows.reshape(self.groups, count * rows * columns, height * width * channels)

    def products(self, x: Floats, forward: Callable[[int, Floats], Floats]) -> Floats:
        return super().products(x, forward).reshape(len(x), *self.output_shape(x.shape[1:]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(MacNode):
    """Matrix product with a bias: ``Gemm`` or ``MatMul`` of ONNX.

    Parameters
    ----------
    weight : ndarray of float32, [features, outputs]
        Weights.
    bias : ndarray of float32, [outputs]
        Added to each dot product.
    """

    weight_axes: ClassVar[int] = 2
    output_axis: ClassVar[int] = 1

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if shape != (len(self.weight),):
            raise self._error("input", f"[{len(self.weight)}]", list(shape))
        return (self.weight.shape[1],)

    def matrices(self) -> npt.NDArray[np.float32]:
        return self.weight[None]

    def columns(self, x: Floats) -> Floats:
        return x[None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Node):
    """Sum of two tensors of the same shape."""

    computes: ClassVar[bool] = True

    def _check_inputs(self) -> None:
        if len(self.inputs) != 2:
            raise self._error("inputs", "two tensors", len(self.inputs))

    def output_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != shapes[1]:
            raise self._error(
                "inputs", "of the same shape", f"{list(shapes[0])}, {list(shapes[1])}"
            )
        return shapes[0]

    def apply(self, *tensors: Floats) -> Floats:
        return np.add(*tensors)


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Node):
    """Tensors side by side; they may be coded differently, so the result is coded anew.

    Parameters
    ----------
    axis : int
        Axis that grows, counted without the batch and with channels last.
    """

    axis: int

    computes: ClassVar[bool] = True

    def _check_inputs(self) -> None:
        if not self.inputs:
            raise self._error("inputs", "at least one tensor", 0)

    def output_shape(self, *shapes: Shape) -> Shape:
        first, axis = shapes[0], self.axis
        if not 0 <= axis < len(first):
            raise self._error("axis", f"between 0 and {len(first) - 1}", axis)
        for shape in shapes:
            if len(shape) != len(first) or any(
                size != other
                for index, (size, other) in enumerate(zip(shape, first, strict=True))
                if index != axis
            ):
                raise self._error("inputs", "equal apart from the axis", [*map(list, shapes)])
        return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])

    def apply(self, *tensors: Floats) -> Floats:
        return np.concatenate(tensors, axis=self.axis + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Relu(Node):
    """The larger of each value and zero."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def apply(self, *tensors: Floats) -> Floats:
        return np.maximum(tensors[0], 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pool(Node):
    """A window that slides over each channel.

    Parameters
    ----------
    kernel, strides : tuple of int
        Height and width of the window, and its steps.
    pads : tuple of int
        Border: top, left, bottom, right; narrower than the kernel, so that no window is empty.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window(self, kernel=self.kernel, strides=self.strides, pads=self.pads)
        if any(pad >= self.kernel[index % 2] for index, pad in enumerate(self.pads)):
            raise self._error("pads", f"below the kernel {list(self.kernel)}", list(self.pads))

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return (*_slid(self, shape, self.kernel, self.strides, self.pads), shape[2])

    def _windows(self, x: Floats, border: float) -> Iterator[Floats]:
        """For each position in the kernel, what all windows have there."""
        rows, columns, _ = self.output_shape(x.shape[1:])
        framed = _padded(x, self.pads, border)
        (height, width), (down, right) = self.kernel, self.strides
        for top in range(height):
            for left in range(width):
                yield framed[
                    :,
                    top : top + (rows - 1) * down + 1 : down,
                    left : left + (columns - 1) * right + 1 : right,
                ]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(_Pool):
    """Largest value of each window; the border never wins."""

    def apply(self, *tensors: Floats) -> Floats:
        windows = self._windows(tensors[0], -math.inf)
        largest = next(windows).copy()
        for window in windows:
            np.maximum(largest, window, out=largest)
        return largest


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePool(_Pool):
    """Mean of each window, as float64: the sum is exact and divided once.

    Parameters
    ----------
    include_pad : bool
        Whether the zeros of the border count in the divisor.
    """

    include_pad: bool = False

    computes: ClassVar[bool] = True

    def apply(self, *tensors: Floats) -> Floats:
        (x,) = tensors
        total = np.zeros((len(x), *self.output_shape(x.shape[1:])))
        for window in self._windows(x, 0):
            total += window
        total /= self._counts(x.shape)
        return total

    def _counts(self, shape: Shape) -> Floats:
        """Divisor of each output pixel, [rows, columns, 1]."""
        if self.include_pad:
            return np.full((1, 1, 1), math.prod(self.kernel), np.float64)
        inside = np.ones((1, *shape[1:3], 1))
        counts: Floats = sum(self._windows(inside, 0), start=np.zeros(()))[0]
        return counts


@dataclass(frozen=True, kw_only=True, eq=False)
class GlobalAveragePool(Node):
    """Mean of each channel over the whole image, as float64: exact sum, one division."""

    computes: ClassVar[bool] = True

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        self._check_map(shape)
        return (1, 1, shape[2])

    def apply(self, *tensors: Floats) -> Floats:
        return tensors[0].mean(axis=(1, 2), dtype=np.float64, keepdims=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Node):
    """All values of an image in one row, in the order of ONNX: channel, height, width."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return (math.prod(shapes[0]),)

    def apply(self, *tensors: Floats) -> Floats:
        (x,) = tensors
        if x.ndim == 4:
            x = x.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(x.reshape(len(x), -1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pad(Node):
    """A border of zeros.

    Parameters
    ----------
    before, after : tuple of int
        Zeros in front of and behind each axis, without the batch and with channels last.
    """

    before: Shape
    after: Shape

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        for quantity in ("before", "after"):
            widths = getattr(self, quantity)
            if len(widths) != len(shape) or min(widths) < 0:
                raise self._error(quantity, f"{len(shape)} integers of at least 0", list(widths))
        return tuple(map(sum, zip(self.before, shape, self.after, strict=True)))

    def apply(self, *tensors: Floats) -> Floats:
        return np.pad(tensors[0], [(0, 0), *zip(self.before, self.after, strict=True)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice(Node):
    """Every so many values between two limits of each axis.

    Parameters
    ----------
    ranges : tuple of (int, int, int)
        Start, stop and step along each axis, without the batch and with channels last, as in
        ``range(start, stop, step)`` and inside the tensor.
    """

    ranges: tuple[tuple[int, int, int], ...]

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(self.ranges) != len(shape):
            raise self._error("ranges", f"of {len(shape)} axes", len(self.ranges))
        for size, (start, stop, step) in zip(shape, self.ranges, strict=True):
            if not (0 <= start < stop <= size and step > 0):
                raise self._error(
                    "range", f"a part of 0 to {size} with a step above 0", [start, stop, step]
                )
        return tuple(len(range(*limits)) for limits in self.ranges)

    def apply(self, *tensors: Floats) -> Floats:
        return tensors[0][(slice(None), *(slice(*limits) for limits in self.ranges))]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One layer as :func:`execute` runs it, with the ReLU that follows it when it can be fused.

    Parameters
    ----------
    node : Node
        The layer.
    inputs : tuple of str
        Names of the steps that make its inputs.
    relu : bool
        Whether negative results become zero before they are stored.
    stored : bool
        Whether the result is rounded to the number system.  Layers that move numbers need no
        rounding, and the last layer that computes is not rounded: it gives the logits.
    """

    node: Node
    inputs: tuple[str, ...]
    relu: bool
    stored: bool

    @property
    def name(self) -> str:
        """Name of the step: that of its layer, not of the ReLU."""
        return self.node.name


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """An immutable feed-forward network with one input and one output.

    Parameters
    ----------
    input_name : str
        Name of the input tensor.
    input_shape : tuple of int
        Shape of one image: (channels, height, width) or (features,).
    nodes : tuple of Node
        Layers, each after those whose results it reads; the last one makes the output.

    Raises
    ------
    ValueError
        If a name is used twice or unknown, shapes do not fit, a layer is of no use, or the output
        is not one row of logits for each image.
    """

    input_name: str
    input_shape: Shape
    nodes: tuple[Node, ...]
    shapes: Mapping[str, Shape] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.input_shape) not in (1, 3) or min(self.input_shape) < 1:
            raise ValueError(
                "input_shape must be [channels, height, width] or [features], "
                f"not {list(self.input_shape)}"
            )
        if not self.nodes:
            raise ValueError("nodes must hold at least one layer, not 0")
        shapes = {self.input_name: _channels_last(self.input_shape)}
        for node in self.nodes:
            if node.name in shapes:
                raise ValueError(f"name of a layer must be unique, not again {node.name!r}")
            for source in node.inputs:
                if source not in shapes:
                    raise node._error("input", "the network's or an earlier layer", repr(source))
            shapes[node.name] = node.output_shape(*(shapes[source] for source in node.inputs))
        read = {source for node in self.nodes for source in node.inputs}
        for node in self.nodes[:-1]:
            if node.name not in read:
                raise ValueError(f"layer {node.name!r} must be read by another layer, or be last")
        if len(shapes[self.nodes[-1].name]) != 1:
            raise ValueError(
                "output of the network must be one row of logits for each image, "
                f"not {list(shapes[self.nodes[-1].name])}"
            )
        object.__setattr__(self, "shapes", MappingProxyType(shapes))

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a network to another process by what it was made from."""
        return _network, (self.input_name, self.input_shape, self.nodes)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Layers in order of execution, with ReLUs fused where nothing else reads their input."""
        readers: dict[str, list[Node]] = {name: [] for name in self.shapes}
        for node in self.nodes:
            for source in node.inputs:
                readers[source].append(node)

        # From the output backwards, past layers that only move numbers.  Each of them is read once,
        # or some layer would not lead to the output.
        logits = self.nodes[-1]
        by_name = {node.name: node for node in self.nodes}
        while not logits.computes and logits.inputs[0] in by_name:
            logits = by_name[logits.inputs[0]]

        fused = {
            node.name: readers[node.name][0].name
            for node in self.nodes
            if node.computes
            and len(readers[node.name]) == 1
            and isinstance(readers[node.name][0], Relu)
        }
        steps: list[Step] = []
        maker = {self.input_name: self.input_name}
        for node in self.nodes:
            if node.name in fused.values():
                maker[node.name] = maker[node.inputs[0]]
                continue
            maker[node.name] = node.name
            steps.append(
                Step(
                    node=node,
                    inputs=tuple(maker[name] for name in node.inputs),
                    relu=node.name in fused,
                    stored=node.computes and node is not logits,
                )
            )
        return tuple(steps)

    @property
    def mac_nodes(self) -> tuple[MacNode, ...]:
        """Layers of dot products, in order."""
        return tuple(node for node in self.nodes if isinstance(node, MacNode))

    @cached_property
    def macs(self) -> Mapping[str, int]:
        """Multiply-accumulates for one image in each layer of dot products."""
        return MappingProxyType(
            {node.name: math.prod(self.shapes[node.name]) * node.length for node in self.mac_nodes}
        )

    @cached_property
    def batch(self) -> int:
        """Images that are run at a time, so that the largest matrix stays in the cache."""
        largest = max(
            [math.prod(shape) for shape in self.shapes.values()]
            + [
                math.prod(self.shapes[node.name][:-1]) * node.groups * node.length
                for node in self.mac_nodes
            ]
        )
        return max(1, BATCH_BYTES // (np.dtype(np.float32).itemsize * largest))

    def batches(self, images: npt.ArrayLike) -> Iterator[npt.NDArray[np.float32]]:
        """Images in batches, as float32 with channels last.

        Parameters
        ----------
        images : array_like of float, [n, channels, height, width] or [n, features]
            Images in the layout of ONNX.

        Yields
        ------
        ndarray of float32, [batch, height, width, channels] or [batch, features]

        Raises
        ------
        TypeError
            If the images are not floating-point numbers: pixels have to be scaled.
        ValueError
            If the shape is not that of the network's input, there is no image, or a value is not
            finite in float32.
        """
        array = np.asarray(images)
        if array.dtype.kind != "f":
            raise TypeError(f"images must be floating-point numbers, not {array.dtype}")
        if array.ndim == 0 or array.shape[1:] != self.input_shape or not len(array):
            expected = ", ".join(map(str, self.input_shape))
            raise ValueError(f"images must be [n, {expected}] with n > 0, not {list(array.shape)}")
        if array.ndim == 4:
            array = array.transpose(0, 2, 3, 1)
        for start in range(0, len(array), self.batch):
            with np.errstate(over="ignore"):
                batch = np.ascontiguousarray(array[start : start + self.batch], np.float32)
            if not np.isfinite(batch).all():
                index = start + int(np.argwhere(~np.isfinite(batch))[0, 0])
                raise ValueError(f"images must be finite in float32, not like image {index}")
            yield batch

    def run(self, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Logits of the float32 reference, [n, classes].

        Parameters
        ----------
        images : array_like of float, [n, channels, height, width] or [n, features]
            Images in the layout of ONNX.

        Returns
        -------
        ndarray of float32, [n, classes]

        Raises
        ------
        TypeError, ValueError
            As :meth:`batches`.
        """
        arithmetic = Float32Arithmetic(self)
        return np.concatenate([execute(self, x, arithmetic) for x in self.batches(images)])


def _network(input_name: str, input_shape: Shape, nodes: tuple[Node, ...]) -> Network:
    return Network(input_name=input_name, input_shape=input_shape, nodes=nodes)


def _channels_last(shape: Shape) -> Shape:
    return (*shape[1:], shape[0])


def multiply(columns: Floats, matrix: Floats) -> Floats:
    """Matrix product, cut along the rows into products for which BLAS starts no threads.

    The threads of OpenBLAS wait for each other actively.  On cores that have other work, which is
    what several comparisons at a time amount to, they make products like these about ten times
    slower; alone on two cores they gain little.  Without them, results do not depend on the
    number of cores either.

    Parameters
    ----------
    columns : ndarray of float32 or float64, [m, k]
        Left operand.
    matrix : ndarray of the same type, [k, n]
        Right operand.

    Returns
    -------
    ndarray of the same type, [m, n]
        A new array.
    """
    count, (length, outputs) = len(columns), matrix.shape
    rows = (THREADED_MACS - 1) // (length * outputs)
    if rows >= count or rows < MIN_ROWS:
        return columns @ matrix
    result = np.empty((count, outputs), matrix.dtype)
    whole = count - count % rows
    # One call, in which NumPy runs over the parts.
    np.matmul(
        columns[:whole].reshape(-1, rows, length),
        matrix,
        out=result[:whole].reshape(-1, rows, outputs),
    )
    np.matmul(columns[whole:], matrix, out=result[whole:])
    return result


class Float32Arithmetic:
    """Plain float32: what the network was trained in.

    Sums of products are rounded to float32 once, from float64.  Sums in float32 would depend on the
    order that BLAS chooses for the processor, and so would every figure that is derived from them.

    Parameters
    ----------
    network : Network
        Network whose weights are used.
    """

    def __init__(self, network: Network) -> None:
        self._layers = {
            node.name: (node.matrices().astype(np.float64), node.biases())
            for node in network.mac_nodes
        }

    def forward(self, name: str, group: int, columns: Floats) -> Floats:
        """Matrix product and bias."""
        matrices, biases = self._layers[name]
        result = multiply(columns.astype(np.float64), matrices[group])
        result += biases[group]
        return result.astype(np.float32)

    def sum_dtype(self, sources: Sequence[str]) -> npt.DTypeLike:
        """Add in float32."""
        return np.float32

    def store(self, name: str, values: Floats) -> Floats:
        """Values unchanged."""
        return values.astype(np.float32, copy=False)


def execute(
    network: Network,
    x: npt.NDArray[np.float32],
    arithmetic: Arithmetic,
    observe: Callable[[str, Floats], None] | None = None,
) -> Floats:
    """Run one batch.

    Parameters
    ----------
    network : Network
        Layers to run.
    x : ndarray of float32, [n, height, width, channels] or [n, features]
        One batch of :meth:`Network.batches`.
    arithmetic : Arithmetic
        Computes the products, and rounds what is stored.
    observe : callable, optional
        Called with the name and the values of the stored input and of every step's result.  It
        must not change the values.

    Returns
    -------
    ndarray, [n, classes]
        Logits; float32, or float64 where the arithmetic needs it.
    """
    uses = {network.input_name: 0} | {step.name: 0 for step in network.steps}
    for step in network.steps:
        for source in step.inputs:
            uses[source] += 1

    tensors: dict[str, Floats] = {}
    result = arithmetic.store(network.input_name, x)
    tensors[network.input_name] = result
    if observe is not None:
        observe(network.input_name, result)
    for step in network.steps:
        inputs = [tensors[source] for source in step.inputs]
        # A tensor is let go with its last reader, so that memory follows the depth of the
        # shortcuts and not of the network.
        for source in step.inputs:
            uses[source] -= 1
            if not uses[source]:
                tensors.pop(source, None)
        result = _run_step(step, inputs, arithmetic)
        if observe is not None:
            observe(step.name, result)
        tensors[step.name] = result
    return result


def _run_step(step: Step, inputs: list[Floats], arithmetic: Arithmetic) -> Floats:
    """Compute one step, and round it if it is stored."""
    node = step.node
    if isinstance(node, MacNode):
        result = node.products(
            inputs[0], lambda group, columns: arithmetic.forward(node.name, group, columns)
        )
    elif isinstance(node, Add):
        dtype = arithmetic.sum_dtype(step.inputs)
        result = node.apply(*(tensor.astype(dtype, copy=False) for tensor in inputs))
    else:
        result = node.apply(*inputs)
    if step.relu:
        np.maximum(result, 0, out=result)
    return arithmetic.store(step.name, result) if step.stored else result
