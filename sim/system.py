"""What the benches ask of a number system, and what follows from it for all of them.

A number system is a file ``sim/<stem>.py`` with a function ``make_system(fields)`` that returns a
:class:`System` for the fields of its :class:`golden.mac.MacSpec`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from golden.dot import accumulator_exp, accumulator_unit, dot, encode_sums, matmul
from golden.element import DyadicSpec, ElementSpec, ScaledSpec
from golden.mac import MacSpec, Operand
from golden.requantiser import Multiplier

__all__ = [
    "DecoderSetting",
    "EncoderSetting",
    "Layer",
    "SingleCodes",
    "System",
    "consecutive",
    "draw_biases",
    "draw_codes",
    "edge_totals",
    "encoded",
    "exact_sums",
    "hardware_bias",
    "largest_bias",
    "products",
    "rounded",
    "scaling",
    "steered_biases",
    "tie_totals",
    "unit_exp",
    "wide_totals",
]

Integers = npt.NDArray[np.integer[Any]]


#: Indices of the last result but one at each end, and how far from it to go, in half steps.
ENDS = tuple((end, inner, step) for end, inner in ((0, 1), (-1, -2)) for step in (-1, 1, 2, 3, 4))


#: Middles between results that a bias may be steered to, and the highest bit of an int64 to use.
SOME_TARGETS = 8
TOP_BIT = 62


class Layer(NamedTuple):
    """Formats of a matrix product: what a layer of a network sets at run time."""

    weights: ElementSpec
    activations: ElementSpec
    result: ElementSpec


class DecoderSetting(NamedTuple):
    """Settings of a decoder by port, the format of its codes, and the operand of every code."""

    ports: Mapping[str, int]
    spec: ElementSpec
    operands: Integers


class EncoderSetting(NamedTuple):
    """Settings of an encoder by port, and what they mean.

    A sum stands for ``mult * 2**exponent``; the unit of the result is a power of two.
    """

    ports: Mapping[str, int]
    result: ElementSpec
    exponent: int
    mult: int = 1


class System(Protocol):
    """A number system, built in hardware for one :class:`~golden.mac.MacSpec`."""

    @property
    def mac(self) -> Any:
        """Widths, and settings by port."""

    @property
    def has_ties(self) -> bool:
        """Whether exact sums come to lie half-way between two results."""

    def random_layer(self, rng: np.random.Generator) -> Layer:
        """Draw formats that the hardware can be set to."""

    def modes(self) -> Mapping[str, Iterable[Any]]:
        """All that :meth:`mode` gives for layers, by group of bins."""

    def mode(self, layer: Layer) -> Mapping[str, Any]:
        """Bin of a layer in each group of :meth:`modes`."""

    def code_labels(self, spec: ElementSpec) -> Mapping[str, Sequence[Any]]:
        """Bins of all codes of a format by group, beyond those for their sign."""

    def pair_layers(self) -> Mapping[str, Layer]:
        """Choose formats of operands to try all pairs of, by name.

        Codes of the result about zero are consecutive multiples of one unit, if possible of the
        largest power of two that divides all products, so that every bit of a product can be seen.
        """

    def encoder_settings(self) -> Iterator[EncoderSetting]:
        """All settings that the ports of the encoder can have."""

    def code_bits(self, layer: Layer, role: Operand) -> int:
        """Bits of the codes to draw for an operand of a layer."""

    def products(self, layer: Layer) -> int:
        """Codes of each operand in a word, which are multiplied pair by pair."""

    def words(self, layer: Layer, role: Operand, codes: Integers) -> Integers:
        """Words of codes, along the last axis; what the codes do not fill is zero."""

    def codes(self, layer: Layer, words: Integers) -> Integers:
        """Codes of results, as the golden model gives them, from those of the hardware."""


class DecodedSystem(System, Protocol):
    """A number system with a decoder of single codes."""

    def decoder_settings(self) -> Iterator[DecoderSetting]:
        """All settings that the ports of a decoder can have.

        Decoders of activations and weights that differ have settings of different ports.
        """

    def operand_values(self, operand: Any) -> Integers:
        """Integers that decoded operands stand for, in the units of :class:`DecoderSetting`.

        Parameters
        ----------
        operand : ndarray of int64, or dict of these by field
            The decoder's port ``operand``.
        """


class SingleCodes:
    """The part of a :class:`System` that has one code in a word, and nothing else."""

    mac: Any

    def code_bits(self, layer: Layer, role: Operand) -> int:
        """Bits of the hardware's port."""
        return int(self.mac.code_bits(role))

    def products(self, layer: Layer) -> int:
        """One."""
        return 1

    def words(self, layer: Layer, role: Operand, codes: Integers) -> Integers:
        """Give the codes themselves."""
        return codes

    def codes(self, layer: Layer, words: Integers) -> Integers:
        """Give the words themselves."""
        return words


def hardware_bias(mac: MacSpec, layer: Layer, bias_q: Integers) -> Integers:
    """Start values of accumulators in the unit of the hardware's sums, which is never coarser."""
    return np.asarray(bias_q) << mac.sum_shift(layer.weights, layer.activations)


def largest_bias(mac: MacSpec, layer: Layer, length: int) -> int:
    """Largest bias beside ``length`` products, in units of the golden accumulator."""
    room = (mac.length - length) * mac.product_max << mac.bias_fraction_bits
    return room >> mac.sum_shift(layer.weights, layer.activations)


def draw_biases(
    rng: np.random.Generator, mac: MacSpec, layer: Layer, length: int, count: int
) -> Integers:
    """Random biases of all magnitudes beside ``length`` products, half of them no larger."""
    largest = largest_bias(mac, layer, length)
    limits = np.where(
        rng.random(count) < 0.5,
        largest,
        # As much as that number of products can come to.
        min(largest, largest_bias(mac, layer, mac.length - length)),
    )
    return rng.integers(-limits, limits + 1) >> rng.integers(0, largest.bit_length() + 1, count)


def scaling(layer: Layer) -> tuple[int, int]:
    """Factor and exponent that bring sums, in golden units, to operands of the result."""
    if all(isinstance(spec, DyadicSpec) for spec in layer):
        exponent = accumulator_exp(layer.weights, layer.activations)
        return 1, exponent - unit_exp(layer.result)
    unit = accumulator_unit(layer.weights, layer.activations)
    multiplier = Multiplier.of(unit / layer.result.operand_unit)
    zeros = (multiplier.mult & -multiplier.mult).bit_length() - 1 if multiplier.mult else 0
    return multiplier.mult >> zeros, zeros - multiplier.shift


def steered_biases(
    rng: np.random.Generator, mac: MacSpec, layer: Layer, length: int, sums: Integers
) -> Integers:
    """Biases [n] that bring sums [n] of ``length`` products to zero or half-way between results.

    Where sums never come to lie half-way, or no bias is large enough, some of zero and any bias.
    """
    mult, exponent = scaling(layer)
    limit = largest_bias(mac, layer, length)
    biases = draw_biases(rng, mac, layer, length, len(sums))
    targets = np.zeros(1, np.int64)
    if mult == 1:
        values = np.unique(layer.result.operand_table).astype(np.int64)
        doubled = rng.choice(values[1:] + values[:-1], SOME_TARGETS)
        # Half-way is doubled * 2**shift; beyond the limit it is of no use anyway.
        shift = min(-exponent - 1, TOP_BIT - int(np.abs(doubled).max()).bit_length())
        ties = doubled << shift if shift >= 0 else doubled[doubled % (1 << -shift) == 0] >> -shift
        targets = np.concatenate([targets, ties])
    for index, total in enumerate(sums.tolist()):
        wanted = targets - total
        wanted = wanted[np.abs(wanted) <= limit]
        if len(wanted):
            biases[index] = rng.choice(wanted)
    return biases


def rounded(layer: Layer, sums: Integers, *, relu: bool) -> Integers:
    """Round exact sums, in units of the golden accumulator, to result codes."""
    return encode_sums(layer.weights, layer.activations, layer.result, sums, relu=relu)


def encoded(setting: EncoderSetting, sums: Integers) -> Integers:
    """Codes of exact sums, under the settings of an encoder."""
    result = setting.result
    product = sums * setting.mult
    if isinstance(result, DyadicSpec):
        return result.requantise(product, setting.exponent)
    assert isinstance(result, ScaledSpec)
    exponent = setting.exponent - unit_exp(result)
    return result.encode_integers(product << max(exponent, 0), max(-exponent, 0))


def unit_exp(spec: ElementSpec) -> int:
    """Base-2 logarithm of the unit of the operands."""
    fraction, exp = math.frexp(spec.operand_unit)
    if fraction != 0.5:
        raise ValueError(f"operand_unit must be a power of two, not {spec.operand_unit}")
    return exp - 1


def consecutive(spec: ElementSpec) -> tuple[int, int]:
    """Smallest and largest of the operands about zero between which no integer is missing."""
    operands = set(spec.operand_table.tolist())
    low = high = 0
    while low - 1 in operands:
        low -= 1
    while high + 1 in operands:
        high += 1
    return low, high


def exact_sums(layer: Layer, activations: Integers, weights: Integers, bias_q: Any) -> Integers:
    """Exact sums [m, n] of activation codes [m, k] with weight codes [k, n], and biases [n]."""
    # The golden model takes the weights as its left operand.
    sums = matmul(
        layer.weights,
        layer.activations,
        np.swapaxes(weights, 0, 1),
        np.swapaxes(activations, 0, 1),
        np.asarray(bias_q)[..., None],
    )
    return np.swapaxes(sums, 0, 1)


def products(layer: Layer, activations: Integers, weights: Integers) -> Integers:
    """Exact products of activation and weight codes, element by element."""
    return dot(layer.weights, layer.activations, weights[..., None], activations[..., None])


def draw_codes(rng: np.random.Generator, bits: int, shape: tuple[int, ...]) -> Integers:
    """Random codes: one in four is a zero or next to a limit."""
    half = 1 << bits - 1
    edges = np.array([0, 0, 1, half - 1, half, half + 1, 2 * half - 1])
    return np.where(
        rng.random(shape) < 0.25, rng.choice(edges, shape), rng.integers(0, 2 * half, shape)
    )


def _sum_limit(mac: MacSpec) -> int:
    return 1 << mac.sum_width - 1


def tie_totals(
    mac: MacSpec, setting: EncoderSetting, count: int, rng: np.random.Generator
) -> Integers:
    """Choose sums half-way between two neighbouring results, and the sums next to them.

    At most ``count`` ties, drawn from those that a sum can reach, and those about the smallest and
    the largest result; where half-way lies between two sums, the lower one.
    """
    result, limit = setting.result, _sum_limit(mac)
    values = np.unique(result.operand_table).astype(np.int64)
    doubled = rng.permutation(values[1:] + values[:-1])
    # As if the results went on at both ends; the neighbours there are where saturation begins.
    ends = [2 * values[end] + step * (values[end] - values[inner]) for end, inner, step in ENDS]
    # The middle, in units of the sums, is doubled * 2**shift / mult.
    shift = unit_exp(result) - setting.exponent - 1
    largest = limit * setting.mult
    reach = -(-largest >> shift) if shift > 0 else largest << -shift
    doubled = np.concatenate([doubled[np.abs(doubled) < reach][:count], ends])
    doubled = doubled[np.abs(doubled) < reach]
    ties = (doubled << shift if shift > 0 else doubled >> -shift) // max(setting.mult, 1)
    return _within(limit, np.concatenate([ties, ties - 1, ties + 1]))


def edge_totals(mac: MacSpec) -> Integers:
    """Limits of the sums, powers of two, and their neighbours, of both signs."""
    limit = _sum_limit(mac)
    powers = np.int64(1) << np.arange(mac.sum_width - 1)
    magnitudes = np.concatenate([[0], powers - 1, powers, powers + 1])
    return _within(limit, np.concatenate([magnitudes, -magnitudes, [-limit, 1 - limit, limit - 1]]))


def wide_totals(mac: MacSpec, count: int, rng: np.random.Generator) -> Integers:
    """Random sums of all magnitudes."""
    limit = _sum_limit(mac)
    return rng.integers(-limit, limit, count) >> rng.integers(0, mac.sum_width, count)


def _within(limit: int, totals: Integers) -> Integers:
    return np.unique(totals[(-limit <= totals) & (totals < limit)])
