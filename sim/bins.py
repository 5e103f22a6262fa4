"""Bins of the number systems in which each element is coded by itself.

What a code is comes from the operands and :meth:`golden.element.ElementSpec.code_fields` of the
golden model, what becomes of a sum from its exact value and the values next to it.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.element import ElementSpec, ScaledSpec
from sim.coverage import Coverage
from sim.system import Integers, Layer, System, scaling

__all__ = ["ElementBins"]

#: What can become of an exact sum when it is encoded, besides nothing worth a bin.
TIES = ("tie, rounded up", "tie, rounded down")
RESULTS = ("below all values", "above all values", "zero", *TIES)

#: ReLU, and bias.
RELU = ("clears a negative sum", "keeps a positive sum", "off for a negative sum")
BIAS = ("negative", "positive", "turns the sign")

#: Signs of both operands of a product.
SIGNS = {-1: "negative", 0: "zero", 1: "positive"}

#: Beyond any shift of an int64.
WIDEST = 62


class ElementBins:
    """Counts what a bench has compared.

    Parameters
    ----------
    coverage : Coverage
        Where the groups are.
    system : System
        Number system of the design.
    """

    def __init__(self, coverage: Coverage, system: System):
        self.coverage = coverage
        self.system = system

    def declare_codes(self, name: str, specs: Iterable[ElementSpec]) -> None:
        """Bins of the codes of some formats: sign and limits, and what the number system has."""
        for spec in specs:
            for group, labels in self._labels(spec).items():
                self.coverage.declare(f"{group} of {name}", np.unique(labels).tolist())

    def count_codes(self, name: str, spec: ElementSpec, codes: Integers) -> None:
        """Count codes of any shape."""
        for group, labels in self._labels(spec).items():
            self.coverage.count(f"{group} of {name}", labels[np.asarray(codes, np.int64)])

    def _labels(self, spec: ElementSpec) -> Mapping[str, npt.NDArray[Any]]:
        # The scale of a format says nothing of its codes.
        plain = replace(spec, scale=1.0) if isinstance(spec, ScaledSpec) else spec
        return _labels(self.system, plain)

    def declare_layers(self) -> None:
        """Bins of operands, modes, bias, ReLU and results of dot products."""
        mac, layers = self.system.mac, list(self.system.pair_layers().values())
        for role, specs in (
            ("weight", [layer.weights for layer in layers]),
            ("activation", [layer.activations for layer in layers]),
        ):
            self.declare_codes(role, specs)
        self.coverage.declare(
            "signs of operands",
            [
                label
                for layer in layers
                for label in _signs(
                    np.unique(np.sign(layer.activations.operand_table))[:, None],
                    np.unique(np.sign(layer.weights.operand_table)),
                ).ravel()
            ],
        )
        for group, modes in self.system.modes().items():
            self.coverage.declare(group, modes)
        self.coverage.declare("relu", RELU)
        if mac.length > 1:
            self.coverage.declare("bias", BIAS)
        self.declare_results(has_ties=self.system.has_ties)

    def count_layer(
        self,
        layer: Layer,
        activations: Integers,
        weights: Integers,
        *,
        sums: Integers,
        bias_q: Any,
        relu: bool,
        expected: Integers,
    ) -> None:
        """Count dot products.

        Parameters
        ----------
        layer : Layer
            Formats.
        activations, weights : ndarray of int
            Codes of equal or broadcast shape, product by product.
        sums : ndarray of int64
            Exact, with biases, in units of the golden accumulator.
        bias_q : array_like of int
            In the same units, of the shape of ``sums`` or broadcast to it.
        relu : bool
            Whether negative sums become 0.
        expected : ndarray of int
            Codes of the results, of the shape of ``sums``.
        """
        cover = self.coverage
        self.count_codes("weight", layer.weights, weights)
        self.count_codes("activation", layer.activations, activations)
        cover.count(
            "signs of operands",
            _signs(layer.activations.operands(activations), layer.weights.operands(weights)),
        )
        for group, mode in self.system.mode(layer).items():
            cover.count(group, [mode])
        clears, keeps, off = sums < 0, sums > 0, sums < 0
        if relu:
            cover.mark("relu", {RELU[0]: clears, RELU[1]: keeps})
        else:
            cover.mark("relu", {RELU[2]: off})
        if self.system.mac.length > 1:
            bias = np.broadcast_to(np.asarray(bias_q), sums.shape)
            turns = np.sign(sums) * np.sign(sums - bias) < 0
            cover.mark("bias", dict(zip(BIAS, (bias < 0, bias > 0, turns), strict=True)))
        if not relu:
            mult, exponent = scaling(layer)
            self.count_results(layer.result, sums * mult, exponent, expected)

    def declare_results(self, *, has_ties: bool) -> None:
        """Bins of what becomes of sums; ties only where sums come to lie on them."""
        wanted = [name for name in RESULTS if has_ties or name not in TIES]
        self.coverage.declare("result", wanted)

    def count_results(
        self, result: ElementSpec, integers: Integers, exponent: int, expected: Integers
    ) -> None:
        """Count results: exact values are ``integers * 2**exponent`` operands of ``result``."""
        operands = result.operand_table.astype(np.int64)
        values = np.unique(operands)
        # In half operands, of which every value half-way between two values is a multiple.
        doubled, is_exact = _shifted(integers, exponent + 1, 4 * int(np.abs(values).max()))
        tie = is_exact & np.isin(doubled, values[1:] + values[:-1])
        got = 2 * operands[np.asarray(expected, np.int64)]
        masks = {
            "below all values": doubled < 2 * values[0],
            "above all values": (doubled > 2 * values[-1])
            | (doubled == 2 * values[-1]) & ~is_exact,
            "zero": is_exact & (doubled == 0),
            "tie, rounded up": tie & (got > doubled),
            "tie, rounded down": tie & (got < doubled),
        }
        known = self.coverage.counts["result"]
        self.coverage.mark("result", {name: masks[name] for name in known})


@functools.lru_cache(maxsize=64)
def _labels(system: System, spec: ElementSpec) -> Mapping[str, npt.NDArray[Any]]:
    """Bins of all codes of a format, by group."""
    operands = spec.operand_table
    signs = np.array(list(SIGNS.values()))[np.sign(operands).astype(int) + 1]
    signs = np.where(operands == operands.max(), "largest", signs)
    signs = np.where(operands == operands.min(), "smallest", signs) if operands.min() else signs
    further = {name: np.array(labels) for name, labels in system.code_labels(spec).items()}
    return {"sign": signs, **further}


def _signs(activations: Integers, weights: Integers) -> npt.NDArray[Any]:
    """Signs of both operands of products, such as ``negative x zero``."""
    names = np.array([[f"{SIGNS[a]} x {SIGNS[w]}" for w in (-1, 0, 1)] for a in (-1, 0, 1)])
    return names[np.sign(activations) + 1, np.sign(weights) + 1]


def _shifted(
    integers: Integers, shift: int, bound: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """``integers * 2**shift`` rounded down, and whether it is exact; beyond ``bound``, any such."""
    integers = np.asarray(integers, np.int64)
    if shift >= 0:
        limit = (bound >> min(shift, WIDEST)) + 1
        return np.clip(integers, -limit, limit) << min(shift, WIDEST), np.ones(integers.shape, bool)
    down = min(-shift, WIDEST)
    shifted = integers >> down
    return shifted, shifted << down == integers
