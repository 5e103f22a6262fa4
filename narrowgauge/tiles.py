"""Tiles for a systolic array, cut from the operands of a network's layers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.dot import encode_sums
from golden.element import ElementSpec
from golden.element_layers import ElementOperands
from golden.fixed import FixedSpec
from golden.inference import LayerStream
from golden.mac import ArraySpec, MacSpec
from synth.activity import LANES_PER_WORD
from synth.array import TileBatch

__all__ = ["cut_tiles", "required_length", "signed_operands", "signed_spec"]

#: Tiles of one batch: they fill the words of the simulation.
TILES = LANES_PER_WORD


def required_length(mac: MacSpec, operands: Sequence[ElementOperands]) -> int:
    """Products that an accumulator must have room for, biases counted as products.

    Parameters
    ----------
    mac : MacSpec
        Number system; its ``length`` does not matter.
    operands : sequence of ElementOperands
        Matrix products of all layers.
    """
    lengths = [1]
    for layer in operands:
        shift = mac.sum_shift(layer.weight_spec, layer.activation_spec)
        largest = int(np.abs(layer.bias_q).max(initial=0)) << shift
        product = mac.product_max << mac.bias_fraction_bits
        lengths.append(layer.weight_codes.shape[0] + -(-largest // product))
    return max(lengths)


def cut_tiles(
    spec: ArraySpec, streams: Sequence[LayerStream], result_spec: ElementSpec, seed: int
) -> TileBatch:
    """Draw tiles from all places of a layer.

    A tile is ``rows`` consecutive output pixels and ``cols`` consecutive output channels; at the
    ends of a layer it is filled up with zero codes, which cost energy and do no work.

    Parameters
    ----------
    spec : ArraySpec
        Array.
    streams : sequence of LayerStream
        Groups of one layer, with :class:`~golden.inference.ElementOperands`.
    result_spec : ElementSpec
        Format of the results.
    seed : int
        Of the generator that draws the tiles.
    """
    rows, cols = spec.rows, spec.cols
    places = [
        (stream, top, left)
        for stream in streams
        for top in range(0, len(stream.operands.activation_codes), rows)
        for left in range(0, stream.operands.weight_codes.shape[1], cols)
    ]
    # A layer of fewer tiles gives each of them more than once, as equally often as can be.
    chosen = np.resize(np.random.default_rng(seed).permutation(len(places)), TILES)
    first = streams[0].operands
    relu = streams[0].relu
    tiles = [_tile(spec, result_spec, *places[index]) for index in np.sort(chosen)]
    return TileBatch(
        activations=np.stack([tile["activations"] for tile in tiles]),
        weights=np.stack([tile["weights"] for tile in tiles]),
        bias=np.stack([tile["bias"] for tile in tiles]),
        relu=relu,
        settings=spec.mac.settings(first.weight_spec, first.activation_spec, result_spec),
        results=np.stack([tile["results"] for tile in tiles]),
        products=sum(tile["products"] for tile in tiles),
    )


def _tile(
    spec: ArraySpec, result_spec: ElementSpec, stream: LayerStream, top: int, left: int
) -> dict[str, Any]:
    """One tile, filled up to the size of the array."""
    layer: ElementOperands = stream.operands
    pixels, channels = slice(top, top + spec.rows), slice(left, left + spec.cols)
    activations = layer.activation_codes[pixels]
    weights = layer.weight_codes[:, channels]
    sums = layer.accumulators[pixels, channels]
    levels = activation_levels(layer)[pixels]
    shift = spec.mac.sum_shift(layer.weight_spec, layer.activation_spec)
    bias = _filled(layer.bias_q[None, channels], 1, spec.cols)[0]
    # A column or row that only fills up still has a bias and a result; those are exact too.  Not
    # every number system has a zero for the weights of such a column.
    full = np.tile(bias, (spec.rows, 1))
    full[: len(sums)] += (levels.sum(axis=1) * int(layer.weight_spec.operand_table[0]))[:, None]
    full[: len(sums), : sums.shape[1]] = sums
    return {
        "activations": _filled(activations, spec.rows, layer.weight_codes.shape[0]),
        "weights": _filled(weights, layer.weight_codes.shape[0], spec.cols),
        "bias": bias << shift,
        "results": encode_sums(
            layer.weight_spec, layer.activation_spec, result_spec, full, relu=stream.relu
        ),
        "products": sums.size * layer.weight_codes.shape[0],
    }


def activation_levels(layer: ElementOperands) -> npt.NDArray[np.int64]:
    """Integers that the activation codes of a matrix product stand for."""
    return layer.activation_spec.operands(layer.activation_codes).astype(np.int64)


def signed_operands(layer: ElementOperands, bits: int) -> ElementOperands:
    """Fixed-point operands with two's-complement activations of ``bits`` bits.

    Parameters
    ----------
    layer : ElementOperands
        Operands whose activations are fixed point, with or without a sign.
    bits : int
        At least the bits of the activations with a sign.
    """
    codes = activation_levels(layer) & (1 << bits) - 1
    return replace(
        layer,
        activation_spec=signed_spec(layer.activation_spec, bits),
        activation_codes=codes.astype(np.uint16),
    )


def signed_spec(spec: ElementSpec, bits: int) -> FixedSpec:
    """Two's complement of ``bits`` bits with the unit of a fixed-point spec.

    Raises
    ------
    TypeError
        If ``spec`` is not fixed point.
    """
    if not isinstance(spec, FixedSpec):
        raise TypeError(f"spec must be a FixedSpec, not {spec!r}")
    return FixedSpec(bits=bits, frac_bits=spec.frac_bits)


def _filled(array: npt.NDArray[Any], rows: int, cols: int) -> npt.NDArray[Any]:
    """``array`` with zeros below and to the right."""
    return np.pad(array, ((0, rows - array.shape[0]), (0, cols - array.shape[1])))
