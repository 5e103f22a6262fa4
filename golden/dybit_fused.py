"""Widths and modes of dybit multiply-accumulate hardware that trades precision for speed."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from golden.dybit import DybitSpec, magnitudes
from golden.dybit_mac import result_multiplier
from golden.mac import MacSpec, Operand
from golden.spec import check_int, instance_of

__all__ = ["MODES", "DybitFusedMacSpec", "Mode"]


@dataclass(frozen=True, kw_only=True)
class Mode:
    """What one cycle multiplies.

    Parameters
    ----------
    index : int
        Value of the ports that choose it.
    weight_bits, bits : int
        Bits of the places of codes of weights and activations in a word.
    products : int
        Pairs in a word.
    signed : bool
        Whether activations may have a sign.
    """

    index: int
    weight_bits: int
    bits: int
    products: int
    signed: bool = True

    def place_bits(self, role: Operand) -> int:
        """Bits of the place of one code."""
        return self.weight_bits if role == "weight" else self.bits

    def holds(self, weights: DybitSpec, activations: DybitSpec) -> bool:
        """Whether codes of these formats fit their places."""
        return (
            weights.bits <= self.weight_bits
            and activations.bits <= self.bits
            and (self.signed or not activations.signed)
        )


#: All modes by name, weights x activations.  What is left out does not pay, see docs/dybit.md.
MODES: dict[str, Mode] = {
    "8x8": Mode(index=0, weight_bits=8, bits=8, products=1),
    "4x8": Mode(index=1, weight_bits=4, bits=8, products=2),
    "4x4": Mode(index=2, weight_bits=4, bits=4, products=4),
    "2x2": Mode(index=3, weight_bits=2, bits=2, products=16, signed=False),
}


@dataclass(frozen=True, kw_only=True)
class DybitFusedMacSpec(MacSpec):
    """Exact multiply-accumulate of one product of wide codes a cycle, or of several of narrow ones.

    A word has as many codes as its mode says, which is set at run time, the first code in the
    lowest place (chosen; spec/dybit.md, section 6).  A code of fewer bits than its place takes the
    upper ones, over zeros: for every code that means the number times a power of two.  So 8x8 takes
    weights and activations of 2 to 8 bits, 4x8 weights of 2 to 4, and 4x4 both of 2 to 4 bits.

    Parameters
    ----------
    bits : int
        Bits of a result's place, 8.
    length : int
        Largest number of words in one dot product.
    modes : tuple of str
        Keys of ``MODES`` that the hardware has; 8x8 and 4x4 always are among them.
    """

    stem = "dybit_fused"

    modes: tuple[str, ...] = ("8x8", "4x4", "2x2")

    #: Modes without which there is no hardware.
    required: ClassVar[tuple[str, ...]] = ("8x8", "4x4")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("bits", self.bits, 8, 8)
        instance_of("modes", self.modes, tuple)
        known = set(self.modes) <= MODES.keys() and len(set(self.modes)) == len(self.modes)
        if not known or not set(self.required) <= set(self.modes):
            raise ValueError(
                f"modes must be {' and '.join(self.required)}, and more of {', '.join(MODES)}, "
                f"not {self.modes}"
            )

    def mode(self, weights: DybitSpec, activations: DybitSpec) -> Mode:
        """Fastest mode for codes of these formats."""
        fitting = [MODES[name] for name in self.modes if MODES[name].holds(weights, activations)]
        return max(fitting, key=lambda mode: mode.products)

    def code_bits(self, role: Operand) -> int:
        """Bits of a word."""
        return max(MODES[name].products * MODES[name].place_bits(role) for name in self.modes)

    def operand_max(self, role: Operand) -> int:
        """Magnitude of the largest wide code; a word of narrow ones is less than one of these."""
        return int(magnitudes(self.bits - (role == "weight"))[-1])

    def words(
        self, spec: DybitSpec, codes: npt.NDArray[Any], mode: Mode, role: Operand
    ) -> npt.NDArray[np.uint32]:
        """Words of codes, of which the last axis is cut in words and filled up with zeros.

        Parameters
        ----------
        spec : DybitSpec
            Format of the codes, which must fit their places.
        codes : ndarray of int, shape (..., K)
            Codes.
        mode : Mode
            How many come to a word.
        role : str
            ``"activation"`` or ``"weight"``.

        Returns
        -------
        ndarray of uint32, shape (..., ceil(K / mode.products))

        Raises
        ------
        ValueError
            If the codes are wider than their places.
        """
        place = mode.place_bits(role)
        check_int("spec.bits", spec.bits, 2, place)
        aligned = spec.checked_codes(codes).astype(np.uint32) << np.uint32(place - spec.bits)
        fill = [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % mode.products)]
        lanes = np.pad(aligned, fill).reshape(*codes.shape[:-1], -1, mode.products)
        shifts = np.arange(mode.products, dtype=np.uint32) * np.uint32(place)
        words: npt.NDArray[np.uint32] = np.bitwise_or.reduce(lanes << shifts, axis=-1)
        return words

    @property
    def label(self) -> str:
        """Parameters of the units, as they appear in module names."""
        return "m" + "_".join(name for name in MODES if name in self.modes)

    def settings(
        self, weights: DybitSpec, activations: DybitSpec, result: DybitSpec
    ) -> dict[str, int]:
        """Run-time settings of a layer by port of the array, for its fastest mode."""
        for name, spec in (("weights", weights), ("activations", activations), ("result", result)):
            if not isinstance(spec, DybitSpec):
                raise TypeError(f"{name} must be a DybitSpec, not {spec!r}")
            check_int(f"{name}.bits", spec.bits, 2, self.bits)
        if not weights.signed:
            raise ValueError("weights.signed must be True, not False")
        mode = self.mode(weights, activations)
        multiplier = result_multiplier(weights, activations, result)
        # The encoder wants results in half units of the widest code, which has more bits.
        drop = self.bits - result.width
        shift = multiplier.shift + self.sum_shift(weights, activations) + 1 - drop
        if shift < 0:
            raise ValueError(
                f"scale of the result must be above the sum's last place, not {result.scale}"
            )
        return {
            "activation_mode": mode.index,
            "weight_mode": mode.index,
            "activation_has_sign": int(activations.signed),
            "result_mult": multiplier.mult,
            "result_shift": shift,
            "result_drop": drop,
            "result_has_sign": int(result.signed),
        }

    def sum_shift(self, weights: DybitSpec, activations: DybitSpec) -> int:
        """Bits that codes are short of unsigned activations and signed weights of their places."""
        mode = self.mode(weights, activations)
        return mode.bits - activations.width + mode.weight_bits - weights.bits
