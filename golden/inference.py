"""Networks in narrow number systems: calibration, exact runs, error and operand streams.

:func:`quantise` prepares a :class:`golden.network.Network` for a :class:`NumberSystem`, of which
:class:`golden.element_layers.ElementSystem` is the one whose elements are coded one by one.  The
rules of all of them:

* The weights of each layer are coded once, by the rules of the system.
* The network's input and every computed result (of a convolution, matrix product, addition,
  average or concatenation, after the ReLU that follows it) are coded exactly once, with a format
  fitted on that tensor of the float32 run of the calibration images.
* ReLU, maximum, flatten, pad and slice move numbers and round nothing.
* Dot products are what the hardware computes, bit for bit; nothing is rounded for convenience.
* The results of the last layer that computes are not coded: they are the logits, exactly.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from golden.network import Float32Arithmetic, Floats, MacNode, Network, execute

__all__ = [
    "Evaluation",
    "LayerStream",
    "NumberSystem",
    "PreparedLayer",
    "QuantisedNetwork",
    "TensorCodec",
    "accuracy",
    "quantise",
    "sqnr_db",
]

#: Rows of a layer's calibration inputs that a number system sees, evenly spaced.
CALIBRATION_ROWS = 4096


class TensorCodec(Protocol):
    """How one tensor of activations is stored."""

    def encode(self, values: Floats) -> npt.NDArray[Any]:
        """Codes nearest to ``values``, in the shape of ``values``."""

    def quantise(self, values: Floats) -> npt.NDArray[np.float32]:
        """Values of the codes nearest to ``values``."""


class PreparedLayer(Protocol):
    """One layer of dot products with its weights coded."""

    @property
    def storage_bits(self) -> int:
        """Bits that the weights of the layer take in memory, without biases."""

    def forward(self, group: int, columns: Floats) -> Floats:
        """Dot products of coded inputs, before the rounding that stores them.

        Parameters
        ----------
        group : int
            Which of the layer's matrices.
        columns : ndarray of float32, [m, k]
            Values that the codec of the layer's input made.

        Returns
        -------
        ndarray of float32 or float64, [m, n]
            A new array, in units of the layer; bias included.
        """

    def store(self, results: Floats, codec: TensorCodec) -> npt.NDArray[np.float32]:
        """Values after the rounding that stores results of :meth:`forward`, rectified or not."""

    def values(self, results: Floats) -> Floats:
        """Results of :meth:`forward` in real units."""

    def operands(self, group: int, columns: Floats) -> Any:
        """Describe the same product as the hardware sees it, in the form of the number system."""


class NumberSystem(Protocol):
    """A number system as :func:`quantise` uses it; implementations keep no state in between."""

    @property
    def storage_bits(self) -> int:
        """Bits in memory of what the weights of all layers share."""

    def fit_network(self, network: Network) -> Self:
        """System that knows what depends on the network as a whole; called before the others."""

    def fit_tensor(self, name: str, values: Floats) -> TensorCodec:
        """Codec for the tensor of a step, fitted on its values for the calibration images."""

    def prepare(
        self, node: MacNode, source: TensorCodec, calibration: Sequence[Floats]
    ) -> PreparedLayer:
        """Code the weights of a layer.

        Parameters
        ----------
        node : MacNode
            Gives the weights [groups, k, n] and biases [groups, n].
        source : TensorCodec
            Codec of the layer's input.
        calibration : sequence of ndarray of float32, [rows, k], one for each group
            Inputs of the layer in the float32 run of the calibration images.
        """

    def sum_dtype(self, sources: Sequence[TensorCodec]) -> npt.DTypeLike:
        """Float type in which tensors of these codecs are added."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerStream:
    """What one matrix product of a layer reads and writes for some images.

    Parameters
    ----------
    name : str
        Name of the layer.
    group : int
        Which of the layer's groups.
    operands : object
        Inputs in the form of the number system; of formats of elements,
        :class:`golden.element_layers.ElementOperands`.
    relu : bool
        Whether negative results become zero before they are coded.
    output_codec : TensorCodec or None
        Codec of the results; None for the last layer, whose accumulators are the logits.
    output_codes : ndarray of unsigned integers, [m, n], or None
        Results as they are stored, after the ReLU.
    """

    name: str
    group: int
    operands: Any
    relu: bool
    output_codec: TensorCodec | None
    output_codes: npt.NDArray[Any] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """A quantised network against its float32 reference on some images.

    Parameters
    ----------
    logits : ndarray of float64, [n, classes]
        Logits of the quantised network, exact.
    float_logits : ndarray of float32, [n, classes]
        Logits of the reference.
    accuracy, float_accuracy : float or None
        Share of the images whose largest logit is that of their label; None without labels.
    sqnr_db : float
        Signal-to-quantisation-noise ratio of the logits; infinite if they are equal.
    tensor_sqnr_db : mapping of str to float
        The same for the input and each computed tensor, by name, in order.
    """

    logits: npt.NDArray[np.float64]
    float_logits: npt.NDArray[np.float32]
    accuracy: float | None
    float_accuracy: float | None
    sqnr_db: float
    tensor_sqnr_db: Mapping[str, float]


class QuantisedNetwork:
    """A network prepared for a number system; made by :func:`quantise`.

    Attributes
    ----------
    network : Network
        The network.
    system : NumberSystem
        The number system.
    codecs : mapping of str to TensorCodec
        How the input and each tensor that is coded are stored, by name of their step.
    layers : mapping of str to PreparedLayer
        Layers of dot products, by name.
    """

    def __init__(
        self,
        network: Network,
        system: NumberSystem,
        codecs: Mapping[str, TensorCodec],
        layers: Mapping[str, PreparedLayer],
    ) -> None:
        self.network = network
        self.system = system
        self.codecs = MappingProxyType(dict(codecs))
        self.layers = MappingProxyType(dict(layers))
        self._sources = _sources(network)

    def forward(self, name: str, group: int, columns: Floats) -> Floats:
        """Exact results of a layer of dot products; part of :class:`golden.network.Arithmetic`."""
        layer = self.layers[name]
        results = layer.forward(group, columns)
        return results if name in self.codecs else layer.values(results)

    def sum_dtype(self, sources: Sequence[str]) -> npt.DTypeLike:
        """Float type in which tensors are added; part of :class:`golden.network.Arithmetic`."""
        return self.system.sum_dtype([self.codecs[self._sources[name]] for name in sources])

    def store(self, name: str, values: Floats) -> Floats:
        """Values after coding; part of :class:`golden.network.Arithmetic`."""
        codec = self.codecs[name]
        layer = self.layers.get(name)
        return codec.quantise(values) if layer is None else layer.store(values, codec)

    def run(self, images: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Exact logits.

        Parameters
        ----------
        images : array_like of float, [n, channels, height, width] or [n, features]
            Images in the layout of ONNX.

        Returns
        -------
        ndarray of float64, [n, classes]

        Raises
        ------
        TypeError, ValueError
            As :meth:`golden.network.Network.batches`.
        """
        results = [execute(self.network, x, self) for x in self.network.batches(images)]
        return np.concatenate(results).astype(np.float64)

    def evaluate(self, images: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> Evaluation:
        """Run the network and its float32 reference and compare them.

        Parameters
        ----------
        images : array_like of float, [n, channels, height, width] or [n, features]
            Images in the layout of ONNX.
        labels : array_like of int, [n], optional
            Their classes.

        Returns
        -------
        Evaluation

        Raises
        ------
        TypeError, ValueError
            As :meth:`golden.network.Network.batches`, and if the labels do not fit.
        """
        reference = Float32Arithmetic(self.network)
        signals: dict[str, float] = {}
        noises: dict[str, float] = {}
        logits, float_logits = [], []
        for x in self.network.batches(images):
            expected: dict[str, Floats] = {}

            def compare(name: str, values: Floats, expected: dict[str, Floats] = expected) -> None:
                signal, noise = _energies(expected.pop(name), values)
                signals[name] = signals.get(name, 0) + signal
                noises[name] = noises.get(name, 0) + noise

            float_logits.append(execute(self.network, x, reference, expected.__setitem__))
            logits.append(execute(self.network, x, self, compare))
        exact, rounded = np.concatenate(logits).astype(np.float64), np.concatenate(float_logits)
        return Evaluation(
            logits=exact,
            float_logits=rounded,
            accuracy=None if labels is None else accuracy(exact, labels),
            float_accuracy=None if labels is None else accuracy(rounded, labels),
            sqnr_db=sqnr_db(rounded, exact),
            tensor_sqnr_db=MappingProxyType(
                {name: _decibels(signals[name], noises[name]) for name in self.codecs}
            ),
        )

    def streams(self, images: npt.ArrayLike) -> Iterator[LayerStream]:
        """Operands and results of every matrix product, layer by layer.

        Parameters
        ----------
        images : array_like of float, [n, channels, height, width] or [n, features]
            A few images; all of their operands are held in memory.

        Yields
        ------
        LayerStream
            In order of layers and groups.  Rows run over image, output row, output column; k
            runs over kernel row, kernel column, input channel.

        Raises
        ------
        TypeError, ValueError
            As :meth:`golden.network.Network.batches`.
        """
        array = np.asarray(images)
        recorder = _Recorder(self)
        for x in self.network.batches(array):
            execute(self.network, x, recorder)
        for step in self.network.steps:
            if not isinstance(step.node, MacNode):
                continue
            codec = self.codecs.get(step.name)
            stored = None
            if codec is not None:
                results = np.concatenate(recorder.stored[step.name])
                stored = codec.encode(results).reshape(
                    -1, step.node.groups, results.shape[-1] // step.node.groups
                )
            for group in range(step.node.groups):
                columns = np.concatenate(recorder.columns[step.name, group])
                yield LayerStream(
                    name=step.name,
                    group=group,
                    operands=self.layers[step.name].operands(group, columns),
                    relu=step.relu,
                    output_codec=codec,
                    output_codes=None if stored is None else stored[:, group],
                )


class _Recorder:
    """Passes everything on to an arithmetic and keeps what goes in and out of its layers."""

    def __init__(self, arithmetic: QuantisedNetwork) -> None:
        self._arithmetic = arithmetic
        self.sum_dtype = arithmetic.sum_dtype
        self.columns: dict[tuple[str, int], list[Floats]] = {}
        self.stored: dict[str, list[Floats]] = {}

    def forward(self, name: str, group: int, columns: Floats) -> Floats:
        self.columns.setdefault((name, group), []).append(columns)
        return self._arithmetic.forward(name, group, columns)

    def store(self, name: str, values: Floats) -> Floats:
        result = self._arithmetic.store(name, values)
        self.stored.setdefault(name, []).append(result)
        return result


class _Calibration(Float32Arithmetic):
    """The float32 reference, keeping what is stored and some of the inputs of each layer."""

    def __init__(self, network: Network, images: int) -> None:
        super().__init__(network)
        self.stored: dict[str, list[Floats]] = {}
        self.columns: dict[str, dict[int, list[Floats]]] = {}
        self._strides = {
            node.name: -(-images * math.prod(network.shapes[node.name][:-1]) // CALIBRATION_ROWS)
            for node in network.mac_nodes
        }

    def forward(self, name: str, group: int, columns: Floats) -> Floats:
        rows = columns[:: self._strides[name]].copy()
        self.columns.setdefault(name, {}).setdefault(group, []).append(rows)
        return super().forward(name, group, columns)

    def store(self, name: str, values: Floats) -> Floats:
        result = super().store(name, values)
        self.stored.setdefault(name, []).append(result)
        return result


def quantise(
    network: Network, system: NumberSystem, calibration_images: npt.ArrayLike
) -> QuantisedNetwork:
    """Fit a number system to a network.

    Parameters
    ----------
    network : Network
        The trained network.
    system : NumberSystem
        That of a format: ``golden.formats.parse("tapered8").system()``.
    calibration_images : array_like of float, [n, channels, height, width] or [n, features]
        Images on which ranges are fitted; never the ones on which accuracy is stated.  All
        computed tensors of these images are held in memory.

    Returns
    -------
    QuantisedNetwork

    Raises
    ------
    TypeError, ValueError
        As :meth:`golden.network.Network.batches`, and if a tensor or a weight is not finite.
    """
    images = np.asarray(calibration_images)
    system = system.fit_network(network)
    run = _Calibration(network, len(images) if images.ndim else 0)
    for x in network.batches(images):
        execute(network, x, run)
    codecs: dict[str, TensorCodec] = {}
    for name, tensors in run.stored.items():
        try:
            codecs[name] = system.fit_tensor(name, np.concatenate(tensors))
        except ValueError as error:
            raise ValueError(f"activations of {name!r}: {error}") from error
    sources = _sources(network)
    layers = {
        step.name: system.prepare(
            step.node,
            codecs[sources[step.inputs[0]]],
            [np.concatenate(rows) for rows in run.columns[step.name].values()],
        )
        for step in network.steps
        if isinstance(step.node, MacNode)
    }
    return QuantisedNetwork(network, system, codecs, layers)


def _sources(network: Network) -> dict[str, str]:
    """For each step, the step whose codec its values have: that of the last one stored."""
    sources = {network.input_name: network.input_name}
    for step in network.steps:
        sources[step.name] = step.name if step.node.computes else sources[step.inputs[0]]
    return sources


def accuracy(logits: Floats, labels: npt.ArrayLike) -> float:
    """Share of the images whose largest logit, the first of equal ones, is that of their label.

    Parameters
    ----------
    logits : ndarray of float, [n, classes]
        One row for each image.
    labels : array_like of int, [n]
        Classes.

    Raises
    ------
    ValueError
        If there is not one label for each image.
    """
    classes = np.asarray(labels)
    if classes.shape != logits.shape[:1]:
        raise ValueError(f"labels must be [{len(logits)}], not {list(classes.shape)}")
    return float(np.mean(np.argmax(logits, axis=1) == classes))


def sqnr_db(reference: Floats, values: Floats) -> float:
    """Signal-to-quantisation-noise ratio in dB: energy of the reference over that of the error.

    Parameters
    ----------
    reference, values : ndarray of float
        Tensors of the same shape.

    Returns
    -------
    float
        Infinite if there is no error; minus infinite if there is nothing but error.
    """
    return _decibels(*_energies(reference, values))


def _energies(reference: Floats, values: Floats) -> tuple[float, float]:
    signal = reference.astype(np.float64, copy=False).reshape(-1)
    noise = values.astype(np.float64, copy=False).reshape(-1) - signal
    # Not as dot products, whose order of summation depends on the processor.
    return float(np.square(signal).sum()), float(np.square(noise).sum())


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
