"""DyBit-style variable-length numbers, reconstructed: leading ones select exponent and mantissa.

Paper: Zhou, Wu, Gao, Ding, Tao, Li, Tu, Cheng, So, Wong, "DyBit: Dynamic Bit-Precision Numbers for
Efficient Quantized Neural Network Inference", 2023, arXiv 2302.12510.  Only its abstract is known
here; the encoding is a reconstruction (spec/dybit.md, sections 1 and 2), the choice of the scale is
this project's.  As reconstructed, the values are those of posit(bits, es=0) and of flint.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from golden.element import MAX_SCALE, MIN_SCALE, ElementFormat, ScaledSpec, sorted_errors
from golden.spec import (
    Method,
    Role,
    check_int,
    checked_tensor,
    largest_magnitude,
    parse_bool,
    parse_float,
    parse_int,
)

__all__ = ["DybitFormat", "DybitSpec", "magnitudes"]

#: Geometric grids of scales that the search tries first, in units of the root mean square of the
#: tensor; the second is meant for heavy tails.
GRIDS = ((0.25, 4.0), (0.25, 6.0))
GRID_POINTS = 64

#: Points of each linear refinement between the neighbours of the best scale, and how many.
REFINED_POINTS = 21
REFINEMENTS = 2


def magnitudes(width: int) -> npt.NDArray[np.int32]:
    """Value of each magnitude code, times 2**(width - 1).

    This function alone defines the format: tables, encoders and hardware follow from it.

    Parameters
    ----------
    width : int
        Bits of the magnitude, m of the specification, 1 to 16.

    Returns
    -------
    ndarray of int32, shape (2**width,)
        With i leading ones, of which a 0 follows unless i = m, and X the bits after it: X for
        i = 0, else 2**(m - 1) * 2**(i - 1) * (1 + X / 2**(m - 1 - i)) (reconstructed).
    """
    codes = np.arange(1 << width, dtype=np.int32)
    # The complement of a code has its highest one where the leading ones end.
    _, length = np.frexp(((1 << width) - 1 - codes).astype(np.float64))
    ones = width - length
    rest = codes & (1 << np.maximum(width - 1 - ones, 0)) - 1
    tapered = (1 << np.maximum(width + ones - 2, 0)) + (rest << np.maximum(2 * ones - 1, 0))
    return np.where(ones == 0, codes, tapered).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class DybitSpec(ScaledSpec):
    """DyBit(bits): value = sign * magnitude * scale / 2**(width - 1).

    The code 10..0 of a signed format, which would be -0, is read as 0 and never made.

    Parameters
    ----------
    bits : int
        Bits of a code with its sign, 2 to 16.
    signed : bool
        Whether the most significant bit is a sign.
    scale : float
        Value of the code with one leading one and no other, 2**-90 to 2**90; rounded to binary32.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If a parameter is out of range.
    """

    stem: ClassVar[str] = "dybit"
    ties = "away"

    bits: int = 8
    signed: bool = True

    def __post_init__(self) -> None:
        check_int("bits", self.bits, 2, 16)
        if not isinstance(self.signed, bool):
            raise TypeError(f"signed must be a bool, not {self.signed!r}")
        super().__post_init__()

    @property
    def width(self) -> int:
        """Bits of a magnitude code, m of the specification."""
        return self.bits - self.signed

    @property
    def operand_unit(self) -> float:
        """Value of the operand 1: ``scale / 2**(width - 1)``."""
        return math.ldexp(self.scale, 1 - self.width)

    @property
    def operand_bits(self) -> int:
        """Bits of a signed operand; the largest is 2**(2 * width - 2)."""
        return 2 * self.width

    def show(self, name: str) -> str | None:
        """Value of parameter ``name`` for ``str``."""
        if name == "signed":
            return None if self.signed else "no"
        return super().show(name)

    def make_operands(self) -> npt.NDArray[np.int32]:
        """Value of each code, without the scale, in units of 2**(1 - width)."""
        positive = magnitudes(self.width)
        return np.concatenate([positive, -positive]) if self.signed else positive

    def code_fields(self) -> dict[str, list[Any]]:
        """Leading ones of each code, and its integer as significand and shift (section 1)."""
        magnitude = np.abs(self.operand_table)
        # From one leading one on, the significand has its highest bit at width - 2; of one bit,
        # it is the code.
        _, length = np.frexp(magnitude.astype(np.float64))
        shift = np.maximum(length - max(self.width - 1, 1), 0)
        return {
            "integer": self.operand_table.tolist(),
            "significand": (magnitude >> shift).tolist(),
            "shift": shift.tolist(),
        }


@dataclass(frozen=True, kw_only=True)
class DybitFormat(ElementFormat):
    """DyBit with the scale fitted to each tensor.

    Parameters
    ----------
    bits : int
        Bits of a code, 2 to 16.
    scale : float, optional
        Scale of every tensor; fitted if not given.
    signed : bool, optional
        Whether codes have a sign; if not given, all do but those of activations without negative
        numbers.
    pow2 : bool, optional
        Whether scales are powers of two only.
    weight_bits : int, optional
        Bits of a code of a weight, if these are others than those of activations.
    """

    stem: ClassVar[str] = "dybit"

    scale: float | None = None
    signed: bool | None = None
    pow2: bool | None = None
    weight_bits: int | None = None

    parameters = {
        "scale": parse_float,
        "signed": parse_bool,
        "pow2": parse_bool,
        "weight_bits": parse_int,
    }

    def __post_init__(self) -> None:
        if self.pow2 is not None and not isinstance(self.pow2, bool):
            raise TypeError(f"pow2 must be a bool, not {self.pow2!r}")
        if self.weight_bits is not None:
            check_int("weight_bits", self.weight_bits, 2, 16)
        spec = self.spec()
        if self.pow2 and self.scale is not None and math.frexp(spec.scale)[0] != 0.5:
            raise ValueError(f"scale must be a power of two where pow2=yes, not {self.scale}")

    def spec(self) -> DybitSpec:
        """Spec with the parameters that were given, and else signed with scale 1."""
        given = {
            name: value
            for name, value in self.pinned.items()
            if name not in ("pow2", "weight_bits")
        }
        return DybitSpec(bits=self.bits, **given)

    def fit(
        self, tensor: npt.ArrayLike, role: Role = "weights", method: Method = "sweep"
    ) -> DybitSpec:
        """Choose the scale of least squared error, and whether there is a sign.

        Scales are tried in units of the root mean square: two geometric grids, and two linear
        refinements about the best (spec/dybit.md, section 3; chosen).  The largest number of the
        tensor has no say: the best scale may put the largest code at twenty times that number.
        There is no closed form, so both methods are this search.

        Parameters
        ----------
        tensor, role, method
            As in :meth:`golden.spec.Format.fit`.

        Returns
        -------
        DybitSpec
            Scale 1 for zeros, and the number itself where all numbers are the same.

        Raises
        ------
        TypeError, ValueError
            As in the base class, and if there are negative numbers where ``signed`` is no.
        """
        numbers = np.sort(checked_tensor(tensor, role, method), axis=None)
        least = float(numbers[0]) if numbers.size else 0.0
        if self.signed is False and least < 0:
            raise ValueError(f"tensor must have no negative numbers where signed=no, not {least}")
        signed = self.signed
        if signed is None:
            signed = role == "weights" or least < 0
        bits = self.bits
        if role == "weights" and self.weight_bits is not None:
            bits = self.weight_bits
        spec = replace(self.spec(), bits=bits, signed=signed)
        largest = largest_magnitude(numbers)
        if self.scale is not None or largest == 0:
            return spec
        if self.pow2:
            return self._best(numbers, spec, self._powers(numbers))[1]
        if least == numbers[-1]:
            return replace(spec, scale=_limited(largest))
        return self._search(numbers, spec)

    @staticmethod
    def _best(
        numbers: npt.NDArray[Any], spec: DybitSpec, scales: npt.NDArray[np.float64]
    ) -> tuple[int, DybitSpec]:
        """First of the scales with the least squared error, and its index."""
        specs = [replace(spec, scale=_limited(scale)) for scale in scales.tolist()]
        index = int(np.argmin(sorted_errors(numbers, specs)))
        return index, specs[index]

    @staticmethod
    def _powers(numbers: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Powers of two that the range of the search has, and one on either side."""
        size = _root_mean_square(numbers)
        low = math.floor(math.log2(min(grid[0] for grid in GRIDS) * size))
        high = math.ceil(math.log2(max(grid[1] for grid in GRIDS) * size))
        return np.ldexp(1.0, np.arange(low, high + 1))

    def _search(self, numbers: npt.NDArray[Any], spec: DybitSpec) -> DybitSpec:
        size = _root_mean_square(numbers)
        scales = size * np.unique([np.geomspace(*grid, GRID_POINTS) for grid in GRIDS])
        index, best = self._best(numbers, spec, scales)
        for _ in range(REFINEMENTS):
            below, above = scales[max(index - 1, 0)], scales[min(index + 1, len(scales) - 1)]
            scales = np.linspace(below, above, REFINED_POINTS)
            index, best = self._best(numbers, spec, scales)
        return best


def _root_mean_square(numbers: npt.NDArray[Any]) -> float:
    """Give the deviation about zero: about the mean, it would say nothing of an offset."""
    # Scaled by a power of two, exactly, so that no square leaves the range of binary64.
    _, exp = math.frexp(largest_magnitude(numbers))
    scaled = np.ldexp(numbers.astype(np.float64), -exp)
    return math.ldexp(math.sqrt(float(np.mean(scaled * scaled))), exp)


def _limited(scale: float) -> float:
    return min(max(scale, MIN_SCALE), MAX_SCALE)
