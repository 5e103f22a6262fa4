"""Combinational units of the ABFP tile: quantiser, ADC and rescaler.

spec/abfp.md, sections 6, 7 and 9; :mod:`golden.abfp` and :mod:`golden.abfp_tile` define the
results.  Numbers are bfloat16 without subnormals; an exponent field of 0 or 255 reads as zero.
"""

import math
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.abfp_tile import AbfpTileSpec
from golden.spec import check_int
from hdl.abfp_arithmetic import divider, normalised, shifted_right

__all__ = [
    "GAIN_WIDTH",
    "AbfpConverter",
    "AbfpQuantiser",
    "AbfpReciprocal",
    "AbfpRescaler",
    "check_flag",
    "check_tile",
    "label",
    "reciprocal_width",
    "reciprocals",
]

#: Bits of log2 G.
GAIN_WIDTH = 3

#: Fraction bits of a reciprocal.  The quotient of two significands is at least 1 / (2 * 255) away
#: from a tie that it does not hit; 17 bits are the fewest that keep it on its side.
FRACTION = 17

#: Bits at the end of significand times reciprocal that its error, of less than 255, may have
#: changed; a quotient above a tie is above it by more than these can say.
UNCERTAIN = 8


def check_tile(spec: object) -> AbfpTileSpec:
    """Return ``spec``; TypeError if it is no AbfpTileSpec."""
    if not isinstance(spec, AbfpTileSpec):
        raise TypeError(f"spec must be an AbfpTileSpec, not {spec!r}")
    return spec


def check_flag(name: str, value: object) -> bool:
    """Return ``value``; TypeError if it is no bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {value!r}")
    return value


def label(spec: AbfpTileSpec) -> str:
    """Name all that hardware is built for, for names of modules; the gain is set at run time."""
    bits = f"{spec.weight_bits}_{spec.activation_bits}_{spec.adc_bits}"
    noise = f"_r{spec.noise_bits}" if spec.noise_bits else ""
    return f"b{bits}_n{spec.tile}{noise}{'_exp' if spec.exp_only else ''}"


def reciprocal_width(bits: int) -> int:
    """Bits of a reciprocal for codes of ``bits`` bits."""
    return bits + FRACTION - 8


def reciprocals(bits: int) -> list[int]:
    """R[m - 128] = ceil(L * 2**17 / m) for the significands m, 128 to 255 (section 7, step 2)."""
    limit = (1 << bits - 1) - 1
    return [-(-(limit << FRACTION) // significand) for significand in range(128, 256)]


class AbfpReciprocal(wiring.Component):
    """Table of L * 2**17 / m, rounded up, for the significand m of a scale.

    Parameters
    ----------
    bits : int
        Bits of the codes, 2 to 8.

    Members
    -------
    fraction : In(7)
        Significand without its leading 1: the low bits of the scale.
    reciprocal : Out(bits + 9)

    Raises
    ------
    TypeError
        If ``bits`` is no int.
    ValueError
        If it is out of range.
    """

    fraction: Signal
    reciprocal: Signal

    def __init__(self, bits: int):
        check_int("bits", bits, 2, 8)
        self.bits = bits
        self.module_name = f"abfp_reciprocal_b{bits}"
        super().__init__({"fraction": In(7), "reciprocal": Out(reciprocal_width(bits))})

    def elaborate(self, platform):
        m = Module()
        width = reciprocal_width(self.bits)
        with m.Switch(self.fraction):
            for fraction, value in enumerate(reciprocals(self.bits)):
                with m.Case(fraction):
                    m.d.comb += self.reciprocal.eq(Const(value, width))
        return m


class AbfpQuantiser(wiring.Component):
    """Combinational quantiser: code RNE(L * v / s) of one element (section 7, step 2).

    Parameters
    ----------
    bits : int
        Bits of the code, 2 to 8.
    exp_only : bool
        Whether the scale is a power of two; the code is then RNE(v / s * 2**(bits - 1)), clamped
        to -L .. L (section 9).

    Members
    -------
    element : In(16)
        A bfloat16, no larger than the scale if it is a number.
    exponent : In(8)
        Exponent field of the largest magnitude of the vector.
    reciprocal : In(bits + 9)
        Of the significand of the scale, from :class:`AbfpReciprocal`; absent with ``exp_only``.
    code : Out(signed(bits))

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If ``bits`` is out of range.
    """

    element: Signal
    exponent: Signal
    reciprocal: Signal
    code: Signal

    def __init__(self, bits: int, exp_only: bool = False):
        check_int("bits", bits, 2, 8)
        self.bits = bits
        self.exp_only = check_flag("exp_only", exp_only)
        self.module_name = f"abfp_quantiser_b{bits}{'_exp' if exp_only else ''}"
        members: dict[str, Any] = {
            "element": In(16),
            "exponent": In(8),
            "code": Out(signed(bits)),
        }
        if not exp_only:
            members["reciprocal"] = In(reciprocal_width(bits))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        bits = self.bits
        field = self.element[7:15]
        significand = Cat(self.element[:7], Const(1, 1))

        # The quotient by the largest significand there is, with 9 fraction bits.
        quotient = Signal(bits + 9)
        if self.exp_only:
            m.d.comb += quotient.eq(significand << bits)
        else:
            # Rounded up by as much as the reciprocal was: cut off, a tie is a tie again.
            m.d.comb += quotient.eq((significand * self.reciprocal) >> UNCERTAIN)

        distance = Signal(8)
        m.d.comb += distance.eq(self.exponent - field)
        aligned, sticky = shifted_right(m, quotient, distance[:4], "aligned")
        integer = Signal(bits)
        rounded = Signal(bits)
        is_zero = Signal()
        m.d.comb += [
            integer.eq(aligned[9:]),
            rounded.eq(integer + (aligned[8] & (aligned[:8].any() | sticky | integer[0]))),
            is_zero.eq((field == 0) | field.all() | distance[4:].any()),
        ]
        magnitude = Signal(bits - 1)
        if self.exp_only:
            m.d.comb += magnitude.eq(rounded[: bits - 1] | rounded[-1].replicate(bits - 1))
        else:
            m.d.comb += magnitude.eq(rounded)
        with m.If(~is_zero):
            m.d.comb += self.code.eq(Mux(self.element[15], -magnitude, magnitude))
        return m


class AbfpConverter(wiring.Component):
    """Combinational gain and ADC: clamp(RNE(S * G * L_Y / (n * L_W * L_X) + u)) (section 7).

    Parameters
    ----------
    spec : AbfpTileSpec
        Sizes; ``gain`` does not matter.

    Members
    -------
    total : In(signed(sum_bits))
        Dot product S.
    gain : In(3)
        log2 G, 0 to 4.
    noise : In(noise_bits)
        Noise word; absent without noise.
    noise_enable : In(1)
        Whether there is noise; absent without noise.
    code : Out(signed(adc_bits))
    saturated : Out(1)
        Whether the rounded result was above L_Y in magnitude.

    Raises
    ------
    TypeError
        If ``spec`` is no AbfpTileSpec.
    """

    total: Signal
    gain: Signal
    noise: Signal
    noise_enable: Signal
    code: Signal
    saturated: Signal

    def __init__(self, spec: AbfpTileSpec):
        self.spec = check_tile(spec)
        self.module_name = f"abfp_converter_{label(spec)}"
        members: dict[str, Any] = {
            "total": In(signed(spec.sum_bits)),
            "gain": In(GAIN_WIDTH),
            "code": Out(signed(spec.adc_bits)),
            "saturated": Out(1),
        }
        if spec.noise_bits:
            members |= {"noise": In(spec.noise_bits), "noise_enable": In(1)}
        super().__init__(members)

    def _ratio(self) -> tuple[int, int, int, int]:
        """Numerator, modulus, and shifts of both: the quotient is an ADC code in units of S * G."""
        spec = self.spec
        if spec.exp_only:
            shift = spec.tile.bit_length() - 1 + spec.weight_bits + spec.activation_bits
            shift -= spec.adc_bits + 1
            return 1, 1, max(-shift, 0), max(shift, 0)
        step = spec.weight_limit * spec.activation_limit
        common = math.gcd(spec.adc_limit, step)
        return spec.adc_limit // common, step // common, 0, spec.tile.bit_length() - 1

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        numerator, modulus, left, right = self._ratio()
        half_bits = spec.noise_bits + 1

        negative = self.total[-1]
        magnitude = Signal(spec.sum_bits - 1)
        m.d.comb += magnitude.eq(Mux(negative, -self.total, self.total))
        amplified: Value = magnitude
        width = spec.sum_bits - 1
        for stage, step in enumerate((1, 2, 4)):
            shifted = Signal(spec.sum_bits - 1 + min(2 * step - 1, 4), name=f"amplified_{step}")
            m.d.comb += shifted.eq(Mux(self.gain[stage], amplified << step, amplified))
            amplified = shifted
            width = len(shifted)

        # Noise goes from -1/2 to 1/2, so that with the half that rounds it is never negative.  It
        # changes its sign with the dot product, to be added to its magnitude.
        half: Value = Const(1, 1)
        if spec.noise_bits:
            word = self.noise ^ negative.replicate(spec.noise_bits)
            half = Signal(half_bits)
            m.d.comb += half.eq(Mux(self.noise_enable, Cat(1, word), 1 << spec.noise_bits))
        width += numerator.bit_length() + left + half_bits
        width = max(width, half_bits + modulus.bit_length() + right) + 1
        raised = Signal(width)
        m.d.comb += raised.eq(
            ((amplified * numerator) << (left + half_bits)) + ((half * modulus) << right)
        )

        # Up to the first saturated one, by a multiplication.
        end = (spec.adc_limit + 1) * modulus
        steps = raised[right + half_bits :]
        mult, shift = divider(modulus, end - 1)
        product = Signal((end - 1).bit_length() + mult.bit_length())
        quotient = Signal(spec.adc_bits - 1)
        is_tie = Signal()
        result = Signal(spec.adc_bits - 1)
        m.d.comb += [
            product.eq(steps[: (end - 1).bit_length()] * mult),
            quotient.eq(product[shift:]),
            is_tie.eq((raised[: right + half_bits] == 0) & (product[:shift] < mult)),
            self.saturated.eq(steps >= end),
            result.eq(Cat(quotient[0] & ~is_tie, quotient[1:])),
        ]
        with m.If(self.saturated):
            m.d.comb += result.eq(spec.adc_limit)
        m.d.comb += self.code.eq(Mux(negative, -result, result))
        return m


class AbfpRescaler(wiring.Component):
    """Combinational rescaling of an ADC code to a bfloat16 (Eq 7; section 7, step 6).

    Parameters
    ----------
    spec : AbfpTileSpec
        Sizes; ``gain`` does not matter.

    Members
    -------
    code : In(signed(adc_bits))
        ADC code, -L_Y to L_Y.
    weight_scale, activation_scale : In(15), or In(8) with ``exp_only``
        Scales: bits of a bfloat16 without its sign, or the field E + 127, 0 for zero.
    gain : In(3)
        log2 G, 0 to 4.
    partial : Out(16)
        k * s_w * s_x * n / (L_Y * G), rounded once, after the rules of range.

    Raises
    ------
    TypeError
        If ``spec`` is no AbfpTileSpec.
    """

    code: Signal
    weight_scale: Signal
    activation_scale: Signal
    gain: Signal
    partial: Signal

    def __init__(self, spec: AbfpTileSpec):
        self.spec = check_tile(spec)
        kind = "_exp" if spec.exp_only else ""
        self.module_name = f"abfp_rescaler_b{spec.adc_bits}_n{spec.tile}{kind}"
        scale = 8 if spec.exp_only else 15
        super().__init__(
            {
                "code": In(signed(spec.adc_bits)),
                "weight_scale": In(scale),
                "activation_scale": In(scale),
                "gain": In(GAIN_WIDTH),
                "partial": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        tile_exp = spec.tile.bit_length() - 1
        scales = (self.weight_scale, self.activation_scale)
        negative = self.code[-1]
        magnitude = Signal(spec.adc_bits - 1)
        is_zero = Signal()
        m.d.comb += magnitude.eq(Mux(negative, -self.code, self.code))

        quotient: Value
        if spec.exp_only:
            fields: tuple[Value, ...] = scales
            # Nothing is lost below eight bits.
            quotient = Signal(9)
            m.d.comb += [
                quotient.eq(magnitude << (10 - spec.adc_bits)),
                is_zero.eq((magnitude == 0) | (fields[0] == 0) | (fields[1] == 0)),
            ]
            sticky: Value = Const(0, 1)
            offset = tile_exp - 128
        else:
            fields = tuple(scale[7:] for scale in scales)
            # At least 258 where it is not zero: a bit lies below the eight that are kept.
            limit = 2 * spec.adc_limit * 255 * 255
            mult, shift = divider(spec.adc_limit, limit)
            significands = Signal(16)
            doubled = Signal(limit.bit_length())
            product = Signal(limit.bit_length() + mult.bit_length())
            quotient = Signal(17)
            m.d.comb += [
                significands.eq(Cat(scales[0][:7], 1) * Cat(scales[1][:7], 1)),
                doubled.eq(Cat(Const(0, 1), magnitude * significands)),
                product.eq(doubled * mult),
                quotient.eq(product[shift:]),
                is_zero.eq(
                    (magnitude == 0) | Cat((field == 0) | field.all() for field in fields).any()
                ),
            ]
            sticky = product[:shift] >= mult
            offset = tile_exp - 126

        top, zeros = normalised(m, quotient, "quotient")
        below = len(quotient) - 8
        round_up = Signal()
        exponent = Signal(signed(11))
        rounded = Signal(signed(18))
        field = Signal(signed(11))
        m.d.comb += [
            round_up.eq(top[below - 1] & (top[: below - 1].any() | sticky | top[below])),
            exponent.eq(fields[0] + fields[1] + offset - self.gain - zeros),
            # A carry out of the fraction leaves zeros there, and makes the exponent larger.
            rounded.eq(Cat(top[below:-1], exponent).as_signed() + round_up),
            field.eq(rounded[7:].as_signed()),
        ]
        with m.If(~is_zero & (field > 0)):
            with m.If(field > 254):
                m.d.comb += self.partial.eq(Cat(Const(0x7F7F, 15), negative))
            with m.Else():
                m.d.comb += self.partial.eq(Cat(rounded[:15], negative))
        return m
