"""Multiply-accumulate unit of any number system, from codes to one rounded code."""

from typing import Any

from amaranth.hdl import Module, Mux, ShapeLike, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from golden.mac import ROLES, Operand
from hdl.datapath import Datapath
from hdl.hierarchy import place

__all__ = ["Mac", "biased", "place_decoder", "place_encoder", "place_product", "rectified"]


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


def place_product(m: Module, platform: Any, datapath: Datapath, latency: int, move: Any) -> Any:
    """Product placed as ``product``, whose registers load when ``move`` says so."""
    product = place(m, "product", datapath.product(latency=latency), platform)
    if latency:
        m.d.comb += product.move.eq(move)
    return product


def place_encoder(
    m: Module, platform: Any, owner: Any, datapath: Datapath, total: Any, latency: int, move: Any
) -> Any:
    """Code of ``total``, through an encoder placed as ``encoder``.

    The encoder's settings are the ports of ``owner`` that start with ``result``; its registers
    load when ``move`` says so.
    """
    encoder = place(m, "encoder", datapath.encoder(latency=latency), platform)
    m.d.comb += encoder.total.eq(total)
    for setting in datapath.encoder_config:
        m.d.comb += getattr(encoder, setting).eq(getattr(owner, f"result_{setting}"))
    if latency:
        m.d.comb += encoder.move.eq(move)
    return encoder.code


def rectified(total: Value, relu: Value) -> Value:
    """``total``, or zero if that is negative and ``relu`` is set."""
    return Mux(relu & total[-1], 0, total)


def biased(m: Module, datapath: Datapath, accumulator: Any, bias: Any) -> Signal:
    """Sum of ``accumulator`` and ``bias``."""
    spec = datapath.spec
    biased_sum = Signal(signed(spec.sum_width))
    m.d.comb += biased_sum.eq((accumulator << spec.bias_fraction_bits) + bias)
    return biased_sum


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
    pipelined : bool
        Whether there are registers behind the decoders, in long products, behind the product, and
        on the way of a sum to its code; see :class:`~golden.mac.ArraySpec`.

    Raises
    ------
    TypeError
        If ``pipelined`` is not a bool.

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

    def __init__(self, datapath: Datapath, *, pipelined: bool = False):
        if not isinstance(pipelined, bool):
            raise TypeError(f"pipelined must be a bool, not {pipelined!r}")
        self.datapath = datapath
        self.pipelined = pipelined
        self.product_latency = datapath.product_latency if pipelined else 0
        self.encoder_latency = datapath.encoder_latency(pipelined=pipelined)
        spec = datapath.spec
        stages = "_pipelined" if pipelined else ""
        self.module_name = f"{spec.stem}_mac_{spec.label}_a{spec.accumulator_width}{stages}"
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

    @property
    def latency(self) -> int:
        """Cycles from the last accepted pair to the offered result.

        Pair, accumulator, sum with bias and code take one each; the registers of ``pipelined`` are
        those of operands, product and rectified sum.
        """
        return 4 + 3 * self.pipelined + self.product_latency + self.encoder_latency

    def elaborate(self, platform):
        m = Module()
        spec = self.datapath.spec

        # Everything moves together, or waits for the result to be accepted.
        move = Signal()
        product = place_product(m, platform, self.datapath, self.product_latency, move)
        m.d.comb += [move.eq(self.o.ready | ~self.o.valid), self.i.ready.eq(move)]

        pair = Signal.like(self.i.p, name="pair")
        pair_valid = Signal()
        for role in ROLES:
            operand = place_decoder(
                m, platform, self, self.datapath, role, f"{role}_decoder", pair[role]
            )
            if self.pipelined:
                operand = self._register(m, move, operand, f"{role}_operand")
            m.d.comb += getattr(product, role).eq(operand)
        term, carry = product.term, getattr(product, "carry", 0)
        valid, last = pair_valid, pair.last
        if self.pipelined:
            term = self._register(m, move, term, "term")
            carry = self._register(m, move, carry, "carry") if hasattr(product, "carry") else 0
            for step in range(2 + self.product_latency):
                valid = self._register(m, move, valid, f"valid_{step}")
                last = self._register(m, move, last, f"last_{step}")

        first = Signal(init=1)
        accumulator = Signal(signed(spec.accumulator_width))
        summed = Signal()  # the accumulator holds a whole dot product
        with m.If(move):
            m.d.sync += [pair_valid.eq(self.i.valid), summed.eq(valid & last)]
            with m.If(self.i.valid):
                m.d.sync += pair.eq(self.i.p)
            with m.If(valid):
                m.d.sync += [
                    accumulator.eq(Mux(first, 0, accumulator) + term + carry),
                    first.eq(last),
                ]

        total = Signal(signed(spec.sum_width))
        total_valid = Signal()
        positive, valid = total, total_valid
        if self.pipelined:
            positive = self._register(m, move, rectified(total, self.relu), "rectified")
        for step in range(self.pipelined + self.encoder_latency):
            valid = self._register(m, move, valid, f"total_valid_{step}")
        code = place_encoder(m, platform, self, self.datapath, positive, self.encoder_latency, move)
        with m.If(move):
            m.d.sync += [total_valid.eq(summed), self.o.valid.eq(valid)]
            with m.If(summed):
                biased_sum = biased(m, self.datapath, accumulator, self.bias)
                m.d.sync += total.eq(
                    biased_sum if self.pipelined else rectified(biased_sum, self.relu)
                )
            with m.If(valid):
                m.d.sync += self.o.p.eq(code)
        return m

    @staticmethod
    def _register(m, move, value, name):
        """Register of ``value``, which loads when ``move`` says so."""
        register = Signal.like(value, name=name)
        with m.If(move):
            m.d.sync += register.eq(value)
        return register
