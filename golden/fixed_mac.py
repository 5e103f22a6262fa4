"""Widths of fixed-point multiply-accumulate hardware."""

from dataclasses import dataclass

from golden.mac import MacSpec, check_integer

__all__ = ["FixedMacSpec"]


@dataclass(frozen=True, kw_only=True)
class FixedMacSpec(MacSpec):
    """Exact multiply-accumulate of two's-complement codes.

    Parameters
    ----------
    bits : int
        Bits of a code, 2 to 16.
    length : int
        Largest number of products in one dot product.
    """

    stem = "fixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("bits", self.bits, 2, 16)

    @property
    def operand_max(self) -> int:
        """Largest magnitude of an operand."""
        return 1 << self.bits - 1

    @property
    def operand_width(self) -> int:
        """Bits of an operand."""
        return self.bits

    @property
    def shift_width(self) -> int:
        """Bits of the encoder's shift: enough to shift out the whole accumulator."""
        return self.accumulator_width.bit_length()

    @property
    def label(self) -> str:
        """Parameters of the units, as they appear in module names."""
        return f"b{self.bits}"
