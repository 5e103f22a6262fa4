"""Widths of tapered fixed-point multiply-accumulate hardware."""

from dataclasses import dataclass

from golden.mac import MacSpec, Operand, check_format
from golden.spec import check_int
from golden.tapered import TaperedFormat, TaperedSpec

__all__ = ["TaperedMacSpec"]


@dataclass(frozen=True, kw_only=True)
class TaperedMacSpec(MacSpec):
    """Exact multiply-accumulate of tapered codes, for any longest run IS in a range.

    Operands are in units of 2**-(bits - 2), the smallest positive value for IS >= 2.  IS = 1 needs
    one bit more, but its codes are those of IS = 2 with a scale exponent one less, and so the
    hardware treats them (spec/tapered.md, section 1; the use made of it is chosen).

    Parameters
    ----------
    bits : int
        Bits of a code, 3 to 16.
    length : int
        Largest number of products in one dot product.
    min_run, max_run : int
        Smallest and largest IS that can be set at run time, 1 to ``bits``.  From ``min_run`` 4
        on every value has at most ``bits - 2`` significant bits, one less than below.
    form : str
        Form of a decoded operand.  ``"significand"``: sign, significand and shift.  ``"even"``: the
        same with one bit more, and shifts by an even number of bits.  ``"integer"``: two's
        complement.
    """

    min_run: int = 1
    max_run: int = 8
    form: str = "significand"

    stem = "tapered"

    #: A bias is in units of 2**(-2 * (bits - 1)) before the scale (spec/tapered.md, section 3).
    bias_fraction_bits = 2

    @classmethod
    def for_format(cls, form: TaperedFormat, length: int) -> "TaperedMacSpec":
        """Hardware for every spec that ``form`` can be fitted to."""
        low, high = form.runs or (1, form.bits)
        if form.max_run is not None:
            low = high = form.max_run
        # Fewer shifts take less energy than the wider multiplier costs, where values are so short.
        operand = "even" if low >= 4 else "significand"
        return cls(bits=form.bits, length=length, min_run=low, max_run=high, form=operand)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("bits", self.bits, 3, 16)
        check_int("min_run", self.min_run, 1, self.bits)
        check_int("max_run", self.max_run, self.min_run, self.bits)
        if self.form not in ("significand", "even", "integer"):
            raise ValueError(f"form must be 'significand', 'even' or 'integer', not {self.form!r}")

    @property
    def max_run_limit(self) -> int:
        """Largest IS, minus one, with IS = 1 treated as IS = 2."""
        return max(self.max_run, 2) - 1

    def operand_max(self, role: Operand = "weight") -> int:
        """Magnitude of the most negative code, in units of 2**-(bits - 2)."""
        return max(self.max_run, 2) << self.bits - 2

    @property
    def operand_width(self) -> int:
        """Bits of a decoded operand."""
        if self.form == "integer":
            return (self.operand_max() - 1).bit_length() + 1
        return self.significand_width + self.shift_width + 1

    @property
    def significand_width(self) -> int:
        """Bits of the significand, an unsigned integer."""
        shortest = self.bits - 2 if self.min_run >= 4 else self.bits - 1
        return shortest + self.shift_step - 1

    @property
    def shift_step(self) -> int:
        """Bits that one step of an operand's shift stands for."""
        return 2 if self.form == "even" else 1

    def shift_of(self, integer: int) -> int:
        """Give the steps by which a magnitude with this integer part is shifted, so that it fits.

        What is shifted out is zero, because larger values have fewer significant bits.  One bit
        more of significand leaves room for the bit that a step of two shifts too far.
        """
        spare = self.significand_width - (self.bits - 2)
        return -(-max(integer.bit_length() - spare, 0) // self.shift_step)

    @property
    def max_shift(self) -> int:
        """Largest steps of the shift of an operand: those of the most negative code."""
        return self.shift_of(self.max_run_limit + 1)

    @property
    def shift_width(self) -> int:
        """Bits of an operand's shift."""
        return self.max_shift.bit_length()

    @property
    def run_width(self) -> int:
        """Bits of a run setting, which holds IS - 1 (chosen)."""
        return (self.bits - 1).bit_length()

    @property
    def scale_width(self) -> int:
        """Bits of the encoder's scale exponent, two's complement.

        SC of the weights is -4..3 (spec/tapered.md, section 1), less one for each operand with
        IS = 1: -6..3 fits 4 bits.
        """
        return 4

    @property
    def label(self) -> str:
        """Parameters of the units, as they appear in module names."""
        form = "" if self.form == "significand" else f"_{self.form}"
        return f"b{self.bits}_r{self.min_run}to{self.max_run}{form}"

    def settings(
        self, weights: TaperedSpec, activations: TaperedSpec, result: TaperedSpec
    ) -> dict[str, int]:
        """Run-time settings of a layer by port of the array."""
        for name, spec in (("weights", weights), ("activations", activations), ("result", result)):
            check_format(name, spec, TaperedSpec, self.bits)
        for name, spec in (("weights", weights), ("activations", activations)):
            if not self.min_run <= spec.max_run <= self.max_run:
                raise ValueError(
                    f"{name}.max_run must be between {self.min_run} and {self.max_run}, "
                    f"not {spec.max_run}"
                )
        limit = 1 << self.scale_width - 1
        scale_exp = weights.scale_exp + activations.scale_exp - result.scale_exp
        scale_exp -= self.sum_shift(weights, activations)
        if not -limit <= scale_exp < limit:
            raise ValueError(
                f"scale_exp of weights and activations less that of the result must be between "
                f"{-limit} and {limit - 1}, not {scale_exp}"
            )
        return {
            "activation_run_limit": activations.max_run - 1,
            "weight_run_limit": weights.max_run - 1,
            "result_run_limit": result.max_run - 1,
            "result_scale_exp": scale_exp,
        }

    def sum_shift(self, weights: TaperedSpec, activations: TaperedSpec) -> int:
        """One for each operand with IS = 1, which is decoded to twice its value."""
        return (weights.max_run == 1) + (activations.max_run == 1)
