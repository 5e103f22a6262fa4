"""Arithmetic of the ABFP tile: quantiser, ADC and rescaler, combinational or pipelined.

spec/abfp.md, sections 6, 7 and 9; :mod:`golden.abfp` and :mod:`golden.abfp_tile` define the
results.  Numbers are bfloat16 without subnormals; an exponent field of 0 or 255 reads as zero.
"""

import math
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.abfp_tile import AbfpTileSpec
from golden.spec import check_int, instance_of
from hdl.abfp_arithmetic import (
    Flow,
    checked_cuts,
    divider,
    flow_ports,
    normalised,
    shifted_right,
    split_product,
)

__all__ = [
    "GAIN_WIDTH",
    "AbfpConverter",
    "AbfpQuantiser",
    "AbfpReciprocal",
    "AbfpRescaler",
    "check_flag",
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
    """Quantiser: code RNE(L * v / s) of one element (section 7, step 2).

    Parameters
    ----------
    bits : int
        Bits of the code, 2 to 8.
    exp_only : bool
        Whether the scale is a power of two; the code is then RNE(v / s * 2**(bits - 1)), clamped
        to -L .. L (section 9).
    latency : int
        Registers from element to code: 0 if combinational; 2, or 5 for short clock periods; with
        ``exp_only`` 1, or 3.

    Members
    -------
    element : In(16)
        A bfloat16, no larger than the scale if it is a number.
    exponent : In(8)
        Exponent field of the largest magnitude of the vector.
    reciprocal : In(bits + 9)
        Of the significand of the scale, from :class:`AbfpReciprocal`; absent with ``exp_only``.
    code : Out(signed(bits))
    move, valid, o_valid
        See :func:`hdl.abfp_arithmetic.flow_ports`; absent if combinational.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If one is out of range.
    """

    #: Places that have registers, by latency.
    CUTS = {
        0: (),
        2: ("quotient", "code"),
        5: ("element", "parts", "quotient", "aligned", "code"),
    }
    EXP_CUTS = {0: (), 1: ("code",), 3: ("element", "aligned", "code")}

    element: Signal
    exponent: Signal
    reciprocal: Signal
    code: Signal

    def __init__(self, bits: int, exp_only: bool = False, latency: int = 0):
        check_int("bits", bits, 2, 8)
        self.bits = bits
        self.exp_only = check_flag("exp_only", exp_only)
        self._cuts = self.EXP_CUTS if exp_only else self.CUTS
        checked_cuts(self._cuts, latency)
        self.latency = latency
        self.module_name = f"abfp_quantiser_b{bits}{'_exp' if exp_only else ''}_d{latency}"
        members: dict[str, Any] = {
            "element": In(16),
            "exponent": In(8),
            "code": Out(signed(bits)),
        }
        if not exp_only:
            members["reciprocal"] = In(reciprocal_width(bits))
        super().__init__(members | flow_ports(latency))

    def elaborate(self, platform):
        m = Module()
        flow = Flow(m, self, self._cuts)
        bits = self.bits
        element, exponent = flow.cut("element", element=self.element, exponent=self.exponent)
        field = element[7:15]
        significand = Cat(element[:7], Const(1, 1))
        distance = Signal(8)
        is_zero = Signal()
        m.d.comb += [
            distance.eq(exponent - field),
            is_zero.eq((field == 0) | field.all() | distance[4:].any()),
        ]
        steps: Value = distance[:4]
        negative: Value = element[15]

        # The quotient by the largest significand there is, with 9 fraction bits.
        quotient = Signal(bits + 9)
        if self.exp_only:
            m.d.comb += quotient.eq(significand << bits)
        else:
            # Rounded up by as much as the reciprocal was: cut off, a tie is a tie again.
            (reciprocal,) = flow.cut("element", reciprocal=self.reciprocal)
            product = flow.multiply("parts", reciprocal, significand, width=4)
            m.d.comb += quotient.eq(product >> UNCERTAIN)
        for place in ("parts", "quotient"):
            steps, is_zero, negative = flow.cut(
                place, steps=steps, is_zero=is_zero, negative=negative
            )
        (value,) = flow.cut("quotient", quotient=quotient)

        aligned, sticky = shifted_right(m, value, steps, "aligned")
        # Only a power of two can be so close that the code rounds to more than L.
        width = bits if self.exp_only else bits - 1
        is_zero, negative, aligned, sticky = flow.cut(
            "aligned",
            is_zero=is_zero,
            negative=negative,
            aligned=aligned[: width + 9],
            sticky=sticky,
        )

        integer = Signal(width)
        rounded = Signal(width)
        m.d.comb += [
            integer.eq(aligned[9:]),
            rounded.eq(integer + (aligned[8] & (aligned[:8].any() | sticky | integer[0]))),
        ]
        magnitude = Signal(bits - 1)
        m.d.comb += magnitude.eq(rounded)
        if self.exp_only:
            with m.If(rounded[-1]):
                m.d.comb += magnitude.eq((1 << bits - 1) - 1)
        code = Signal(signed(bits))
        with m.If(~is_zero):
            m.d.comb += code.eq(Mux(negative, -magnitude, magnitude))
        m.d.comb += self.code.eq(*flow.cut("code", code=code))
        return m


class AbfpConverter(wiring.Component):
    """Gain and ADC: clamp(RNE(S * G * L_Y / (n * L_W * L_X) + u)) (section 7).

    Parameters
    ----------
    spec : AbfpTileSpec
        Sizes; ``gain`` does not matter.
    latency : int
        Registers from dot product to code: 0 if combinational; 3, or 7 for short clock periods.

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
    move, valid, o_valid
        See :func:`hdl.abfp_arithmetic.flow_ports`; absent if combinational.

    Raises
    ------
    TypeError
        If ``spec`` is no AbfpTileSpec.
    ValueError
        If the latency is another.
    """

    #: Places that have registers, by latency.
    CUTS = {
        0: (),
        3: ("total", "raised", "code"),
        7: ("total", "amplified", "scaled", "raised", "product_parts", "product", "code"),
    }

    total: Signal
    gain: Signal
    noise: Signal
    noise_enable: Signal
    code: Signal
    saturated: Signal

    def __init__(self, spec: AbfpTileSpec, latency: int = 0):
        self.spec = instance_of("spec", spec, AbfpTileSpec)
        checked_cuts(self.CUTS, latency)
        self.latency = latency
        self.module_name = f"abfp_converter_{label(spec)}_d{latency}"
        members: dict[str, Any] = {
            "total": In(signed(spec.sum_bits)),
            "gain": In(GAIN_WIDTH),
            "code": Out(signed(spec.adc_bits)),
            "saturated": Out(1),
        }
        if spec.noise_bits:
            members |= {"noise": In(spec.noise_bits), "noise_enable": In(1)}
        super().__init__(members | flow_ports(latency))

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
        flow = Flow(m, self, self.CUTS)
        (total,) = flow.cut("total", total=self.total)
        negative: Value = total[-1]
        magnitude = Signal(spec.sum_bits - 1)
        m.d.comb += magnitude.eq(Mux(negative, -total, total))
        amplified: Value = magnitude
        for stage, step in enumerate((1, 2, 4)):
            shifted = Signal(spec.sum_bits - 1 + min(2 * step - 1, 4), name=f"amplified_{step}")
            m.d.comb += shifted.eq(Mux(self.gain[stage], amplified << step, amplified))
            amplified = shifted

        # Noise goes from -1/2 to 1/2, so that with the half that rounds it is never negative.  It
        # changes its sign with the dot product, to be added to its magnitude.
        offset: Value = Const(modulus)
        if spec.noise_bits:
            noise, enable = flow.cut("total", noise=self.noise, enable=self.noise_enable)
            word = noise ^ negative.replicate(spec.noise_bits)
            noisy = Signal(half_bits)
            m.d.comb += noisy.eq(Mux(enable, Cat(1, word), 1 << spec.noise_bits))
            (noisy,) = flow.cut("amplified", noisy=noisy)
            offset = Signal(half_bits + modulus.bit_length())
            m.d.comb += offset.eq(noisy * modulus)
            (offset,) = flow.cut("scaled", offset=offset)
        negative, amplified = flow.cut("amplified", negative=negative, value=amplified)
        scaled = Signal((((1 << len(amplified)) - 1) * numerator).bit_length())
        m.d.comb += scaled.eq(amplified * numerator)
        negative, scaled = flow.cut("scaled", negative=negative, value=scaled)

        raised = Signal(
            max(len(scaled) + left + half_bits, half_bits + modulus.bit_length() + right) + 1
        )
        m.d.comb += raised.eq(scaled.shift_left(left + half_bits) + offset.shift_left(right))
        negative, value = flow.cut("raised", negative=negative, value=raised)

        # Up to the first saturated one, by a multiplication.
        end = (spec.adc_limit + 1) * modulus
        steps = value[right + half_bits :]
        mult, shift = divider(modulus, end - 1) if modulus > 1 else (1, 0)
        product = Signal(shift + spec.adc_bits - 1)
        parts = split_product(m, steps[: (end - 1).bit_length()], mult, end - 1)
        parts = flow.cut("product_parts", low=parts[0], high=parts[1])
        m.d.comb += product.eq(parts[0] + parts[1].shift_left(mult.bit_length() // 2))
        tags: tuple[Any, ...] = (negative, value[: right + half_bits] == 0, steps >= end)
        for place in ("product_parts", "product"):
            tags = flow.cut(place, negative=tags[0], is_whole=tags[1], above=tags[2])
        negative, whole, above = tags
        (scaled,) = flow.cut("product", value=product)

        quotient = Signal(spec.adc_bits - 1)
        is_tie = Signal()
        result = Signal(spec.adc_bits - 1)
        m.d.comb += [
            quotient.eq(scaled[shift:]),
            is_tie.eq(whole & (scaled[:shift] < mult)),
            result.eq(Cat(quotient[0] & ~is_tie, quotient[1:])),
        ]
        with m.If(above):
            m.d.comb += result.eq(spec.adc_limit)
        code = Signal(signed(spec.adc_bits))
        m.d.comb += code.eq(Mux(negative, -result, result))
        code_out, saturated = flow.cut("code", code=code, saturated=above)
        m.d.comb += [self.code.eq(code_out), self.saturated.eq(saturated)]
        return m


class AbfpRescaler(wiring.Component):
    """Rescaling of an ADC code to a bfloat16 (Eq 7; section 7, step 6).

    Parameters
    ----------
    spec : AbfpTileSpec
        Sizes; ``gain`` does not matter.
    latency : int
        Registers from code to partial result: 0 if combinational; 3, or 10 for short clock
        periods; with ``exp_only`` 2, or 4.

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
    move, valid, o_valid
        See :func:`hdl.abfp_arithmetic.flow_ports`; absent if combinational.

    Raises
    ------
    TypeError
        If ``spec`` is no AbfpTileSpec.
    ValueError
        If the latency is another.
    """

    #: Places that have registers, by latency.
    CUTS = {
        0: (),
        3: ("scaled", "quotient", "partial"),
        10: (
            *("parts", "significands", "scaled_parts", "scaled", "quotient_parts"),
            *("quotient", "shifted", "top", "rounded", "partial"),
        ),
    }
    EXP_CUTS = {0: (), 2: ("quotient", "partial"), 4: ("quotient", "top", "rounded", "partial")}

    code: Signal
    weight_scale: Signal
    activation_scale: Signal
    gain: Signal
    partial: Signal

    def __init__(self, spec: AbfpTileSpec, latency: int = 0):
        self.spec = instance_of("spec", spec, AbfpTileSpec)
        self._cuts = self.EXP_CUTS if spec.exp_only else self.CUTS
        checked_cuts(self._cuts, latency)
        self.latency = latency
        kind = "_exp" if spec.exp_only else ""
        self.module_name = f"abfp_rescaler_b{spec.adc_bits}_n{spec.tile}{kind}_d{latency}"
        scale = 8 if spec.exp_only else 15
        super().__init__(
            {
                "code": In(signed(spec.adc_bits)),
                "weight_scale": In(scale),
                "activation_scale": In(scale),
                "gain": In(GAIN_WIDTH),
                "partial": Out(16),
            }
            | flow_ports(latency)
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        flow = Flow(m, self, self._cuts)
        tile_exp = spec.tile.bit_length() - 1
        scales = (self.weight_scale, self.activation_scale)
        negative: Value = self.code[-1]
        magnitude = Signal(spec.adc_bits - 1)
        m.d.comb += magnitude.eq(Mux(negative, -self.code, self.code))
        fields = tuple(scale[-8:] for scale in scales)
        is_zero = Signal()
        exponent = Signal(signed(11))

        quotient: Value
        sticky: Value = Const(0, 1)
        if spec.exp_only:
            # Nothing is lost below eight bits.
            quotient = Signal(9)
            offset = tile_exp - 128
            m.d.comb += [
                quotient.eq(magnitude << (10 - spec.adc_bits)),
                is_zero.eq((magnitude == 0) | (fields[0] == 0) | (fields[1] == 0)),
            ]
        else:
            # At least 258 where it is not zero: a bit lies below the eight that are kept.
            limit = 2 * spec.adc_limit * 255 * 255
            mult, shift = divider(spec.adc_limit, limit)
            significands = Signal(16)
            scaled = Signal(limit.bit_length() - 1)
            product = Signal((limit * mult).bit_length())
            offset = tile_exp - 126
            code: Value = magnitude
            m.d.comb += is_zero.eq(
                (magnitude == 0) | Cat((field == 0) | field.all() for field in fields).any()
            )
            m.d.comb += significands.eq(
                flow.multiply("parts", *(Cat(scale[:7], Const(1, 1)) for scale in scales), width=4)
            )
            for place in ("parts", "significands"):
                (code,) = flow.cut(place, code=code)
            (both,) = flow.cut("significands", both=significands)
            m.d.comb += scaled.eq(flow.multiply("scaled_parts", both, code, width=4))
            (value,) = flow.cut("scaled", value=scaled)
            parts = split_product(m, Cat(Const(0, 1), value), mult, limit)
            low, high = flow.cut("quotient_parts", low=parts[0], high=parts[1])
            m.d.comb += product.eq(low + high.shift_left(mult.bit_length() // 2))
            quotient = product[shift:][:17]
            sticky = product[:shift] >= mult
        m.d.comb += exponent.eq(fields[0] + fields[1] + offset - self.gain)
        shared: tuple[Any, ...] = (negative, is_zero, exponent)
        names = ("negative", "is_zero", "exponent")
        for place in (
            "parts",
            "significands",
            "scaled_parts",
            "scaled",
            "quotient_parts",
            "quotient",
        ):
            shared = flow.cut(place, **dict(zip(names, shared, strict=True)))
        quotient, sticky = flow.cut("quotient", quotient=quotient, sticky=sticky)

        # The number of leading zeros in two steps, from the highest bit of it.
        bits = (len(quotient) - 1).bit_length()
        coarse, many = normalised(m, quotient, "quotient", range(bits - 1, 2, -1))
        coarse, many, sticky = flow.cut("shifted", coarse=coarse, many=many, sticky=sticky)
        shared = flow.cut("shifted", **dict(zip(names, shared, strict=True)))
        top, few = normalised(m, coarse, "coarse", range(2, -1, -1))
        # The leading 1 itself is not needed any more.
        rest, zeros, sticky = flow.cut("top", rest=top[:-1], zeros=Cat(few, many), sticky=sticky)
        negative, is_zero, exponent = flow.cut("top", **dict(zip(names, shared, strict=True)))

        below = len(quotient) - 8
        round_up = Signal()
        rounded = Signal(signed(18))
        m.d.comb += [
            round_up.eq(rest[below - 1] & (rest[: below - 1].any() | sticky | rest[below])),
            # A carry out of the fraction leaves zeros there, and makes the exponent larger.
            rounded.eq(Cat(rest[below:], (exponent - zeros)[:11]).as_signed() + round_up),
        ]
        negative, is_zero, rounded = flow.cut(
            "rounded", negative=negative, is_zero=is_zero, rounded=rounded
        )

        field = Signal(signed(11))
        partial = Signal(16)
        m.d.comb += field.eq(rounded[7:])
        with m.If(~is_zero & (field > 0)):
            with m.If(field > 254):
                m.d.comb += partial.eq(Cat(Const(0x7F7F, 15), negative))
            with m.Else():
                m.d.comb += partial.eq(Cat(rounded[:15], negative))
        m.d.comb += self.partial.eq(*flow.cut("partial", partial=partial))
        return m
