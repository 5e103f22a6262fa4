"""Networks in narrow number systems: calibration, exact runs, error and operand streams.

:func:`quantise` prepares a :class:`golden.network.Network` for a :class:`NumberSystem`, of which
:class:`ElementSystem` is the one whose elements are coded one by one.  The rules:

* The weights of each layer are coded with one format, fitted on them.
* The network's input and every computed result (of a convolution, matrix product, addition,
  average or concatenation, after the ReLU that follows it) are coded exactly once, with a format
  fitted on that tensor of the float32 run of the calibration images.
* ReLU, maximum, flatten, pad and slice move numbers and round nothing.
* The bias enters the accumulator rounded to its unit; accumulators are exact.
* The results of the last layer that computes are not coded: they are the logits, exactly.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from golden.dot import accumulator_exp, quantise_bias
from golden.element import ElementFormat, ElementSpec, Method
from golden.network import Float32Arithmetic, Floats, MacNode, Network, execute, multiply

__all__ = [
    "ElementCodec",
    "ElementLayer",
    "ElementOperands",
    "ElementSystem",
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

FloatType = type[np.float32] | type[np.float64]

#: Rows of a layer's calibration inputs that a number system sees, evenly spaced.
CALIBRATION_ROWS = 4096

#: Every integer up to these magnitudes is exact in the type.
FLOAT32_INTEGERS = 1 << 24
FLOAT64_INTEGERS = 1 << 53

#: Numbers of float32 are normal from two to the first of these to below two to the second.
FLOAT32_MIN_EXP = -126
FLOAT32_MAX_EXP = 128

#: Low bits of a float64 significand that a float32 has not, as a mask.
SIGNIFICAND_MASK = np.uint64((1 << 52 - 23) - 1)

#: Float64 values that are narrowed at a time, in a buffer of half a megabyte.
NARROW_BLOCK = 1 << 16


class TensorCodec(Protocol):
    """How one tensor of activations is stored."""

    def encode(self, values: Floats) -> npt.NDArray[Any]:
        """Codes nearest to ``values``, in the shape of ``values``."""

    def quantise(self, values: Floats) -> npt.NDArray[np.float32]:
        """Values of the codes nearest to ``values``."""


class PreparedLayer(Protocol):
    """One layer of dot products with its weights coded."""

    def forward(self, group: int, columns: Floats) -> Floats:
        """Exact dot products of coded inputs.

        Parameters
        ----------
        group : int
            Which of the layer's matrices.
        columns : ndarray of float32, [m, k]
            Values that the codec of the layer's input made.

        Returns
        -------
        ndarray of float32 or float64, [m, n]
            A new array; bias included.
        """

    def operands(self, group: int, columns: Floats) -> Any:
        """Describe the same product as the hardware sees it, in the form of the number system."""


class NumberSystem(Protocol):
    """A number system as :func:`quantise` uses it; implementations keep no state in between."""

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


@dataclass(frozen=True)
class ElementCodec:
    """Every element coded by itself.

    Parameters
    ----------
    spec : ElementSpec
        The format.
    """

    spec: ElementSpec

    def __str__(self) -> str:
        return str(self.spec)

    def encode(self, values: Floats) -> npt.NDArray[Any]:
        """Codes nearest to ``values``, rounded once."""
        return self.spec.encode(_narrowed(values))

    def quantise(self, values: Floats) -> npt.NDArray[np.float32]:
        """Values of the codes nearest to ``values``."""
        return self.spec.decode(self.encode(values))


def _narrowed(values: Floats) -> Floats:
    """Float32 numbers that round like float64 ``values`` to any format of at most 22 bits.

    A float32 encoder looks up its codes, a float64 one searches.  The low bits of the significand
    go, and the last bit kept becomes 1 if any of them was set (rounding to odd), so that no number
    reaches or crosses the middle between two numbers of a narrow format.  Exponents outside
    float32 are no matter: such values are far below or above every format.
    """
    if values.dtype != np.float64:
        return values
    flat = np.ascontiguousarray(values).reshape(-1)
    result = np.empty(flat.shape, np.float32)
    buffer = np.empty(min(flat.size, NARROW_BLOCK), np.uint64)
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, flat.size, NARROW_BLOCK):
            bits = flat[start : start + NARROW_BLOCK].view(np.uint64)
            block = buffer[: bits.size]
            np.bitwise_and(bits, SIGNIFICAND_MASK, out=block)
            # Carries into the last kept bit if any dropped bit is set.
            np.add(block, SIGNIFICAND_MASK, out=block)
            np.bitwise_or(block, bits, out=block)
            np.bitwise_and(block, ~SIGNIFICAND_MASK, out=block)
            result[start : start + NARROW_BLOCK] = block.view(np.float64)
    return result.reshape(values.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class ElementOperands:
    """Codes that one matrix product reads, and its exact result.

    Parameters
    ----------
    weight_spec, activation_spec : ElementSpec
        Formats of the codes.
    weight_codes : ndarray of unsigned integers, [k, n]
        One column for each output channel.
    activation_codes : ndarray of unsigned integers, [m, k]
        One row for each output pixel.
    bias_q : ndarray of int64, [n]
        Start values of the accumulators.
    accumulators : ndarray of int64, [m, n]
        Sums of products and bias, in units of 2**accumulator_exp.
    accumulator_exp : int
        Base-2 logarithm of that unit.
    """

    weight_spec: ElementSpec
    activation_spec: ElementSpec
    weight_codes: npt.NDArray[Any]
    activation_codes: npt.NDArray[Any]
    bias_q: npt.NDArray[np.int64]
    accumulators: npt.NDArray[np.int64]
    accumulator_exp: int


class _ExactProduct:
    """Matrix product with coded weights that BLAS computes without rounding.

    Values are integers times a power of two, so a floating-point product is exact as long as
    every partial sum, in whatever order, fits the significand.  The tests below bound the sum of
    magnitudes of each column.  Weights that are too wide for float32 are cut in an upper and a
    lower part, which costs less than float64.

    Parameters
    ----------
    weight_spec, activation_spec : ElementSpec
        Formats of the operands.
    weights : ndarray of int64, [k, n]
        Operands of the weights.
    bias_q : ndarray of int64, [n]
        Start values of the accumulators.
    """

    def __init__(
        self,
        weight_spec: ElementSpec,
        activation_spec: ElementSpec,
        weights: npt.NDArray[np.int64],
        bias_q: npt.NDArray[np.int64],
    ) -> None:
        largest = int(np.abs(activation_spec.operand_table.astype(np.int64)).max())
        step = _common_step(activation_spec.operand_table)
        unit = accumulator_exp(weight_spec, activation_spec)

        def fits(part: npt.NDArray[np.int64]) -> bool:
            bound = _largest_column(part) * largest // (_common_step(part) * step)
            return bound <= FLOAT32_INTEGERS

        total = _largest_column(weights) * largest + int(np.abs(bias_q).max())
        if total > FLOAT64_INTEGERS:
            raise ValueError(
                f"accumulators must be at most 2**53 in units of 2**{unit}, not {total}"
            )
        parts = [weights]
        if not fits(weights):
            half = max(1, int(np.abs(weights).max()).bit_length() // 2)
            upper = weights + (1 << half - 1) >> half << half
            parts = [upper, weights - upper]
        in_range = unit >= FLOAT32_MIN_EXP and unit + total.bit_length() <= FLOAT32_MAX_EXP
        exact = in_range and all(map(fits, parts))
        dtype: FloatType = np.float32 if exact else np.float64
        self._matrices: list[Floats] = [
            np.ldexp(part.astype(np.float64), weight_spec.operand_exp).astype(dtype)
            for part in (parts if exact else [weights])
        ]
        # Biases are multiples of the unit only, which can be finer than that of the products.
        self._sum_dtype: FloatType = (
            np.float32 if exact and total <= FLOAT32_INTEGERS else np.float64
        )
        self._bias: Floats = np.ldexp(bias_q.astype(np.float64), unit).astype(self._sum_dtype)

    def __call__(self, columns: Floats) -> Floats:
        operands = columns.astype(self._matrices[0].dtype, copy=False)
        total: Floats = multiply(operands, self._matrices[0]).astype(self._sum_dtype, copy=False)
        for matrix in self._matrices[1:]:
            total += multiply(operands, matrix)
        total += self._bias
        return total


def _largest_column(weights: npt.NDArray[np.int64]) -> int:
    """Largest sum of magnitudes in a column."""
    return int(np.abs(weights).sum(axis=0).max())


def _common_step(integers: npt.NDArray[Any]) -> int:
    """Largest power of two that divides all of the integers; 1 for zeros."""
    merged = int(np.bitwise_or.reduce(integers.astype(np.int64), axis=None))
    return merged & -merged or 1


class ElementLayer:
    """One layer whose weights are coded one by one; see :class:`PreparedLayer`.

    Parameters
    ----------
    weight_spec, activation_spec : ElementSpec
        Formats of the weights and of the layer's input.
    weight_codes : ndarray of unsigned integers, [groups, k, n]
        The weights.
    bias_q : ndarray of int64, [groups, n]
        Start values of the accumulators.

    Raises
    ------
    ValueError
        If an accumulator could exceed 2**53 units, which only a huge bias or a dot product of
        millions of terms brings about.
    """

    def __init__(
        self,
        weight_spec: ElementSpec,
        activation_spec: ElementSpec,
        weight_codes: npt.NDArray[Any],
        bias_q: npt.NDArray[np.int64],
    ) -> None:
        self.weight_spec = weight_spec
        self.activation_spec = activation_spec
        self.weight_codes = weight_codes
        self.bias_q = bias_q
        weights = weight_spec.operands(weight_codes).astype(np.int64)
        self._products = [
            _ExactProduct(weight_spec, activation_spec, matrix, bias)
            for matrix, bias in zip(weights, bias_q, strict=True)
        ]

    def forward(self, group: int, columns: Floats) -> Floats:
        """Exact accumulators as values."""
        return self._products[group](columns)

    def operands(self, group: int, columns: Floats) -> ElementOperands:
        """Codes and exact accumulators."""
        exponent = accumulator_exp(self.weight_spec, self.activation_spec)
        accumulators = np.ldexp(self.forward(group, columns).astype(np.float64), -exponent)
        return ElementOperands(
            weight_spec=self.weight_spec,
            activation_spec=self.activation_spec,
            weight_codes=self.weight_codes[group],
            activation_codes=self.activation_spec.encode(columns),
            bias_q=self.bias_q[group],
            accumulators=accumulators.astype(np.int64),
            accumulator_exp=exponent,
        )


@dataclass(frozen=True, kw_only=True)
class ElementSystem:
    """A :class:`NumberSystem` that codes weights and activations one by one in one format.

    Parameters
    ----------
    format : ElementFormat
        Format whose free parameters are fitted to each tensor.
    method : {"sweep", "paper"}
        How they are fitted: by least mean squared error, or by the rule of the paper.
    """

    format: ElementFormat
    method: Method = "sweep"

    def fit_tensor(self, name: str, values: Floats) -> ElementCodec:
        """Codec of the format fitted to activations."""
        return ElementCodec(self.format.fit(values, "activations", self.method))

    def prepare(
        self, node: MacNode, source: TensorCodec, calibration: Sequence[Floats]
    ) -> ElementLayer:
        """Fit the format to the weights of a layer and code them.

        Raises
        ------
        TypeError
            If ``source`` was not made by :meth:`fit_tensor`.
        """
        if not isinstance(source, ElementCodec):
            raise TypeError(f"source must be an ElementCodec, not {source!r}")
        weights = node.matrices()
        spec = self.format.fit(weights, "weights", self.method)
        return ElementLayer(
            spec,
            source.spec,
            spec.encode(weights),
            quantise_bias(spec, source.spec, node.biases()),
        )

    def sum_dtype(self, sources: Sequence[TensorCodec]) -> npt.DTypeLike:
        """Float32 if it holds every sum exactly, else float64.

        Raises
        ------
        ValueError
            If not even float64 does.
        """
        specs = [source.spec for source in sources if isinstance(source, ElementCodec)]
        low = min(spec.operand_exp for spec in specs)
        high = max(spec.operand_exp + spec.operand_bits - 1 for spec in specs)
        bits = high + (len(specs) - 1).bit_length() - low
        if bits > FLOAT64_INTEGERS.bit_length() - 1:
            raise ValueError(
                f"tensors that are added must span at most 53 bits, not {bits} "
                f"({', '.join(map(str, specs))})"
            )
        return np.float32 if bits < FLOAT32_INTEGERS.bit_length() else np.float64


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
        Inputs in the form of the number system, :class:`ElementOperands` for formats.
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
        return self.layers[name].forward(group, columns)

    def sum_dtype(self, sources: Sequence[str]) -> npt.DTypeLike:
        """Float type in which tensors are added; part of :class:`golden.network.Arithmetic`."""
        return self.system.sum_dtype([self.codecs[self._sources[name]] for name in sources])

    def store(self, name: str, values: Floats) -> Floats:
        """Values after coding; part of :class:`golden.network.Arithmetic`."""
        return self.codecs[name].quantise(values)

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
        For formats, ``ElementSystem(format=golden.formats.parse("tapered8"))``.
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
    return float(signal @ signal), float(noise @ noise)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
