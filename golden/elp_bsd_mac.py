"""Widths of multiply-accumulate hardware for signed digits."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from golden.dot import accumulator_unit
from golden.elp_bsd import DigitSet, ElpBsdFormat, ElpBsdSpec
from golden.fixed import FixedSpec
from golden.mac import ROLES, MacSpec, Operand, check_format
from golden.requantiser import Multiplier
from golden.spec import check_int

__all__ = ["ElpBsdMacSpec"]

#: Largest shift of an encoder: more leaves nothing of any sum.
MAX_SHIFT = 63


@dataclass(frozen=True, kw_only=True)
class ElpBsdMacSpec(MacSpec):
    """Exact multiply-accumulate of signed-digit weights with fixed-point activations.

    Whether activations and results are signed is set at run time, and so is the digit set of the
    weights where there are several to choose from.

    Parameters
    ----------
    bits : int
        Bits of a code of an activation or a result, 2 to 16.
    length : int
        Largest number of products in one dot product.
    sets : tuple of str
        Digit sets of weights, as :meth:`golden.elp_bsd.DigitSet.parse` reads them; all of the same
        number of bits.
    multiplier : bool
        Whether results are scaled by any real number, or by powers of two alone.
    """

    stem = "elp_bsd"

    #: Codes travel: a weight's bits nearly are its operand, and an activation is extended by a
    #: gate, which is smaller than the flip-flop of the bit that it adds.
    decoded_in_elements: ClassVar[tuple[Operand, ...]] = ROLES

    #: A weight of which no bit is set is some level, and not every set has a zero.
    zero_operands: ClassVar[tuple[Operand, ...]] = ("activation",)

    sets: tuple[str, ...] = ("E4-2",)
    multiplier: bool = True

    @classmethod
    def for_format(cls, form: ElpBsdFormat, length: int) -> "ElpBsdMacSpec":
        """Hardware for every spec that ``form`` can be fitted to."""
        bits = 8 if form.act_bits is None else form.act_bits
        sets = tuple(map(str, form.sets))
        return cls(bits=bits, length=length, sets=sets, multiplier=not form.scale_pow2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("bits", self.bits, 2, 16)
        if not isinstance(self.sets, tuple) or not all(isinstance(text, str) for text in self.sets):
            raise TypeError(f"sets must be a tuple of str, not {self.sets!r}")
        if not self.sets:
            raise ValueError("sets must name at least one digit set, not none")
        for digits in self.digit_sets:
            if digits.bits != self.digit_sets[0].bits:
                raise ValueError(f"sets must have the same bits, not {', '.join(self.sets)}")
        if len(set(self.digit_sets)) != len(self.sets):
            raise ValueError(f"sets must be different, not {', '.join(self.sets)}")
        if not isinstance(self.multiplier, bool):
            raise TypeError(f"multiplier must be a bool, not {self.multiplier!r}")

    @cached_property
    def digit_sets(self) -> tuple[DigitSet, ...]:
        """The sets that ``sets`` names."""
        return tuple(map(DigitSet.parse, self.sets))

    @property
    def set_width(self) -> int:
        """Bits of the setting that selects a set; 0 with one set."""
        return (len(self.sets) - 1).bit_length()

    def code_bits(self, role: Operand) -> int:
        """Bits of the code of an operand."""
        return self.digit_sets[0].bits if role == "weight" else self.bits

    def operand_max(self, role: Operand) -> int:
        """Largest unsigned activation, or largest level of a weight."""
        if role == "activation":
            return (1 << self.bits) - 1
        return max(digits.largest for digits in self.digit_sets)

    @property
    def label(self) -> str:
        """Parameters of the units, as they appear in module names."""
        names = [text.lower().replace("-", "_").replace("/", "_") for text in self.sets]
        return "_".join([f"b{self.bits}", *names]) + "_shift" * (not self.multiplier)

    def settings(
        self, weights: ElpBsdSpec, activations: FixedSpec, result: FixedSpec
    ) -> dict[str, int]:
        """Run-time settings of a layer by port of the array."""
        check_format("weights", weights, ElpBsdSpec, self.code_bits("weight"))
        check_format("activations", activations, FixedSpec, self.bits)
        check_format("result", result, FixedSpec, self.bits)
        if weights.set not in self.digit_sets:
            raise ValueError(f"weights.set must be {' or '.join(self.sets)}, not {weights.set}")
        chosen = {"weight_set": self.digit_sets.index(weights.set)} if self.set_width else {}
        unit = accumulator_unit(weights, activations) / result.operand_unit
        return (
            chosen
            | {
                "activation_has_sign": int(activations.signed),
                "result_has_sign": int(result.signed),
            }
            | (_scaling(unit) if self.multiplier else _shift(unit))
        )


def _scaling(unit: float) -> dict[str, int]:
    """Set an encoder for sums whose unit is ``unit`` units of the result."""
    try:
        multiplier = Multiplier.of(unit)
    except ValueError:
        raise ValueError(
            f"scales of weights and activations must be below 65535.5 units of the result, "
            f"not {unit} for each unit of the sum"
        ) from None
    return {"result_mult": multiplier.mult, "result_shift": multiplier.shift}


def _shift(unit: float) -> dict[str, int]:
    """Set an encoder without a multiplier in the same way."""
    fraction, exp = math.frexp(unit)
    shift = 1 - exp
    if fraction != 0.5 or not 0 <= shift <= MAX_SHIFT:
        raise ValueError(
            f"scales of weights and activations must make 2**-{MAX_SHIFT} to 1 units of the "
            f"result, a power of two, not {unit} for each unit of the sum"
        )
    return {"result_shift": shift}
