"""Fixed point with a power-of-two scale, the baseline of every comparison."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from golden.element import DyadicSpec, ElementSpec, ListedFormat
from golden.spec import Role, check_int, largest_magnitude, parse_bool, parse_int

__all__ = ["FixedFormat", "FixedSpec", "quantise_all", "single_splits"]

#: Limits of ``frac_bits``, chosen such that every value is exact and normal in binary32.
MIN_FRAC_BITS = -64
MAX_FRAC_BITS = 64


@dataclass(frozen=True, kw_only=True)
class FixedSpec(DyadicSpec):
    """Two's complement or unsigned: value = integer * 2**-frac_bits.

    Parameters
    ----------
    bits : int
        Bits of a code with its sign, 1 to 16.
    frac_bits : int
        Bits after the binary point, -64 to 64; may be negative or more than ``bits``.
        Default: ``bits - 1``, for values from -1 to just below 1.
    signed : bool
        Whether codes are two's complement; else they are unsigned.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If a parameter is out of range.
    """

    stem: ClassVar[str] = "fixed"

    bits: int = 8
    frac_bits: int = cast(int, None)  # replaced as soon as bits is known to be good
    signed: bool = True

    def __post_init__(self) -> None:
        check_int("bits", self.bits, 1, 16)
        if not isinstance(self.signed, bool):
            raise TypeError(f"signed must be a bool, not {self.signed!r}")
        if self.frac_bits is None:
            object.__setattr__(self, "frac_bits", self.bits - 1)
        check_int("frac_bits", self.frac_bits, MIN_FRAC_BITS, MAX_FRAC_BITS)

    @property
    def operand_exp(self) -> int:
        """Exponent of the unit of an operand: ``-frac_bits``."""
        return -self.frac_bits

    @property
    def operand_bits(self) -> int:
        """Bits of a signed operand: ``bits``, and one for the sign of an unsigned code."""
        return self.bits + (not self.signed)

    def show(self, name: str) -> str | None:
        """Value of parameter ``name`` for ``str``."""
        if name == "signed":
            return None if self.signed else "no"
        return super().show(name)

    def make_operands(self) -> npt.NDArray[np.int32]:
        """Integer that each code is, by code."""
        codes = np.arange(1 << self.bits, dtype=np.int32)
        if not self.signed:
            return codes
        return np.where(codes >> self.bits - 1, codes - (1 << self.bits), codes).astype(np.int32)

    def code_fields(self) -> dict[str, list[Any]]:
        """Integer that each code is."""
        return {"integer": self.operand_table.tolist()}


@dataclass(frozen=True, kw_only=True)
class FixedFormat(ListedFormat):
    """Fixed point with one power-of-two scale per tensor.

    Parameters
    ----------
    bits : int
        Bits of a code with its sign, 2 to 16; unsigned 1 to 16.
    frac_bits : int, optional
        Bits after the binary point; fitted to each tensor if not given.
    weight_bits : int, optional
        Bits of a code of a weight, if these are others than those of activations.
    signed : bool, optional
        Whether codes are two's complement, which they are if it is not given.
    """

    stem: ClassVar[str] = "fixed"
    parameters = {"frac_bits": parse_int, "weight_bits": parse_int, "signed": parse_bool}

    frac_bits: int | None = None
    weight_bits: int | None = None
    signed: bool | None = None

    def __post_init__(self) -> None:
        least = 1 if self.signed is False else 2
        check_int("bits", self.bits, least, 16)
        if self.weight_bits is not None:
            check_int("weight_bits", self.weight_bits, least, 16)
        self.spec()

    def spec(self) -> FixedSpec:
        """Spec with the ``frac_bits`` that were given, or ``bits - 1``."""
        given = {name: value for name, value in self.pinned.items() if name != "weight_bits"}
        return FixedSpec(bits=self.bits, **given)

    def _spec(self, role: Role) -> FixedSpec:
        """Spec for one kind of tensor, with the ``frac_bits`` that were given or ``bits - 1``."""
        if role == "activations" or self.weight_bits is None:
            return self.spec()
        return replace(self, bits=self.weight_bits, weight_bits=None).spec()

    def rule(self, largest: float, role: Role) -> FixedSpec:
        """Finest scale that holds ``largest`` of either sign but for its rounding (chosen).

        All zeros give ``bits - 1``.  The paper's own baseline is not per tensor: see
        :func:`single_splits`.
        """
        spec = self._spec(role)
        if self.frac_bits is not None or largest == 0:
            return spec
        _, exp = np.frexp(largest)  # largest < 2**exp
        return _limited(spec, spec.bits - spec.signed - int(exp))

    def candidates(self, tensor: npt.NDArray[Any], role: Role) -> Sequence[FixedSpec]:
        """Scales from one bit coarser than the rule to ``bits`` bits finer, coarsest first.

        Coarser ones need not be tried: one bit coarser than the rule nothing saturates, and from
        there each coarser grid is a subset of the one before.
        """
        least = float(tensor.min(initial=0))
        if self.signed is False and least < 0:
            raise ValueError(f"tensor must have no negative numbers where signed=no, not {least}")
        largest = largest_magnitude(tensor)
        centre = self.rule(largest, role)
        if self.frac_bits is not None or largest == 0:
            return [centre]
        offsets = range(-1, centre.bits + 1)
        return list(dict.fromkeys(_limited(centre, centre.frac_bits + i) for i in offsets))


def _limited(spec: FixedSpec, frac_bits: int) -> FixedSpec:
    """``spec`` with the nearest ``frac_bits`` that there can be."""
    return replace(spec, frac_bits=min(max(frac_bits, MIN_FRAC_BITS), MAX_FRAC_BITS))


def single_splits(bits: int) -> list[FixedSpec]:
    """Candidates for one split of the word for a whole network, the paper's baseline.

    Parameters
    ----------
    bits : int
        Bits of a code, 2 to 16.

    Returns
    -------
    list of FixedSpec
        I + fs = bits with the sign in I, and fs = 1 .. bits - 1 (paper, section 6), ascending fs.
        Which is best, by accuracy, is for the caller to find.
    """
    check_int("bits", bits, 2, 16)
    return [FixedSpec(bits=bits, frac_bits=frac_bits) for frac_bits in range(1, bits)]


def quantise_all(
    tensors: Iterable[npt.ArrayLike], spec: ElementSpec
) -> list[npt.NDArray[np.float32]]:
    """Every tensor of a network quantised with the same spec, in order."""
    return [spec.quantise(tensor) for tensor in tensors]
