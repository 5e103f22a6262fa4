"""What every multiply-accumulate hardware of this project has to state, whatever its number system."""

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["ArraySpec", "MacSpec", "check_integer"]


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """Refuse ``value`` unless it is an integer between ``low`` and ``high``.

    Raises
    ------
    TypeError
        If ``value`` is not an ``int``.
    ValueError
        If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")


@dataclass(frozen=True, kw_only=True)
class MacSpec:
    """Widths of an exact multiply-accumulate unit; number systems derive their own from it.

    Parameters
    ----------
    bits : int
        Bits of a code.
    length : int
        Largest number of products in one dot product, 1 to 2**20.  A bias counts as one more if
        it is no larger than the largest product.  The accumulator holds every such sum exactly.
    """

    bits: int = 8
    length: int = 4096

    #: Stem of the number system.
    stem: ClassVar[str]

    def __post_init__(self) -> None:
        check_integer("length", self.length, 1, 1 << 20)

    @property
    def operand_max(self) -> int:
        """Largest magnitude of a decoded operand, in units of its last place."""
        raise TypeError(f"{type(self).__name__} does not define operand_max")

    @property
    def product_width(self) -> int:
        """Bits of a signed product."""
        return (self.operand_max**2).bit_length() + 1

    @property
    def accumulator_width(self) -> int:
        """Bits of a signed sum of ``length`` products of the largest magnitude."""
        return (self.length * self.operand_max**2).bit_length() + 1


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """An output-stationary systolic array of ``rows`` x ``cols`` multiply-accumulate units.

    Rows are output pixels, columns are filters (TENT, section 6; spec/tapered.md, 5.4).

    Parameters
    ----------
    mac : MacSpec
        Number system and accumulator.
    rows, cols : int
        Size of the array, 1 to 256 each.
    decoders : str
        ``"edge"``: one decoder per row and per column, decoded operands travel through the array.
        ``"pe"``: codes travel, and every processing element decodes both of its operands.
    zero_gating : bool
        Whether a processing element holds its multiplier and accumulator still for a product
        with a zero operand.
    """

    mac: MacSpec
    rows: int = 16
    cols: int = 16
    decoders: str = "edge"
    zero_gating: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.mac, MacSpec):
            raise TypeError(f"mac must be a MacSpec, not {self.mac!r}")
        check_integer("rows", self.rows, 1, 256)
        check_integer("cols", self.cols, 1, 256)
        if self.decoders not in ("edge", "pe"):
            raise ValueError(f"decoders must be 'edge' or 'pe', not {self.decoders!r}")
        if not isinstance(self.zero_gating, bool):
            raise TypeError(f"zero_gating must be a bool, not {self.zero_gating!r}")
