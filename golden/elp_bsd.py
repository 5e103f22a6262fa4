"""Encoded low-precision binary signed digits (ELP-BSD): weights that are sums of powers of two.

In the style of Hanif, Sarda, Marchisio, Masera, Martina, Shafique, "CoNLoCNN: Exploiting
Correlation and Non-Uniform Quantization for Energy-Efficient Low-precision Deep Convolutional
Neural Networks", 2022, arXiv 2208.00331.  Of that paper only the abstract was available: everything
here is a reconstruction or a choice (spec/elp_bsd.md), and nothing may be taken for the authors'.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from golden.compensation import (
    Assignment,
    Grouping,
    InputStatistics,
    assign,
    balance_means,
    to_units,
)
from golden.dot import quantise_bias
from golden.element import MAX_SCALE, MIN_SCALE, ElementSpec, ScaledSpec, sorted_errors
from golden.element_layers import ElementCodec, ElementLayer, ElementSystem, element_spec
from golden.fixed import MAX_FRAC_BITS, FixedFormat, FixedSpec
from golden.inference import TensorCodec
from golden.network import Conv, Floats, MacNode, Network
from golden.rounding import Ties
from golden.spec import (
    Format,
    Method,
    Role,
    as_floats,
    check_int,
    checked_tensor,
    instance_of,
    largest_magnitude,
    parse_bool,
    parse_int,
)

__all__ = ["DIGIT_SETS", "Compensate", "DigitSet", "ElpBsdFormat", "ElpBsdSpec", "ElpBsdSystem"]

#: When the errors of a layer's weights are compensated.
Compensate = Literal["auto", "always", "never"]

#: Most digits of a code, and the largest exponent of one (chosen).  Levels then are below the
#: clamp of weights and no more than 2**9 apart, so that compensation is exact in 64 bits.
MAX_DIGITS = 3
MAX_POSITION = 8

#: Most bits that select the position of a digit.
MAX_POSITION_BITS = 3

#: Scales that are tried are these twentieths of the one at which the outermost level is the
#: largest weight: 0.15, 0.20, .. 1.20 of it (spec/elp_bsd.md, section 3, chosen).
SCALE_TWENTIETHS = range(3, 25)

#: Weights in a kernel from which it is compensated without calibration: 3x3.
DATA_FREE_WINDOW = 9

#: Bits of fixed-point weights in the first and the last layer (chosen).
OUTER_BITS = 8

#: Share of the score of a candidate that is safely below it; rounding of the weights to integer
#: units is all that it has to make up for.
BOUND_SHARE = 0.99


@dataclass(frozen=True, kw_only=True)
class DigitSet:
    """Positions that each digit of a code may have.

    A code is ``[s_(D-1) | k_(D-1) | ... | s_0 | k_0]``, most significant bit first, and stands for
    the sum over its digits of (-1)**s_d * 2**P_d[k_d] (reconstructed).

    Parameters
    ----------
    positions : tuple of tuples of int
        P_0, P_1, ...: one to three digits of one, two, four or eight different exponents, each 0
        to 8.
    zero_code : bool
        Whether code 1 0..0 means 0 instead of -2**P_0[0]; only with one digit (chosen).

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If the lists are of other sizes, an exponent is out of range or listed twice, or there is a
        zero code with several digits.
    """

    positions: tuple[tuple[int, ...], ...]
    zero_code: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.positions, tuple) or not all(
            isinstance(digit, tuple) for digit in self.positions
        ):
            raise TypeError(f"positions must be a tuple of tuples of int, not {self.positions!r}")
        if not 1 <= len(self.positions) <= MAX_DIGITS:
            raise ValueError(
                f"positions must have 1 to {MAX_DIGITS} digits, not {len(self.positions)}"
            )
        for digit in self.positions:
            for position in digit:
                check_int("positions", position, 0, MAX_POSITION)
            if len(digit) not in (1 << bits for bits in range(MAX_POSITION_BITS + 1)):
                raise ValueError(
                    f"positions of a digit must be 1, 2, 4 or 8 exponents, not {len(digit)}"
                )
            if len(set(digit)) != len(digit):
                raise ValueError(f"positions of a digit must be different, not {digit}")
        instance_of("zero_code", self.zero_code, bool)
        if self.zero_code and len(self.positions) > 1:
            raise ValueError(f"zero_code must be False with {len(self.positions)} digits, not True")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Digit set that a text names.

        A standard name such as ``E4-2``, or the exponents of each digit, P_0 first, with ``z`` for
        a zero code: ``02/13`` is E4-2 and ``0123z`` is E3-1.

        Raises
        ------
        ValueError
            If it does neither.
        """
        if text in DIGIT_SETS:
            return cls(positions=DIGIT_SETS[text].positions, zero_code=DIGIT_SETS[text].zero_code)
        if not re.fullmatch(r"[0-9]+(/[0-9]+)*z?", text):
            names = ", ".join(DIGIT_SETS)
            raise ValueError(f"set must be one of {names}, or like 02/13, not {text!r}")
        digits = text.removesuffix("z").split("/")
        return cls(
            positions=tuple(tuple(map(int, digit)) for digit in digits),
            zero_code=text.endswith("z"),
        )

    def __str__(self) -> str:
        for name, digits in DIGIT_SETS.items():
            if digits == self:
                return name
        text = "/".join("".join(map(str, digit)) for digit in self.positions)
        return text + "z" * self.zero_code

    @property
    def digits(self) -> int:
        """Number of digits, D."""
        return len(self.positions)

    @property
    def position_bits(self) -> tuple[int, ...]:
        """Bits that select the position of each digit, digit 0 first."""
        return tuple(len(digit).bit_length() - 1 for digit in self.positions)

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.digits + sum(self.position_bits)

    @property
    def code_values(self) -> npt.NDArray[np.int32]:
        """Integer value W of each code, indexed by code."""
        codes = np.arange(1 << self.bits, dtype=np.int32)
        values = np.zeros_like(codes)
        rest = codes
        for digit, bits in zip(self.positions, self.position_bits, strict=True):
            powers = np.int32(1) << np.array(digit, np.int32)[rest & (1 << bits) - 1]
            values += np.where(rest >> bits & 1, -powers, powers)
            rest = rest >> bits + 1
        if self.zero_code:
            values[1 << self.bits - 1] = 0
        return values

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Distinct values, ascending."""
        return tuple(np.unique(self.code_values).tolist())

    @cached_property
    def canonical_codes(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Code that is emitted for each level: the numerically smallest; read-only."""
        _, first = np.unique(self.code_values, return_index=True)
        codes: npt.NDArray[np.unsignedinteger[Any]]
        codes = first.astype(np.uint8 if self.bits <= 8 else np.uint16)
        codes.flags.writeable = False
        return codes

    @property
    def largest(self) -> int:
        """Largest magnitude of a level, W_max."""
        return max(-self.levels[0], self.levels[-1])

    def term_bits(self, act_bits: int) -> int:
        """Bits of one shifted activation with its sign: ``act_bits + 1 +`` the largest position.

        Parameters
        ----------
        act_bits : int
            Bits of an activation, unsigned or two's complement.
        """
        check_int("act_bits", act_bits, 1, 16)
        return act_bits + 1 + max(map(max, self.positions))

    def sum_bits(self, act_bits: int) -> int:
        """Bits of a product: a term, and ceil_log2 of the number of digits more."""
        return self.term_bits(act_bits) + (self.digits - 1).bit_length()

    def accumulator_bits(self, act_bits: int, length: int) -> int:
        """Bits of a signed integer that holds any sum of products.

        Parameters
        ----------
        act_bits : int
            Bits of an activation.
        length : int
            Number of products K, at least 1.

        Returns
        -------
        int
            Bits of a product and ceil_log2(K).
        """
        check_int("length", length, 1, None)
        return self.sum_bits(act_bits) + (length - 1).bit_length()


#: The standard sets (spec/elp_bsd.md, section 2), in order of preference for each number of bits.
DIGIT_SETS: dict[str, DigitSet] = {
    "E3-1": DigitSet(positions=((0, 1, 2, 3),), zero_code=True),
    "E3-1nz": DigitSet(positions=((0, 1, 2, 3),)),
    "E4-1": DigitSet(positions=((0, 1, 2, 3, 4, 5, 6, 7),), zero_code=True),
    "E4-2": DigitSet(positions=((0, 2), (1, 3))),
    "E5-2": DigitSet(positions=((0, 2), (1, 2, 3, 4))),
    "E6-2": DigitSet(positions=((0, 1, 2, 3), (2, 3, 4, 5))),
    "E7-2": DigitSet(positions=((0, 1, 2, 3, 4, 5, 6, 7), (2, 3, 4, 5))),
}


@dataclass(frozen=True, kw_only=True)
class ElpBsdSpec(ScaledSpec):
    """Signed digits with a scale: value = W(code) * scale.

    A number is rounded to binary32 and to U = RNE(w / scale * 2**12), clamped to +-2**23, and
    then goes to the nearest level, a tie to the smaller magnitude, and between levels of equal
    magnitude to the negative one (chosen).

    Parameters
    ----------
    set : DigitSet
        Positions of the digits.
    scale : float
        Value of the level 1 (alpha), 2**-90 to 2**90; rounded to binary32.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If the scale is out of range.
    """

    stem: ClassVar[str] = "elp_bsd"
    ties: ClassVar[Ties] = "zero"
    index_fraction_bits: ClassVar[int | None] = 12

    bits: int = field(init=False)
    set: DigitSet

    def __post_init__(self) -> None:
        instance_of("set", self.set, DigitSet)
        object.__setattr__(self, "bits", self.set.bits)
        super().__post_init__()

    @property
    def operand_unit(self) -> float:
        """Value of the operand 1: ``scale``."""
        return self.scale

    @property
    def operand_bits(self) -> int:
        """Bits of a signed level."""
        return self.set.largest.bit_length() + 1

    def accumulator_bits(self, length: int, act_bits: int = 8) -> int:
        """Bits of a sum of products with activations; see :meth:`DigitSet.accumulator_bits`."""
        return self.set.accumulator_bits(act_bits, length)

    def make_operands(self) -> npt.NDArray[np.int32]:
        """W of each code."""
        return self.set.code_values

    def code_fields(self) -> dict[str, list[Any]]:
        """Integer that each code is, and its signed digits, that of the high bits first."""
        texts = [""] * (1 << self.bits)
        position = 0
        for powers, bits in zip(self.set.positions, self.set.position_bits, strict=True):
            for code, text in enumerate(texts):
                digit = code >> position & (2 << bits) - 1
                sign = "-" if digit >> bits else "+"
                texts[code] = f"{sign}{1 << powers[digit & (1 << bits) - 1]} {text}".strip()
            position += bits + 1
        if self.set.zero_code:
            texts[1 << self.bits - 1] = "0"
        return {"integer": self.operand_table.tolist(), "digits": texts}

    def encode(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        """Canonical codes of the levels nearest to ``x``; see :meth:`golden.spec.Spec.encode`."""
        numbers = as_floats("x", x)
        if numbers.dtype.itemsize > 4:
            with np.errstate(over="ignore"):
                numbers = numbers.astype(np.float32)
        return super().encode(numbers)


def _parse_set(name: str, text: str) -> DigitSet:
    return DigitSet.parse(text)


def _parse_float(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r}") from None


def _parse_compensate(name: str, text: str) -> str:
    return text  # the format checks it


@dataclass(frozen=True, kw_only=True)
class ElpBsdFormat(Format):
    """Signed digits for weights, with the digit set and the scale chosen for each layer.

    Activations are fixed point, unsigned where no calibration value is negative.

    Parameters
    ----------
    bits : int
        Bits of the code of a weight, 1 to 12.
    set : DigitSet, optional
        Digit set of all layers; the best of the standard ones of ``bits`` bits if not given.
    scale : float, optional
        Scale of all layers; fitted if not given.
    act_bits : int, optional
        Bits of activations, 2 to 16.  Default: 8.
    compensate : {"auto", "always", "never"}, optional
        Whether errors of weights are compensated: where the score J of the layer falls by it (the
        default; without calibration in kernels of at least 3x3), in all layers, or in none.
        Scale and digit set are chosen by J after compensation, or by squared error.
    scale_pow2 : bool, optional
        Whether scales are powers of two, for a requantiser without multiplier.
    pointwise : bool, optional
        Whether 1x1 convolutions are compensated, too.
    second_pass : bool, optional
        Whether the mean error of each output is then reduced over its input channels.
    bias_correction : bool, optional
        Whether the bias takes away the mean error that is left.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If a parameter is out of range, the digit set is not of ``bits`` bits, or no standard set
        is.
    """

    stem: ClassVar[str] = "elp_bsd"
    parameters: ClassVar[Mapping[str, Any]] = {
        "set": _parse_set,
        "scale": _parse_float,
        "act_bits": parse_int,
        "compensate": _parse_compensate,
        "scale_pow2": parse_bool,
        "pointwise": parse_bool,
        "second_pass": parse_bool,
        "bias_correction": parse_bool,
    }

    bits: int
    set: DigitSet | None = None
    scale: float | None = None
    act_bits: int | None = None
    compensate: Compensate | None = None
    scale_pow2: bool | None = None
    pointwise: bool | None = None
    second_pass: bool | None = None
    bias_correction: bool | None = None

    def __post_init__(self) -> None:
        check_int("bits", self.bits, 1, MAX_DIGITS * (1 + MAX_POSITION_BITS))
        for digits in self.sets:
            instance_of("set", digits, DigitSet)
            if digits.bits != self.bits:
                raise ValueError(f"set must be of {self.bits} bits, not {digits}")
        if not self.sets:
            raise ValueError(f"set must be given with {self.bits} bits, which no standard set has")
        if self.act_bits is not None:
            check_int("act_bits", self.act_bits, 2, 16)
        if self.compensate is not None and self.compensate not in get_args(Compensate):
            raise ValueError(f"compensate must be auto, always or never, not {self.compensate!r}")
        for name in ("scale_pow2", "pointwise", "second_pass", "bias_correction"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, not {value!r}")
        if self.scale is not None:
            # The spec checks it and rounds it.
            object.__setattr__(self, "scale", self.spec().scale)
            if self.scale_pow2 and np.frexp(self.scale)[0] != 0.5:
                raise ValueError(f"scale must be a power of two, not {self.scale}")

    @property
    def sets(self) -> list[DigitSet]:
        """Digit sets to choose from, in order of preference."""
        if self.set is not None:
            return [self.set]
        return [digits for digits in DIGIT_SETS.values() if digits.bits == self.bits]

    def show(self, name: str) -> str:
        """Value of parameter ``name`` as a format string has it."""
        return str(np.float32(self.scale)) if name == "scale" else super().show(name)

    def spec(self) -> ElpBsdSpec:
        """Spec with the parameters that were given; else the first digit set, and scale 1."""
        return ElpBsdSpec(set=self.sets[0], scale=1.0 if self.scale is None else self.scale)

    def fit(
        self, tensor: npt.ArrayLike, role: Role = "weights", method: Method = "sweep"
    ) -> ElementSpec:
        """Choose the digit set and the scale of weights, or the scale of activations.

        Parameters
        ----------
        tensor, role
            As in :meth:`golden.spec.Format.fit`.
        method : {"sweep", "paper"}
            Both search for the least squared error; the paper's method is not known.

        Returns
        -------
        ElpBsdSpec or FixedSpec
        """
        numbers = checked_tensor(tensor, role, method).astype(np.float32, copy=False)
        if role == "activations":
            return self._fit_activations(numbers)
        candidates = self.candidates(largest_magnitude(numbers))
        errors = sorted_errors(np.sort(numbers, axis=None), candidates)
        return candidates[int(np.argmin(errors))]

    def _fit_activations(self, numbers: npt.NDArray[np.float32]) -> ElementSpec:
        bits = 8 if self.act_bits is None else self.act_bits
        fixed = FixedFormat(bits=bits)
        if numbers.min(initial=0) < 0:
            return fixed.fit(numbers, "activations")
        # Without a sign, a code of the same size has one bit more for the magnitude.
        specs = [
            FixedSpec(bits=bits, frac_bits=min(spec.frac_bits + 1, MAX_FRAC_BITS), signed=False)
            for spec in fixed.candidates(numbers, "activations")
        ]
        return specs[int(np.argmin(sorted_errors(np.sort(numbers, axis=None), specs)))]

    def candidates(self, largest: float) -> list[ElpBsdSpec]:
        """Specs to choose from for weights up to ``largest`` in magnitude, in order of preference.

        Digit sets in the order of :attr:`sets` (outer), scales ascending (inner).
        """
        return [
            ElpBsdSpec(set=digits, scale=scale)
            for digits in self.sets
            for scale in self._scales(largest, digits.largest)
        ]

    def _scales(self, largest: float, level: int) -> list[float]:
        if self.scale is not None:
            return [self.scale]
        if largest == 0:
            return [1.0]
        # Quotients of integers below 2**53 and powers of two: powers of two come out exact.
        scales = [largest * part / (20 * level) for part in SCALE_TWENTIETHS]
        if self.scale_pow2:
            low, high = np.frexp([scales[0], scales[-1]])[1].tolist()
            # 2**(low - 1) is the largest power that is not above the range's end, and so on.
            below = low - 1 - (scales[0] == 2.0 ** (low - 1))
            scales = [2.0**exp for exp in range(below, high + 1)]
        return list(dict.fromkeys(min(max(scale, MIN_SCALE), MAX_SCALE) for scale in scales))

    def system(self, method: Method = "sweep") -> "ElpBsdSystem":
        """Make the number system for :func:`golden.inference.quantise`."""
        return ElpBsdSystem(format=self, method=method)


@dataclass(frozen=True, kw_only=True)
class ElpBsdSystem:
    """Signed digits for weights and fixed point for activations.

    The first and the last layer of dot products have fixed-point weights of 8 bits (chosen).

    Parameters
    ----------
    format : ElpBsdFormat
        Format of the weights, and how they are chosen.
    method : {"sweep", "paper"}
        The same for this format.
    outer : frozenset of str
        Names of the layers with fixed-point weights; :meth:`fit_network` finds them.
    """

    format: ElpBsdFormat
    method: Method = "sweep"
    outer: frozenset[str] = frozenset()

    @property
    def storage_bits(self) -> int:
        """Nothing is shared by the layers."""
        return 0

    def fit_network(self, network: Network) -> Self:
        """System that knows the first and the last layer."""
        nodes = network.mac_nodes
        return replace(self, outer=frozenset(node.name for node in (*nodes[:1], *nodes[-1:])))

    def fit_tensor(self, name: str, values: Floats) -> ElementCodec:
        """Codec of fixed point fitted to activations."""
        return ElementCodec(self.format.fit(values, "activations", self.method))

    def sum_dtype(self, sources: Sequence[TensorCodec]) -> npt.DTypeLike:
        """Float type in which tensors of fixed point are added."""
        return self._fixed.sum_dtype(sources)

    @property
    def _fixed(self) -> ElementSystem:
        return ElementSystem(format=FixedFormat(bits=OUTER_BITS), method=self.method)

    def prepare(
        self, node: MacNode, source: TensorCodec, calibration: Sequence[Floats]
    ) -> ElementLayer:
        """Choose digit set, scale and levels of the weights of a layer.

        Parameters
        ----------
        node, source
            As in :meth:`golden.inference.NumberSystem.prepare`.
        calibration : sequence of ndarray of float32, [rows, k], one for each group
            Inputs of the layer in the float32 run; without any, nothing is measured.

        Raises
        ------
        TypeError
            If ``source`` was not made by :meth:`fit_tensor`.
        ValueError
            If a weight is not finite.
        """
        if node.name in self.outer:
            return self._fixed.prepare(node, source, calibration)
        activation_spec = element_spec("source", source)
        grouping = Grouping.of(node)
        measured = len(calibration) > 0 and len(calibration[0]) > 0
        statistics = InputStatistics.measure(calibration, grouping) if measured else None
        weights = checked_tensor(node.matrices(), "weights", self.method)
        spec, assignment = self._choose(
            weights, grouping, statistics, self._compensate(node, grouping, measured)
        )
        biases: Floats = node.biases()
        if statistics is not None and self.format.bias_correction:
            biases = biases - assignment.mean_errors(statistics, spec.scale)
        return ElementLayer(
            spec,
            activation_spec,
            spec.set.canonical_codes[assignment.indices],
            quantise_bias(spec, activation_spec, biases),
        )

    def _compensate(self, node: MacNode, grouping: Grouping, measured: bool) -> Compensate:
        """Whether a layer is compensated; "auto" where its score is to decide."""
        if isinstance(node, Conv) and grouping.window == 1 and not self.format.pointwise:
            return "never"
        compensate = self.format.compensate or "auto"
        if compensate == "auto" and not measured:
            return "always" if grouping.window >= DATA_FREE_WINDOW else "never"
        return compensate

    def _choose(
        self,
        weights: npt.NDArray[np.float32],
        grouping: Grouping,
        statistics: InputStatistics | None,
        compensate: Compensate,
    ) -> tuple[ElpBsdSpec, Assignment]:
        """Best digit set and scale for a layer, and the levels of its weights."""
        candidates = self.format.candidates(largest_magnitude(weights))
        errors = sorted_errors(np.sort(weights, axis=None), candidates)
        if statistics is None or compensate == "never":
            spec = candidates[int(np.argmin(errors))]
            return spec, _assigned(weights, spec, grouping, statistics, compensate)

        scores: list[tuple[float, int]] = []
        for index in np.argsort(errors, kind="stable").tolist():
            # Moves add to the squared error, so it bounds the score from below.
            bound = BOUND_SHARE * statistics.alone * float(errors[index])
            if scores and statistics.together >= 0 and bound > min(scores)[0]:
                break
            spec = candidates[index]
            assignment = _assigned(weights, spec, grouping, statistics, compensate)
            scores.append((assignment.score(statistics, spec.scale), index))
        # The first of equal candidates, in whatever order they were tried.
        spec = candidates[min(scores)[1]]
        assignment = _assigned(weights, spec, grouping, statistics, compensate)
        if self.format.second_pass and assignment.moved.any():
            assignment = balance_means(assignment, statistics)
        return spec, assignment


def _assigned(
    weights: npt.NDArray[np.float32],
    spec: ElpBsdSpec,
    grouping: Grouping,
    statistics: InputStatistics | None,
    compensate: Compensate,
) -> Assignment:
    """Levels of the weights of a layer; with "auto" compensated only if the score falls."""
    units, levels = to_units(weights, spec.scale), spec.set.levels
    if compensate == "never":
        return assign(units, levels, grouping, compensated=False)
    moved = assign(units, levels, grouping, compensated=True)
    if compensate == "always" or statistics is None:
        return moved
    still = assign(units, levels, grouping, compensated=False)
    falls = moved.score(statistics, spec.scale) < still.score(statistics, spec.scale)
    return moved if falls else still
