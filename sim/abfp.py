"""Adaptive block floating point for the bench of the tile; :mod:`golden.abfp` is the model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.abfp import AbfpCodes, AbfpSpec
from golden.abfp_tile import GAINS, AbfpTileSpec
from golden.bfloat16 import rounded, to_bits

__all__ = ["AbfpProduct", "AbfpSystem", "make_system", "noise_words"]

Integers = npt.NDArray[np.integer[Any]]


class AbfpProduct:
    """A matrix product for a tile: what it is given, and what must leave.

    Parameters
    ----------
    spec : AbfpTileSpec
        The tile, with the gain of this product.
    weights : AbfpCodes, or ndarray of float32, [n, k]
        Codes, or numbers of bfloat16, also special ones.
    vectors : ndarray of float32, [m, k]
        Activations, numbers of bfloat16.
    bias : ndarray of float32, [n], optional
        Zeros by default.
    noise : ndarray of int, [tiles, m, n], optional
        Noise words.
    relu : bool
        Whether negative results become zero.

    Attributes
    ----------
    codes : ndarray of int8, [n, tiles * tile]
        Codes of weights, with the zeros that fill up the last tile.
    scales : ndarray of uint16, [n, tiles]
        Their scales.
    elements : ndarray of int64, [m, tiles * tile]
        Bits of the activations.
    bias_bits : ndarray of uint32, [n]
        Bits of the biases.
    relu : bool
        As given.
    length : int
        Elements of a dot product.
    trace : AbfpTrace
        All intermediates.
    results : ndarray of uint16, [m, n]
        Bits of the results.
    bad_input : bool
        Whether an activation is infinite or NaN.
    """

    def __init__(
        self,
        spec: AbfpTileSpec,
        weights: AbfpCodes | npt.NDArray[np.float32],
        vectors: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32] | None = None,
        noise: Integers | None = None,
        *,
        relu: bool = False,
    ):
        self.spec = spec
        self.relu = relu
        self.length = vectors.shape[1]
        w_spec = AbfpSpec(
            bits=spec.weight_bits,
            tile=spec.tile,
            gain=spec.gain,
            adc_bits=spec.adc_bits,
            noise_bits=spec.noise_bits,
            exp_only=spec.exp_only,
        )
        a_spec = replace(w_spec, bits=spec.activation_bits)
        w_codes = weights if isinstance(weights, AbfpCodes) else w_spec.encode(weights)
        a_codes = a_spec.encode(vectors)
        padding = (0, 0), (0, -vectors.shape[1] % spec.tile)
        self.codes = np.pad(w_codes.codes, padding)
        self.scales = w_codes.scales
        bits = vectors.astype(np.float32).view(np.uint32) >> 16
        self.elements = np.pad(bits.astype(np.int64), padding)
        if bias is None:
            bias = np.zeros(len(w_codes.codes), np.float32)
        self.bias_bits = bias.view(np.uint32)
        self.trace = w_spec.trace(w_codes, a_spec, a_codes, noise)
        totals = w_spec.matmul(w_codes, a_spec, a_codes, bias, noise)
        self.results = to_bits(np.maximum(totals, 0) if relu else totals)
        self.bad_input = a_codes.bad_input

    @property
    def saturations(self) -> int:
        """Saturated conversions."""
        return self.trace.saturations

    @property
    def log2_gain(self) -> int:
        """Value of the port ``gain``."""
        return self.spec.gain.bit_length() - 1


@dataclass(frozen=True)
class AbfpSystem:
    """Draws products for one tile."""

    mac: AbfpTileSpec

    def random_product(
        self,
        rng: np.random.Generator,
        *,
        rows: int,
        vectors: int,
        length: int,
        gain: int | None = None,
        spread: int = 0,
        noise: Integers | None = None,
        relu: bool = False,
    ) -> AbfpProduct:
        """Product with scales about 1, or over ``spread`` powers of two to either side.

        The gain is any if it is None; biases are about 1.
        """
        spec = replace(self.mac, gain=int(rng.choice(GAINS)) if gain is None else gain)
        tiles = spec.tiles(length)

        def draw(count: int) -> npt.NDArray[np.float32]:
            scales = np.exp2(rng.integers(-spread, spread + 1, (count, tiles)))
            scales = np.repeat(scales, spec.tile, axis=1)[:, :length]
            return rounded(rng.laplace(size=(count, length)) * scales)

        bias = rng.normal(size=rows).astype(np.float32)
        return AbfpProduct(spec, draw(rows), draw(vectors), bias, noise, relu=relu)


def noise_words(seed: int, bits: int, count: int) -> Integers:
    """First words of the noise of a tile: x**32 + x**22 + x**2 + x + 1, ``bits`` steps a word."""
    state = seed or 1
    words = []
    for _ in range(count):
        words.append(state % (1 << bits))
        for _ in range(bits):
            state = state >> 1 ^ (0x80200003 if state & 1 else 0)
    return np.array(words)


def make_system(fields: Mapping[str, Any]) -> AbfpSystem:
    """System for the fields of an :class:`~golden.abfp_tile.AbfpTileSpec`."""
    return AbfpSystem(AbfpTileSpec(**fields))
