"""The analog tile of ABFP and its digital surroundings, from codes and scales to float32 sums.

spec/abfp.md, sections 2 to 7 and 9.  :class:`AbfpTileSpec` has every stage in exact integers, one
by one, with all rules of range; hardware is compared with it stage by stage.
:class:`TileProduct` is the same in floating point, for matrices, where floating point is exact.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from golden.bfloat16 import from_bits, round_in_range, to_bits
from golden.network import THREADED_MACS
from golden.spec import as_integers, check_int

__all__ = ["GAINS", "MAX_TILE", "AbfpTileSpec", "AbfpTrace", "TileProduct", "add_saturated"]

#: Gains that the hardware has (paper, section V).
GAINS = (1, 2, 4, 8, 16)

#: Largest tile width (chosen): products of 8-bit codes then add up to less than 2**24.
MAX_TILE = 1024

#: Widest noise word (chosen): float64 still tells every sum with noise from a tie.
MAX_NOISE_BITS = 16

#: Every integer up to this is exact in float32.
FLOAT32_INTEGERS = 1 << 24

#: Exponents of scales between which no intermediate of a rescaling leaves float32.
MAX_SCALE_EXP = 40

FLOAT32 = np.finfo(np.float32)

#: Most outputs of a panel of weights, conversions of a block and elements that make a block.  A
#: few arrays of such blocks fit a core's second-level cache.
PANEL = 256
CONVERSIONS = 1 << 16
ELEMENTS = 1 << 17

#: Rows below which the BLAS is much slower.
MIN_ROWS = 16

Codes = npt.NDArray[np.int8]
Scales = npt.NDArray[np.uint16]
Noise = npt.NDArray[np.unsignedinteger[Any]]
Float32s = npt.NDArray[np.float32]


class AbfpTrace(NamedTuple):
    """Every intermediate of a matrix product.

    Parameters
    ----------
    sums : ndarray of int32, [tiles, m, n]
        Dot products of the tiles, S.
    conversions : ndarray of int16, [tiles, m, n]
        Codes of the ADC, k.
    partials : ndarray of uint16, [tiles, m, n]
        Rescaled codes, as bits of bfloat16.
    totals : ndarray of float32, [m, n]
        The accumulator after the last tile.
    saturations : int
        Conversions whose rounded result was out of range.
    """

    sums: npt.NDArray[np.int32]
    conversions: npt.NDArray[np.int16]
    partials: npt.NDArray[np.uint16]
    totals: Float32s
    saturations: int


@dataclass(frozen=True, kw_only=True)
class AbfpTileSpec:
    """Parameters of a tile, its ADC and what follows.

    Parameters
    ----------
    weight_bits, activation_bits : int
        Bits of the elements, b_W and b_X, 2 to 8.
    adc_bits : int
        Bits of the ADC, b_Y, 2 to 8.
    tile : int
        Tile width n: elements that share a scale, a power of two from 1 to 1024.
    gain : int
        G: 1, 2, 4, 8 or 16.  Default: ``tile / 16`` within these, where most networks of the
        paper do best (chosen; Table II).
    noise_bits : int
        Bits R of the noise word that an ADC can take, 1 to 16; 0 if it takes none.
    exp_only : bool
        Scales are powers of two (chosen; the paper evaluates no such thing).

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If a parameter is out of range.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    adc_bits: int = 8
    tile: int = 128
    gain: int = cast(int, None)  # replaced as soon as tile is known to be good
    noise_bits: int = 0
    exp_only: bool = False

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits", "adc_bits"):
            check_int(name, getattr(self, name), 2, 8)
        check_int("tile", self.tile, 1, MAX_TILE)
        if self.tile & self.tile - 1:
            raise ValueError(f"tile must be a power of two, not {self.tile}")
        if self.gain is None:
            object.__setattr__(self, "gain", min(max(self.tile // 16, GAINS[0]), GAINS[-1]))
        check_int("gain", self.gain, GAINS[0], GAINS[-1])
        if self.gain not in GAINS:
            raise ValueError(f"gain must be one of {', '.join(map(str, GAINS))}, not {self.gain}")
        check_int("noise_bits", self.noise_bits, 0, MAX_NOISE_BITS)
        if not isinstance(self.exp_only, bool):
            raise TypeError(f"exp_only must be a bool, not {self.exp_only!r}")

    @property
    def weight_limit(self) -> int:
        """Largest code of a weight, L_W; codes are symmetric."""
        return (1 << self.weight_bits - 1) - 1

    @property
    def activation_limit(self) -> int:
        """Largest code of an activation, L_X."""
        return (1 << self.activation_bits - 1) - 1

    @property
    def adc_limit(self) -> int:
        """Largest code of the ADC, L_Y."""
        return (1 << self.adc_bits - 1) - 1

    @property
    def largest_sum(self) -> int:
        """Largest dot product of a tile: n * L_W * L_X."""
        return self.tile * self.weight_limit * self.activation_limit

    @property
    def sum_bits(self) -> int:
        """Bits of a signed dot product: b_W + b_X + log2 n - 1."""
        return self.weight_bits + self.activation_bits + self.tile.bit_length() - 2

    @property
    def adc_ratio(self) -> tuple[int, int]:
        """Numerator and denominator of the ADC codes in a unit of the dot product, coprime.

        G * L_Y / (n * L_W * L_X); with ``exp_only`` 2**-sh, sh = log2 n - log2 G + b_W + b_X -
        b_Y - 1.
        """
        if self.exp_only:
            numerator = self.gain << self.adc_bits - 1
            denominator = self.tile << self.weight_bits + self.activation_bits - 2
        else:
            numerator, denominator = self.gain * self.adc_limit, self.largest_sum
        common = math.gcd(numerator, denominator)
        return numerator // common, denominator // common

    @property
    def first_saturated(self) -> int:
        """Least dot product that saturates the ADC without noise.

        Its code rounds to more than L_Y.  L_Y is odd, so that a tie above it already does.
        """
        numerator, denominator = self.adc_ratio
        return -(-(2 * self.adc_limit + 1) * denominator // (2 * numerator))

    @property
    def partial_exp(self) -> int:
        """Base-2 logarithm of the power of two in a partial: part = k * s_w * s_x * 2**it / D."""
        exponent = self.tile.bit_length() - self.gain.bit_length()
        return exponent - (self.adc_bits - 1) if self.exp_only else exponent

    @property
    def partial_divisor(self) -> int:
        """The divisor D of a partial: L_Y, or 1 with ``exp_only``."""
        return 1 if self.exp_only else self.adc_limit

    def tiles(self, length: int) -> int:
        """Count the tiles of a vector of ``length`` elements; zeros fill the last one up."""
        return -(-length // self.tile)

    def sums(self, w_codes: Codes, a_codes: Codes) -> npt.NDArray[np.int32]:
        """Dot product of each tile (Eq 5).

        Parameters
        ----------
        w_codes : ndarray of int8, [n, k]
            Codes of weights.
        a_codes : ndarray of int8, [m, k]
            Codes of activations.

        Returns
        -------
        ndarray of int32, [tiles, m, n]
        """
        starts = range(0, w_codes.shape[1], self.tile)
        result = np.empty((len(starts), len(a_codes), len(w_codes)), np.int32)
        for index, start in enumerate(starts):
            columns = slice(start, start + self.tile)
            np.matmul(
                a_codes[:, columns].astype(np.int32),
                w_codes[:, columns].astype(np.int32).T,
                out=result[index],
            )
        return result

    def unclamped(
        self, sums: npt.ArrayLike, noise: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.int64]:
        """Gain, noise and rounding, without the clamp: RNE(S * numerator / denominator + u).

        Parameters
        ----------
        sums : array_like of int
            Dot products, of any shape.
        noise : array_like of int, optional
            Words r from 0 to 2**R - 1, broadcast against ``sums``; u = (2r + 1 - 2**R) /
            2**(R + 1).  None is no noise, u = 0.

        Returns
        -------
        ndarray of int64

        Raises
        ------
        TypeError
            If an argument is not integers.
        ValueError
            If a dot product or a noise word is out of range, or there is noise but no
            ``noise_bits``.
        """
        limit = self.largest_sum
        numerator, denominator = self.adc_ratio
        scaled = as_integers("sums", sums, -limit, limit).astype(np.int64) * numerator
        if noise is not None:
            words = self.checked_noise(noise).astype(np.int64)
            scaled = (scaled << self.noise_bits + 1) + (
                2 * words + 1 - (1 << self.noise_bits)
            ) * denominator
            denominator <<= self.noise_bits + 1
        return _round_half_even(scaled, denominator)

    def checked_noise(
        self, noise: npt.ArrayLike, shape: tuple[int, ...] | None = None
    ) -> npt.NDArray[Any]:
        """``noise`` as an array, of a shape if one is given; errors as :meth:`unclamped` says."""
        if not self.noise_bits:
            raise ValueError("noise must be None where noise_bits is 0")
        words = as_integers("noise", noise, 0, (1 << self.noise_bits) - 1)
        if shape is not None and words.shape != shape:
            raise ValueError(f"noise must be {list(shape)}, not {list(words.shape)}")
        return words

    def convert(
        self, sums: npt.ArrayLike, noise: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.int16]:
        """Codes of the ADC (Eq 6): :meth:`unclamped`, then the clamp to -L_Y .. L_Y."""
        limit = self.adc_limit
        return np.clip(self.unclamped(sums, noise), -limit, limit).astype(np.int16)

    def saturations(self, sums: npt.ArrayLike, noise: npt.ArrayLike | None = None) -> int:
        """Conversions whose rounded result is above L_Y in magnitude."""
        return int(np.count_nonzero(np.abs(self.unclamped(sums, noise)) > self.adc_limit))

    def scale_parts(
        self, scales: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Integer and exponent of scales: s = integer * 2**exponent.

        Parameters
        ----------
        scales : array_like of int
            Bits of bfloat16; with ``exp_only`` the 8-bit field E + 127, 0 for zero.

        Returns
        -------
        integers, exponents : ndarray of int64
            A bfloat16 that is subnormal, infinite or NaN has integer 0.

        Raises
        ------
        TypeError, ValueError
            If ``scales`` are not integers, or negative or too large.
        """
        if self.exp_only:
            fields = as_integers("scales", scales, 0, 0xFF).astype(np.int64)
            return (fields > 0).astype(np.int64), fields - 127
        bits = as_integers("scales", scales, 0, 0x7FFF).astype(np.int64)
        fields = bits >> 7
        significands = np.where((fields > 0) & (fields < 255), bits & 0x7F | 0x80, 0)
        return significands, fields - 127 - 7

    def scale_values(self, scales: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Scales as numbers, exact; arguments as of :meth:`scale_parts`."""
        integers, exponents = self.scale_parts(scales)
        return np.ldexp(integers.astype(np.float64), exponents)

    def rescale(
        self, conversions: npt.ArrayLike, w_scales: npt.ArrayLike, a_scales: npt.ArrayLike
    ) -> npt.NDArray[np.uint16]:
        """Partial results (Eq 7): k * s_w * s_x * n / (L_Y * G), rounded once to bfloat16.

        Parameters
        ----------
        conversions : array_like of int
            ADC codes.
        w_scales, a_scales : array_like of int
            Scales as :meth:`scale_parts` takes them; all three broadcast.

        Returns
        -------
        ndarray of uint16
            Bits of bfloat16, after the rules of range of section 6.

        Raises
        ------
        TypeError, ValueError
            If an argument is not integers or out of range.
        """
        limit = self.adc_limit
        k = as_integers("conversions", conversions, -limit, limit).astype(np.int64)
        (w, w_exps), (a, a_exps) = self.scale_parts(w_scales), self.scale_parts(a_scales)
        numerators = k * w * a
        exponents = w_exps + a_exps + self.partial_exp
        # A quotient of such small integers is never rounded up to a power of two.
        _, lengths = np.frexp(numerators / self.partial_divisor)
        shifts = 8 - lengths.astype(np.int64)
        significands = _round_half_even(
            numerators << np.maximum(shifts, 0), self.partial_divisor << np.maximum(-shifts, 0)
        )
        return to_bits(np.ldexp(significands.astype(np.float64), exponents - shifts))

    def accumulate(self, partials: npt.ArrayLike) -> Float32s:
        """Float32 sum over the tiles, ascending, from +0.

        Parameters
        ----------
        partials : array_like of int, [tiles, ...]
            Bits of bfloat16.

        Returns
        -------
        ndarray of float32, [...]
            Subnormal sums are +0; sums out of range are the largest finite number.
        """
        values = from_bits(partials)
        total = np.zeros(values.shape[1:], np.float32)
        for value in values:
            total = add_saturated(total, value)
        return total

    def trace(
        self,
        w_codes: Codes,
        w_scales: Scales,
        a_codes: Codes,
        a_scales: Scales,
        noise: npt.ArrayLike | None = None,
    ) -> AbfpTrace:
        """Run a matrix product stage by stage, in exact integers.

        Parameters
        ----------
        w_codes, w_scales : ndarray of int8, [n, k], and of uint16, [n, tiles]
            Weights.
        a_codes, a_scales : ndarray of int8, [m, k], and of uint16, [m, tiles]
            Activations.
        noise : array_like of int, [tiles, m, n], optional
            Noise words.

        Returns
        -------
        AbfpTrace
        """
        sums = self.sums(w_codes, a_codes)
        conversions = self.convert(sums, noise)
        partials = self.rescale(conversions, w_scales.T[:, None, :], a_scales.T[:, :, None])
        saturations = self.saturations(sums, noise)
        return AbfpTrace(sums, conversions, partials, self.accumulate(partials), saturations)


def _round_half_even(
    numerators: npt.NDArray[np.int64], denominators: npt.NDArray[np.int64] | int
) -> npt.NDArray[np.int64]:
    """Nearest integer to each quotient, ties to even; denominators are positive."""
    quotients, remainders = np.divmod(numerators, denominators)
    twice = 2 * remainders
    quotients += (twice > denominators) | ((twice == denominators) & (quotients & 1 == 1))
    return quotients


def add_saturated(total: Float32s, term: npt.NDArray[Any]) -> Float32s:
    """Float32 sum with the rules of range of the accumulator (section 6): a new array."""
    with np.errstate(over="ignore"):
        result = np.asarray(np.add(total, term, dtype=np.float32))
    np.clip(result, FLOAT32.min, FLOAT32.max, out=result)
    # Also turns -0 into +0.
    result[np.abs(result) < FLOAT32.smallest_normal] = 0
    return result


def _reciprocal(divisor: int) -> np.float32 | None:
    """Float32 by which to multiply instead of dividing by ``divisor``, or None.

    It is so near that a quotient that float32 has comes out exactly.  Those of 2**j - 1 for j of 5
    or 7 are, as their binary digits repeat: no tie is lost.
    """
    nearest = np.float32(1 / divisor)
    return nearest if abs(Fraction(float(nearest)) * divisor - 1) <= Fraction(1, 1 << 25) else None


def _divide(block: Float32s, divisor: int, reciprocal: np.float32 | None) -> None:
    """Divide in place, faster with a :func:`_reciprocal`."""
    if reciprocal is None:
        np.divide(block, np.float32(divisor), out=block)
    else:
        np.multiply(block, reciprocal, out=block)


class _Panel(NamedTuple):
    """Weights of some outputs: codes [tiles, n, outputs] times a factor, and their scales.

    ``units`` are the scales as [tiles, 2, outputs], of which the second row is zero.
    """

    outputs: slice
    matrix: Float32s
    scales: Scales
    units: Float32s | None


class TileProduct:
    """Matrix product with coded weights, in floating point that is exact.

    The dot products are integers below 2**24.  Their quotient by the ADC's step is rounded to
    float32 before it is rounded to an integer; that gives the same integer where no quotient but
    a tie is so near to a tie that it becomes one, which :meth:`__init__` decides.  Otherwise, and
    with noise, the quotient is a float64, which is always good.  k * (s_w * s_x) is exact in
    float32; its quotient by L_Y, rounded to float32, is never taken for a tie of bfloat16 (section
    4).  It may be a product with :func:`_reciprocal`: a quotient of 2**e to 2**(e + 1) is then
    wrong by less than 2**(e - 23), and the nearest tie that it does not hit is 2**(e - 15) / L_Y
    or more away if the quotient is below 2**16, as here.  Blocks with scales that are not near 1
    go through :meth:`AbfpTileSpec.rescale`.

    Parameters
    ----------
    spec : AbfpTileSpec
        The tile.
    codes : ndarray of int8, [n, k]
        Codes of weights; its float32 copy stays in memory.
    scales : ndarray of uint16, [n, tiles]
        Their scales.
    """

    def __init__(self, spec: AbfpTileSpec, codes: Codes, scales: Scales):
        self.spec = spec
        self.outputs = len(codes)
        numerator, denominator = spec.adc_ratio
        # A quotient is at least 1 / (2 * denominator) away from a tie that it does not hit.  Up to
        # L_Y + 1/2, neighbours of float32 are at most 2**(b_Y - 25) apart.
        self._float32 = (
            spec.largest_sum * numerator <= FLOAT32_INTEGERS
            and denominator << spec.adc_bits < 1 << 25
        )
        self._factor = numerator if self._float32 else 1
        # May be wrong by twice as much, and yet takes no other sum for a tie, in no tile for which
        # float32 is good: a test tries all sums about a tie of each.
        self._per_step = _reciprocal(denominator)
        self._per_partial = _reciprocal(spec.partial_divisor)
        self._saturates = spec.largest_sum >= spec.first_saturated
        width = max(min(PANEL, THREADED_MACS // (MIN_ROWS * spec.tile)), 1)
        self._panels = [
            self._panel(slice(start, min(start + width, self.outputs)), codes, scales)
            for start in range(0, self.outputs, width)
        ]

    def _panel(self, outputs: slice, codes: Codes, scales: Scales) -> _Panel:
        count, length = codes[outputs].shape
        tiles = self.spec.tiles(length)
        matrix = np.zeros((tiles, self.spec.tile, count), np.float32)
        matrix.reshape(-1, count)[:length] = codes[outputs].T
        matrix *= np.float32(self._factor)
        units = self._units(scales[outputs], self.spec.partial_exp)
        return _Panel(outputs, matrix, scales[outputs], units)

    def _units(self, scales: Scales, exponent: int) -> Float32s | None:
        """Scales times a power of two, [tiles, 2, vectors]; None where one is far from 1.

        The second row is zero: the BLAS multiplies matrices of two columns and two rows much
        faster than of one, and than NumPy multiplies by rows and columns.
        """
        values = self.spec.scale_values(scales).T
        _, exponents = np.frexp(values)
        if np.any(np.abs(exponents) > MAX_SCALE_EXP):
            return None
        units = np.zeros((len(values), 2, len(scales)), np.float32)
        units[:, 0] = np.ldexp(values, exponent)
        return units

    def __call__(
        self,
        codes: Codes,
        scales: Scales,
        bias: Float32s | None = None,
        noise: npt.ArrayLike | None = None,
    ) -> Float32s:
        """Accumulators after the last tile, and after the bias.

        Parameters
        ----------
        codes : ndarray of int8, [m, k]
            Codes of activations.
        scales : ndarray of uint16, [m, tiles]
            Their scales.
        bias : ndarray of float32, [n], optional
            Finite; added to each result in one more float32 addition.
        noise : array_like of int, [tiles, m, n], optional
            Noise words, as of :meth:`AbfpTileSpec.unclamped`.

        Returns
        -------
        ndarray of float32, [m, n]
            A new array; bit for bit ``spec.trace(...).totals``, and ``bias`` added to it by
            :func:`add_saturated`.

        Raises
        ------
        TypeError, ValueError
            If ``noise`` does not fit.
        """
        shape = (scales.shape[1], len(codes), self.outputs)
        words = None if noise is None else self.spec.checked_noise(noise, shape)
        result = np.empty((len(codes), self.outputs), np.float32)
        scratch = np.empty(CONVERSIONS, np.float32)
        # With a bias of ordinary size no sum is subnormal, and none is too large.
        plain_bias = bias is None or not np.any(np.abs(np.frexp(bias)[1]) > MAX_SCALE_EXP)
        for panel, rows in self._parts(len(codes)):
            # Apart from the result, whose rows are far apart in memory.
            total = np.zeros((rows.stop - rows.start, panel.matrix.shape[2]), np.float32)
            units = self._units(scales[rows], 0)
            for tiles, block in self._blocks(panel, codes[rows]):
                self._convert(block, None if words is None else words[tiles, rows, panel.outputs])
                if panel.units is None or units is None:
                    self._add_exactly(total, block, panel.scales[:, tiles], scales[rows, tiles])
                    continue
                other = scratch[: block.size].reshape(block.shape)
                np.matmul(units[tiles].mT, panel.units[tiles], out=other)
                np.multiply(block, other, out=block)
                if not self.spec.exp_only:
                    _divide(block, self.spec.partial_divisor, self._per_partial)
                    round_in_range(block, other, block)
                for partial in block:
                    np.add(total, partial, out=total)
            if bias is not None:
                total = (np.add if plain_bias else add_saturated)(total, bias[panel.outputs])
            result[rows, panel.outputs] = total
        return result

    def count_at_least(self, codes: Codes, limits: Sequence[int]) -> list[int]:
        """Count dot products of tiles whose magnitude is at least each of some limits.

        Parameters
        ----------
        codes : ndarray of int8, [m, k]
            Codes of activations.
        limits : sequence of int
            Positive.

        Returns
        -------
        list of int
        """
        counts = [0] * len(limits)
        for panel, rows in self._parts(len(codes)):
            for _, block in self._blocks(panel, codes[rows]):
                np.abs(block, out=block)
                for index, limit in enumerate(limits):
                    counts[index] += int(np.count_nonzero(block >= limit * self._factor))
        return counts

    def _parts(self, vectors: int) -> Iterator[tuple[_Panel, slice]]:
        """Panels, and rows of the activations, into which the result is cut."""
        for panel in self._panels:
            _, width, outputs = panel.matrix.shape
            step = min(CONVERSIONS // outputs, ELEMENTS // width)
            for start in range(0, vectors, step):
                yield panel, slice(start, min(start + step, vectors))

    def _blocks(self, panel: _Panel, codes: Codes) -> Iterator[tuple[slice, Float32s]]:
        """Dot products of the tiles times the factor, as blocks [some tiles, m, outputs].

        Tiles ascend.  A block is valid until the next.
        """
        tiles, width, outputs = panel.matrix.shape
        count = len(codes)
        held = max(min(ELEMENTS // (count * width), tiles), 1)
        step = max(min(CONVERSIONS // (count * outputs), held), 1)
        # Products so small that the BLAS starts no threads; see golden.network.multiply.
        groups = -(-count * width * outputs // (THREADED_MACS - width * outputs))
        rows = -(-count // groups)
        memory = np.empty((step, groups, rows, outputs), np.float32)
        vectors = np.zeros((groups * rows, held * width), np.float32)
        tiled = vectors.reshape(groups, rows, held, width).transpose(2, 0, 1, 3)
        for first in range(0, tiles, held):
            # What is left of earlier tiles meets weights of zero.
            cut = codes[:, first * width : (first + held) * width]
            vectors[:count, : cut.shape[1]] = cut
            end = min(first + held, tiles)
            for start in range(first, end, step):
                part = slice(start, min(start + step, end))
                block = memory[: part.stop - start]
                np.matmul(
                    tiled[start - first : part.stop - first],
                    panel.matrix[part, None],
                    out=block,
                )
                yield part, block.reshape(len(block), -1, outputs)[:, :count]

    def _convert(self, block: Float32s, noise: npt.NDArray[Any] | None) -> None:
        """ADC codes in place of dot products."""
        numerator, denominator = self.spec.adc_ratio
        limit = self.spec.adc_limit
        if self._float32 and noise is None:
            if denominator > 1:
                _divide(block, denominator, self._per_step)
            np.rint(block, out=block)
            if self._saturates:
                np.clip(block, -limit, limit, out=block)
            return
        quotients = block.astype(np.float64)
        quotients *= numerator / self._factor
        quotients /= denominator
        if noise is not None:
            span = 1 << self.spec.noise_bits
            quotients += (2 * noise.astype(np.float64) + (1 - span)) / (2 * span)
        np.rint(quotients, out=quotients)
        np.clip(quotients, -limit, limit, out=quotients)
        block[...] = quotients

    def _add_exactly(
        self, total: Float32s, conversions: Float32s, w_scales: Scales, a_scales: Scales
    ) -> None:
        """Rescale in integers, and accumulate with all rules of range."""
        partials = self.spec.rescale(
            conversions.astype(np.int16), w_scales.T[:, None, :], a_scales.T[:, :, None]
        )
        for partial in partials:
            total[...] = add_saturated(total, from_bits(partial))
