"""What multiply-accumulate hardware has to state, whatever its number system."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from golden.element import ElementSpec
from golden.spec import check_int

__all__ = ["ROLES", "ArraySpec", "MacSpec", "Operand", "check_format"]

#: The two operands of a product, as they appear in the names of ports.
Operand = Literal["activation", "weight"]
ROLES: tuple[Operand, Operand] = ("activation", "weight")


@dataclass(frozen=True, kw_only=True)
class MacSpec(ABC):
    """Widths of an exact multiply-accumulate unit; number systems derive their own from it.

    Parameters
    ----------
    bits : int
        Bits of a code of an activation or a result.
    length : int
        Largest number of products in one dot product, 1 to 2**20.  A bias counts as one more if
        it is no larger than the largest product.  The accumulator holds every such sum exactly.
    """

    bits: int = 8
    length: int = 4096

    #: Stem of the number system.
    stem: ClassVar[str]

    #: Bits by which a bias is finer than a product.
    bias_fraction_bits: ClassVar[int] = 0

    #: Operands of which no bit is set for the value zero, as a code and decoded.  An activation
    #: always is one of them.
    zero_operands: ClassVar[tuple[Operand, ...]] = ROLES

    #: Operands that an array always decodes in its processing elements.
    decoded_in_elements: ClassVar[tuple[Operand, ...]] = ()

    def __post_init__(self) -> None:
        check_int("length", self.length, 1, 1 << 20)

    def code_bits(self, role: Operand) -> int:
        """Bits of the code of an operand."""
        return self.bits

    @abstractmethod
    def operand_max(self, role: Operand) -> int:
        """Largest magnitude of a decoded operand, in units of its last place."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Parameters of the units, as they appear in module names."""

    @abstractmethod
    def settings(self, weights: Any, activations: Any, result: Any) -> dict[str, int]:
        """Run-time settings of a layer by port of the array.

        Parameters
        ----------
        weights, activations, result : ElementSpec
            Formats of both operands and of the codes that leave.

        Raises
        ------
        TypeError
            If a format is of another number system.
        ValueError
            If this hardware has no setting for a format.
        """

    def sum_shift(self, weights: Any, activations: Any) -> int:
        """Bits by which the sum to which the bias is added is finer than the golden accumulator."""
        return 0

    @property
    def product_width(self) -> int:
        """Bits of a signed product."""
        return self.product_max.bit_length() + 1

    @property
    def product_max(self) -> int:
        """Largest magnitude of a product."""
        return self.operand_max("activation") * self.operand_max("weight")

    @property
    def accumulator_width(self) -> int:
        """Bits of a signed sum of ``length`` products of the largest magnitude."""
        return (self.length * self.product_max).bit_length() + 1

    @property
    def sum_width(self) -> int:
        """Bits of an accumulator with its bias, which counts as one of the products."""
        return self.accumulator_width + self.bias_fraction_bits


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
        ``"edge"``: one decoder per row and per column, decoded operands travel through the array,
        but for those that are better decoded where they are used (MacSpec.decoded_in_elements).
        ``"pe"``: codes travel, and every processing element decodes both of its operands.
    zero_gating : bool
        Whether a processing element holds its multiplier and accumulator still for a product
        with a zero operand.
    pipelined : bool
        Whether there are registers behind decoders in processing elements, in long products,
        between product and accumulator, and on the way of a sum to its code: a shorter clock
        period for more cycles of a tile, as many products in each.
    carry_save : bool
        Whether an accumulator is two words, of sums and of carries, which are added when they
        leave at the end of a column: no carry runs through an accumulator.
    """

    mac: MacSpec
    rows: int = 16
    cols: int = 16
    decoders: str = "edge"
    zero_gating: bool = False
    pipelined: bool = False
    carry_save: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.mac, MacSpec):
            raise TypeError(f"mac must be a MacSpec, not {self.mac!r}")
        check_int("rows", self.rows, 1, 256)
        check_int("cols", self.cols, 1, 256)
        if self.decoders not in ("edge", "pe"):
            raise ValueError(f"decoders must be 'edge' or 'pe', not {self.decoders!r}")
        for name in ("zero_gating", "pipelined", "carry_save"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, not {getattr(self, name)!r}")

    def decodes_in_element(self, role: Operand) -> bool:
        """Whether codes of an operand travel, and every processing element decodes them."""
        return self.decoders == "pe" or role in self.mac.decoded_in_elements


def check_format(name: str, spec: object, kind: type[ElementSpec], bits: int) -> None:
    """Refuse ``spec`` unless it is a ``kind`` of ``bits`` bits.

    Raises
    ------
    TypeError
        If it is of another number system.
    ValueError
        If it has another number of bits.
    """
    if not isinstance(spec, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, not {spec!r}")
    if spec.bits != bits:
        raise ValueError(f"{name}.bits must be {bits}, not {spec.bits}")
