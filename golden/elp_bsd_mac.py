"""Widths of multiply-accumulate hardware for signed digits."""

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
    """

    stem = "elp_bsd"

    #: Codes travel: a weight's bits nearly are its operand, and an activation is extended by a
    #: gate, which is smaller than the flip-flop of the bit that it adds.
    decoded_in_elements: ClassVar[tuple[Operand, ...]] = ROLES

    #: A weight of which no bit is set is some level, and not every set has a zero.
    zero_operands: ClassVar[tuple[Operand, ...]] = ("activation",)

    sets: tuple[str, ...] = ("E4-2",)

    @classmethod
    def for_format(cls, form: ElpBsdFormat, length: int) -> "ElpBsdMacSpec":
        """Hardware for every spec that ``form`` can be fitted to."""
        bits = 8 if form.act_bits is None else form.act_bits
        return cls(bits=bits, length=length, sets=tuple(map(str, form.sets)))

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
        return "_".join([f"b{self.bits}", *names])

    def settings(
        self, weights: ElpBsdSpec, activations: FixedSpec, result: FixedSpec
    ) -> dict[str, int]:
        """Run-time settings of a layer by port of the array."""
        check_format("weights", weights, ElpBsdSpec, self.code_bits("weight"))
        check_format("activations", activations, FixedSpec, self.bits)
        check_format("result", result, FixedSpec, self.bits)
        if weights.set not in self.digit_sets:
            raise ValueError(f"weights.set must be {' or '.join(self.sets)}, not {weights.set}")
        unit = accumulator_unit(weights, activations) / result.operand_unit
        try:
            multiplier = Multiplier.of(unit)
        except ValueError:
            raise ValueError(
                f"scales of weights and activations must be below 65535.5 units of the result, "
                f"not {unit} for each unit of the sum"
            ) from None
        chosen = {"weight_set": self.digit_sets.index(weights.set)} if self.set_width else {}
        return chosen | {
            "activation_has_sign": int(activations.signed),
            "result_has_sign": int(result.signed),
            "result_mult": multiplier.mult,
            "result_shift": multiplier.shift,
        }
