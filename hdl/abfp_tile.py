"""Sequential units of the ABFP tile; :mod:`hdl.abfp` puts them together."""

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from golden.abfp_tile import AbfpTileSpec
from golden.spec import check_int, instance_of
from hdl.abfp_arithmetic import Flow, flow_ports
from hdl.abfp_units import check_flag

__all__ = ["AbsMax", "DotTile", "NoiseSource", "RowStore"]

#: Taps of x**32 + x**22 + x**2 + x + 1, whose register runs through all states but zero.
TAPS = 1 << 31 | 1 << 21 | 1 << 1 | 1 << 0


class AbsMax(wiring.Component):
    """Largest magnitude among bfloat16 numbers that come some at a time (section 7, step 1).

    Parameters
    ----------
    lanes : int
        Numbers of a cycle, a power of two from 1 to 1024.
    exp_only : bool
        Whether only exponents count.
    pipelined : bool
        Whether there are registers after each level of comparisons, not just after all.

    Members
    -------
    magnitudes : In(15 x lanes), or In(8 x lanes) with ``exp_only``
        Numbers without signs, or their exponent fields.  One with an exponent field of 0 or 255
        counts as zero.
    valid, first, last : In(1)
        Whether they are there, and whether they are the first and the last of their vector.
    known : Out(1)
        Whether the largest one of a vector is known, ``latency`` cycles after its last ones.
    largest : Out(15) or Out(8)
        That one; otherwise the largest so far.
    bad : Out(1)
        Whether there was an infinity or NaN, in one cycle for each word with one.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If ``lanes`` is out of range.
    """

    magnitudes: Any
    valid: Signal
    first: Signal
    last: Signal
    known: Signal
    largest: Signal
    bad: Signal

    def __init__(self, lanes: int, exp_only: bool = False, pipelined: bool = False):
        check_int("lanes", lanes, 1, 1024)
        if lanes & lanes - 1:
            raise ValueError(f"lanes must be a power of two, not {lanes}")
        self.lanes = lanes
        self.width = 8 if check_flag("exp_only", exp_only) else 15
        self.pipelined = check_flag("pipelined", pipelined)
        self.latency = len(self.cuts(lanes, pipelined))
        kind = "_exp" if exp_only else ""
        self.module_name = f"abfp_abs_max_l{lanes}{kind}_d{self.latency}"
        super().__init__(
            {
                "magnitudes": In(data.ArrayLayout(self.width, lanes)),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "known": Out(1),
                "largest": Out(self.width),
                "bad": Out(1),
            }
        )

    @staticmethod
    def cuts(lanes: int, pipelined: bool) -> list[str]:
        """Places that have registers."""
        levels = [f"level_{level}" for level in range(lanes.bit_length())]
        return levels if pipelined else levels[-1:]

    def elaborate(self, platform):
        m = Module()
        valid = Signal()
        ports = SimpleNamespace(
            latency=self.latency, move=Const(1), valid=self.valid, o_valid=valid
        )
        flow = Flow(m, ports, {self.latency: self.cuts(self.lanes, self.pipelined)})
        fields = [self.magnitudes[lane][-8:] for lane in range(self.lanes)]
        winners = []
        for lane, field in enumerate(fields):
            magnitude = Signal(self.width, name=f"magnitude_{lane}")
            m.d.comb += magnitude.eq(Mux((field == 0) | field.all(), 0, self.magnitudes[lane]))
            winners.append(magnitude)
        tags = (self.first, self.last, Cat(field.all() for field in fields).any())
        for level in range(self.lanes.bit_length()):
            if level:
                larger = []
                for pair in range(len(winners) // 2):
                    one, other = winners[2 * pair : 2 * pair + 2]
                    winner = Signal(self.width, name=f"level_{level}_{pair}")
                    m.d.comb += winner.eq(Mux(one > other, one, other))
                    larger.append(winner)
                winners = larger
            tags = flow.cut(f"level_{level}", first=tags[0], last=tags[1], bad=tags[2])
            winners = list(
                flow.cut(f"level_{level}", **{f"winner_{n}": w for n, w in enumerate(winners)})
            )

        (word,) = winners
        first, last, bad = tags
        so_far = Signal(self.width, reset_less=True)
        m.d.comb += [
            self.largest.eq(Mux(~first & (so_far > word), so_far, word)),
            self.known.eq(valid & last),
            self.bad.eq(valid & bad),
        ]
        with m.If(valid):
            m.d.sync += so_far.eq(self.largest)
        return m


class DotTile(wiring.Component):
    """One row of the tile: dot product of codes that come some at a time, exact.

    Parameters
    ----------
    spec : AbfpTileSpec
        Widths.
    lanes : int
        Products of a cycle.
    pipelined : bool
        Whether registers part the products and their sum.

    Members
    -------
    weights, activations : In(signed x lanes)
        Codes.
    first : In(1)
        Whether they are the first of their vectors.
    move, valid, o_valid
        See :func:`hdl.abfp_arithmetic.flow_ports`; the latency is the attribute of that name.
    take : In(1)
        Keep the dot product.
    sum : Out(signed(sum_bits))
        The one that was kept.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If ``lanes`` is not between 1 and the tile width.
    """

    #: Places that have registers, by latency; the sum over the words of a vector comes last.
    CUTS = {1: ("total",), 3: ("products", "dot", "total")}

    weights: Any
    activations: Any
    first: Signal
    move: Signal
    valid: Signal
    o_valid: Signal
    take: Signal
    sum: Signal

    def __init__(self, spec: AbfpTileSpec, lanes: int, pipelined: bool = False):
        self.spec = instance_of("spec", spec, AbfpTileSpec)
        check_int("lanes", lanes, 1, spec.tile)
        self.lanes = lanes
        self.latency = 3 if check_flag("pipelined", pipelined) else 1
        self.module_name = (
            f"abfp_dot_w{spec.weight_bits}_x{spec.activation_bits}_n{spec.tile}_l{lanes}"
            f"_d{self.latency}"
        )
        super().__init__(
            {
                "weights": In(data.ArrayLayout(signed(spec.weight_bits), lanes)),
                "activations": In(data.ArrayLayout(signed(spec.activation_bits), lanes)),
                "first": In(1),
                "take": In(1),
                "sum": Out(signed(spec.sum_bits)),
            }
            | flow_ports(self.latency)
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        flow = Flow(m, self, self.CUTS)
        products = flow.cut(
            "products",
            **{
                f"product_{lane}": self.weights[lane] * self.activations[lane]
                for lane in range(self.lanes)
            },
        )
        (first,) = flow.cut("products", first=self.first)
        # A sum over some lanes has no more bits than one over the tile.
        words = Signal(signed(spec.sum_bits))
        m.d.comb += words.eq(sum(products))
        dot, first = flow.cut("dot", words=words, first=first)
        total = Signal(signed(spec.sum_bits), reset_less=True)
        with m.If(flow.loads("total")):
            m.d.sync += total.eq(Mux(first, 0, total) + dot)
        with m.If(self.take):
            m.d.sync += self.sum.eq(total)
        return m


class NoiseSource(wiring.Component):
    """Seeded noise words: a Galois register of 32 bits that makes ``bits`` steps for each.

    Parameters
    ----------
    bits : int
        Bits of a word, 1 to 16.

    Members
    -------
    seed : In(32)
        State to start from; 0, which the register would never leave, counts as 1.
    load : In(1)
        Start from the seed.
    step : In(1)
        Make the next word.
    external, given : In
        Whether the word is to be ``given`` instead.
    word : Out(bits)
        Low bits of the state.

    Raises
    ------
    TypeError
        If ``bits`` is no int.
    ValueError
        If it is out of range.
    """

    seed: Signal
    load: Signal
    step: Signal
    external: Signal
    given: Signal
    word: Signal

    def __init__(self, bits: int):
        check_int("bits", bits, 1, 16)
        self.bits = bits
        self.module_name = f"abfp_noise_r{bits}"
        super().__init__(
            {
                "seed": In(32),
                "load": In(1),
                "step": In(1),
                "external": In(1),
                "given": In(bits),
                "word": Out(bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        state = Signal(32, init=1)
        following = state
        for count in range(self.bits):
            stepped = Signal(32, name=f"after_{count + 1}")
            m.d.comb += stepped.eq(Cat(following[1:], Const(0, 1)) ^ Mux(following[0], TAPS, 0))
            following = stepped
        with m.If(self.load):
            m.d.sync += state.eq(Mux(self.seed == 0, 1, self.seed))
        with m.Elif(self.step):
            m.d.sync += state.eq(following)
        m.d.comb += self.word.eq(Mux(self.external, self.given, state[: self.bits]))
        return m


class RowStore(wiring.Component):
    """Memory that is written from outside and read in order; a flow may replace it by a macro.

    A word is there one cycle after its address, and stays until another one is read.

    Parameters
    ----------
    width, depth : int
        Bits of a word, and words.

    Members
    -------
    read_en, read_address : In
        Word to read.
    value : Out(width)
        The word.
    write_en, write_address, write_value : In
        Word to write.

    Raises
    ------
    TypeError
        If a parameter is no int.
    ValueError
        If it is not positive.
    """

    read_en: Signal
    read_address: Signal
    value: Signal
    write_en: Signal
    write_address: Signal
    write_value: Signal

    def __init__(self, width: int, depth: int):
        check_int("width", width, 1, None)
        check_int("depth", depth, 1, None)
        self.width = width
        self.depth = depth
        # One word has an address too.
        self.address_bits = max((depth - 1).bit_length(), 1)
        self.module_name = f"abfp_store_w{width}_d{depth}"
        super().__init__(
            {
                "read_en": In(1),
                "read_address": In(self.address_bits),
                "value": Out(width),
                "write_en": In(1),
                "write_address": In(self.address_bits),
                "write_value": In(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words: Any = Memory(shape=self.width, depth=1 << self.address_bits, init=[])
        m.submodules.words = words
        read, write = words.read_port(), words.write_port()
        m.d.comb += [
            read.en.eq(self.read_en),
            read.addr.eq(self.read_address),
            self.value.eq(read.data),
            write.en.eq(self.write_en),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_value),
        ]
        return m
