"""Tapered fixed point TFX(n, IS, SC), whose integer field is a run of equal bits.

Paper: Langroudi, Karia, Pandit, Kudithipudi, "TENT: Efficient Quantization of Neural Networks on
the tiny Edge with Tapered FixEd PoiNT", 2021, arXiv 2104.02233.  Names there and here: n is
``bits``, IS is ``max_run``, SC is ``scale_exp``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from golden.element import DyadicSpec, ListedFormat, least_error
from golden.spec import Method, Role, check_int, checked_tensor, largest_magnitude, parse_int

__all__ = [
    "TaperedFormat",
    "TaperedSpec",
    "eq5_quire_bits",
    "paper_parameters",
    "universal_quire_bits",
]

#: Limits of ``scale_exp``: a 3-bit two's-complement field (chosen; the paper gives its width).
MIN_SCALE_EXP = -4
MAX_SCALE_EXP = 3

#: Scales of weights that the sweep tries, in order; also the limit of the paper's rule (chosen:
#: the paper evaluates shifts of 0 to 3).
SWEPT_SCALE_EXPS = (0, -1, -2, -3)


@dataclass(frozen=True, kw_only=True)
class TaperedSpec(DyadicSpec):
    """TFX(bits, max_run, scale_exp): value = (I + f / 2**fs) * 2**scale_exp (paper, Eq 2).

    The most significant bit is stored inverted and starts a run of m equal bits, at most
    ``max_run``, ended by an opposite bit unless it has full length or fills the word.  I is -m for
    a run of zeros and m - 1 for a run of ones (paper, Eq 3); the remaining fs bits are f.

    Parameters
    ----------
    bits : int
        Bits of a code, 2 to 16.
    max_run : int
        Longest run, 1 to ``bits``.  1 and 2 are plain fixed point.  Default: ``bits``.
    scale_exp : int
        Base-2 logarithm of the scale, -4 to 3.

    Raises
    ------
    TypeError
        If a parameter is not an int.
    ValueError
        If a parameter is out of range.
    """

    stem: ClassVar[str] = "tapered"

    bits: int = 8
    max_run: int = cast(int, None)  # replaced as soon as bits is known to be good
    scale_exp: int = 0

    def __post_init__(self) -> None:
        check_int("bits", self.bits, 2, 16)
        if self.max_run is None:
            object.__setattr__(self, "max_run", self.bits)
        check_int("max_run", self.max_run, 1, self.bits)
        check_int("scale_exp", self.scale_exp, MIN_SCALE_EXP, MAX_SCALE_EXP)

    @property
    def operand_exp(self) -> int:
        """Exponent of the unit of an operand: ``scale_exp - (bits - 1)``."""
        return self.scale_exp - (self.bits - 1)

    @property
    def operand_bits(self) -> int:
        """Bits of a signed operand for any ``max_run``: ``bits + ceil(log2(bits))``."""
        return self.bits + (self.bits - 1).bit_length()

    def make_operands(self) -> npt.NDArray[np.int32]:
        """Value of each code, without the scale, in units of 2**-(bits - 1)."""
        codes = np.arange(1 << self.bits, dtype=np.int32)
        ones = codes >> self.bits - 1 == 0  # the first bit of the run, which is stored inverted

        run = np.ones_like(codes)
        running = np.ones(codes.shape, bool)
        for position in range(self.bits - 2, self.bits - 1 - self.max_run, -1):
            running &= (codes >> position & 1 == 1) == ones
            run += running

        # The bit after a run is dropped, unless the run has full length.
        frac_bits = np.maximum(self.bits - run - (run < self.max_run), 0)
        frac = codes & (1 << frac_bits) - 1
        integer = np.where(ones, run - 1, -run)
        return ((integer << self.bits - 1) + (frac << self.bits - 1 - frac_bits)).astype(np.int32)

    def code_fields(self) -> dict[str, list[Any]]:
        """Length of the run, its integer and the fraction of each code."""
        # An operand is integer + fraction in units of 2**-(bits - 1), with a fraction from 0 to 1.
        operands, fraction_bits = self.operand_table, self.bits - 1
        integers = operands >> fraction_bits
        runs = np.where(integers < 0, -integers, integers + 1)
        fractions = np.ldexp((operands & (1 << fraction_bits) - 1).astype(float), -fraction_bits)
        return {"run": runs.tolist(), "integer": integers.tolist(), "fraction": fractions.tolist()}


def _parse_runs(name: str, text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not (dash and text.isascii() and low.isdigit() and high.isdigit()):
        raise ValueError(f"{name} must be two integers such as 2-4, not {text!r}")
    return int(low), int(high)


@dataclass(frozen=True, kw_only=True)
class TaperedFormat(ListedFormat):
    """Tapered fixed point with the run length and the scale fitted to each tensor.

    Parameters
    ----------
    bits : int
        Bits of a code, 2 to 16.
    max_run : int, optional
        Longest run of every tensor; fitted if not given.
    scale_exp : int, optional
        Base-2 logarithm of the scale of weights; fitted if not given.  Activations have no scale
        (paper, Algorithm 1): theirs is always 0.
    runs : tuple of two int, optional
        Least and largest ``max_run`` to choose from, where hardware has only these.
        Default: 1 to ``bits``.
    """

    stem: ClassVar[str] = "tapered"

    max_run: int | None = None
    scale_exp: int | None = None
    runs: tuple[int, int] | None = None

    parameters = {"max_run": parse_int, "scale_exp": parse_int, "runs": _parse_runs}

    def __post_init__(self) -> None:
        check_int("bits", self.bits, 2, 16)
        if self.runs is not None:
            if not isinstance(self.runs, tuple) or len(self.runs) != 2:
                raise TypeError(f"runs must be a tuple of two ints, not {self.runs!r}")
            low, high = self.runs
            check_int("runs", low, 1, self.bits)
            check_int("runs", high, low, self.bits)
            if self.max_run is not None:
                check_int("max_run", self.max_run, low, high)
        self.spec()

    def show(self, name: str) -> str:
        """Value of parameter ``name`` as a format string has it."""
        if name == "runs" and self.runs is not None:
            return "-".join(str(run) for run in self.runs)
        return super().show(name)

    def spec(self) -> TaperedSpec:
        """Spec with the parameters that were given; else the longest run, and scale 1."""
        given = {name: value for name, value in self.pinned.items() if name != "runs"}
        spec = TaperedSpec(bits=self.bits, **given)
        if self.runs is None or self.max_run is not None:
            return spec
        return replace(spec, max_run=self.runs[1])

    def fit(
        self,
        tensor: npt.ArrayLike,
        role: Role = "weights",
        method: Method = "sweep",
        runs: Sequence[int] | None = None,
    ) -> TaperedSpec:
        """Choose ``max_run`` and ``scale_exp`` for a tensor.

        Parameters
        ----------
        tensor, role, method
            As in :meth:`golden.spec.Format.fit`.  "paper" is Algorithm 1; "sweep" tries
            max_run = 1 .. bits and, for weights and for each of them, scale_exp = 0, -1, -2, -3.
        runs : sequence of int, optional
            Values that ``max_run`` may take, in any order; those that the format excludes are
            ignored.

        Returns
        -------
        TaperedSpec

        Raises
        ------
        TypeError, ValueError
            As in the base class, and if no ``max_run`` is allowed.
        """
        numbers = checked_tensor(tensor, role, method)
        allowed = self._allowed(runs)
        if method == "sweep":
            return cast(TaperedSpec, least_error(numbers, self._grid(role, allowed)))
        return self._by_rule(largest_magnitude(numbers), role, allowed)

    def rule(self, largest: float, role: Role) -> TaperedSpec:
        """Algorithm 1; where runs are restricted, the next longer one, or the longest (chosen)."""
        return self._by_rule(largest, role, self._allowed(None))

    def candidates(self, tensor: npt.NDArray[Any], role: Role) -> Sequence[TaperedSpec]:
        """Grid of the sweep: max_run ascending (outer), scale_exp 0, -1, -2, -3 (inner)."""
        return self._grid(role, self._allowed(None))

    def _by_rule(self, largest: float, role: Role, allowed: list[int]) -> TaperedSpec:
        wanted, scale_exp = paper_parameters(self.bits, largest, role)
        max_run = next((run for run in allowed if run >= wanted), allowed[-1])
        if self.scale_exp is not None and role == "weights":
            scale_exp = self.scale_exp
        return TaperedSpec(bits=self.bits, max_run=max_run, scale_exp=scale_exp)

    def _grid(self, role: Role, allowed: list[int]) -> list[TaperedSpec]:
        scale_exps: Sequence[int] = SWEPT_SCALE_EXPS
        if self.scale_exp is not None:
            scale_exps = [self.scale_exp]
        if role == "activations":
            scale_exps = [0]
        return [
            TaperedSpec(bits=self.bits, max_run=max_run, scale_exp=scale_exp)
            for max_run in allowed
            for scale_exp in scale_exps
        ]

    def _allowed(self, runs: Sequence[int] | None) -> list[int]:
        """Values that max_run may take, ascending."""
        low, high = self.runs or (1, self.bits)
        allowed = set(range(low, high + 1))
        if runs is not None:
            for run in runs:
                check_int("runs", run, 1, self.bits)
            allowed &= set(runs)
        if self.max_run is not None:
            allowed &= {self.max_run}
        if not allowed:
            raise ValueError(f"runs must have a max_run of {self} among them, not {runs}")
        return sorted(allowed)


def paper_parameters(bits: int, largest: float, role: Role) -> tuple[int, int]:
    """Parameters by Algorithm 1 of the paper, with the limits of the specification.

    Parameters
    ----------
    bits : int
        Bits of a code.
    largest : float
        Largest magnitude of the tensor.
    role : {"weights", "activations"}
        Activations get no scale.

    Returns
    -------
    max_run : int
        min(floor(largest) + 1, bits).
    scale_exp : int
        floor(log2(largest)) + 1 for weights below 0.5, not below -3 (chosen); else 0.  All zeros
        give 0 (chosen).
    """
    max_run = int(min(np.floor(largest) + 1, bits))
    scale_exp = 0
    if role == "weights" and 0 < largest < 0.5:
        _, exp = np.frexp(largest)  # exactly floor(log2(largest)) + 1
        scale_exp = max(int(exp), min(SWEPT_SCALE_EXPS))
    return max_run, scale_exp


def eq5_quire_bits(weight_spec: TaperedSpec, activation_spec: TaperedSpec, length: int) -> int:
    """Quire width of the paper (Eq 5; for two formats as in the specification, section 4).

    The unit is the product of the smallest positive values of the two formats.

    Parameters
    ----------
    weight_spec, activation_spec : TaperedSpec
        Formats of the operands.
    length : int
        Number of products.

    Returns
    -------
    int
        ceil_log2(length) + ceil_log2(D_w) + ceil_log2(D_a) + 2, D = Max / Min of Eq 1.
    """
    check_int("length", length, 1, None)
    ranges = 0
    for spec in (weight_spec, activation_spec):
        ratio = 1 << spec.bits - 1 if spec.max_run == 1 else spec.max_run << spec.bits - 2
        ranges += (ratio - 1).bit_length()
    return (length - 1).bit_length() + ranges + 2


def universal_quire_bits(bits: int, length: int) -> int:
    """Quire width for any ``max_run`` in units of 2**-(2 * (bits - 1)).

    Parameters
    ----------
    bits : int
        Bits of a code.
    length : int
        Number of products.

    Returns
    -------
    int
        2 * (ceil_log2(bits) + bits) + ceil_log2(length), as the specification has it;
        :meth:`TaperedSpec.accumulator_bits` is the same rounded down to what is needed.
    """
    check_int("bits", bits, 2, 16)
    check_int("length", length, 1, None)
    return 2 * TaperedSpec(bits=bits).operand_bits + (length - 1).bit_length()
