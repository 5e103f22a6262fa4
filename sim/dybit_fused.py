"""The fused multiplier of dybit for the benches; :mod:`golden.dybit` is the model."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from golden.dybit import DybitSpec
from golden.dybit_fused import MODES, DybitFusedMacSpec, Mode
from golden.element import ElementSpec
from golden.mac import Operand
from sim.system import EncoderSetting, Integers, Layer

__all__ = ["DybitFusedSystem", "make_system"]

#: Most bits of a result.
RESULT_BITS = 8

#: Shifts from here on share a bin.
MANY = 5


@dataclass(frozen=True)
class DybitFusedSystem:
    """See :class:`sim.system.System`."""

    mac: DybitFusedMacSpec

    # Scales are any numbers.
    has_ties = False

    def modes(self) -> Mapping[str, Iterable[Any]]:
        """Modes, and signs of activations in each; signs and widths of results."""
        signs = [
            f"{name}, {'signed' if signed else 'unsigned'}"
            for name in self.mac.modes
            for signed in (False, True)
            if MODES[name].signed or not signed
        ]
        return {
            "mode": signs,
            "sign of results": (False, True),
            "bits of results": range(2, RESULT_BITS + 1),
        }

    def mode(self, layer: Layer) -> Mapping[str, Any]:
        """Fastest mode of a layer, and whether activations and results have a sign."""
        mode = self._mode(layer)
        (name,) = (name for name, each in MODES.items() if each == mode)
        sign = "signed" if layer.activations.signed else "unsigned"
        return {
            "mode": f"{name}, {sign}",
            "sign of results": layer.result.signed,
            "bits of results": layer.result.bits,
        }

    def code_labels(self, spec: ElementSpec) -> Mapping[str, Sequence[Any]]:
        """Shifts of significands, which grow with the leading ones; few codes have large ones."""
        return {"shift": np.minimum(spec.code_fields()["shift"], MANY).tolist()}

    def random_layer(self, rng: np.random.Generator) -> Layer:
        """Any mode with any widths that fit it, any signs and scales."""
        mode = MODES[str(rng.choice(self.mac.modes))]
        # Half of them fill their places.
        weight_bits, bits = (
            place if rng.random() < 0.5 else int(rng.integers(2, place + 1))
            for place in (mode.weight_bits, mode.bits)
        )
        signed = mode.signed and bool(rng.integers(2))
        result_bits = int(rng.integers(2, RESULT_BITS + 1))
        weights, activations = (float(scale) for scale in rng.uniform(0.01, 10, 2))
        # From results far too small to far too large, but no finer than a sum.
        ratio = math.ldexp(
            float(rng.uniform(1, 2)), int(rng.integers(-2, weight_bits + bits))
        ) * math.ldexp(1.0, result_bits - weight_bits - bits + 2)
        return Layer(
            DybitSpec(bits=weight_bits, scale=weights),
            DybitSpec(bits=bits, signed=signed, scale=activations),
            DybitSpec(
                bits=result_bits,
                signed=bool(rng.integers(2)),
                scale=float(weights * activations * ratio),
            ),
        )

    def pair_layers(self) -> Mapping[str, Layer]:
        """All widths of places; the small codes of a signed result count the products."""
        return {
            f"{name}, {'signed' if signed else 'unsigned'}": self._pair_layer(mode, signed)
            for name in self.mac.modes
            for mode in [MODES[name]]
            for signed in (False, True)
            if mode.signed or not signed
        }

    def _pair_layer(self, mode: Mode, signed: bool) -> Layer:
        return Layer(
            DybitSpec(bits=mode.weight_bits, scale=_unit(mode.weight_bits - 1)),
            DybitSpec(bits=mode.bits, signed=signed, scale=_unit(mode.bits - signed)),
            DybitSpec(bits=RESULT_BITS, scale=_unit(RESULT_BITS - 1)),
        )

    def encoder_settings(self) -> Iterator[EncoderSetting]:
        """None: results have any width, over zeros."""
        return iter(())

    def code_bits(self, layer: Layer, role: Operand) -> int:
        """Bits of the layer's own codes."""
        return layer.weights.bits if role == "weight" else layer.activations.bits

    def products(self, layer: Layer) -> int:
        """Pairs in a word of the layer's mode."""
        return self._mode(layer).products

    def words(self, layer: Layer, role: Operand, codes: Integers) -> Integers:
        """Words of the layer's mode."""
        spec = layer.weights if role == "weight" else layer.activations
        words = self.mac.words(spec, np.asarray(codes), self._mode(layer), role)
        return words.astype(np.int64)

    def codes(self, layer: Layer, words: Integers) -> Integers:
        """Upper bits of the places of results; AssertionError if there are others below them."""
        below = RESULT_BITS - layer.result.bits
        if np.any(words & (1 << below) - 1):
            raise AssertionError(f"results must be over {below} zeros, not {words}, {layer}")
        return words >> below

    def _mode(self, layer: Layer) -> Mode:
        return self.mac.mode(layer.weights, layer.activations)


def _unit(width: int) -> float:
    """Scale that makes the last place of a code 1."""
    return math.ldexp(1.0, width - 1)


def make_system(fields: Mapping[str, Any]) -> DybitFusedSystem:
    """System for the fields of a :class:`~golden.dybit_fused.DybitFusedMacSpec`."""
    return DybitFusedSystem(DybitFusedMacSpec(**{**fields, "modes": tuple(fields["modes"])}))
