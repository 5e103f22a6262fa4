"""bfloat16 multiply-accumulate for its bench; :mod:`golden.bfloat16_mac` is the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.bfloat16_mac import Bfloat16MacSpec

__all__ = ["Bfloat16MacSystem", "make_system"]

Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Bfloat16MacSystem:
    """Draws operands."""

    mac: Bfloat16MacSpec

    def near_one(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Integers:
        """Numbers whose sums neither vanish nor saturate, of both signs."""
        return rng.integers(0x3E80, 0x4180, shape) | rng.integers(0, 2, shape) << 15

    def pairs(
        self, rng: np.random.Generator, shape: tuple[int, ...], exponent: int
    ) -> tuple[Integers, Integers]:
        """Pairs whose products have about that exponent field, also out of range."""
        a = rng.integers(0x80, 0x7F80, shape)
        fields = np.clip(exponent + rng.integers(-2, 3, shape) + 127 - (a >> 7), 1, 254)
        signs = rng.integers(0, 2, (2, *shape)) << 15
        return a | signs[0], fields << 7 | rng.integers(0, 128, shape) | signs[1]


def make_system(fields: Mapping[str, Any]) -> Bfloat16MacSystem:
    """System for the fields of a :class:`~golden.bfloat16_mac.Bfloat16MacSpec`."""
    return Bfloat16MacSystem(Bfloat16MacSpec(**fields))
