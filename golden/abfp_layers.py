"""Networks in ABFP, the choice of their gains, and the noise for finetuning them.

A :class:`golden.inference.NumberSystem`: tensors are bfloat16, weights are coded once, and the
inputs of a layer are coded when it runs.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from golden.abfp import AbfpCodes, AbfpFormat, AbfpSpec, checked_bias
from golden.abfp_tile import GAINS, AbfpTileSpec, TileProduct
from golden.bfloat16 import Bfloat16Codec, rounded
from golden.inference import TensorCodec
from golden.network import Floats, MacNode, Network
from golden.spec import as_floats, check_int

__all__ = [
    "HISTOGRAM_BINS",
    "MAX_SATURATED_SHARE",
    "AbfpLayer",
    "AbfpOperands",
    "AbfpSystem",
    "NoiseHistogram",
    "choose_gain",
    "differential_noise",
    "saturated_shares",
]

#: Largest share of conversions that may saturate (specification, section 5).
MAX_SATURATED_SHARE = 0.001

#: Bins of the histogram of a layer (paper, section III).
HISTOGRAM_BINS = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class AbfpOperands:
    """What one matrix product reads, and its result.

    Parameters
    ----------
    tile : AbfpTileSpec
        Formats of the codes, and gain.
    weights : AbfpCodes, [n, k]
        One row for each output channel.
    inputs : ndarray of float32, [m, k]
        Activations before they are coded, which are bfloat16; one row for each output pixel.
    activations : AbfpCodes, [m, k]
        Their codes.
    bias : ndarray of float32, [n]
        Added after the sum over the tiles.
    noise : ndarray of unsigned integers, [tiles, m, n], or None
        Noise words of the conversions.
    accumulators : ndarray of float32, [m, n]
        The results, before ReLU and rounding.
    """

    tile: AbfpTileSpec
    weights: AbfpCodes
    inputs: Floats
    activations: AbfpCodes
    bias: npt.NDArray[np.float32]
    noise: npt.NDArray[np.unsignedinteger[Any]] | None
    accumulators: npt.NDArray[np.float32]


class AbfpLayer:
    """One layer with its weights coded; see :class:`golden.inference.PreparedLayer`.

    Noise words follow from the seed and the inputs: the same inputs meet the same noise.

    Parameters
    ----------
    weight_spec, activation_spec : AbfpSpec
        Formats of weights and inputs.
    weights : sequence of AbfpCodes, [n, k], one for each group
        The weights.
    biases : ndarray of float32, [groups, n]
        Their biases.
    seed : int
        Seed of the noise, where the spec has ``noise_bits``.
    """

    def __init__(
        self,
        weight_spec: AbfpSpec,
        activation_spec: AbfpSpec,
        weights: Sequence[AbfpCodes],
        biases: npt.NDArray[np.float32],
        seed: int = 0,
    ) -> None:
        self.weight_spec = weight_spec
        self.activation_spec = activation_spec
        self.weights = tuple(weights)
        self.biases = biases
        self.seed = seed
        self.tile = weight_spec.tile_spec(activation_spec)
        self._products = [
            TileProduct(self.tile, group.codes, group.scales) for group in self.weights
        ]

    @property
    def storage_bits(self) -> int:
        """Bits that the weights take in memory, scales included."""
        return sum(self.weight_spec.storage_bits(group.codes.shape) for group in self.weights)

    def forward(self, group: int, columns: Floats) -> npt.NDArray[np.float32]:
        """Float32 accumulators, bias included; ``columns`` are coded vector by vector."""
        return self._forward(group, columns).accumulators

    def store(self, results: Floats, codec: TensorCodec) -> npt.NDArray[np.float32]:
        """Values after the rounding to bfloat16."""
        return codec.quantise(results)

    def values(self, results: Floats) -> Floats:
        """Accumulators are in real units already."""
        return results

    def operands(self, group: int, columns: Floats) -> AbfpOperands:
        """Codes, noise words and accumulators."""
        return self._forward(group, columns)

    def _forward(self, group: int, columns: Floats) -> AbfpOperands:
        codes = self.activation_spec.encode(columns)
        noise = self._noise(group, columns, codes)
        bias = self.biases[group]
        return AbfpOperands(
            tile=self.tile,
            weights=self.weights[group],
            inputs=columns,
            activations=codes,
            bias=bias,
            noise=noise,
            accumulators=self._products[group](codes.codes, codes.scales, bias, noise),
        )

    def _noise(
        self, group: int, columns: Floats, codes: AbfpCodes
    ) -> npt.NDArray[np.unsignedinteger[Any]] | None:
        if not self.tile.noise_bits:
            return None
        inputs = zlib.crc32(np.ascontiguousarray(columns).view(np.uint8).data)
        generator = np.random.default_rng([self.seed, group, inputs])
        shape = (codes.scales.shape[1], len(columns), self.biases.shape[1])
        dtype = np.uint8 if self.tile.noise_bits <= 8 else np.uint16
        return generator.integers(0, 1 << self.tile.noise_bits, shape, dtype)


@dataclass(frozen=True, kw_only=True)
class AbfpSystem:
    """A :class:`golden.inference.NumberSystem` of one ABFP format.

    Parameters
    ----------
    format : AbfpFormat
        Format of all layers; a gain that is not given is chosen for each.
    seed : int
        Seed of the noise, where the format has ``noise_bits``; at least 0.
    """

    format: AbfpFormat
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.format, AbfpFormat):
            raise TypeError(f"format must be an AbfpFormat, not {self.format!r}")
        check_int("seed", self.seed, 0, None)

    @property
    def storage_bits(self) -> int:
        """Nothing is shared by the layers."""
        return 0

    def fit_network(self, network: Network) -> Self:
        """Nothing depends on the network as a whole."""
        return self

    def fit_tensor(self, name: str, values: Floats) -> Bfloat16Codec:
        """Bfloat16, once the values have proved finite."""
        self.format.fit(values, "activations")
        return Bfloat16Codec()

    def prepare(
        self, node: MacNode, source: TensorCodec, calibration: Sequence[Floats]
    ) -> AbfpLayer:
        """Code the weights of a layer and choose its gain.

        Raises
        ------
        ValueError
            If a weight or bias is not finite.
        """
        weights = node.matrices()
        spec = self.format.fit(weights, "weights")
        activation_spec = self.format.fit(np.empty(0, np.float32), "activations")
        codes = [spec.encode(matrix.T) for matrix in weights]
        biases = np.stack([checked_bias(bias, len(bias)) for bias in node.biases()])
        if self.format.gain is None:
            inputs = [activation_spec.encode(source.quantise(rows)) for rows in calibration]
            tile = spec.tile_spec(activation_spec)
            spec = replace(spec, gain=choose_gain(saturated_shares(tile, codes, inputs), tile.gain))
        seed = zlib.crc32(node.name.encode(), self.seed)
        return AbfpLayer(spec, activation_spec, codes, biases, seed)

    def sum_dtype(self, sources: Sequence[TensorCodec]) -> npt.DTypeLike:
        """Tensors are added in float32 (paper, section II)."""
        return np.float32


def saturated_shares(
    tile: AbfpTileSpec, weights: Sequence[AbfpCodes], activations: Sequence[AbfpCodes]
) -> dict[int, float]:
    """Share of the conversions of a layer that saturate the ADC, without noise, for each gain.

    Parameters
    ----------
    tile : AbfpTileSpec
        Formats; its gain is of no matter.
    weights, activations : sequence of AbfpCodes, [n, k] and [m, k], one for each group
        What the layer multiplies.

    Returns
    -------
    dict of int to float
        NaN where there is nothing to convert.
    """
    limits = [replace(tile, gain=gain).first_saturated for gain in GAINS]
    counts = np.zeros(len(GAINS))
    conversions = 0
    for w, a in zip(weights, activations, strict=True):
        counts += TileProduct(tile, w.codes, w.scales).count_at_least(a.codes, limits)
        conversions += w.scales.size * len(a.codes)
    with np.errstate(invalid="ignore"):
        shares = counts / conversions
    return dict(zip(GAINS, shares.tolist(), strict=True))


def choose_gain(shares: dict[int, float], default: int) -> int:
    """Largest gain that saturates at most 0.1 % of the conversions (specification, section 5).

    Parameters
    ----------
    shares : dict of int to float
        Share of saturated conversions of each gain; gain 1 never saturates.
    default : int
        Result where there were no conversions.
    """
    good = [gain for gain, share in shares.items() if share <= MAX_SATURATED_SHARE]
    return max(good, default=default)


@dataclass(frozen=True, eq=False)
class NoiseHistogram:
    """Distribution of the differential noise of a layer (paper, section III).

    Parameters
    ----------
    edges : ndarray of float64, [bins + 1]
        Ascending.
    counts : ndarray of int64, [bins]
        Differences in each bin; one on an edge counts in the bin above it.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, differences: npt.ArrayLike, bins: int = HISTOGRAM_BINS) -> Self:
        """Count differences in bins of equal width from the least to the largest.

        Parameters
        ----------
        differences : array_like of float
            Of any shape, finite.
        bins : int
            Number of bins.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If there are no differences, one is not finite, or ``bins`` is less than 1.
        """
        check_int("bins", bins, 1, None)
        values = as_floats("differences", differences).astype(np.float64).reshape(-1)
        if not values.size:
            raise ValueError("differences must not be empty")
        if not np.isfinite(values).all():
            raise ValueError(f"differences must be finite, not {values[~np.isfinite(values)][0]}")
        edges = np.linspace(values.min(), values.max(), bins + 1)
        indices = np.searchsorted(edges, values, side="right") - 1
        return cls(edges, np.bincount(np.minimum(indices, bins - 1), minlength=bins))

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Probability of each bin: its count plus 0.5, normalised."""
        raised = self.counts + 0.5
        return raised / raised.sum()

    def sample(self, positions: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Inverse of the cumulative distribution, uniform inside each bin (chosen).

        Parameters
        ----------
        positions : array_like of float64
            Of any shape, from 0 to below 1.

        Returns
        -------
        ndarray of float64, of the shape of ``positions``

        Raises
        ------
        TypeError
            If ``positions`` are not floats.
        ValueError
            If one is out of range.
        """
        numbers = as_floats("positions", positions).astype(np.float64)
        good = (numbers >= 0) & (numbers < 1)
        if not good.all():
            raise ValueError(f"positions must be from 0 to below 1, not {numbers[~good][0]}")
        raised = self.counts + 0.5
        # Multiples of a half: these sums are exact, and the last is the whole.
        tops = np.cumsum(raised)
        bins = np.searchsorted(tops / tops[-1], numbers, side="right")
        inside = (numbers * tops[-1] - (tops - raised)[bins]) / raised[bins]
        low, high = self.edges[bins], self.edges[bins + 1]
        return np.asarray(low + np.clip(inside, 0, 1) * (high - low))


def differential_noise(node: MacNode, layer: AbfpLayer, x: Floats) -> npt.NDArray[np.float32]:
    """Find what ABFP adds to the results of one layer: ABFP layer(x) - float32 layer(x).

    Parameters
    ----------
    node : MacNode
        The layer.
    layer : AbfpLayer
        The same layer, prepared.
    x : ndarray of float32
        Inputs of the layer in the float32 network, so that errors of layers do not add up; a
        batch as :meth:`golden.network.MacNode.columns` takes it.

    Returns
    -------
    ndarray of float32, [m, outputs of all groups]
        Differences before batch norm and ReLU; ABFP results are bfloat16.
    """
    matrices, biases = node.matrices(), node.biases()
    differences = []
    for group, columns in enumerate(node.columns(x)):
        exact = columns @ matrices[group] + biases[group]
        differences.append(rounded(layer.forward(group, rounded(columns))) - exact)
    return np.concatenate(differences, axis=1)
