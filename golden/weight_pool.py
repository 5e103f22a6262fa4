"""Bit-serial weight pools: one pool of vectors of weights, and a look-up table of dot products.

Li, Gupta, "Bit-serial Weight Pools", MLSys 2022, arXiv 2201.11651; spec/weight_pool.md says what
is published and what is chosen.  A weight is not coded by itself: groups of 4 or 8 weights along
the input channels share the index of a pool vector.  Bit j of a group of activations, its *plane*
j, is the address of a row of the look-up table, whose entries are the dot products of that plane
with all pool vectors.  Their sum, each weighted by 2**j, is the dot product with the activations.

An entry is a sum of pool weights rounded once, so the weighted sum differs from the product with
the pool weights, and it is what counts here: :meth:`WeightPoolSpec.results` is its definition.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_args

import numpy as np
import numpy.typing as npt

from golden.element import least_error
from golden.fixed import MAX_FRAC_BITS, MIN_FRAC_BITS, FixedSpec
from golden.spec import (
    Format,
    Method,
    Role,
    Spec,
    as_floats,
    as_integers,
    check_finite,
    check_int,
    checked_tensor,
    largest_magnitude,
    parse_bool,
    parse_int,
)
from golden.weight_pool_conv import PoolProduct
from golden.weight_pool_kmeans import Match, check_match, cluster, cut, match
from golden.weight_pool_table import (
    INDEX_BITS,
    MAX_ACT_BITS,
    Layout,
    check_exact,
    make_table,
    plane_weights,
    subset_sums,
    table_rows,
)

if TYPE_CHECKING:
    from golden.inference import NumberSystem

__all__ = [
    "PoolCodes",
    "WeightPoolFormat",
    "WeightPoolSpec",
    "checked_activations",
]

#: Limits of ``lut_range_exp`` (chosen).
MIN_RANGE_EXP, MAX_RANGE_EXP = -64, 64

#: Ranges of the table that a fit tries below the one that clips nothing.
RANGE_STEPS = 4

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolCodes:
    """Indices that stand for a tensor of weights.

    Parameters
    ----------
    indices : ndarray of uint8, [..., blocks]
        Pool vector of each group along the last axis.
    shape : tuple of int
        Shape of the tensor; the last group may be longer than what is left of its last axis.
    """

    indices: npt.NDArray[np.uint8]
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightPoolSpec(Spec):
    """A pool and its look-up table.

    Parameters
    ----------
    pool : array_like of float, [entries, group]
        Pool vectors, 1 to 256 of 4 or 8 numbers that are finite in binary32.
    lut_bits : int
        Bits of an entry, 2 to 16.
    lut_range_exp : int
        Base-2 logarithm of the range R of the table, -64 to 64.
    exact : bool
        False: an entry is ``clamp(RNE(sum * L / R), -L, L)``, L = 2**(lut_bits - 1) - 1.  True:
        it is ``sum * L / R``, L = 2**(lut_bits - 1), and every sum must be a multiple of R / L
        that fits two's complement.
    layout : {"full", "nibble", "half"}
        How the table is stored.  The three are the same for exact entries only.
    match : {"l2", "cosine"}
        How :meth:`encode` finds the pool vector.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If a parameter is out of range, or the pool does not fit exact entries.
    """

    stem: ClassVar[str] = "weight_pool"

    pool: npt.NDArray[np.float64]
    lut_bits: int = 8
    lut_range_exp: int = 0
    exact: bool = False
    layout: Layout = "full"
    match: Match = "l2"

    def __post_init__(self) -> None:
        pool = as_floats("pool", self.pool).astype(np.float64)
        if pool.ndim != 2 or not 1 <= len(pool) <= 256 or pool.shape[1] not in (4, 8):
            raise ValueError(f"pool must be [1 to 256, 4 or 8], not {list(pool.shape)}")
        check_finite("pool", pool)
        pool.flags.writeable = False
        object.__setattr__(self, "pool", pool)
        check_int("lut_bits", self.lut_bits, 2, 16)
        check_int("lut_range_exp", self.lut_range_exp, MIN_RANGE_EXP, MAX_RANGE_EXP)
        if not isinstance(self.exact, bool):
            raise TypeError(f"exact must be a bool, not {self.exact!r}")
        if self.layout not in get_args(Layout):
            raise ValueError(f"layout must be full, nibble or half, not {self.layout!r}")
        check_match(self.match)
        if self.exact:
            check_exact(pool, self.lut_bits, self.unit)

    def __str__(self) -> str:
        names = [f.name for f in fields(self) if f.name not in ("pool", "exact")]
        text = ",".join(f"{name}={getattr(self, name)}" for name in names)
        exact = ",exact=yes" if self.exact else ""
        return f"{self.stem}{self.entries}:group={self.group},{text}{exact}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WeightPoolSpec):
            return NotImplemented
        return str(self) == str(other) and np.array_equal(self.pool, other.pool)

    def __hash__(self) -> int:
        return hash((str(self), (self.pool + 0).tobytes()))

    @property
    def entries(self) -> int:
        """Number of pool vectors."""
        return len(self.pool)

    @property
    def group(self) -> int:
        """Weights of a vector: input channels that share an index."""
        return self.pool.shape[1]

    @property
    def levels(self) -> int:
        """Entry that stands for the range: L."""
        return (1 << self.lut_bits - 1) - (not self.exact)

    @property
    def unit(self) -> float:
        """Value of the entry 1, to the nearest binary64."""
        return 2.0**self.lut_range_exp / self.levels

    @property
    def entry_bits(self) -> int:
        """Bits of a signed row of the table as it is added: one more than stored if combined."""
        if self.exact:
            return self.lut_bits
        return self.lut_bits + (self.layout != "full")

    @property
    def table_bits(self) -> int:
        """Bits of the stored table.

        The half table has no row for address 0; the sum of all weights takes its place.
        """
        return table_rows(self.group, self.layout) * self.entries * self.lut_bits

    @cached_property
    def table(self) -> npt.NDArray[np.int32]:
        """Entry by address and pool index, as it is added; read-only, [2**group, entries]."""
        table = make_table(self.pool, self.levels, self.lut_range_exp, self.layout)
        table.flags.writeable = False
        return table

    def encode(self, x: npt.ArrayLike) -> PoolCodes:
        """Match groups of ``x`` along its last axis with pool vectors.

        Parameters
        ----------
        x : array_like of float16, float32 or float64
            Any shape.  NaN counts as 0, infinities as the largest number of binary32.

        Returns
        -------
        PoolCodes

        Raises
        ------
        TypeError
            If ``x`` is of another type.
        """
        numbers = as_floats("x", x)
        shape = numbers.shape
        if not largest_magnitude(numbers) <= FLOAT32_MAX:
            numbers = np.clip(
                np.where(np.isnan(numbers), 0, numbers).astype(np.float64),
                -FLOAT32_MAX,
                FLOAT32_MAX,
            )
        vectors = cut(np.atleast_1d(numbers), self.group)
        indices = match(vectors.reshape(-1, self.group), self.pool, self.match)
        return PoolCodes(indices=indices.reshape(vectors.shape[:-1]), shape=shape)

    def decode(self, codes: PoolCodes) -> npt.NDArray[np.float32]:
        """Pool weights, to the nearest float32, in the shape that was coded.

        Raises
        ------
        TypeError
            If ``codes`` are not :class:`PoolCodes`.
        ValueError
            If an index is not in the pool.
        """
        indices = self._checked_indices(codes)
        vectors = self.pool.astype(np.float32)[indices]
        rows, blocks = indices.shape[:-1], indices.shape[-1]
        length = codes.shape[-1] if codes.shape else 1
        weights = vectors.reshape(*rows, blocks * self.group)[..., :length]
        return weights.reshape(codes.shape)

    def _checked_indices(self, codes: object) -> npt.NDArray[Any]:
        if not isinstance(codes, PoolCodes):
            raise TypeError(f"codes must be PoolCodes, not {codes!r}")
        return as_integers("indices", codes.indices, 0, self.entries - 1)

    def code_table(self) -> dict[str, list[Any]]:
        """Codes of an entry of the stored table; see :meth:`golden.spec.Spec.code_table`.

        A weight has none but the index of its pool vector.  The lowest code of a table that is not
        exact is never used.
        """
        codes = range(1 << self.lut_bits)
        half = 1 << self.lut_bits - 1
        entries = [(code ^ half) - half for code in codes]
        return {
            "code": list(codes),
            "binary": [f"{code:0{self.lut_bits}b}" for code in codes],
            "hex": [f"{code:0{(self.lut_bits + 3) // 4}x}" for code in codes],
            "value": [entry * 2.0**self.lut_range_exp / self.levels for entry in entries],
            "entry": entries,
        }

    def storage_bits(self, shape: Sequence[int]) -> int:
        """Bits of the indices of a tensor, and of the table."""
        return self.index_storage_bits(shape) + self.table_bits

    def index_storage_bits(self, shape: Sequence[int]) -> int:
        """Bits of the indices of a tensor: 8 for each group."""
        rows = int(np.prod(shape[:-1], dtype=np.int64))
        return INDEX_BITS * rows * -(-(shape[-1] if shape else 1) // self.group)

    def result_bits(self, act_bits: int) -> int:
        """Bits of the signed result of a pool vector for activations of ``act_bits`` bits."""
        check_int("act_bits", act_bits, 1, MAX_ACT_BITS)
        return self.entry_bits + act_bits

    def accumulator_bits(self, blocks: int, act_bits: int = MAX_ACT_BITS) -> int:
        """Bits of a signed accumulator that holds any sum of results.

        Parameters
        ----------
        blocks : int
            Results that are added: kernel positions times groups of channels.
        act_bits : int
            Bits of an activation.

        Returns
        -------
        int
            ``result_bits(act_bits) + ceil_log2(blocks)``.

        Raises
        ------
        TypeError, ValueError
            If an argument is not an int or out of range.
        """
        check_int("blocks", blocks, 1, None)
        return self.result_bits(act_bits) + (blocks - 1).bit_length()

    def results(
        self,
        codes: npt.ArrayLike,
        act_bits: int,
        *,
        signed: bool = False,
        zero_point: int = 0,
    ) -> npt.NDArray[np.int64]:
        """Results of all pool vectors for groups of activations, plane by plane.

        Parameters
        ----------
        codes : array_like of int, [..., group]
            Activations: unsigned, or two's complement if ``signed``, with or without the sign
            taken into account: only the low ``act_bits`` bits count.
        act_bits : int
            Planes, 1 to 8.
        signed : bool
            Whether the highest plane counts negative.
        zero_point : int
            Code that stands for 0, unsigned only, of ``act_bits`` bits.

        Returns
        -------
        ndarray of int64, [..., entries]
            In units of ``unit``.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If a code needs more than ``act_bits`` bits, or another argument is out of range.
        """
        weights = plane_weights(act_bits, signed)
        _check_zero_point(zero_point, act_bits, signed)
        low, high = (-(1 << act_bits - 1), 1 << act_bits) if signed else (0, 1 << act_bits)
        integers = as_integers("codes", codes, low, high - 1).astype(np.int64)
        if integers.ndim < 1 or integers.shape[-1] != self.group:
            raise ValueError(f"codes must be [..., {self.group}], not {list(integers.shape)}")
        channel = 1 << np.arange(self.group)
        total = np.zeros((*integers.shape[:-1], self.entries), np.int64)
        for plane, weight in enumerate(weights):
            addresses = ((integers >> plane & 1) * channel).sum(axis=-1)
            total += weight * self.table[addresses].astype(np.int64)
        return total - zero_point * self.table[-1].astype(np.int64)

    def convolve(
        self,
        codes: npt.ArrayLike,
        indices: npt.ArrayLike,
        act_bits: int,
        *,
        signed: bool = False,
        zero_point: int = 0,
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        bias_q: npt.ArrayLike = 0,
    ) -> npt.NDArray[np.int64]:
        """Exact accumulators of a convolution.

        Parameters
        ----------
        codes : array_like of int, [images, height, width, channels]
            Activations, as in :meth:`results`.
        indices : array_like of int, [kernel height, kernel width, blocks, n]
            Pool vectors; flattened, this is the published order.  There are ceil(channels / group)
            blocks.
        act_bits, signed, zero_point
            As in :meth:`results`.
        strides : tuple of int
            Steps along height and width.
        pads : tuple of int
            Rows and columns outside the image that count as 0: top, left, bottom, right.
        bias_q : array_like of int, [n] or []
            Start values of the accumulators.

        Returns
        -------
        ndarray of int64, [images, rows, columns, n]
            In units of ``unit``.

        Raises
        ------
        TypeError, ValueError
            As in :meth:`results`, and if shapes do not fit.
        """
        weights = plane_weights(act_bits, signed)
        _check_zero_point(zero_point, act_bits, signed)
        low, high = (-(1 << act_bits - 1), 1 << act_bits) if signed else (0, 1 << act_bits)
        activations = as_integers("codes", codes, low, high - 1)
        kernels = as_integers("indices", indices, 0, self.entries - 1)
        if activations.ndim != 4:
            raise ValueError(f"codes must have 4 axes, not {activations.ndim}")
        blocks = -(-activations.shape[3] // self.group)
        if kernels.ndim != 4 or kernels.shape[2] != blocks or not all(kernels.shape[:2]):
            raise ValueError(
                f"indices must be [height, width, {blocks}, n], not {list(kernels.shape)}"
            )
        for name, sizes, count, least in (("strides", strides, 2, 1), ("pads", pads, 4, 0)):
            if len(sizes) != count:
                raise ValueError(f"{name} must be {count} integers, not {len(sizes)}")
            for size in sizes:
                check_int(name, size, least, None)
        for axis, name in enumerate(("height", "width")):
            size = activations.shape[1 + axis] + pads[axis] + pads[axis + 2]
            if kernels.shape[axis] > size:
                raise ValueError(
                    f"{name} of the kernel must be at most {size}, not {kernels.shape[axis]}"
                )
        start = self._start(bias_q, kernels, zero_point)
        product = PoolProduct(self.table, weights, kernels, start, strides, padding=zero_point)
        return product.from_images(activations.astype(np.uint8), pads)

    def _start(
        self, bias_q: npt.ArrayLike, indices: npt.NDArray[Any], zero_point: int
    ) -> npt.NDArray[np.int64]:
        """Start values with the correction for a zero point."""
        bias = as_integers("bias_q", bias_q, -(1 << 47), (1 << 47) - 1).astype(np.int64)
        if bias.shape not in ((), indices.shape[3:]):
            raise ValueError(f"bias_q must be {list(indices.shape[3:])}, not {list(bias.shape)}")
        sums = self.table[-1].astype(np.int64)[indices].sum(axis=(0, 1, 2))
        return bias - zero_point * sums

    def matmul(
        self, w_codes: Any, activations: Spec, a_codes: Any, bias: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.float64]:
        """Matrix product with one rounding, to binary64.

        Parameters
        ----------
        w_codes : PoolCodes
            Codes of weights [n, k].
        activations : FixedSpec
            Format of the activations, of at most 8 bits.
        a_codes : array_like of int
            Codes of activations [m, k].
        bias : array_like of float, [n], optional
            Start values; rounded to the unit of the accumulators.

        Returns
        -------
        ndarray of float64, [m, n]

        Raises
        ------
        TypeError, ValueError
            If the codes or the formats do not fit together.
        """
        spec = checked_activations(activations)
        indices = self._checked_indices(w_codes)
        codes = spec.checked_codes(a_codes)
        length = w_codes.shape[-1] if len(w_codes.shape) == 2 else None
        if length is None or codes.ndim != 2 or codes.shape[1] != length:
            raise ValueError(
                f"w_codes and a_codes must be of [n, k] and [m, k], not {list(w_codes.shape)} and "
                f"{list(codes.shape)}"
            )
        start = np.zeros(len(indices), np.int64)
        if bias is not None:
            start = start + self.quantise_bias(spec, bias)
        product = PoolProduct(
            self.table, plane_weights(spec.bits, spec.signed), indices.T[None, None], start
        )
        images = codes.astype(np.uint8)[:, None, None]
        accumulators = product.from_images(images, (0, 0, 0, 0))
        return self.values(accumulators[:, 0, 0], spec)

    def quantise_bias(self, activations: FixedSpec, bias: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Nearest multiples of the unit of the accumulators, ties to even.

        Parameters
        ----------
        activations : FixedSpec
            Format of the activations.
        bias : array_like of float
            Any shape, finite.

        Returns
        -------
        ndarray of int64, of the shape of ``bias``

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If a number is not finite or too large for an accumulator of 48 bits.
        """
        numbers = as_floats("bias", bias)
        unit = Fraction(2) ** (self.lut_range_exp + activations.operand_exp) / self.levels
        result = np.empty(numbers.shape, np.int64)
        for index, value in np.ndenumerate(numbers):
            # NaN compares with nothing.
            if not abs(value) < unit * (1 << 47) - unit:
                raise ValueError(f"bias must be below {float(unit * 2**47)}, not {value}")
            result[index] = round(Fraction(float(value)) / unit)
        return result

    def accumulator_unit(self, activations: FixedSpec) -> float:
        """Value of the accumulator 1, to the nearest binary64."""
        return float(np.ldexp(1.0, self.lut_range_exp + activations.operand_exp)) / self.levels

    def values(
        self, accumulators: npt.NDArray[Any], activations: FixedSpec
    ) -> npt.NDArray[np.float64]:
        """Accumulators in real units, to the nearest binary64."""
        exponent = self.lut_range_exp + activations.operand_exp
        return np.ldexp(accumulators.astype(np.float64), exponent) / self.levels


def checked_activations(spec: object) -> FixedSpec:
    """Format of activations that planes can be taken of; TypeError or ValueError for others."""
    if not isinstance(spec, FixedSpec):
        raise TypeError(f"activations must be a FixedSpec, not {spec!r}")
    if spec.bits > MAX_ACT_BITS:
        raise ValueError(f"activations must have at most {MAX_ACT_BITS} bits, not {spec.bits}")
    return spec


def _check_zero_point(zero_point: int, act_bits: int, signed: bool) -> None:
    check_int("zero_point", zero_point, 0, (1 << act_bits) - 1)
    if signed and zero_point:
        raise ValueError(f"zero_point must be 0 for signed codes, not {zero_point}")


def parse_layout(name: str, text: str) -> Layout:
    """Layout that a format string gives; ValueError if it is none."""
    if text not in get_args(Layout):
        raise ValueError(f"{name} must be full, nibble or half, not {text!r}")
    return cast(Layout, text)


def parse_match(name: str, text: str) -> Match:
    """Rule that a format string gives; ValueError if it is none."""
    check_match(text)
    return cast(Match, text)


@dataclass(frozen=True, kw_only=True)
class WeightPoolFormat(Format):
    """Weight pools whose pool and ranges are fitted.

    Parameters
    ----------
    entries : int
        Pool vectors, 1 to 256; the paper has 32, 64 and 128.
    group : int, optional
        Weights of a vector, 4 or 8; 8 if not given.
    lut_bits : int, optional
        Bits of an entry of the table, 2 to 16; if not given 8, or for exact entries as many as
        sums of 8-bit weights need.
    lut_range_exp : int, optional
        Range of the table; fitted if not given.
    act_bits : int, optional
        Bits of an activation, 1 to 8; 8 if not given.
    exact : bool, optional
        Whether the pool is rounded to integers and entries are not; they are if not given.
    layout : {"full", "nibble", "half"}, optional
        How the table is stored; full if not given.
    match : {"l2", "cosine"}, optional
        How a weight vector finds its pool vector.  If not given, by distance, as networks need
        that are not retrained; the paper retrains them and matches by cosine.
    seed : int, optional
        Of the clustering; 0 if not given.
    """

    stem: ClassVar[str] = "weight_pool"
    size_field: ClassVar[str] = "entries"
    parameters: ClassVar[Mapping[str, Any]] = {
        "group": parse_int,
        "lut_bits": parse_int,
        "lut_range_exp": parse_int,
        "act_bits": parse_int,
        "exact": parse_bool,
        "layout": parse_layout,
        "match": parse_match,
        "seed": parse_int,
    }

    entries: int = 64
    group: int | None = None
    lut_bits: int | None = None
    lut_range_exp: int | None = None
    act_bits: int | None = None
    exact: bool | None = None
    layout: Layout | None = None
    match: Match | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_int("entries", self.entries, 1, 256)
        check_int("group", self._group, 4, 8)
        check_int("act_bits", self._act_bits, 1, MAX_ACT_BITS)
        check_int("seed", self._seed, 0, None)
        self.spec()

    @property
    def _group(self) -> int:
        return 8 if self.group is None else self.group

    @property
    def _act_bits(self) -> int:
        return 8 if self.act_bits is None else self.act_bits

    @property
    def _seed(self) -> int:
        return 0 if self.seed is None else self.seed

    @property
    def _lut_bits(self) -> int:
        if self.lut_bits is not None:
            return self.lut_bits
        return 7 + self._group.bit_length() if self.exact else 8

    def spec(self) -> WeightPoolSpec:
        """Spec with a pool of zeros, and a table of range 1 if no other is given."""
        return self._with(np.zeros((self.entries, self._group)), self.lut_range_exp or 0)

    def _with(self, pool: npt.NDArray[np.float64], lut_range_exp: int) -> WeightPoolSpec:
        return WeightPoolSpec(
            pool=pool,
            lut_bits=self._lut_bits,
            lut_range_exp=lut_range_exp,
            exact=bool(self.exact),
            layout=self.layout or "full",
            match=self.match or "l2",
        )

    def fit(self, tensor: npt.ArrayLike, role: Role = "weights", method: Method = "sweep") -> Spec:
        """Pool and table for weights; range of fixed-point codes for activations.

        Parameters
        ----------
        tensor : array_like of float16, float32 or float64
            Any shape; finite in binary32.  Weights are grouped along the last axis.
        role : {"weights", "activations"}
            What the tensor is.
        method : {"sweep", "paper"}
            For activations, the range with the least mean squared error, or the next power of two
            (published).  Pools know only one method.

        Returns
        -------
        WeightPoolSpec or FixedSpec

        Raises
        ------
        TypeError, ValueError
            As :meth:`golden.spec.Format.fit`.
        """
        numbers = checked_tensor(tensor, role, method)
        if role == "activations":
            return self._fit_activations(numbers, method)
        return self.fit_vectors(cut(np.atleast_1d(numbers), self._group).reshape(-1, self._group))

    def fit_vectors(self, vectors: npt.NDArray[Any]) -> WeightPoolSpec:
        """Pool of weight vectors [n, group], clustered, and the range of its table."""
        return self.with_pool(cluster(vectors, self.entries, seed=self._seed))

    def with_pool(self, pool: npt.ArrayLike) -> WeightPoolSpec:
        """Spec for a pool that is given, [entries, group]; only the range of its table is fitted.

        The range (chosen) is the one with the least squared error of the entries, from the
        smallest power of two that clips no sum downwards.  For exact entries, the pool is rounded
        to the finest grid on which every sum fits.

        Raises
        ------
        TypeError, ValueError
            If the pool is not what it must be.
        """
        numbers = as_floats("pool", pool).astype(np.float64)
        if numbers.shape != (self.entries, self._group):
            raise ValueError(
                f"pool must be [{self.entries}, {self._group}], not {list(numbers.shape)}"
            )
        if self.exact:
            return self._with_integers(numbers)
        if self.lut_range_exp is not None:
            return self._with(numbers, self.lut_range_exp)
        sums = subset_sums(numbers)
        top = _limited(_ceil_exp(largest_magnitude(sums)))
        candidates = [
            self._with(numbers, exp)
            for exp in range(top, max(top - RANGE_STEPS, MIN_RANGE_EXP), -1)
        ]
        errors = [float(((spec.table * spec.unit - sums) ** 2).sum()) for spec in candidates]
        return candidates[int(np.argmin(errors))]

    def _with_integers(self, pool: npt.NDArray[np.float64]) -> WeightPoolSpec:
        # As many bits as leave room for the sum of a group.
        bits = self._lut_bits - (self._group - 1).bit_length()
        if bits < 2:
            raise ValueError(f"lut_bits must leave 2 bits for a weight, not {bits}")
        limit = (1 << bits - 1) - 1
        exp = self.lut_range_exp
        if exp is None:
            # Smallest unit at which the largest weight is at most the limit.
            exp = _limited(_ceil_exp(largest_magnitude(pool) / limit) + self._lut_bits - 1)
        unit_exp = exp - (self._lut_bits - 1)
        integers = np.clip(np.rint(np.ldexp(pool, -unit_exp)), -limit, limit)
        return self._with(np.ldexp(integers, unit_exp), exp)

    def _fit_activations(self, numbers: npt.NDArray[Any], method: Method) -> FixedSpec:
        signed = bool(numbers.min(initial=0) < 0)
        bits = self._act_bits
        top = _ceil_exp(largest_magnitude(numbers))
        specs = []
        for exp in range(top, top - bits - 1, -1):
            frac_bits = bits - signed - exp
            frac_bits = min(max(frac_bits, MIN_FRAC_BITS), MAX_FRAC_BITS)
            specs.append(FixedSpec(bits=bits, frac_bits=frac_bits, signed=signed))
        if method == "paper":
            return specs[0]
        return cast(FixedSpec, least_error(numbers, list(dict.fromkeys(specs))))

    def system(self, method: Method = "sweep") -> "NumberSystem":
        """Make the number system that pools the layers of a network."""
        # That module takes formats of this one as arguments.
        from golden.weight_pool_system import WeightPoolSystem

        return WeightPoolSystem(format=self, method=method)


def _ceil_exp(number: float) -> int:
    """Exponent of the smallest power of two that is at least ``number``; 0 for 0."""
    fraction, exp = math.frexp(number)
    return exp - (fraction == 0.5)


def _limited(range_exp: int) -> int:
    return min(max(range_exp, MIN_RANGE_EXP), MAX_RANGE_EXP)
