"""Adaptive block floating point for the bench of the tile; :mod:`golden.abfp` is the model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.abfp import AbfpSpec
from golden.abfp_tile import GAINS, AbfpTileSpec
from golden.bfloat16 import rounded, to_bits

__all__ = ["AbfpProduct", "AbfpSystem", "make_system"]

Integers = npt.NDArray[np.integer[Any]]


class AbfpProduct:
    """A matrix product for a tile: what it is given, and what must leave.

    Parameters
    ----------
    spec : AbfpTileSpec
        The tile, with the gain of this product.
    weights : ndarray of float32, [n, k]
        Numbers of bfloat16, also special ones.
    vectors : ndarray of float32, [m, k]
        Activations, the same.
    bias : ndarray of float32, [n], optional
        Zeros by default.
    noise : ndarray of int, [tiles, m, n], optional
        Noise words.

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
    results : ndarray of uint16, [m, n]
        Bits of the results.
    saturations : int
        Saturated conversions.
    bad_input : bool
        Whether an activation is infinite or NaN.
    """

    def __init__(
        self,
        spec: AbfpTileSpec,
        weights: npt.NDArray[np.float32],
        vectors: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32] | None = None,
        noise: Integers | None = None,
    ):
        self.spec = spec
        w_spec = AbfpSpec(
            bits=spec.weight_bits,
            tile=spec.tile,
            gain=spec.gain,
            adc_bits=spec.adc_bits,
            noise_bits=spec.noise_bits,
            exp_only=spec.exp_only,
        )
        a_spec = replace(w_spec, bits=spec.activation_bits)
        w_codes, a_codes = w_spec.encode(weights), a_spec.encode(vectors)
        padding = (0, 0), (0, -vectors.shape[1] % spec.tile)
        self.codes = np.pad(w_codes.codes, padding)
        self.scales = w_codes.scales
        bits = vectors.astype(np.float32).view(np.uint32) >> 16
        self.elements = np.pad(bits.astype(np.int64), padding)
        if bias is None:
            bias = np.zeros(len(weights), np.float32)
        self.bias_bits = bias.view(np.uint32)
        self.results = to_bits(w_spec.matmul(w_codes, a_spec, a_codes, bias, noise))
        self.saturations = w_spec.trace(w_codes, a_spec, a_codes, noise).saturations
        self.bad_input = a_codes.bad_input

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
        noise: bool = False,
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

        words = rng.integers(0, 1 << spec.noise_bits, (tiles, vectors, rows)) if noise else None
        bias = rng.normal(size=rows).astype(np.float32)
        return AbfpProduct(spec, draw(rows), draw(vectors), bias, words)


def make_system(fields: Mapping[str, Any]) -> AbfpSystem:
    """System for the fields of an :class:`~golden.abfp_tile.AbfpTileSpec`."""
    return AbfpSystem(AbfpTileSpec(**fields))
