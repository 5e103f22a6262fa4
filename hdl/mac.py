"""Multiply-accumulate unit of any number system, from codes to one rounded code."""

from typing import Any

from amaranth.hdl import Module, Mux, ShapeLike, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from golden.mac import ROLES, Operand
from hdl.datapath import Datapath
from hdl.hierarchy import place

__all__ = ["Mac", "biased", "place_decoder", "place_encoder"]


def place_decoder(
    m: Module, platform: Any, owner: Any, datapath: Datapath, role: Operand, name: str, code: Any
) -> Any:
    """Operand of ``code``, through a decoder placed as ``name`` unless a code is its own operand.

    The decoder's settings are the ports of ``owner`` that start with ``role``.
    """
    decoder = datapath.decoder(role)
    if decoder is None:
        return code
    place(m, name, decoder, platform)
    m.d.comb += decoder.code.eq(code)
    for setting in datapath.decoder_config(role):
        m.d.comb += getattr(decoder, setting).eq(getattr(owner, f"{role}_{setting}"))
    return decoder.operand


def place_encoder(m: Module, platform: Any, owner: Any, datapath: Datapath, total: Any) -> Any:
    """Code of ``total``, through an encoder placed as ``encoder``.

    The encoder's settings are the ports of ``owner`` that start with ``result``.
    """
    encoder = place(m, "encoder", datapath.encoder(), platform)
    m.d.comb += encoder.total.eq(total)
    for setting in datapath.encoder_config:
        m.d.comb += getattr(encoder, setting).eq(getattr(owner, f"result_{setting}"))
    return encoder.code


def biased(m: Module, datapath: Datapath, accumulator: Any, bias: Any, relu: Any) -> Any:
    """Sum of ``accumulator`` and ``bias``; zero if that is negative and ``relu`` is set."""
    spec = datapath.spec
    biased_sum = Signal(signed(spec.sum_width))
    m.d.comb += biased_sum.eq((accumulator << spec.bias_fraction_bits) + bias)
    return Mux(relu & biased_sum[-1], 0, biased_sum)


class Mac(wiring.Component):
    """Decodes and multiplies pairs of codes, sums exactly, and encodes each sum once.

    TENT's processing element (its Fig. 5 and Algorithm 2) for the tapered number system: two
    decoders, a multiplier, a quire and an encoder.  Takes one pair per cycle while results are
    accepted; the result of a dot product is offered :attr:`latency` cycles after its last pair
    was accepted.

    Parameters
    ----------
    datapath : Datapath
        Number system.

    Members
    -------
    i : In(stream.Signature({"activation", "weight", "last"}))
        Codes of one product; ``last`` ends the dot product.
    o : Out(stream.Signature(bits))
        Code of each dot product.
    bias : In(signed(sum_width))
        Added to the sum, in its units; see MacSpec.sum_shift.  Must not change between the first
        pair and the result, and neither must the settings.
    relu : In(1)
        Replace a negative sum by zero.
    activation_*, weight_*, result_* : In
        Run-time settings of the decoders and the encoder.
    """

    i: stream.Interface
    o: stream.Interface
    bias: Signal
    relu: Signal

    #: Cycles from the last accepted pair to the offered result.
    latency = 4

    def __init__(self, datapath: Datapath):
        self.datapath = datapath
        spec = datapath.spec
        self.module_name = f"{spec.stem}_mac_{spec.label}_a{spec.accumulator_width}"
        settings: dict[str, ShapeLike] = {
            f"{role}_{name}": shape
            for role in ROLES
            for name, shape in datapath.decoder_config(role).items()
        } | {f"result_{name}": shape for name, shape in datapath.encoder_config.items()}
        codes: dict[str, Any] = {role: unsigned(spec.code_bits(role)) for role in ROLES}
        pair = data.StructLayout(codes | {"last": 1})
        super().__init__(
            {
                "i": In(stream.Signature(pair)),
                "o": Out(stream.Signature(unsigned(spec.bits))),
                "bias": In(signed(spec.sum_width)),
                "relu": In(1),
            }
            | {port: In(shape) for port, shape in settings.items()}
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.datapath.spec
        product = place(m, "product", self.datapath.product(), platform)

        # Everything moves together, or waits for the result to be accepted.
        move = Signal()
        m.d.comb += [move.eq(self.o.ready | ~self.o.valid), self.i.ready.eq(move)]

        pair = Signal.like(self.i.p, name="pair")
        pair_valid = Signal()
        for role in ROLES:
            operand = place_decoder(
                m, platform, self, self.datapath, role, f"{role}_decoder", pair[role]
            )
            m.d.comb += getattr(product, role).eq(operand)

        first = Signal(init=1)
        accumulator = Signal(signed(spec.accumulator_width))
        summed = Signal()  # the accumulator holds a whole dot product
        with m.If(move):
            m.d.sync += [pair_valid.eq(self.i.valid), summed.eq(pair_valid & pair.last)]
            with m.If(self.i.valid):
                m.d.sync += pair.eq(self.i.p)
            with m.If(pair_valid):
                m.d.sync += [
                    accumulator.eq(
                        Mux(first, 0, accumulator) + product.term + getattr(product, "carry", 0)
                    ),
                    first.eq(pair.last),
                ]

        total = Signal(signed(spec.sum_width))
        total_valid = Signal()
        code = place_encoder(m, platform, self, self.datapath, total)
        with m.If(move):
            m.d.sync += [total_valid.eq(summed), self.o.valid.eq(total_valid)]
            with m.If(summed):
                m.d.sync += total.eq(biased(m, self.datapath, accumulator, self.bias, self.relu))
            with m.If(total_valid):
                m.d.sync += self.o.p.eq(code)
        return m
