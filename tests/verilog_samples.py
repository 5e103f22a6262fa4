"""Small components that use everything Amaranth can express, to test the Verilog writer with."""

from amaranth.hdl import (
    Array,
    Cat,
    ClockDomain,
    ClockSignal,
    Const,
    DomainRenamer,
    Instance,
    Module,
    Mux,
    ResetInserter,
    ResetSignal,
    Shape,
    Signal,
    signed,
    unsigned,
)
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out

from hdl.hierarchy import place

#: Shapes of the two operands: every combination of signs, narrower, equal and wider, single bits.
SHAPES = [
    (unsigned(1), unsigned(1)),
    (unsigned(4), signed(4)),
    (signed(3), unsigned(5)),
    (signed(5), signed(2)),
    (unsigned(7), unsigned(3)),
    (signed(1), unsigned(2)),
    (signed(4), signed(4)),
    (unsigned(2), signed(1)),
]

ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a, b: -a,
    "abs": lambda a, b: abs(a),
    "both": lambda a, b: a & b,
    "either": lambda a, b: a | b,
    "differ": lambda a, b: a ^ b,
    "invert": lambda a, b: ~a,
    "square_sum": lambda a, b: a * a + b * b,
    "difference_of_squares": lambda a, b: (a - b) * (a + b) + 1,
    "multiply_add": lambda a, b: a * b + a,
    "low_product": lambda a, b: (a * b)[:2],
    "minus_sum": lambda a, b: -(a + b) - (b - a),
    "difference_of_differences": lambda a, b: (a - (b - a) - (a - (a + b)))[:3],
    "plus_constant": lambda a, b: (a + 5) * 3 - b * 4,
    "masked": lambda a, b: (a & 5) | (b ^ -1),
}
COMPARISONS = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt_constant": lambda a, b: (a < 3) ^ (b < -1),
    "limits": lambda a, b: Cat(a < 0, a >= 0, a > 15, a <= 15, a > -9, a < -8, a == 99, a != 99),
    "lt_sums": lambda a, b: (a + 1) < (b - 1),
    "unsigned_lt": lambda a, b: a.as_unsigned() < b.as_unsigned(),
    "not_eq": lambda a, b: ~(a == b) & ~a.any(),
    "any": lambda a, b: a.any(),
    "all": lambda a, b: a.all(),
    "parity": lambda a, b: a.xor(),
    "bool": lambda a, b: (a + b).bool(),
    "any_padded": lambda a, b: Cat(a, Const(0, 2)).any() ^ Cat(b, Const(3, 2)).all(),
    "parity_padded": lambda a, b: Cat(a, Const(1, 1), b).xor(),
}
SHIFTS = {
    "left": lambda a, b: a << b.as_unsigned()[:3],
    "right": lambda a, b: a >> b.as_unsigned()[:3],
    "left_2": lambda a, b: a << 2,
    "right_2": lambda a, b: a >> 2,
    "half_sum": lambda a, b: (a + b) >> 1,
    "sum_right": lambda a, b: ((a + b) >> b.as_unsigned()[:2]) - a,
    "difference_right": lambda a, b: (a - b) >> a.as_unsigned()[:2],
    "unsigned_right": lambda a, b: a.as_unsigned() >> b.as_unsigned()[:2],
    "part_of_right": lambda a, b: (Cat(a, b) >> a.as_unsigned()[:2])[1:3],
    "rotate": lambda a, b: a.rotate_left(1) ^ a.rotate_right(2),
    "repeat": lambda a, b: Cat(a.replicate(3), b[0].replicate(2), Const(5, 3)),
    "slices": lambda a, b: Cat(b, a, a[0], Const(2, 2), b[-1]),
    "word": lambda a, b: Cat(a).word_select(b.as_unsigned()[:2], 3),
    "bits_of_constant": lambda a, b: Const(0x2C5, 10).bit_select(a.as_unsigned(), 2),
    "mux": lambda a, b: Mux(a[0], a, b),
    "mux_of_sums": lambda a, b: Mux(b, a + b, Mux(a, a - b, 0)) + 1,
    "bit": lambda a, b: Cat(a + b).bit_select(b.as_unsigned()[:1], 1),
}
#: Yosys fills these with zeros where Amaranth documents, and simulates, copies of the sign.
SIGNED_PARTS = {
    "signed_bits": lambda a, b: a.bit_select(b.as_unsigned(), 2),
    "signed_word": lambda a, b: a.word_select(b.as_unsigned()[:2], 3),
    "far_bits": lambda a, b: a.bit_select(Cat(b.as_unsigned(), b.as_unsigned(), b[0]), 2),
}
DIVISIONS = {
    "div": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "div_3": lambda a, b: a // 3,
    "mod_minus_3": lambda a, b: a % -3,
}


class Operators(wiring.Component):
    """Every operation on every pair of shapes, into its own width and into a wider one."""

    module_name = "operators"

    def __init__(self, operations):
        self.operations = operations
        members = {}
        for index, (a, b) in enumerate(SHAPES):
            members |= {f"a{index}": In(a), f"b{index}": In(b)}
            for name, operation in operations.items():
                shape = operation(Signal(a), Signal(b)).shape()
                members[f"{name}_{index}"] = Out(shape)
                members[f"{name}_{index}_wide"] = Out(Shape(shape.width + 3, shape.signed))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        for index in range(len(SHAPES)):
            a, b = getattr(self, f"a{index}"), getattr(self, f"b{index}")
            for name, operation in self.operations.items():
                m.d.comb += [
                    getattr(self, f"{name}_{index}").eq(operation(a, b)),
                    getattr(self, f"{name}_{index}_wide").eq(operation(a, b)),
                ]
        return m


class Colour(enum.Enum, shape=unsigned(2)):
    RED = 0
    GREEN = 1
    BLUE = 3


class Statements(wiring.Component):
    """Combinational statements: nested, overlapping, partial, and in an order that matters."""

    module_name = "statements"
    a: In(8)
    b: In(signed(6))
    s: In(3)
    colour: In(Colour)
    priority: Out(4)
    wildcard: Out(5)
    overlapping: Out(4)
    nested: Out(8)
    partial: Out(12)
    left_cat: Out(9)
    array: Out(8)
    written_bits: Out(12)
    written_array: Out(12)
    carry: Out(9)
    conditional_carry: Out(9)
    hue: Out(4)
    next_colour: Out(Colour)
    empty: Out(3)
    overriding: Out(signed(8))
    never: Out(2)
    two: Out(data.StructLayout({"low": 3, "high": signed(5)}))

    def elaborate(self, platform):
        m = Module()
        a, b, s = self.a, self.b, self.s

        with m.If(a[0]):
            m.d.comb += self.priority.eq(1)
        with m.Elif(a[1:3] == 2):
            m.d.comb += self.priority.eq(s)
        with m.Elif(b.bool()), m.If(s[0]):
            m.d.comb += self.priority.eq(7)
        with m.Else():
            m.d.comb += self.priority.eq(b)

        with m.Switch(a):
            with m.Case("00000001", "1----11-"):
                m.d.comb += self.wildcard.eq(3)
            with m.Case("01--0---"):
                m.d.comb += self.wildcard.eq(a[2:5])
            with m.Case("0-000000"):
                m.d.comb += self.wildcard.eq(~a[:5])
            with m.Default():
                m.d.comb += self.wildcard.eq(b)

        m.d.comb += self.overlapping.eq(9)
        with m.Switch(Cat(s, a[:2])):
            with m.Case("--1-1"):
                m.d.comb += self.overlapping.eq(1)
            with m.Case("1-1--", "0--11"):
                m.d.comb += self.overlapping.eq(2)
            with m.Case("00100", 1):
                m.d.comb += self.overlapping.eq(3)
            with m.Case(1):
                m.d.comb += self.overlapping.eq(4)
            with m.Case("11111"):
                pass
            with m.Case("---00"):
                m.d.comb += self.overlapping.eq(5)

        m.d.comb += self.nested.eq(a)
        with m.If(s[2]), m.Switch(s[:2]):
            with m.Case(0):
                m.d.comb += self.nested.eq(a + b)
            with m.Case(1):
                with m.If(b < 0):
                    m.d.comb += self.nested.eq(-b)
                with m.Else():
                    m.d.comb += self.nested.eq(b)
            with m.Case(2):
                m.d.comb += self.nested[2:5].eq(s)
        with m.If(a == 0x42):
            m.d.comb += self.nested[:4].eq(0xF)
        with m.Elif(~s[1]):
            m.d.comb += self.nested[7].eq(a[0])

        m.d.comb += self.partial[:4].eq(a)
        with m.If(s[0]):
            m.d.comb += self.partial[2:8].eq(b)
        m.d.comb += self.partial[9:11].eq(s)
        m.d.comb += self.partial[3].eq(1)

        middle = Signal(2)
        top = Signal(signed(3))
        m.d.comb += Cat(self.left_cat[:4], middle, top).eq(a * s)
        m.d.comb += self.left_cat[4:].eq(top + middle)

        m.d.comb += self.array.eq(Array([a, a + 1, b, ~a, Const(3), s])[s])
        m.d.comb += self.written_bits.bit_select(s, 3).eq(a)
        m.d.comb += self.written_bits.word_select(s[1:], 2).eq(b)
        lanes = Array(Signal(3, name=f"lane_{n}") for n in range(4))
        m.d.comb += lanes[s[:2]].eq(a)
        m.d.comb += self.written_array.eq(Cat(*lanes))

        # One signal of which later bits depend on earlier ones.
        m.d.comb += self.carry[0].eq(s[0])
        for n in range(8):
            m.d.comb += self.carry[n + 1].eq((self.carry[n] & a[n]) | (a[n] & s[1]))
        inner = Signal(9)
        for n in range(8):
            m.d.comb += inner[n + 1].eq(a[n])
            with m.If(a[n] ^ s[0]):
                m.d.comb += inner[n + 1].eq(inner[n] ^ s[2])
        m.d.comb += self.conditional_carry.eq(inner)

        with m.Switch(self.colour):
            with m.Case(Colour.RED):
                m.d.comb += [self.hue.eq(1), self.next_colour.eq(Colour.BLUE)]
            with m.Case(Colour.BLUE):
                m.d.comb += [self.hue.eq(s), self.next_colour.eq(Colour.GREEN)]
            with m.Default():
                m.d.comb += self.hue.eq(self.colour.as_value() + 4)

        with m.If(s[0]):
            pass
        with m.Else():
            m.d.comb += self.empty.eq(5)
        with m.Switch(s):
            with m.Case(1, 2):
                pass
            with m.Case(3):
                m.d.comb += self.empty.eq(6)

        m.d.comb += self.overriding.eq(1)
        with m.If(a[7]):
            m.d.comb += self.overriding.eq(-3)
        with m.If(a[6]):
            m.d.comb += self.overriding.eq(b - 1)
        m.d.comb += self.overriding[0].eq(s[0])

        with m.Switch(a), m.Case():
            m.d.comb += self.never.eq(3)
        with m.If(Const(0)):
            m.d.comb += self.never.eq(2)
        with m.Elif(Const(1)):
            m.d.comb += self.never[0].eq(s[0])

        m.d.comb += [self.two.low.eq(a), self.two.high.eq(b + self.two.low)]
        return m


class Registers(wiring.Component):
    """Registers of every kind: values after reset, enables, slices, a state machine, no reset."""

    module_name = "registers"
    a: In(8)
    b: In(signed(5))
    go: In(1)
    plain: Out(8, init=0xA5)
    signed_sum: Out(signed(12), init=-7)
    sliced: Out(10, init=0x155)
    count: Out(4)
    flags: Out(data.StructLayout({"busy": 1, "steps": 3, "mode": Colour}), init={"steps": 5})
    doubled: Out(8)
    free: Out(6)
    mixed: Out(8)
    constant: Out(4, init=9)
    chosen: Out(9)
    steps: Out(12)
    left: Out(4)
    right: Out(4)
    halves: Out(4)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.plain.eq(self.a)
        with m.If(self.go):
            m.d.sync += self.signed_sum.eq(self.signed_sum + self.b)
        with m.Elif(self.a == 3):
            m.d.sync += self.signed_sum.eq(-2048)

        m.d.sync += self.sliced[2:6].eq(self.a)
        with m.Switch(self.a[:2]):
            with m.Case(0):
                m.d.sync += self.sliced[:4].eq(self.b)
            with m.Case("1-"):
                m.d.sync += Cat(self.sliced[9], self.sliced[7]).eq(self.a[4:6])

        free = Signal(6, reset_less=True)
        m.d.sync += free.eq(self.a)
        m.d.comb += self.free.eq(free)

        # What is chosen goes to registers without reset and is used besides.
        choice = Array([self.a, self.a + 1, 3, self.count])[self.b[:2]]
        first, second = (Signal(8, name=name, reset_less=True) for name in ("first", "second"))
        step = Signal(4)
        with m.If(self.go):
            m.d.comb += step.eq(self.a)
        with m.Elif(self.a[0]):
            m.d.comb += step[:2].eq(self.b)
        m.d.sync += [first.eq(choice), second.eq(step)]
        m.d.comb += [self.chosen.eq(choice + first), self.steps.eq(Cat(step, second))]

        # Either branch assigns something else.
        with m.If(self.go):
            m.d.sync += self.left.eq(self.a)
        with m.Else():
            m.d.sync += self.right.eq(self.a)
        with m.If(self.a[7]):
            m.d.sync += self.halves[:2].eq(self.a)
        with m.Else():
            m.d.sync += self.halves[2:].eq(self.a)

        # One bit follows at once, the others with the clock.
        m.d.comb += self.mixed[0].eq(self.go)
        m.d.sync += self.mixed[1:7].eq(self.b)
        m.d.comb += self.mixed[7].eq(self.a[7])

        with m.FSM(name="phase"):
            with m.State("IDLE"):
                m.d.sync += self.count.eq(0)
                with m.If(self.go):
                    m.d.comb += self.flags.busy.eq(1)
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [self.flags.busy.eq(1), self.flags.mode.eq(Colour.BLUE)]
                m.d.sync += self.count.eq(self.count + 1)
                m.d.comb += self.doubled.eq(self.count << 1)
                with m.If(self.count == 5):
                    m.next = "STOP"
                with m.Elif(self.a.all()):
                    m.next = "IDLE"
            with m.State("STOP"):
                m.d.comb += self.doubled.eq(self.a)
                m.next = "IDLE"
        m.d.sync += self.flags.steps.eq(self.flags.steps + self.flags.busy)
        return m


class Domains(wiring.Component):
    """Clock domains: falling edge, asynchronous reset, no reset, renamed, reset by a signal."""

    module_name = "domains"
    a: In(4)
    clear: In(1)
    restart: In(1)
    rising: Out(4)
    falling: Out(4, init=3)
    asynchronous: Out(4, init=6)
    unreset: Out(4)
    renamed: Out(4)
    cleared: Out(4, init=2)

    def elaborate(self, platform):
        m = Module()
        m.domains.fall = ClockDomain("fall", clk_edge="neg", local=True)
        m.domains.apart = ClockDomain("apart", async_reset=True, local=True)
        m.domains.bare = ClockDomain("bare", reset_less=True, local=True)
        for domain in ("fall", "apart", "bare"):
            m.d.comb += ClockSignal(domain).eq(ClockSignal())
        m.d.comb += [ResetSignal("fall").eq(ResetSignal()), ResetSignal("apart").eq(self.clear)]
        m.d.sync += self.rising.eq(self.a)
        m.d.fall += self.falling.eq(self.falling + self.a)
        m.d.apart += self.asynchronous.eq(self.asynchronous ^ self.a)
        m.d.bare += self.unreset.eq(~self.a)
        inner = Module()
        inner.d.inside += self.renamed.eq(self.a + 1)
        m.submodules.inner = DomainRenamer({"inside": "fall"})(inner)
        resettable = Module()
        resettable.d.sync += self.cleared.eq(self.cleared + self.a)
        m.submodules.resettable = ResetInserter(self.restart)(resettable)
        return m


class Tables(wiring.Component):
    """Memories: a table, one with lanes and a transparent port, one whose depth is no power."""

    module_name = "tables"
    address: In(4)
    other: In(4)
    lanes: In(2)
    value: In(10)
    go: In(1)
    constant: Out(7)
    square: Out(8)
    stored: Out(10)
    fresh: Out(10)
    held: Out(3)

    def elaborate(self, platform):
        m = Module()
        squares = memory.Memory(shape=8, depth=16, init=[n * n & 0xFF for n in range(16)])
        m.submodules.squares = squares
        now, later = squares.read_port(domain="comb"), squares.read_port()
        m.d.comb += [
            now.addr.eq(self.address ^ self.other),
            self.constant.eq(now.data[:7]),
            later.addr.eq(self.address),
            self.square.eq(later.data),
        ]

        m.submodules.store = store = memory.Memory(shape=10, depth=16, init=[3, 1, 4, 1, 5])
        write = store.write_port(granularity=5)
        old = store.read_port()
        new = store.read_port(transparent_for=(write,))
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(self.value),
            write.en.eq(self.lanes),
            old.addr.eq(self.other),
            self.stored.eq(old.data),
            new.addr.eq(self.other),
            new.en.eq(self.go),
            self.fresh.eq(new.data),
        ]

        m.submodules.few = few = memory.Memory(shape=3, depth=5, init=[7, 6, 5, 4, 3])
        put, get = few.write_port(), few.read_port()
        m.d.comb += [
            put.addr.eq(Mux(self.address < 5, self.address, 0)),
            put.data.eq(self.value),
            put.en.eq(self.go & self.lanes[0]),
            get.addr.eq(Mux(self.other < 5, self.other, 0)),
            get.en.eq(~self.go),
            self.held.eq(get.data),
        ]
        return m


class Cleared(wiring.Component):
    """Two memories that start as zeros, and a port of the name that clearing them would like."""

    module_name = "cleared"
    row: In(3)
    value: In(6)
    put: In(1)
    word: Out(6)
    count: Out(2)

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = memory.Memory(shape=6, depth=8, init=[])
        write, read = words.write_port(), words.read_port()
        m.d.comb += [
            write.addr.eq(self.row),
            write.data.eq(self.value),
            write.en.eq(self.put),
            read.addr.eq(self.value),
            self.word.eq(read.data),
        ]
        m.submodules.counts = counts = memory.Memory(shape=2, depth=8, init=[0, 0])
        set_count, get_count = counts.write_port(), counts.read_port(domain="comb")
        m.d.comb += [
            get_count.addr.eq(self.row),
            self.count.eq(get_count.data),
            set_count.addr.eq(self.row),
            set_count.data.eq(self.count + 1),
            set_count.en.eq(self.put),
        ]
        return m


class Adder(wiring.Component):
    """Adds, one cycle later."""

    def __init__(self, width):
        self.width = width
        self.module_name = f"adder_w{width}"
        super().__init__({"x": In(signed(width)), "y": In(width), "z": Out(signed(width + 2))})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.z.eq(self.x + self.y)
        return m


class Nested(wiring.Component):
    """Units inside units: placed twice, of two widths, unconnected; and names that collide.

    A second paragraph, which is no part of the header.
    """

    module_name = "nested"
    integer: In(signed(4))  # a word of Verilog
    logic: In(4)  # a word of SystemVerilog
    total: Out(signed(6))
    total_2: Out(signed(8))
    same: Out(signed(4))
    also: Out(signed(4))

    def elaborate(self, platform):
        m = Module()
        first = place(m, "first", Adder(4), platform)
        second = place(m, "second", Adder(4), platform)
        wide = place(m, "wide", Adder(6), platform)
        place(m, "unused", Adder(4), platform)
        m.d.comb += [
            first.x.eq(self.integer),
            first.y.eq(self.logic),
            second.x.eq(first.z),
            second.y.eq(self.logic + 1),
            wide.x.eq(second.z - first.z),
            wide.y.eq(Cat(first.z[:3], self.logic[0])),
            self.total.eq(first.z),
            self.total_2.eq(wide.z),
        ]
        # Two signals of one name, one that Verilog cannot have, and equal outputs.
        for n in range(2):
            total = Signal(4, name="total")
            m.d.sync += total.eq(total + n + self.logic)
            if n:
                m.d.comb += self.same.eq(total)
        strange = Signal(4, name="always")
        m.d.comb += [strange.eq(self.same ^ 5), self.also.eq(self.same + strange)]
        return m


class Deep(wiring.Component):
    """Submodules that are not placed: logic, a placed unit, a state machine, a memory."""

    module_name = "deep"
    a: In(4)
    go: In(1)
    y: Out(signed(6))
    state: Out(3)
    word: Out(4)

    def elaborate(self, platform):
        m = Module()
        m.submodules.outer = outer = Module()
        outer.submodules.inner = inner = Module()
        count = Signal(4)
        # The name that `count` inside gets from the names of the submodules.
        outer_inner_count = Signal(4)
        m.d.sync += outer_inner_count.eq(outer_inner_count ^ self.a)
        inner.d.sync += count.eq(count + outer_inner_count)
        adder = place(inner, "adder", Adder(4), platform)
        inner.d.comb += [adder.x.eq(count), adder.y.eq(self.a), self.y.eq(adder.z + count)]
        with outer.FSM(name="walk"):
            with outer.State("LEFT"):
                outer.d.comb += self.state.eq(1)
                with outer.If(self.go):
                    outer.next = "RIGHT"
            with outer.State("RIGHT"):
                outer.d.comb += self.state.eq(count)
                with outer.If(count[0] & ~self.go):
                    outer.next = "LEFT"
        table = memory.Memory(shape=4, depth=16, init=[15 - n for n in range(16)])
        outer.submodules.table = table
        read = table.read_port(domain="comb")
        outer.d.comb += [read.addr.eq(count), self.word.eq(read.data)]
        return m


class Feedback(wiring.Component):
    """Units whose inputs depend on their own outputs, and on each other's."""

    module_name = "feedback"
    a: In(4)
    y: Out(signed(6))

    def elaborate(self, platform):
        m = Module()
        units = [place(m, f"unit_{n}", Adder(4), platform) for n in range(3)]
        mixed = Signal(4)
        ring = Signal(4)
        m.d.comb += [
            mixed.eq(units[0].z ^ units[1].z ^ self.a),
            ring.eq(mixed + units[2].z[1:]),
            self.y.eq(units[2].z ^ units[0].z[4:] ^ units[1].z[4:]),
        ]
        for n, unit in enumerate(units):
            m.d.comb += [unit.x.eq(ring if n else mixed), unit.y.eq(mixed if n else ring)]
        return m


class Boxed(wiring.Component):
    """An instance of a module from elsewhere, with parameters."""

    module_name = "boxed"
    a: In(4)
    y: Out(4)

    def elaborate(self, platform):
        m = Module()
        m.submodules.box = Instance(
            "box",
            p_WIDTH=4,
            p_MODE='f"a\\st',
            p_MASK=Const(5, 4),
            p_STEP=-3,
            p_FAR=Const(-(1 << 35), signed(40)),
            p_RATIO=1.5,
            i_a=self.a + 1,
            o_y=self.y,
        )
        return m


#: Module that `Boxed` needs.
BOX = """\
module box #(
  parameter WIDTH = 1, parameter MODE = "slow", parameter [3:0] MASK = 0, parameter STEP = 0,
  parameter signed [39:0] FAR = 0, parameter real RATIO = 0.5
) (
  input wire [WIDTH-1:0] a, output wire [WIDTH-1:0] y
);
  wire fits = STEP == -3 && FAR == -40'sd34359738368 && RATIO > 1.4 && RATIO < 1.6;
  assign y = !fits ? 4'd0 : a ^ MASK ^ {3'd0, MODE == "f\\"a\\\\st"};
endmodule
"""
