"""Output-stationary systolic array of any number system's multiply-accumulate units.

The array is built in levels, so that every module stays small: :class:`ProcessingElement`,
:class:`ArrayRow`, :class:`SystolicArray`.  Operands are skewed by :class:`Skew` at two edges,
accumulators leave through one :class:`Drain` per column, and :class:`Control` tells all when.
Rows, skews and arrays are wiring only, so that the cost of an array is that of its units.
"""

from functools import reduce
from itertools import pairwise
from operator import and_, or_
from typing import Any

from amaranth.hdl import (
    Cat,
    Module,
    Mux,
    ResetSignal,
    ShapeLike,
    Signal,
    Value,
    signed,
    unsigned,
)
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from golden.mac import ROLES, ArraySpec, Operand
from golden.spec import instance_of
from hdl.datapath import Datapath
from hdl.hierarchy import mark_used, place
from hdl.mac import biased, place_decoder, place_encoder, place_product, rectified

__all__ = [
    "ArrayRow",
    "Control",
    "Drain",
    "ProcessingElement",
    "Skew",
    "SkewStage",
    "SystolicArray",
]


def travelling_shape(datapath: Datapath, spec: ArraySpec, role: Operand) -> ShapeLike:
    """Shape of what travels from one processing element to the next: operands or codes."""
    if spec.decodes_in_element(role):
        return unsigned(spec.mac.code_bits(role))
    return datapath.operand(role)


def element_config(datapath: Datapath, spec: ArraySpec) -> dict[str, ShapeLike]:
    """Ports of a processing element for the settings of the decoders in it."""
    return {
        f"{role}_{name}": shape
        for role in ROLES
        if spec.decodes_in_element(role)
        for name, shape in datapath.decoder_config(role).items()
    }


def variant(spec: ArraySpec) -> str:
    """Options of ``spec`` that change a processing element, for module names."""
    decoding = "_decoding" if spec.decoders == "pe" else ""
    gated = "_gated" if spec.zero_gating else ""
    return f"{decoding}{gated}{speed(spec)}_{spec.mac.label}_a{spec.mac.accumulator_width}"


def speed(spec: ArraySpec) -> str:
    """Options of ``spec`` that change processing elements and drains, for module names."""
    return "_pipelined" * spec.pipelined + "_carry_save" * spec.carry_save


def accumulator_shape(spec: ArraySpec) -> ShapeLike:
    """Shape of an accumulator: a number, or two whose sum it is, modulo 2**width."""
    width = spec.mac.accumulator_width
    if spec.carry_save:
        return data.StructLayout({"sums": signed(width), "carries": signed(width)})
    return signed(width)


def registers_operands(datapath: Datapath, spec: ArraySpec) -> bool:
    """Whether a processing element has registers behind its decoders.

    Not where a decoder is but a gate or two, as where it always is in a processing element.
    """
    return spec.pipelined and any(
        _has_decoder(datapath, role)
        for role in ROLES
        if spec.decodes_in_element(role) and role not in spec.mac.decoded_in_elements
    )


def _has_decoder(datapath: Datapath, role: Operand) -> bool:
    decoder = datapath.decoder(role)
    if decoder is not None:
        mark_used(decoder)
    return decoder is not None


def product_latency(datapath: Datapath, spec: ArraySpec) -> int:
    """Count registers inside the product of a processing element."""
    return datapath.product_latency if spec.pipelined else 0


def element_latency(datapath: Datapath, spec: ArraySpec) -> int:
    """Cycles from an operand register to the accumulator."""
    stages = spec.zero_gating + registers_operands(datapath, spec) + spec.pipelined
    return 1 + stages + product_latency(datapath, spec)


class ProcessingElement(wiring.Component):
    """Multiply-accumulate cell: passes its operands on and owns one accumulator.

    An operand that enters in cycle t leaves in cycle t + 1, and its product is part of
    ``accumulator`` from cycle t + 1 + :attr:`latency` on.

    Parameters
    ----------
    datapath : Datapath
        Number system.
    spec : ArraySpec
        Options; its size does not matter here.

    Members
    -------
    activation, weight : In(operand)
        Operands, or codes if they are decoded here.
    activation_out, weight_out : Out(operand)
        The same, one cycle later.
    drain : In(1)
        Take ``accumulator_in`` instead of adding a product.
    accumulator_in, accumulator : In, Out(accumulator_shape(spec))
        Chain through which accumulators leave.
    activation_*, weight_* : In
        Settings of the decoders, if they are here.
    """

    activation: Any
    weight: Any
    activation_out: Any
    weight_out: Any
    drain: Signal
    accumulator_in: Any
    accumulator: Any

    def __init__(self, datapath: Datapath, spec: ArraySpec):
        self.datapath = datapath
        self.spec = spec
        self.module_name = f"{spec.mac.stem}_pe{variant(spec)}"
        operands = {role: travelling_shape(datapath, spec, role) for role in ROLES}
        super().__init__(
            {role: In(operands[role]) for role in ROLES}
            | {f"{role}_out": Out(operands[role]) for role in ROLES}
            | {
                "drain": In(1),
                "accumulator_in": In(accumulator_shape(spec)),
                "accumulator": Out(accumulator_shape(spec)),
            }
            | {port: In(shape) for port, shape in element_config(datapath, spec).items()}
        )

    @property
    def latency(self) -> int:
        """Cycles from an operand register to the accumulator."""
        return element_latency(self.datapath, self.spec)

    def elaborate(self, platform):
        m = Module()
        latency = product_latency(self.datapath, self.spec)
        product = place_product(m, platform, self.datapath, latency, 1)
        m.d.sync += [
            self.activation_out.eq(self.activation),
            self.weight_out.eq(self.weight),
        ]

        factors: dict[Operand, Any] = {
            "activation": self.activation_out,
            "weight": self.weight_out,
        }
        if self.spec.zero_gating:
            # The multiplier has operand registers of its own, which keep the old operands.
            held: dict[Operand, Any] = {
                role: Signal(travelling_shape(self.datapath, self.spec, role), name=f"{role}_held")
                for role in ROLES
            }
            nonzero = Signal()
            accumulate = Signal(name="accumulate")
            telling = [role for role in ROLES if role in self.spec.mac.zero_operands]
            m.d.comb += nonzero.eq(
                reduce(and_, (Value.cast(factors[role]).any() for role in telling))
            )
            m.d.sync += accumulate.eq(nonzero)
            behind = element_latency(self.datapath, self.spec) - 2
            for step in range(behind):
                later = Signal(name=f"accumulate_{step}")
                m.d.sync += later.eq(accumulate)
                accumulate = later
            with m.If(nonzero):
                m.d.sync += [held[role].eq(factors[role]) for role in ROLES]
            factors = held

        for role in ROLES:
            factor = factors[role]
            if self.spec.decodes_in_element(role):
                factor = place_decoder(
                    m, platform, self, self.datapath, role, f"{role}_decoder", factor
                )
            if registers_operands(self.datapath, self.spec):
                operand = Signal(self.datapath.operand(role), name=f"{role}_operand")
                m.d.sync += operand.eq(factor)
                factor = operand
            m.d.comb += getattr(product, role).eq(factor)

        term, carry = product.term, getattr(product, "carry", 0)
        if self.spec.pipelined:
            registers = []
            for name, value in (("term", term), ("carry", carry)):
                register = value
                if isinstance(value, Value):
                    register = Signal.like(value, name=name)
                    m.d.sync += register.eq(value)
                registers.append(register)
            term, carry = registers

        # Wide enough for the longest dot product, see MacSpec.
        accumulator = Signal(
            accumulator_shape(self.spec), name="accumulator_register", reset_less=True
        )
        total = Signal.like(self.accumulator)
        if self.spec.carry_save:
            m.d.comb += _carry_save_sum(total, accumulator, term, carry)
        else:
            m.d.comb += total.eq(accumulator + term + carry)
        # The longest path ends here.  Reset takes the way of the drain, so that it adds no gate to
        # that path, as a reset of the register itself would.
        load = Signal()
        loaded = Signal.like(self.accumulator)
        m.d.comb += [
            load.eq(self.drain | ResetSignal()),
            loaded.eq(Mux(ResetSignal(), 0, self.accumulator_in)),
        ]
        if self.spec.zero_gating:
            with m.If(load | accumulate):
                m.d.sync += accumulator.eq(Mux(load, loaded, total))
        else:
            m.d.sync += accumulator.eq(Mux(load, loaded, total))
        m.d.comb += self.accumulator.eq(accumulator)
        return m


def _carry_save_sum(total: Any, accumulator: Any, term: Value, carry: Any) -> list[Any]:
    """Statements for ``total``, two words with the sum of ``accumulator``, ``term`` and ``carry``.

    Three bits of a column become a sum and a carry, which moves up by one; ``carry`` takes the
    place that this leaves.
    """
    width = len(accumulator.sums)
    extended = Signal(signed(width), name="term_extended")
    sums, carries = accumulator.sums, accumulator.carries
    majority = (sums & carries) | (extended & (sums ^ carries))
    return [
        extended.eq(term),
        total.sums.eq(sums ^ carries ^ extended),
        total.carries.eq(Cat(Value.cast(carry)[:1], majority[: width - 1]).as_signed()),
    ]


class ArrayRow(wiring.Component):
    """One row of processing elements: activations run along it, weights and sums across it.

    Parameters
    ----------
    datapath : Datapath
        Number system.
    spec : ArraySpec
        Columns and options.

    Members
    -------
    activation : In(operand)
        Enters at column 0.
    weights, weights_out : In, Out(ArrayLayout(operand, cols))
        From the row above, to the row below.
    drain : In(1)
        For all processing elements.
    accumulators_in, accumulators : In, Out(ArrayLayout(accumulator_shape(spec), cols))
        From the row above, to the row below.
    activation_*, weight_* : In
        Settings of the decoders, if they are in the processing elements.
    """

    activation: Any
    weights: Any
    weights_out: Any
    drain: Signal
    accumulators_in: Any
    accumulators: Any

    def __init__(self, datapath: Datapath, spec: ArraySpec):
        self.datapath = datapath
        self.spec = spec
        self.module_name = f"{spec.mac.stem}_row_c{spec.cols}{variant(spec)}"
        weights = data.ArrayLayout(travelling_shape(datapath, spec, "weight"), spec.cols)
        sums = data.ArrayLayout(accumulator_shape(spec), spec.cols)
        super().__init__(
            {
                "activation": In(travelling_shape(datapath, spec, "activation")),
                "weights": In(weights),
                "weights_out": Out(weights),
                "drain": In(1),
                "accumulators_in": In(sums),
                "accumulators": Out(sums),
            }
            | {port: In(shape) for port, shape in element_config(datapath, spec).items()}
        )

    def elaborate(self, platform):
        m = Module()
        activation = self.activation
        for col in range(self.spec.cols):
            element = place(m, f"pe_{col}", ProcessingElement(self.datapath, self.spec), platform)
            m.d.comb += [
                element.activation.eq(activation),
                element.weight.eq(self.weights[col]),
                element.drain.eq(self.drain),
                element.accumulator_in.eq(self.accumulators_in[col]),
                self.weights_out[col].eq(element.weight_out),
                self.accumulators[col].eq(element.accumulator),
            ]
            for port in element_config(self.datapath, self.spec):
                m.d.comb += getattr(element, port).eq(getattr(self, port))
            activation = element.activation_out
        return m


class Skew(wiring.Component):
    """Delays lane n of a vector by n + 1 cycles; a pause becomes a vector of zeros.

    An activation code without a bit is zero and so is its product, whatever the weight, so nothing
    has to be told of a pause.

    Parameters
    ----------
    width : int
        Bits of a lane.
    lanes : int
        Number of lanes.

    Members
    -------
    enter : In(1)
        Take ``i``; zeros otherwise.
    keep : In(1)
        Keep what is on the way; all of it becomes zero otherwise.  Absent with one lane.
    i, o : In, Out(ArrayLayout(width, lanes))
        Vector before and after.
    """

    enter: Signal
    keep: Signal
    i: Any
    o: Any

    def __init__(self, width: int, lanes: int):
        self.width = width
        self.lanes = lanes
        self.module_name = f"skew_w{width}_n{lanes}"
        layout = data.ArrayLayout(unsigned(width), lanes)
        super().__init__(
            {"enter": In(1), "i": In(layout), "o": Out(layout)}
            | ({"keep": In(1)} if lanes > 1 else {})
        )

    def elaborate(self, platform):
        m = Module()
        for lane in range(self.lanes):
            value: Value = self.i[lane]
            for step in range(lane + 1):
                stage = place(m, f"lane_{lane}_stage_{step}", SkewStage(self.width), platform)
                m.d.comb += [
                    stage.i.eq(value),
                    stage.passes.eq(self.keep if step else self.enter),
                ]
                value = stage.o
            m.d.comb += self.o[lane].eq(value)
        return m


class SkewStage(wiring.Component):
    """Register of one lane of a skew.

    It has no reset of its own: one inverter for all of them, in the controller, takes less area.

    Parameters
    ----------
    width : int
        Bits of a lane.

    Members
    -------
    passes : In(1)
        Take ``i``; zero otherwise.
    i, o : In, Out(width)
        Code, and the same one cycle later.
    """

    passes: Signal
    i: Signal
    o: Signal

    def __init__(self, width: int):
        self.width = width
        self.module_name = f"skew_stage_w{width}"
        super().__init__({"passes": In(1), "i": In(width), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        held = Signal(self.width, name="held", reset_less=True)
        m.d.sync += held.eq(Mux(self.passes, self.i, 0))
        m.d.comb += self.o.eq(held)
        return m


class Control(wiring.Component):
    """Sequence of a tile: products, flush, then one row of results after the other.

    Parameters
    ----------
    rows : int
        Rows to drain.
    flush : int
        Cycles from the last operands to the last accumulator that they change.
    stages : int
        Rows that the drains hold before they offer them.

    Members
    -------
    i_valid, i_last, i_ready : In, In, Out(1)
        Handshake of the operands.
    o_valid, o_last, o_ready : Out, Out, In(1)
        Handshake of the results.
    enter : Out(1)
        Operands are transferred.
    keep : Out(1)
        Operands on their way go on; low during reset.
    shift : Out(1)
        Accumulators move down by one row; the drains take the last one.
    give : Out(1)
        The drains take the codes of the row that they hold the longest.
    move : Out(1)
        All rows in the drains move on; absent with one stage.
    """

    i_valid: Signal
    i_last: Signal
    i_ready: Signal
    o_valid: Signal
    o_last: Signal
    o_ready: Signal
    enter: Signal
    keep: Signal
    shift: Signal
    give: Signal
    move: Signal

    def __init__(self, rows: int, flush: int, stages: int = 1):
        self.rows = rows
        self.flush = flush
        self.stages = stages
        depth = f"_s{stages}" if stages > 1 else ""
        self.module_name = f"array_control_r{rows}_f{flush}{depth}"
        super().__init__(
            {
                "i_valid": In(1),
                "i_last": In(1),
                "i_ready": Out(1),
                "o_valid": Out(1),
                "o_last": Out(1),
                "o_ready": In(1),
                "enter": Out(1),
                "keep": Out(1),
                "shift": Out(1),
                "give": Out(1),
            }
            | ({"move": Out(1)} if stages > 1 else {})
        )

    def elaborate(self, platform):
        m = Module()
        waiting = Signal(range(self.flush))
        rows_left = Signal(range(self.rows + 1))
        taken = Signal()  # the drains hold a row that has not been offered
        taken_last = Signal()

        # The stages of the drains move when the output register is free.
        move = Signal(name="move") if self.stages == 1 else self.move
        held, held_last = [taken], [taken_last]
        for stage in range(1, self.stages):
            held.append(Signal(name=f"held_{stage}"))
            held_last.append(Signal(name=f"held_last_{stage}"))
        m.d.comb += [
            move.eq(self.o_ready | ~self.o_valid),
            self.give.eq(held[-1] & move),
            self.keep.eq(~ResetSignal()),
            self.enter.eq(self.i_valid & self.i_ready & self.keep),
        ]
        with m.If(move):
            m.d.sync += [self.o_valid.eq(held[-1]), self.o_last.eq(held_last[-1]), taken.eq(0)]
            m.d.sync += [after.eq(before) for before, after in pairwise(held)]
            m.d.sync += [after.eq(before) for before, after in pairwise(held_last)]

        with m.FSM(name="phase"):
            with m.State("PRODUCTS"):
                m.d.comb += self.i_ready.eq(1)
                with m.If(self.i_valid & self.i_last):
                    m.d.sync += waiting.eq(self.flush - 1)
                    m.next = "FLUSH"
            with m.State("FLUSH"):
                m.d.sync += [waiting.eq(waiting - 1), rows_left.eq(self.rows)]
                with m.If(waiting == 1):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(move & rows_left.any()):
                    m.d.comb += self.shift.eq(1)
                    m.d.sync += [
                        rows_left.eq(rows_left - 1),
                        taken.eq(1),
                        taken_last.eq(rows_left == 1),
                    ]
                # Results must have left before settings may change and a new tile may come.
                with m.If(~rows_left.any() & ~reduce(or_, held) & move):
                    m.next = "PRODUCTS"
        return m


class Drain(wiring.Component):
    """What becomes of the accumulators of one column: bias, ReLU, encoder, output register.

    Stands still unless ``take`` or ``give``, so that the sums that grow at the end of a column
    cost no energy here.

    Members
    -------
    accumulator : In(accumulator_shape(spec))
        Accumulator of the last row.
    take : In(1)
        Add the bias to it and keep the sum.
    give : In(1)
        Load ``code`` with what became of the sum that was taken :attr:`latency` - 1 moves before.
    move : In(1)
        Sums in between move on; absent if there are no registers for any.
    bias : In(signed(sum_width))
        Added to the sum, in its units; see MacSpec.sum_shift.
    relu : In(1)
        Replace negative sums by zero.
    code : Out(bits)
        Encoded result.

    Parameters
    ----------
    datapath : Datapath
        Number system.
    spec : ArraySpec, optional
        Options; its size does not matter here.  Default: those of an array that names none.
    """

    accumulator: Any
    take: Signal
    give: Signal
    move: Signal
    bias: Signal
    relu: Signal
    code: Signal

    def __init__(self, datapath: Datapath, spec: ArraySpec | None = None):
        self.datapath = datapath
        self.spec = ArraySpec(mac=datapath.spec) if spec is None else spec
        self.encoder_latency = datapath.encoder_latency(pipelined=self.spec.pipelined)
        mac = datapath.spec
        self.module_name = (
            f"{mac.stem}_drain{speed(self.spec)}_{mac.label}_a{mac.accumulator_width}"
        )
        super().__init__(
            {
                "accumulator": In(accumulator_shape(self.spec)),
                "take": In(1),
                "give": In(1),
                "bias": In(signed(mac.sum_width)),
                "relu": In(1),
                "code": Out(mac.bits),
            }
            | ({"move": In(1)} if self.latency > 2 else {})
            | {f"result_{name}": In(shape) for name, shape in datapath.encoder_config.items()}
        )

    @property
    def latency(self) -> int:
        """Cycles from an accumulator at the end of a column to its code."""
        return 2 + self.spec.pipelined + self.encoder_latency

    def elaborate(self, platform):
        m = Module()
        # Zero but when it is taken, so that nothing moves here while the sum grows.
        accumulator = Signal.like(self.accumulator, name="accumulator_taken")
        m.d.comb += accumulator.eq(Mux(self.take, self.accumulator, 0))
        if self.spec.carry_save:
            # Wraps where the sum of the two words does, and so does the sum with the bias.
            accumulator = accumulator.sums + accumulator.carries
        total = Signal(signed(self.datapath.spec.sum_width))
        with m.If(self.take):
            biased_sum = biased(m, self.datapath, accumulator, self.bias)
            m.d.sync += total.eq(
                biased_sum if self.spec.pipelined else rectified(biased_sum, self.relu)
            )
        if self.spec.pipelined:
            positive = Signal.like(total, name="rectified", reset_less=True)
            with m.If(self.move):
                m.d.sync += positive.eq(rectified(total, self.relu))
            total = positive
        code = place_encoder(
            m,
            platform,
            self,
            self.datapath,
            total,
            self.encoder_latency,
            self.move if self.encoder_latency else None,
        )
        with m.If(self.give):
            m.d.sync += self.code.eq(code)
        return m


class SystolicArray(wiring.Component):
    """Matrix product of rows x length and length x cols codes, one vector of each per cycle.

    The settings (``bias``, ``relu``, and the number system's own) must not change between the
    first operands of a tile and its last result.  A tile of ``length`` products whose operands
    come and whose results leave without a pause takes :meth:`cycles` cycles.

    Members
    -------
    i : In(stream.Signature({"activations", "weights", "last"}))
        Codes of all rows and all columns for one product; ``last`` ends the tile.
    o : Out(stream.Signature({"codes", "last"}))
        Codes of all columns, one row at a time, bottom row first; ``last`` with row 0.
    bias : In(ArrayLayout(signed(sum_width), cols))
        Added to each column's sums, in their units; see MacSpec.sum_shift.  A bias counts as one of
        the products that the accumulators are sized for.
    relu : In(1)
        Whether negative sums become zero before they are rounded.
    activation_*, weight_*, result_* : In
        Run-time settings of the decoders and encoders.

    Parameters
    ----------
    datapath : Datapath
        Number system; its spec must be ``spec.mac``.
    spec : ArraySpec
        Size and options.

    Raises
    ------
    TypeError
        If ``spec`` is not an :class:`~golden.mac.ArraySpec`.
    ValueError
        If ``datapath`` is for another spec.
    """

    i: stream.Interface
    o: stream.Interface
    bias: Any
    relu: Signal

    def __init__(self, datapath: Datapath, spec: ArraySpec):
        instance_of("spec", spec, ArraySpec)
        if datapath.spec != spec.mac:
            raise ValueError(f"datapath must be for {spec.mac}, not {datapath.spec}")
        self.datapath = datapath
        self.spec = spec
        mac = spec.mac
        self.config = {
            f"{role}_{name}": shape
            for role in ROLES
            for name, shape in datapath.decoder_config(role).items()
        } | {f"result_{name}": shape for name, shape in datapath.encoder_config.items()}
        self.module_name = f"{mac.stem}_array_{spec.rows}x{spec.cols}{variant(spec)}"
        activation, weight = (unsigned(mac.code_bits(role)) for role in ROLES)
        code = unsigned(mac.bits)
        super().__init__(
            {
                "i": In(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "activations": data.ArrayLayout(activation, spec.rows),
                                "weights": data.ArrayLayout(weight, spec.cols),
                                "last": 1,
                            }
                        )
                    )
                ),
                "o": Out(
                    stream.Signature(
                        data.StructLayout({"codes": data.ArrayLayout(code, spec.cols), "last": 1})
                    )
                ),
                "bias": In(data.ArrayLayout(signed(mac.sum_width), spec.cols)),
                "relu": In(1),
            }
            | {name: In(shape) for name, shape in self.config.items()}
        )

    @property
    def flush(self) -> int:
        """Cycles from the last operands to the last accumulator that they change.

        One to enter the skew, rows - 1 and cols - 1 across the array, and those of the last
        processing element: its operand registers and its latency.
        """
        spec = self.spec
        across = (spec.rows - 1) + (spec.cols - 1)
        return 1 + across + 1 + element_latency(self.datapath, spec)

    @property
    def drain_latency(self) -> int:
        """Cycles from an accumulator at the end of a column to its code."""
        drain = Drain(self.datapath, self.spec)
        mark_used(drain)
        return drain.latency

    def cycles(self, length: int) -> int:
        """Cycles from the first operands of a tile to the first operands of the next one."""
        return length + (self.flush - 1) + self.spec.rows + self.drain_latency

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        stages = self.drain_latency - 1
        control = place(m, "control", Control(spec.rows, self.flush, stages), platform)
        m.d.comb += [
            control.i_valid.eq(self.i.valid),
            control.i_last.eq(self.i.p.last),
            self.i.ready.eq(control.i_ready),
            self.o.valid.eq(control.o_valid),
            self.o.p.last.eq(control.o_last),
            control.o_ready.eq(self.o.ready),
        ]

        edges: dict[Operand, list[Any]] = {}
        entering: dict[Operand, tuple[Any, int]] = {
            "activation": (self.i.p.activations, spec.rows),
            "weight": (self.i.p.weights, spec.cols),
        }
        for role, (codes, lanes) in entering.items():
            skew = place(m, f"{role}_skew", Skew(spec.mac.code_bits(role), lanes), platform)
            m.d.comb += [skew.enter.eq(control.enter), skew.i.eq(codes)]
            if lanes > 1:
                m.d.comb += skew.keep.eq(control.keep)
            edges[role] = [self._edge(m, platform, role, n, skew.o[n]) for n in range(lanes)]

        weights = edges["weight"]
        sums: list[Any] = [0] * spec.cols
        for row in range(spec.rows):
            line = place(m, f"row_{row}", ArrayRow(self.datapath, spec), platform)
            m.d.comb += [line.activation.eq(edges["activation"][row]), line.drain.eq(control.shift)]
            for col in range(spec.cols):
                m.d.comb += [
                    line.weights[col].eq(weights[col]),
                    line.accumulators_in[col].eq(sums[col]),
                ]
            for port in element_config(self.datapath, spec):
                m.d.comb += getattr(line, port).eq(getattr(self, port))
            weights = [line.weights_out[col] for col in range(spec.cols)]
            sums = [line.accumulators[col] for col in range(spec.cols)]

        for col in range(spec.cols):
            drain = place(m, f"drain_{col}", Drain(self.datapath, spec), platform)
            if stages > 1:
                m.d.comb += drain.move.eq(control.move)
            m.d.comb += [
                drain.accumulator.eq(sums[col]),
                drain.take.eq(control.shift),
                drain.give.eq(control.give),
                drain.bias.eq(self.bias[col]),
                drain.relu.eq(self.relu),
                self.o.p.codes[col].eq(drain.code),
            ]
            for name in self.datapath.encoder_config:
                port = f"result_{name}"
                m.d.comb += getattr(drain, port).eq(getattr(self, port))
        return m

    def _edge(self, m, platform, role, lane, code):
        """Decode ``code`` here if the array's decoders are on its edges."""
        if self.spec.decodes_in_element(role):
            return code
        return place_decoder(m, platform, self, self.datapath, role, f"{role}_decoder_{lane}", code)
