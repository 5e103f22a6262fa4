"""Tapered fixed point for the benches; :mod:`golden.tapered` is the model."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from golden.element import ElementSpec
from golden.tapered import MAX_SCALE_EXP, MIN_SCALE_EXP, TaperedSpec
from golden.tapered_mac import TaperedMacSpec
from sim.system import DecoderSetting, EncoderSetting, Integers, Layer, SingleCodes

__all__ = ["TaperedSystem", "make_system"]


#: Groups of bins for run limits of weights, activations and results.
LIMITS = ("run limit of weights", "run limit of activations", "run limit of results")


@dataclass(frozen=True)
class TaperedSystem(SingleCodes):
    """See :class:`sim.system.System`."""

    mac: TaperedMacSpec

    has_ties = True

    def modes(self) -> Mapping[str, Iterable[Any]]:
        """Run limits of all three formats."""
        runs = range(self.mac.min_run, self.mac.max_run + 1)
        results = range(1, self.mac.bits + 1)
        return dict(zip(LIMITS, (runs, runs, results), strict=True))

    def mode(self, layer: Layer) -> Mapping[str, Any]:
        """Run limits of a layer."""
        limits = [spec.max_run for spec in layer]
        return dict(zip(LIMITS, limits, strict=True))

    def code_labels(self, spec: ElementSpec) -> Mapping[str, Sequence[Any]]:
        """Lengths of runs."""
        return {"run length": spec.code_fields()["run"]}

    def random_layer(self, rng: np.random.Generator) -> Layer:
        """Any runs that the hardware has, and any scale of the weights."""
        bits = self.mac.bits
        weights, activations = rng.integers(self.mac.min_run, self.mac.max_run + 1, 2)
        return Layer(
            self._spec(weights, rng.integers(MIN_SCALE_EXP, MAX_SCALE_EXP + 1)),
            self._spec(activations, 0),
            self._spec(rng.integers(1, bits + 1), rng.integers(-2, 3)),
        )

    def pair_layers(self) -> Mapping[str, Layer]:
        """Choose the longest runs, the shortest, and one of each."""
        low, high = self.mac.min_run, self.mac.max_run
        runs = {"longest": (high, high), "shortest": (low, low), "mixed": (low, high)}
        if low == high:
            del runs["shortest"], runs["mixed"]
        return {name: self._pair_layer(*pair) for name, pair in runs.items()}

    def _pair_layer(self, weights: int, activations: int) -> Layer:
        # Products are multiples of 4 in units of 2**(2 - 2 * bits), but for factors of IS = 1.
        zeros = 2 - [weights, activations].count(1)
        # IS = 1 is plain fixed point.  The encoder shifts by at most the limit of its scale.
        shift = min(self.mac.bits - 1 - zeros, (1 << self.mac.scale_width - 1) - 1 + 2 - zeros)
        scales = min(shift, 2 * MAX_SCALE_EXP)
        return Layer(
            self._spec(weights, scales // 2),
            self._spec(activations, scales - scales // 2),
            self._spec(1, scales - shift),
        )

    def decoder_settings(self) -> Iterator[DecoderSetting]:
        """All run limits; those outside the runs that were built act as the nearest one inside."""
        codes = np.arange(1 << self.mac.bits)
        for limit in range(1 << self.mac.run_width):
            run = min(max(limit + 1, self.mac.min_run), self.mac.max_run)
            # In units of 2**-(bits - 2); IS = 1 is decoded as IS = 2, twice as large.
            spec = self._spec(run, 0)
            operands = spec.operands(codes)
            yield DecoderSetting(
                {"run_limit": limit}, spec, operands if run == 1 else operands >> 1
            )

    def operand_values(self, operand: Any) -> Integers:
        """Value of the plain integer, or of sign, significand and shift."""
        if self.mac.form == "integer":
            return np.asarray(operand)
        magnitude = operand["significand"] << operand["shift"] * self.mac.shift_step
        return np.where(operand["negative"], -magnitude, magnitude)

    def encoder_settings(self) -> Iterator[EncoderSetting]:
        """All run limits and scales; limits beyond the word act as its length."""
        bits, half = self.mac.bits, 1 << self.mac.scale_width - 1
        limits = range(1 << self.mac.run_width)
        for limit, scale_exp in itertools.product(limits, range(-half, half)):
            yield EncoderSetting(
                {"run_limit": limit, "scale_exp": scale_exp},
                self._spec(min(limit + 1, bits), 0),
                scale_exp - 2 * (bits - 1),
            )

    def _spec(self, max_run: Any, scale_exp: Any) -> TaperedSpec:
        return TaperedSpec(bits=self.mac.bits, max_run=int(max_run), scale_exp=int(scale_exp))


def make_system(fields: Mapping[str, Any]) -> TaperedSystem:
    """System for the fields of a :class:`~golden.tapered_mac.TaperedMacSpec`."""
    return TaperedSystem(TaperedMacSpec(**fields))
