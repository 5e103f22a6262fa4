"""Adaptive block floating point with gain: vectors of n elements share a scale.

Paper: Basumallik et al., "Adaptive Block Floating-Point for Analog Deep Learning Hardware", 2022,
arXiv 2205.06287.  Names there and here: n is ``tile``, G is ``gain``, b_W and b_X are ``bits``, b_Y
is ``adc_bits``.  Power-of-two scales (``exp_only``) are not the paper's: they are this project's.

The scale of a vector is its largest magnitude, a bfloat16; codes are symmetric integers.
:mod:`golden.abfp_tile` multiplies them, :mod:`golden.abfp_layers` runs networks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from golden.abfp_tile import PANEL, AbfpTileSpec, AbfpTrace, TileProduct
from golden.bfloat16 import round_in_range, rounded
from golden.rounding import BLOCK
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
    parse_bool,
    parse_int,
)

if TYPE_CHECKING:
    from golden.abfp_layers import AbfpSystem

__all__ = ["AbfpCodes", "AbfpFormat", "AbfpSpec"]

#: No intermediate of vectors leaves float32 if their largest magnitudes are up to this and down to
#: its reciprocal.
PLAIN = np.float32(2.0**100)

#: Vectors up to this width are faster to search for their maximum element by element.
NARROW_VECTOR = 16

#: Weights of which a one-time product makes float32 copies at a time.
COPIED_WEIGHTS = 1 << 18


@dataclass(frozen=True, kw_only=True, eq=False)
class AbfpCodes:
    """A tensor in ABFP, vectors along its last axis.

    Parameters
    ----------
    codes : ndarray of int8, [..., k]
        Codes of the elements, -L to L.
    scales : ndarray of uint16, [..., tiles]
        Scale of each vector: bits of a bfloat16; with ``exp_only`` the field E + 127 of s = 2**E,
        0 for a vector of zeros.
    bad_input : bool
        Whether the tensor had infinities or NaN, which count as 0.

    Raises
    ------
    TypeError
        If an array is of another type.
    ValueError
        If the shapes do not fit.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.uint16]
    bad_input: bool = False

    def __post_init__(self) -> None:
        for name, dtype in (("codes", np.int8), ("scales", np.uint16)):
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                kind = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"{name} must be an ndarray of {dtype.__name__}, not {kind}")
        if not self.codes.ndim:
            raise ValueError("codes must have at least 1 axis, not 0")
        if self.scales.shape[:-1] != self.codes.shape[:-1] or not self.scales.ndim:
            wanted = ", ".join(map(str, (*self.codes.shape[:-1], "tiles")))
            raise ValueError(f"scales must be [{wanted}], not {list(self.scales.shape)}")

    @property
    def length(self) -> int:
        """Elements along the last axis, k."""
        return self.codes.shape[-1]


@dataclass(frozen=True, kw_only=True)
class AbfpSpec(Spec):
    """ABFP for one tensor, with the ADC and the gain where the tensor is weights.

    Weights and activations of a layer may differ in ``bits``.  A product takes ``adc_bits``,
    ``gain`` and ``noise_bits`` from the spec of its weights.

    Parameters
    ----------
    bits : int
        Bits of a code, 2 to 8.
    tile, gain, adc_bits, noise_bits, exp_only
        As in :class:`golden.abfp_tile.AbfpTileSpec`.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If a parameter is out of range.
    """

    stem: ClassVar[str] = "abfp"

    bits: int = 8
    tile: int = 128
    gain: int = cast(int, None)  # replaced as soon as tile is known to be good
    adc_bits: int = 8
    noise_bits: int = 0
    exp_only: bool = False

    def __post_init__(self) -> None:
        check_int("bits", self.bits, 2, 8)
        object.__setattr__(self, "gain", self.tile_spec(self).gain)

    def __str__(self) -> str:
        fmt = AbfpFormat(
            bits=self.bits,
            tile=self.tile,
            gain=self.gain,
            adc_bits=None if self.adc_bits == AbfpSpec.adc_bits else self.adc_bits,
            noise_bits=self.noise_bits or None,
            exp_only=self.exp_only or None,
        )
        return str(fmt)

    @property
    def limit(self) -> int:
        """Largest code, L = 2**(bits - 1) - 1."""
        return (1 << self.bits - 1) - 1

    @property
    def scale_bits(self) -> int:
        """Bits of a scale."""
        return 8 if self.exp_only else 16

    def tile_spec(self, activations: Spec) -> AbfpTileSpec:
        """Tile that multiplies weights in this format by activations in another.

        Raises
        ------
        TypeError
            If ``activations`` are not in an AbfpSpec.
        ValueError
            If the formats differ in ``tile`` or ``exp_only``.
        """
        if not isinstance(activations, AbfpSpec):
            raise TypeError(f"activations must be an AbfpSpec, not {activations!r}")
        for name in ("tile", "exp_only"):
            mine, other = getattr(self, name), getattr(activations, name)
            if mine != other:
                raise ValueError(f"activations.{name} must be {mine}, not {other}")
        return AbfpTileSpec(
            weight_bits=self.bits,
            activation_bits=activations.bits,
            adc_bits=self.adc_bits,
            tile=self.tile,
            gain=self.gain,
            noise_bits=self.noise_bits,
            exp_only=self.exp_only,
        )

    def encode(self, x: npt.ArrayLike) -> AbfpCodes:
        """Round to bfloat16 and quantise in vectors along the last axis (Eq 1).

        Parameters
        ----------
        x : array_like of float16, float32 or float64, [..., k]
            Infinities and NaN count as 0 and set ``bad_input``.

        Returns
        -------
        AbfpCodes
            RNE(L * v / s), s the largest magnitude of the vector; with ``exp_only`` RNE(v / s *
            2**(bits - 1)) clamped to -L .. L, s the least power of two above it.  The last vector
            is shorter where k is not a multiple of n, as if padded with zeros.

        Raises
        ------
        TypeError
            If ``x`` is of another type.
        ValueError
            If it is a scalar.
        """
        numbers = as_floats("x", x)
        if not numbers.ndim:
            raise ValueError("x must have at least 1 axis, not 0")
        *lead, length = numbers.shape
        rows = numbers.reshape(math.prod(lead), length)
        codes = np.empty(rows.shape, np.int8)
        scales = np.empty((len(rows), -(-length // self.tile)), np.uint16)
        bad_input = False
        for vectors, part_codes, part_scales in self._blocks(rows, codes, scales):
            block, largest, bad = _read(vectors)
            part_scales[...] = self._code(block, largest, part_codes)
            bad_input |= bad
        return AbfpCodes(
            codes=codes.reshape(numbers.shape),
            scales=scales.reshape(*lead, scales.shape[1]),
            bad_input=bad_input,
        )

    def _blocks(
        self, source: npt.NDArray[Any], result: npt.NDArray[Any], scales: npt.NDArray[np.uint16]
    ) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.uint16]]]:
        """Cut two arrays [m, k] and the scales [m, tiles] alike into small blocks, as views.

        The blocks are [rows, tiles, width] and [rows, tiles]; ``width`` is that of the tile, and
        less for a last vector that is shorter.
        """
        count, length = source.shape
        whole = length // self.tile
        for start, stop, width in (
            (0, whole, self.tile),
            (whole, scales.shape[1], length % self.tile),
        ):
            if start == stop:
                continue
            columns = slice(start * self.tile, start * self.tile + (stop - start) * width)
            shape = (count, stop - start, width)
            parts = [array[:, columns].reshape(shape) for array in (source, result)]
            wide = max(1, min(stop - start, BLOCK // width))
            high = max(1, BLOCK // (wide * width))
            for top in range(0, count, high):
                for left in range(0, stop - start, wide):
                    cut = (slice(top, top + high), slice(left, left + wide))
                    yield parts[0][cut], parts[1][cut], scales[:, start:stop][cut]

    def _code(
        self,
        numbers: npt.NDArray[np.float32],
        largest: npt.NDArray[np.float32],
        codes: npt.NDArray[np.int8],
    ) -> npt.NDArray[np.uint32]:
        """Code vectors of bfloat16 whose largest magnitudes are known; the scales."""
        bits = largest.view(np.uint32)
        if self.exp_only:
            scales = np.where(bits > 0, (bits >> 23) + 1, 0)
            # Half of the scale: 2**128 is no float32.
            units = (bits & 0x7F800000).view(np.float32)
            steps = 1 << self.bits - 2
        else:
            scales, units, steps = bits >> 16, largest, self.limit
        units = np.where(units > 0, units, np.float32(1))
        # In this order, float32 gives the exact tie or no tie (specification, section 4).
        quotients = numbers / units[..., None]
        quotients *= np.float32(steps)
        np.rint(quotients, out=quotients)
        if self.exp_only:
            np.clip(quotients, -self.limit, self.limit, out=quotients)
        codes[...] = quotients
        return scales

    def decode(self, codes: AbfpCodes) -> npt.NDArray[np.float32]:
        """Values of coded elements: q * s / L, or q * s / 2**(bits - 1) with ``exp_only``.

        Parameters
        ----------
        codes : AbfpCodes
            Codes in this format.

        Returns
        -------
        ndarray of float32, of the shape that was coded
            To the nearest float32.

        Raises
        ------
        TypeError, ValueError
            If the codes are not of this format.
        """
        self.check_codes("codes", codes)
        divisor = 1 << self.bits - 1 if self.exp_only else self.limit
        tile = self.tile_spec(self)
        values = np.empty(codes.codes.shape, np.float32)
        shape = (math.prod(values.shape[:-1]), codes.length)
        scales = codes.scales.reshape(shape[0], codes.scales.shape[-1])
        for q, result, part in self._blocks(
            codes.codes.reshape(shape), values.reshape(shape), scales
        ):
            units = tile.scale_values(part)[..., None]
            if np.all(units <= PLAIN):
                # The product is exact, so that the quotient is rounded once.
                result[...] = q
                result *= units.astype(np.float32)
                result /= np.float32(divisor)
            else:
                # No such quotient is nearer to a tie of float32 than float64 can tell.
                result[...] = q * units / divisor
        return values

    def code_table(self) -> dict[str, list[Any]]:
        """All codes of an element, in the order of their bits in two's complement.

        The least code of two's complement never occurs.  ``code`` is the bits as an unsigned
        number, ``integer`` the code itself, ``value`` the element in units of its scale, q / L to
        the nearest binary64.
        """
        integers = [*range(self.limit + 1), *range(-self.limit, 0)]
        patterns = [integer % (1 << self.bits) for integer in integers]
        divisor = 1 << self.bits - 1 if self.exp_only else self.limit
        return {
            "code": patterns,
            "binary": [f"{pattern:0{self.bits}b}" for pattern in patterns],
            "hex": [f"{pattern:0{(self.bits + 3) // 4}x}" for pattern in patterns],
            "value": [integer / divisor for integer in integers],
            "integer": integers,
        }

    def storage_bits(self, shape: Sequence[int]) -> int:
        """Bits that a coded tensor of a shape takes: elements and one scale per vector.

        Raises
        ------
        TypeError, ValueError
            If ``shape`` is not one axis or more.
        """
        if not len(shape):
            raise ValueError("shape must have at least 1 axis, not 0")
        for size in shape:
            check_int("shape", size, 0, None)
        vectors = math.prod(shape[:-1]) * -(-shape[-1] // self.tile)
        return math.prod(shape) * self.bits + vectors * self.scale_bits

    def matmul(
        self,
        w_codes: AbfpCodes,
        activations: Spec,
        a_codes: AbfpCodes,
        bias: npt.ArrayLike | None = None,
        noise: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.float32]:
        """Matrix product as the hardware computes it (Eqs 5 to 7), up to the accumulator.

        Parameters
        ----------
        w_codes : AbfpCodes, [n, k]
            Weights in this format.
        activations : AbfpSpec
            Format of the activations.
        a_codes : AbfpCodes, [m, k]
            Activations.
        bias : array_like of float, [n], optional
            Rounded to float32 and added to the sum over the tiles, in float32 (chosen).
        noise : array_like of int, [tiles, m, n], optional
            One word of ``noise_bits`` for each conversion; none is a quiet ADC.

        Returns
        -------
        ndarray of float32, [m, n]
            The accumulators.  A result is stored as ``golden.bfloat16.rounded`` of them.

        Raises
        ------
        TypeError, ValueError
            If the formats, codes, bias and noise do not fit together.
        """
        tile, words = self._checked(w_codes, activations, a_codes, noise)
        outputs = len(w_codes.codes)
        start = None if bias is None else checked_bias(bias, outputs)
        result = np.empty((len(a_codes.codes), outputs), np.float32)
        step = min(max(COPIED_WEIGHTS // max(w_codes.length, 1), 1), PANEL)
        for first in range(0, outputs, step):
            part = slice(first, first + step)
            product = TileProduct(tile, w_codes.codes[part], w_codes.scales[part])
            result[:, part] = product(
                a_codes.codes,
                a_codes.scales,
                None if start is None else start[part],
                None if words is None else words[:, :, part],
            )
        return result

    def trace(
        self,
        w_codes: AbfpCodes,
        activations: Spec,
        a_codes: AbfpCodes,
        noise: npt.ArrayLike | None = None,
    ) -> AbfpTrace:
        """Every intermediate of :meth:`matmul`, in exact integers and without the bias.

        Arguments and errors are those of :meth:`matmul`.
        """
        tile, words = self._checked(w_codes, activations, a_codes, noise)
        return tile.trace(w_codes.codes, w_codes.scales, a_codes.codes, a_codes.scales, words)

    def _checked(
        self,
        w_codes: AbfpCodes,
        activations: Spec,
        a_codes: AbfpCodes,
        noise: npt.ArrayLike | None,
    ) -> tuple[AbfpTileSpec, npt.NDArray[Any] | None]:
        """Tile and noise words of a product; errors as :meth:`matmul` says."""
        tile = self.tile_spec(activations)
        self.check_codes("w_codes", w_codes, 2)
        cast(AbfpSpec, activations).check_codes("a_codes", a_codes, 2)
        if a_codes.length != w_codes.length:
            raise ValueError(f"a_codes must be of {w_codes.length} elements, not {a_codes.length}")
        shape = (w_codes.scales.shape[1], len(a_codes.codes), len(w_codes.codes))
        return tile, None if noise is None else tile.checked_noise(noise, shape)

    def check_codes(self, name: str, codes: object, axes: int | None = None) -> None:
        """Refuse ``codes`` that are not of this format, or not of so many axes.

        Raises
        ------
        TypeError
            If they are not AbfpCodes.
        ValueError
            If a code is out of range, or there is not one scale for each tile.
        """
        if not isinstance(codes, AbfpCodes):
            raise TypeError(f"{name} must be AbfpCodes, not {codes!r}")
        if axes is not None and codes.codes.ndim != axes:
            raise ValueError(f"{name} must have {axes} axes, not {codes.codes.ndim}")
        as_integers(f"{name}.codes", codes.codes, -self.limit, self.limit)
        tiles = -(-codes.length // self.tile)
        if codes.scales.shape[-1] != tiles:
            raise ValueError(
                f"{name}.scales must be {tiles} for {codes.length} elements in tiles of "
                f"{self.tile}, not {codes.scales.shape[-1]}"
            )


def _read(
    block: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], bool]:
    """Vectors as bfloat16 with good numbers only, their largest magnitudes, and if one was bad."""
    if block.dtype == np.float32:
        largest = _largest(block)
        # Numbers too small to be rounded so have code 0 beside the largest, rounded or not.
        if np.all((largest == 0) | (largest >= 1 / PLAIN) & (largest <= PLAIN)):
            round_in_range(largest, np.empty_like(largest), largest)
            numbers = np.empty(block.shape, np.float32)
            round_in_range(block, np.empty_like(numbers), numbers)
            return numbers, largest, False
    numbers = rounded(block)
    good = np.isfinite(numbers)
    bad = not good.all()
    if bad:
        numbers[~good] = 0
    return numbers, _largest(numbers), bad


def _largest(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Largest magnitude of each vector along the last axis."""
    magnitudes = np.abs(vectors)
    if magnitudes.shape[-1] > NARROW_VECTOR:
        return np.asarray(magnitudes.max(axis=-1))
    largest = magnitudes[..., 0].copy()
    for index in range(1, magnitudes.shape[-1]):
        np.maximum(largest, magnitudes[..., index], out=largest)
    return largest


def checked_bias(bias: npt.ArrayLike, outputs: int) -> npt.NDArray[np.float32]:
    """``bias`` as float32, [outputs].

    Raises
    ------
    TypeError
        If it is of another type than float.
    ValueError
        If it has another shape or a number is not finite in binary32.
    """
    numbers = as_floats("bias", bias)
    if numbers.shape != (outputs,):
        raise ValueError(f"bias must be [{outputs}], not {list(numbers.shape)}")
    check_finite("bias", numbers)
    return numbers.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class AbfpFormat(Format):
    """ABFP with the gain chosen for each layer, by how often it saturates the ADC.

    Parameters
    ----------
    bits : int
        Bits of a code, 2 to 8.
    tile : int, optional
        Tile width, a power of two from 1 to 1024; default 128.
    gain : int, optional
        Gain of every layer: 1, 2, 4, 8 or 16.
    activation_bits : int, optional
        Bits of a code of activations; default ``bits``.
    adc_bits : int, optional
        Bits of the ADC, 2 to 8; default 8.
    noise_bits : int, optional
        Bits of the noise word of the ADC, 1 to 16; none if not given.
    exp_only : bool, optional
        Scales are powers of two (this project's variant).
    """

    stem: ClassVar[str] = "abfp"

    bits: int = 8
    tile: int | None = None
    gain: int | None = None
    activation_bits: int | None = None
    adc_bits: int | None = None
    noise_bits: int | None = None
    exp_only: bool | None = None

    parameters = {
        "tile": parse_int,
        "gain": parse_int,
        "activation_bits": parse_int,
        "adc_bits": parse_int,
        "noise_bits": parse_int,
        "exp_only": parse_bool,
    }

    def __post_init__(self) -> None:
        self.spec()
        if self.activation_bits is not None:
            check_int("activation_bits", self.activation_bits, 2, 8)

    def spec(self) -> AbfpSpec:
        """Spec of weights with the parameters that were given, and defaults for the others."""
        given = {name: value for name, value in self.pinned.items() if name != "activation_bits"}
        return AbfpSpec(bits=self.bits, **given)

    def activation_spec(self) -> AbfpSpec:
        """Make the same for activations."""
        bits = self.bits if self.activation_bits is None else self.activation_bits
        return replace(self.spec(), bits=bits)

    def tile_spec(self) -> AbfpTileSpec:
        """Tile that multiplies weights by activations."""
        return self.spec().tile_spec(self.activation_spec())

    def fit(
        self, tensor: npt.ArrayLike, role: Role = "weights", method: Method = "sweep"
    ) -> AbfpSpec:
        """Check a tensor; see :meth:`golden.spec.Format.fit`.

        Scales follow each vector at run time and the gain a whole layer, so nothing is left to be
        chosen from one tensor.
        """
        checked_tensor(tensor, role, method)
        return self.activation_spec() if role == "activations" else self.spec()

    def system(self, method: Method = "sweep") -> "AbfpSystem":
        """Make the number system of this format; both methods are the same."""
        # That module takes formats of this one as arguments.
        from golden.abfp_layers import AbfpSystem

        return AbfpSystem(format=self)
