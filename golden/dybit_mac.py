"""Widths of dybit multiply-accumulate hardware."""

from dataclasses import dataclass
from typing import cast

from golden.dot import accumulator_unit
from golden.dybit import DybitFormat, DybitSpec, magnitudes
from golden.mac import MacSpec, Operand, check_format
from golden.requantiser import Multiplier
from golden.spec import check_int

__all__ = ["DybitMacSpec", "result_multiplier"]


def result_multiplier(weights: DybitSpec, activations: DybitSpec, result: DybitSpec) -> Multiplier:
    """Units of the result that the golden accumulator 1 is worth."""
    unit = accumulator_unit(weights, activations) / result.operand_unit
    try:
        return Multiplier.of(unit)
    except ValueError:
        raise ValueError(
            f"scales of weights and activations must be below 65535.5 units of the result, "
            f"not {unit} for each unit of the sum"
        ) from None


@dataclass(frozen=True, kw_only=True)
class DybitMacSpec(MacSpec):
    """Exact multiply-accumulate of dybit codes.

    Weights are signed; whether activations and results are is set at run time.  A signed code of
    ``bits`` bits is read as an unsigned one: its magnitude with a zero appended means twice the
    number (chosen; it holds for every code).  So an operand of an activation is always in units of
    an unsigned code's last place, and the sums of signed activations are twice those of the golden
    model.

    Parameters
    ----------
    bits : int
        Bits of a code of an activation or a result, 2 to 8.
    length : int
        Largest number of products in one dot product.
    weight_bits : int
        Bits of a code of a weight, 2 to 8.  Default: ``bits``.
    table : bool
        Whether decoders of magnitudes of at most 4 bits are tables.
    """

    stem = "dybit"

    weight_bits: int = cast(int, None)  # replaced as soon as bits is known to be good
    table: bool = True

    @classmethod
    def for_format(cls, form: DybitFormat, length: int) -> "DybitMacSpec":
        """Hardware for every spec that ``form`` can be fitted to; ValueError if it is unsigned."""
        if form.signed is False:
            raise ValueError(
                f"signed must be yes for multiply-accumulate hardware, not no in {form}"
            )
        return cls(bits=form.bits, length=length, weight_bits=form.weight_bits or form.bits)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("bits", self.bits, 2, 8)
        if self.weight_bits is None:
            object.__setattr__(self, "weight_bits", self.bits)
        check_int("weight_bits", self.weight_bits, 2, 8)
        if not isinstance(self.table, bool):
            raise TypeError(f"table must be a bool, not {self.table!r}")

    def code_bits(self, role: Operand) -> int:
        """Bits of the code of an operand."""
        return self.weight_bits if role == "weight" else self.bits

    def magnitude_bits(self, role: Operand) -> int:
        """Bits of the magnitude that a decoder reads, m of the specification."""
        return self.weight_bits - 1 if role == "weight" else self.bits

    def significand_bits(self, role: Operand) -> int:
        """Bits of a decoded significand."""
        return max(self.magnitude_bits(role) - 1, 1)

    def max_shift(self, role: Operand) -> int:
        """Largest shift of a decoded significand; 0 for magnitudes of one bit."""
        width = self.magnitude_bits(role)
        return width if width > 1 else 0

    def operand_max(self, role: Operand) -> int:
        """Magnitude of the largest code: 2**(2 * m - 2)."""
        return int(magnitudes(self.magnitude_bits(role))[-1])

    @property
    def label(self) -> str:
        """Parameters of the units, as they appear in module names."""
        weights = "" if self.weight_bits == self.bits else f"w{self.weight_bits}"
        form = "" if self.table else "_shifter"
        return f"b{self.bits}{weights}{form}"

    def settings(
        self, weights: DybitSpec, activations: DybitSpec, result: DybitSpec
    ) -> dict[str, int]:
        """Run-time settings of a layer by port of the array."""
        for name, spec in (("weights", weights), ("activations", activations), ("result", result)):
            bits = self.weight_bits if name == "weights" else self.bits
            check_format(name, spec, DybitSpec, bits)
        if not weights.signed:
            raise ValueError("weights.signed must be True, not False")
        multiplier = result_multiplier(weights, activations, result)
        # The sum of signed activations is twice as large.  The encoder wants results in half units
        # of an unsigned code, of which a unit of a signed one is two more.
        shift = multiplier.shift + self.sum_shift(weights, activations) + (not result.signed)
        return {
            "activation_has_sign": int(activations.signed),
            "result_has_sign": int(result.signed),
            "result_mult": multiplier.mult,
            "result_shift": shift,
        }

    def sum_shift(self, weights: DybitSpec, activations: DybitSpec) -> int:
        """One for signed activations, which are decoded to twice their value."""
        return int(activations.signed)
