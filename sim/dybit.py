"""Dybit for the benches; :mod:`golden.dybit` is the model."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from golden.dybit import DybitSpec
from golden.dybit_mac import DybitMacSpec
from golden.element import ElementSpec
from hdl.requantiser import SHIFT_WIDTH
from sim.system import DecoderSetting, EncoderSetting, Integers, Layer, SingleCodes

__all__ = ["DybitSystem", "make_system"]

#: Multipliers of an encoder: limits, powers of two, which make ties, and others.
MULTS = (0, 1, 3, 1 << 15, 40503, (1 << 16) - 1)


@dataclass(frozen=True)
class DybitSystem(SingleCodes):
    """See :class:`sim.system.System`."""

    mac: DybitMacSpec

    # Scales are any numbers.
    has_ties = False

    def modes(self) -> Mapping[str, Iterable[Any]]:
        """Signs of activations and results."""
        return dict.fromkeys(("sign of activations", "sign of results"), (False, True))

    def mode(self, layer: Layer) -> Mapping[str, Any]:
        """Whether activations and results of a layer have a sign."""
        return {
            "sign of activations": layer.activations.signed,
            "sign of results": layer.result.signed,
        }

    def code_labels(self, spec: ElementSpec) -> Mapping[str, Sequence[Any]]:
        """Shifts of significands, which grow with the leading ones."""
        return {"shift": spec.code_fields()["shift"]}

    def random_layer(self, rng: np.random.Generator) -> Layer:
        """Any signs and scales; results from far too small to far too large."""
        weights, activations = (float(scale) for scale in rng.uniform(0.01, 10, 2))
        ratio = math.ldexp(float(rng.uniform(1, 2)), int(rng.integers(-4, 2 * self.mac.bits)))
        signs = rng.integers(2, size=2)
        return self._layer(weights, activations, weights * activations * ratio, *signs)

    def pair_layers(self) -> Mapping[str, Layer]:
        """Give a signed result the unit of the products; its small codes count them."""
        return {
            name: self._layer(
                self._unit(self.mac.weight_bits - 1),
                self._unit(self.mac.bits - signed),
                self._unit(self.mac.bits - 1),
                signed,
                True,
            )
            for name, signed in (("unsigned", False), ("signed", True))
        }

    @staticmethod
    def _unit(width: int) -> float:
        """Scale that makes the last place of a code 1."""
        return math.ldexp(1.0, width - 1)

    def decoder_settings(self) -> Iterator[DecoderSetting]:
        """Weights, and activations with and without a sign in units of a code without one."""
        weights = DybitSpec(bits=self.mac.weight_bits)
        yield DecoderSetting({}, weights, weights.operand_table.astype(np.int64))
        for signed in (False, True):
            spec = DybitSpec(bits=self.mac.bits, signed=signed)
            operands = spec.operand_table.astype(np.int64) << signed
            yield DecoderSetting({"has_sign": int(signed)}, spec, operands)

    def operand_values(self, operand: Any) -> Integers:
        """Value of sign, significand and shift."""
        magnitude = operand["significand"] << operand["shift"]
        return np.where(operand["negative"], -magnitude, magnitude)

    def encoder_settings(self) -> Iterator[EncoderSetting]:
        """All shifts and signs, with some multipliers."""
        for shift, mult, signed in itertools.product(range(1 << SHIFT_WIDTH), MULTS, (False, True)):
            yield EncoderSetting(
                {"shift": shift, "mult": mult, "has_sign": int(signed)},
                DybitSpec(
                    bits=self.mac.bits, signed=signed, scale=self._unit(self.mac.bits - signed)
                ),
                (not signed) - shift,
                mult,
            )

    def _layer(
        self, weights: float, activations: float, result: float, signed: Any, result_signed: Any
    ) -> Layer:
        return Layer(
            DybitSpec(bits=self.mac.weight_bits, scale=weights),
            DybitSpec(bits=self.mac.bits, signed=bool(signed), scale=activations),
            DybitSpec(bits=self.mac.bits, signed=bool(result_signed), scale=result),
        )


def make_system(fields: Mapping[str, Any]) -> DybitSystem:
    """System for the fields of a :class:`~golden.dybit_mac.DybitMacSpec`."""
    return DybitSystem(DybitMacSpec(**fields))
