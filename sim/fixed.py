"""Two's-complement fixed point for the benches; :mod:`golden.fixed` is the model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from golden.element import ElementSpec
from golden.fixed import FixedSpec
from golden.fixed_mac import FixedMacSpec
from sim.system import DecoderSetting, EncoderSetting, Integers, Layer, SingleCodes

__all__ = ["FixedSystem", "make_system"]


#: Bits of a sum that a result is coarser by.
SHIFTS = ("none", "fewer than a code has", "more")


@dataclass(frozen=True)
class FixedSystem(SingleCodes):
    """See :class:`sim.system.System`."""

    mac: FixedMacSpec

    has_ties = True

    def modes(self) -> Mapping[str, Iterable[Any]]:
        """How much of a sum is cut."""
        return {"bits that are cut": SHIFTS}

    def mode(self, layer: Layer) -> Mapping[str, Any]:
        """Cut bits of a layer, against those of a code."""
        exp = layer.weights.operand_exp + layer.activations.operand_exp
        shift = layer.result.operand_exp - exp
        return {"bits that are cut": SHIFTS[(shift > 0) + (shift >= self.mac.bits)]}

    def code_labels(self, spec: ElementSpec) -> Mapping[str, Sequence[Any]]:
        """None: a code has no parts."""
        return {}

    def random_layer(self, rng: np.random.Generator) -> Layer:
        """Any shift that leaves something of a product."""
        bits = self.mac.bits + self.mac.weight_bits
        weights, activations = (int(n) for n in rng.integers(0, self.mac.bits + 1, 2))
        shift = int(rng.integers(0, min(bits + 4, 1 << self.mac.shift_width)))
        return self._layer(weights, activations, weights + activations - shift)

    def pair_layers(self) -> Mapping[str, Layer]:
        """Give the result the unit of the products."""
        frac_bits = self.mac.bits - 1
        return {"codes": self._layer(frac_bits, frac_bits, 2 * frac_bits)}

    def decoder_settings(self) -> Iterator[DecoderSetting]:
        """None: a code is its own operand."""
        return iter(())

    def operand_values(self, operand: Integers) -> Integers:
        """Return the codes: they are operands."""
        return operand

    def encoder_settings(self) -> Iterator[EncoderSetting]:
        """All shifts."""
        result = FixedSpec(bits=self.mac.bits, frac_bits=0)
        for shift in range(1 << self.mac.shift_width):
            yield EncoderSetting({"shift": shift}, result, -shift)

    def _layer(self, weights: int, activations: int, result: int) -> Layer:
        return Layer(
            FixedSpec(bits=self.mac.weight_bits, frac_bits=weights),
            FixedSpec(bits=self.mac.bits, frac_bits=activations),
            FixedSpec(bits=self.mac.bits, frac_bits=result),
        )


def make_system(fields: Mapping[str, Any]) -> FixedSystem:
    """System for the fields of a :class:`~golden.fixed_mac.FixedMacSpec`."""
    return FixedSystem(FixedMacSpec(**fields))
