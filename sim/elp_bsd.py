"""Signed digits for the benches; :mod:`golden.elp_bsd` is the model."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from golden.element import ElementSpec
from golden.elp_bsd import ElpBsdSpec
from golden.elp_bsd_mac import ElpBsdMacSpec
from golden.fixed import FixedSpec
from hdl.requantiser import SHIFT_WIDTH
from sim.system import DecoderSetting, EncoderSetting, Integers, Layer, SingleCodes

__all__ = ["ElpBsdSystem", "make_system"]

#: Multipliers of an encoder: limits, powers of two, which make ties, and others.
MULTS = (0, 1, 3, 1 << 15, 40503, (1 << 16) - 1)


@dataclass(frozen=True)
class ElpBsdSystem(SingleCodes):
    """See :class:`sim.system.System`."""

    mac: ElpBsdMacSpec

    @property
    def has_ties(self) -> bool:
        """Only where the scale of weights is a power of two."""
        return not self.mac.multiplier

    def modes(self) -> Mapping[str, Iterable[Any]]:
        """Give sets of digits, signs of activations and results."""
        return {
            "set": self.mac.sets,
            "sign of activations": (False, True),
            "sign of results": (False, True),
        }

    def mode(self, layer: Layer) -> Mapping[str, Any]:
        """Set and signs of a layer."""
        return {
            "set": str(layer.weights.set),
            "sign of activations": layer.activations.signed,
            "sign of results": layer.result.signed,
        }

    def code_labels(self, spec: ElementSpec) -> Mapping[str, Sequence[Any]]:
        """Digits of weights."""
        return {"digits": spec.code_fields()["digits"]} if isinstance(spec, ElpBsdSpec) else {}

    def random_layer(self, rng: np.random.Generator) -> Layer:
        """Any set, signs and scales; results from far too small to far too large."""
        index = int(rng.integers(len(self.mac.sets)))
        digits = self.mac.digit_sets[index]
        scale = float(rng.uniform(0.01, 10) if self.mac.multiplier else 1 << rng.integers(0, 4))
        largest = self.mac.bits + digits.largest.bit_length()
        frac_bits = int(rng.integers(-4, self.mac.bits + 1))
        steps = int(rng.integers(-4 if self.mac.multiplier else -1, largest))
        signed, result_signed = (bool(flag) for flag in rng.integers(2, size=2))
        return self._layer(
            index, scale, frac_bits, frac_bits - steps - math.frexp(scale)[1], signed, result_signed
        )

    def pair_layers(self) -> Mapping[str, Layer]:
        """Give a signed result the unit of the products."""
        return {
            f"{name} {'signed' if signed else 'unsigned'}": self._layer(
                index, 1.0, 0, 0, signed, True
            )
            for (index, name), signed in itertools.product(enumerate(self.mac.sets), (False, True))
        }

    def decoder_settings(self) -> Iterator[DecoderSetting]:
        """Activations with and without a sign; weights are tried in products only.

        A digit has no value of its own, and no bit set does not mean zero there.
        """
        for signed in (False, True):
            spec = FixedSpec(bits=self.mac.bits, frac_bits=0, signed=signed)
            yield DecoderSetting(
                {"has_sign": int(signed)}, spec, spec.operand_table.astype(np.int64)
            )

    def operand_values(self, operand: Integers) -> Integers:
        """Return decoded activations: they are integers."""
        return operand

    def encoder_settings(self) -> Iterator[EncoderSetting]:
        """All shifts and signs, with some multipliers."""
        mults = MULTS if self.mac.multiplier else (1,)
        for shift, mult, signed in itertools.product(range(1 << SHIFT_WIDTH), mults, (False, True)):
            scaling = {"shift": shift} | ({"mult": mult} if self.mac.multiplier else {})
            yield EncoderSetting(
                scaling | {"has_sign": int(signed)},
                FixedSpec(bits=self.mac.bits, frac_bits=0, signed=signed),
                -shift,
                mult,
            )

    def _layer(
        self,
        index: int,
        scale: float,
        frac_bits: int,
        result_frac_bits: int,
        signed: bool,
        result_signed: bool,
    ) -> Layer:
        return Layer(
            ElpBsdSpec(set=self.mac.digit_sets[index], scale=scale),
            FixedSpec(bits=self.mac.bits, frac_bits=frac_bits, signed=signed),
            FixedSpec(bits=self.mac.bits, frac_bits=result_frac_bits, signed=result_signed),
        )


def make_system(fields: Mapping[str, Any]) -> ElpBsdSystem:
    """System for the fields of an :class:`~golden.elp_bsd_mac.ElpBsdMacSpec`."""
    # JSON has no tuples.
    return ElpBsdSystem(ElpBsdMacSpec(**{**fields, "sets": tuple(fields["sets"])}))
