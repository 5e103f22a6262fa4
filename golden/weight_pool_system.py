"""Networks with weight pools: which layers share the pool, and how such a layer runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from golden.element_layers import ElementCodec, ElementSystem, element_spec
from golden.fixed import FixedFormat, FixedSpec
from golden.inference import PreparedLayer, TensorCodec
from golden.network import Add, Conv, Floats, Linear, MacNode, Network
from golden.spec import Method, as_integers, checked_tensor
from golden.weight_pool import WeightPoolFormat, WeightPoolSpec, checked_activations
from golden.weight_pool_conv import PoolProduct
from golden.weight_pool_kmeans import cut, match
from golden.weight_pool_table import INDEX_BITS, plane_weights

__all__ = ["PoolOperands", "WeightPoolLayer", "WeightPoolSystem", "pooled_layers", "weight_vectors"]

#: Bits of the fixed-point weights of layers without a pool.
UNPOOLED_BITS = 8

#: Input channels that a layer must exceed to be pooled (published).
MAX_UNPOOLED_CHANNELS = 8

#: Largest integer up to which float32 holds all.
FLOAT32_INTEGERS = 1 << 24


def pooled_layers(network: Network) -> tuple[str, ...]:
    """Names of the layers that the paper's rules put into the pool.

    Excluded (published) are the first convolution, down-samples of 1 x 1, depthwise convolutions,
    the final fully connected layer, and layers of up to 8 input channels.  A down-sample (chosen)
    is a convolution of 1 x 1 that an addition reads, and that has a stride or shares its input
    with another layer.
    """
    readers: dict[str, list[Any]] = {}
    for node in network.nodes:
        for source in node.inputs:
            readers.setdefault(source, []).append(node)

    def is_downsample(node: MacNode) -> bool:
        return (
            isinstance(node, Conv)
            and node.kernel == (1, 1)
            and any(isinstance(reader, Add) for reader in readers.get(node.name, []))
            and (node.strides != (1, 1) or len(readers[node.inputs[0]]) > 1)
        )

    nodes = network.mac_nodes
    excluded = {node.name for node in nodes if is_downsample(node)}
    excluded.update([node.name for node in nodes if isinstance(node, Conv)][:1])
    excluded.update(node.name for node in nodes[-1:] if isinstance(node, Linear))
    return tuple(
        node.name
        for node in nodes
        if node.name not in excluded and _channels(node) > MAX_UNPOOLED_CHANNELS
    )


def _channels(node: MacNode) -> int:
    """Input channels of each kernel."""
    return node.weight.shape[1] if isinstance(node, Conv) else node.length


def _kernel(node: MacNode) -> tuple[int, int]:
    return node.kernel if isinstance(node, Conv) else (1, 1)


def weight_vectors(node: MacNode, group: int) -> npt.NDArray[np.float32]:
    """Weights of a layer in groups of input channels, the last of a kernel position with zeros.

    Parameters
    ----------
    node : MacNode
        The layer.
    group : int
        Length of a vector.

    Returns
    -------
    ndarray of float32, [blocks, outputs, group]
        Blocks run over kernel row, kernel column and, innermost, groups of channels.
    """
    matrices = node.matrices()  # [groups, k, n]
    positions = node.length // _channels(node)
    channels_last = matrices.reshape(node.groups, positions, _channels(node), -1).swapaxes(2, 3)
    vectors = cut(channels_last, group)  # [groups, positions, n, blocks, g]
    return vectors.transpose(1, 3, 0, 2, 4).reshape(-1, len(node.bias), group)


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolOperands:
    """What one matrix product with a pool reads, and its exact result.

    Parameters
    ----------
    spec : WeightPoolSpec
        The pool and its table.
    activation_spec : FixedSpec
        Format of the activations.
    activation_codes : ndarray of uint8, [m, k]
        One row for each output pixel; k runs over kernel row, kernel column, input channel.
    channels : int
        Input channels; each kernel position has ceil(channels / group) blocks.
    indices : ndarray of uint8, [blocks, n]
        Pool vectors; flattened, this is the published order.
    bias_q : ndarray of int64, [n]
        Start values of the accumulators.
    accumulators : ndarray of int64, [m, n]
        Sums of results and bias.
    accumulator_unit : float
        Value of the accumulator 1.
    """

    spec: WeightPoolSpec
    activation_spec: FixedSpec
    activation_codes: npt.NDArray[Any]
    channels: int
    indices: npt.NDArray[np.uint8]
    bias_q: npt.NDArray[np.int64]
    accumulators: npt.NDArray[np.int64]
    accumulator_unit: float


class WeightPoolLayer:
    """One layer whose weights are indices of a pool; see :class:`golden.inference.PreparedLayer`.

    Results of :meth:`forward` are accumulators.

    Parameters
    ----------
    spec : WeightPoolSpec
        The pool and its table.
    activation_spec : FixedSpec
        Format of the layer's input, of at most 8 bits.
    node : MacNode
        Layer that gives kernel, strides, channels and bias.
    indices : ndarray of int, [blocks, outputs]
        Pool vectors in the order of :func:`weight_vectors`.
    output : tuple of int
        Rows and columns of the layer's result; (1, 1) for a matrix product.

    Raises
    ------
    TypeError, ValueError
        If the format of the input or the indices are not what they must be.
    """

    def __init__(
        self,
        spec: WeightPoolSpec,
        activation_spec: FixedSpec,
        node: MacNode,
        indices: npt.ArrayLike,
        output: tuple[int, int],
    ) -> None:
        self.spec = spec
        self.activation_spec = checked_activations(activation_spec)
        self.channels = _channels(node)
        self.output = output
        kernel, outputs = _kernel(node), len(node.bias)
        blocks = -(-self.channels // spec.group)
        expected = (kernel[0] * kernel[1] * blocks, outputs)
        checked = as_integers(f"indices of {node.name!r}", indices, 0, spec.entries - 1)
        if checked.shape != expected:
            raise ValueError(
                f"indices of {node.name!r} must be {list(expected)}, not {list(checked.shape)}"
            )
        self.indices = checked.astype(np.uint8)
        self.bias_q = spec.quantise_bias(activation_spec, node.biases())
        self._products = [
            PoolProduct(
                spec.table,
                plane_weights(activation_spec.bits, activation_spec.signed),
                part.reshape(*kernel, blocks, -1),
                bias,
                node.strides if isinstance(node, Conv) else (1, 1),
            )
            for part, bias in zip(
                np.split(self.indices, node.groups, axis=1), self.bias_q, strict=True
            )
        ]
        self._length = node.length

    @property
    def storage_bits(self) -> int:
        """Bits of the indices; the table is counted by the system."""
        return INDEX_BITS * self.indices.size

    def forward(self, group: int, columns: Floats) -> Floats:
        """Exact accumulators.

        Parameters
        ----------
        group : int
            Which of the layer's matrices.
        columns : ndarray of float32, [m, k]
            Activations under the kernel for all output pixels of some images, in order.

        Raises
        ------
        ValueError
            If these are not whole images.
        """
        pixels = self.output[0] * self.output[1]
        if columns.ndim != 2 or len(columns) % pixels or columns.shape[1] != self._length:
            raise ValueError(
                f"columns must be [a multiple of {pixels}, {self._length}], "
                f"not {list(columns.shape)}"
            )
        product = self._products[group]
        dtype = np.float32 if product.bound <= FLOAT32_INTEGERS else np.float64
        scale = 1 / self.activation_spec.operand_unit
        return product.from_columns(columns, scale, self.output, dtype)

    def store(self, results: Floats, codec: TensorCodec) -> npt.NDArray[np.float32]:
        """Values of the codes that the requantiser gives.

        Raises
        ------
        TypeError
            If ``codec`` is not an :class:`ElementCodec`.
        """
        spec = element_spec("codec", codec)
        unit = self.spec.accumulator_unit(self.activation_spec)
        return spec.decode(spec.rescale(results.astype(np.int64), unit))

    def values(self, results: Floats) -> Floats:
        """Results in real units, to the nearest binary64."""
        return self.spec.values(results, self.activation_spec)

    def operands(self, group: int, columns: Floats) -> PoolOperands:
        """Codes, indices and exact accumulators."""
        indices = np.split(self.indices, len(self._products), axis=1)[group]
        return PoolOperands(
            spec=self.spec,
            activation_spec=self.activation_spec,
            activation_codes=self.activation_spec.encode(columns),
            channels=self.channels,
            indices=indices,
            bias_q=self.bias_q[group],
            accumulators=self.forward(group, columns).astype(np.int64),
            accumulator_unit=self.spec.accumulator_unit(self.activation_spec),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightPoolSystem:
    """One pool for the layers of a network, and fixed point for activations and other layers.

    Parameters
    ----------
    format : WeightPoolFormat
        Size of the pool, and how it is fitted.
    method : {"sweep", "paper"}
        How ranges of activations, and of fixed-point weights, are fitted.
    pool : array_like of float, [entries, group], optional
        Pool of a network that was trained with it; clustered if not given.
    indices : mapping of str to array_like of int, [blocks, outputs], optional
        Pool vectors of such a network by name of a layer, in the order of
        :func:`weight_vectors`.  Layers without indices are matched.
    layers : sequence of str, optional
        Names of the layers to pool.  If not given, they are those that have indices; without
        any, those of :func:`pooled_layers`.
    spec : WeightPoolSpec or None
        Pool and table; :meth:`fit_network` makes them.
    outputs : mapping of str to tuple of int
        Rows and columns of the results of pooled layers; :meth:`fit_network` finds them.

    Raises
    ------
    ValueError
        If there are indices without a pool, or for a layer that is not pooled.
    """

    format: WeightPoolFormat
    method: Method = "sweep"
    pool: npt.ArrayLike | None = None
    indices: Mapping[str, npt.ArrayLike] = field(default_factory=lambda: MappingProxyType({}))
    layers: Sequence[str] | None = None
    spec: WeightPoolSpec | None = None
    outputs: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.indices and self.pool is None:
            raise ValueError("indices must come with their pool, not without")
        strangers = set(self.indices) - set(self.indices if self.layers is None else self.layers)
        if strangers:
            raise ValueError(f"indices must be of layers to pool, not of {sorted(strangers)}")

    def fit_network(self, network: Network) -> Self:
        """Find the layers to pool and their pool.

        Raises
        ------
        ValueError
            If a layer to pool is not in the network, or a weight is not finite.
        """
        nodes = {node.name: node for node in network.mac_nodes}
        names = self.layers
        if names is None:
            names = tuple(self.indices) or pooled_layers(network)
        for name in names:
            if name not in nodes:
                raise ValueError(f"layers must be of {', '.join(nodes)}, not {name!r}")
        if self.pool is not None:
            spec = self.format.with_pool(np.asarray(self.pool))
        else:
            group = self.format.spec().group
            vectors = [_checked_vectors(nodes[name], group).reshape(-1, group) for name in names]
            spec = self.format.fit_vectors(
                np.concatenate(vectors) if vectors else np.zeros((0, group), np.float32)
            )
        shapes = {name: network.shapes[name] for name in names}
        outputs = {
            name: (shape[0], shape[1]) if len(shape) == 3 else (1, 1)
            for name, shape in shapes.items()
        }
        return replace(self, spec=spec, outputs=MappingProxyType(outputs))

    @property
    def storage_bits(self) -> int:
        """Bits of what all layers share: the table."""
        return 0 if self.spec is None or not self.outputs else self.spec.table_bits

    @property
    def _fixed(self) -> ElementSystem:
        return ElementSystem(format=FixedFormat(bits=UNPOOLED_BITS), method=self.method)

    def fit_tensor(self, name: str, values: Floats) -> ElementCodec:
        """Codec of fixed point fitted to activations; unsigned if none is negative."""
        return ElementCodec(
            checked_activations(self.format.fit(values, "activations", self.method))
        )

    def sum_dtype(self, sources: Sequence[TensorCodec]) -> npt.DTypeLike:
        """Float type in which tensors of fixed point are added."""
        return self._fixed.sum_dtype(sources)

    def prepare(
        self, node: MacNode, source: TensorCodec, calibration: Sequence[Floats]
    ) -> PreparedLayer:
        """Match the weights of a layer with the pool, or code them as fixed point.

        Raises
        ------
        TypeError
            If ``source`` was not made by :meth:`fit_tensor`.
        ValueError
            If indices that were given do not fit the layer, or a weight is not finite.
        """
        if self.spec is None or node.name not in self.outputs:
            return self._fixed.prepare(node, source, calibration)
        activation_spec = checked_activations(element_spec("source", source))
        indices = self.indices.get(node.name)
        if indices is None:
            vectors = _checked_vectors(node, self.spec.group)
            flat = match(vectors.reshape(-1, self.spec.group), self.spec.pool, self.spec.match)
            indices = flat.reshape(vectors.shape[:2])
        return WeightPoolLayer(
            self.spec,
            activation_spec,
            node,
            indices,
            self.outputs[node.name],
        )


def _checked_vectors(node: MacNode, group: int) -> npt.NDArray[np.float32]:
    checked_tensor(node.weight, "weights", "sweep")
    return weight_vectors(node, group)
