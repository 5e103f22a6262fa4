"""Units of the bit-serial look-up engine; :mod:`hdl.weight_pool` puts them together."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from golden.spec import instance_of
from golden.weight_pool_engine import EngineSpec
from hdl.hierarchy import place
from hdl.requantiser import MULT_WIDTH, SHIFT_WIDTH, Requantiser

__all__ = [
    "EngineControl",
    "Finisher",
    "Lane",
    "LookUpTable",
    "PoolResult",
    "RowMemory",
    "Transposer",
]


class Transposer(wiring.Component):
    """Turns groups of activations into addresses of table rows, one plane per cycle.

    One group is sent while the next one waits.  The first plane follows two cycles after its group
    was accepted if none is before it.

    Parameters
    ----------
    spec : EngineSpec
        Sizes and widths.

    Members
    -------
    i_valid, i_codes, i_last, i_ready
        Stream of groups; ``last`` travels with a group.
    top_plane : In
        Number of the highest plane, which is sent first.
    move : In(1)
        Whether the plane that is offered is taken.
    address : Out(spec.group)
        One bit of every activation; bit i is channel i.
    plane_valid : Out(1)
        Whether a plane is offered.
    plane_first, plane_final : Out(1)
        Whether it is the first, or the final one of its group.
    plane_last : Out(1)
        ``last`` of its group.
    """

    i_valid: Signal
    i_codes: Any
    i_last: Signal
    i_ready: Signal
    top_plane: Signal
    move: Signal
    address: Signal
    plane_valid: Signal
    plane_first: Signal
    plane_final: Signal
    plane_last: Signal

    def __init__(self, spec: EngineSpec):
        self.spec = instance_of("spec", spec, EngineSpec)
        self.module_name = f"weight_pool_transposer_g{spec.group}_m{spec.max_act_bits}"
        codes = data.ArrayLayout(unsigned(spec.max_act_bits), spec.group)
        super().__init__(
            {
                "i_valid": In(1),
                "i_codes": In(codes),
                "i_last": In(1),
                "i_ready": Out(1),
                "top_plane": In(spec.plane_bits),
                "move": In(1),
                "address": Out(spec.group),
                "plane_valid": Out(1),
                "plane_first": Out(1),
                "plane_final": Out(1),
                "plane_last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        codes = self.i_codes.shape()
        waiting = Signal(codes, reset_less=True)
        waiting_last = Signal(reset_less=True)
        waiting_valid = Signal()
        active = Signal(codes, reset_less=True)
        plane = Signal(spec.plane_bits)

        take = Signal()
        m.d.comb += [
            self.plane_first.eq(plane == self.top_plane),
            self.plane_final.eq(plane == 0),
            take.eq(~self.plane_valid | (self.move & self.plane_final)),
            self.i_ready.eq(~waiting_valid | take),
        ]
        with m.If(self.i_ready):
            m.d.sync += waiting_valid.eq(self.i_valid)
            with m.If(self.i_valid):
                m.d.sync += [waiting.eq(self.i_codes), waiting_last.eq(self.i_last)]
        with m.If(take):
            m.d.sync += [self.plane_valid.eq(waiting_valid), plane.eq(self.top_plane)]
            with m.If(waiting_valid):
                m.d.sync += [active.eq(waiting), self.plane_last.eq(waiting_last)]
        with m.Elif(self.move):
            m.d.sync += plane.eq(plane - 1)

        # Planes that an activation does not have are zero.
        for channel in range(spec.group):
            m.d.comb += self.address[channel].eq(active[channel].bit_select(plane, 1))
        return m


class LookUpTable(wiring.Component):
    """Memory with one row of entries for each address; a flow may replace it by a macro.

    A row is there one cycle after its address, and stays until another one is read.

    Parameters
    ----------
    spec : EngineSpec
        Sizes and widths.
    role : str
        Part of the name: which table it is.
    image : sequence of int, optional
        Rows that are there from the start; zeros if not given.

    Members
    -------
    read_en, address : In
        Row to read.
    entries : Out(signed(lut_bits) x entries)
        The row.
    load_en, load_row, load_entries : In
        Row to write.
    """

    read_en: Signal
    address: Signal
    entries: Any
    load_en: Signal
    load_row: Signal
    load_entries: Any

    def __init__(self, spec: EngineSpec, role: str, image: Sequence[int] | None = None):
        self.spec = instance_of("spec", spec, EngineSpec)
        self.image = image
        name = "weight_pool_table"
        # Tables with contents differ even if their sizes do not.
        suffix = "" if image is None else f"_{role}"
        self.module_name = f"{name}_a{spec.address_bits}_s{spec.entries}_l{spec.lut_bits}{suffix}"
        row = data.ArrayLayout(signed(spec.lut_bits), spec.entries)
        super().__init__(
            {
                "read_en": In(1),
                "address": In(spec.address_bits),
                "entries": Out(row),
                "load_en": In(1),
                "load_row": In(spec.address_bits),
                "load_entries": In(row),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        rows: Any = Memory(
            shape=spec.entries * spec.lut_bits, depth=1 << spec.address_bits, init=self.image or []
        )
        m.submodules.rows = rows
        read, write = rows.read_port(), rows.write_port()
        m.d.comb += [
            read.en.eq(self.read_en),
            read.addr.eq(self.address),
            self.entries.eq(read.data),
            write.en.eq(self.load_en),
            write.addr.eq(self.load_row),
            write.data.eq(self.load_entries),
        ]
        return m


class PoolResult(wiring.Component):
    """Result of one pool vector: shifts and adds entries, and keeps the last finished sum.

    Parameters
    ----------
    spec : EngineSpec
        Widths.

    Members
    -------
    entries : In(signed(lut_bits) x banks)
        Entries of the plane; their sum is what counts.
    step : In(1)
        Whether there is a plane, which is not the final one.
    first : In(1)
        Whether it is the first plane of its group.
    negative : In(1)
        Whether it is subtracted; only a first plane can be.
    latch : In(1)
        Whether there is a plane, which is the final one.
    result : Out(signed(result_bits))
        Sum of the group that was finished last.
    """

    entries: Any
    step: Signal
    first: Signal
    negative: Signal
    latch: Signal
    result: Signal

    def __init__(self, spec: EngineSpec):
        self.spec = instance_of("spec", spec, EngineSpec)
        banks = f"_banks{spec.banks}" if spec.banks > 1 else ""
        self.module_name = f"weight_pool_result_l{spec.lut_bits}_m{spec.max_act_bits}{banks}"
        super().__init__(
            {
                "entries": In(data.ArrayLayout(signed(spec.lut_bits), spec.banks)),
                "step": In(1),
                "first": In(1),
                "negative": In(1),
                "latch": In(1),
                "result": Out(signed(spec.result_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        entry = Signal(signed(spec.entry_bits))
        m.d.comb += entry.eq(sum(self.entries[bank] for bank in range(spec.banks)))

        # All planes but the final one fit a bit less.  A first plane starts from zero, so the bit
        # that the shift leaves free can carry the one that completes a negation.
        partial = Signal(signed(spec.result_bits - 1), reset_less=True)
        complemented = Signal(signed(spec.entry_bits))
        shifted = Signal(signed(spec.result_bits))
        total = Signal(signed(spec.result_bits))
        m.d.comb += [
            complemented.eq(entry ^ self.negative.replicate(spec.entry_bits)),
            shifted.eq(Cat(self.negative, partial & (~self.first).replicate(spec.result_bits - 1))),
            total.eq(shifted + complemented),
        ]
        with m.If(self.step):
            m.d.sync += partial.eq(total)
        with m.If(self.latch):
            m.d.sync += self.result.eq(total)
        return m


class RowMemory(wiring.Component):
    """Memory with a word for each lane in every row; a flow may replace it by a macro.

    A row is there one cycle after its number, and stays until another one is read.  A row that is
    written while it is read is read with its new words.

    Parameters
    ----------
    spec : EngineSpec
        Sizes and widths.
    role : str
        Part of the name: what the words are.

    Members
    -------
    read_en, read_row : In
        Row to read.
    read : Out(signed(accumulator_bits) x lanes)
        Its words.
    write_en, write_row, write : In
        Row to write, and its words.
    """

    read_en: Signal
    read_row: Signal
    read: Any
    write_en: Signal
    write_row: Signal
    write: Any

    def __init__(self, spec: EngineSpec, role: str):
        self.spec = instance_of("spec", spec, EngineSpec)
        size = f"r{1 << spec.row_bits}_p{spec.lanes}_a{spec.accumulator_bits}"
        self.module_name = f"weight_pool_{role}_{size}"
        words = data.ArrayLayout(signed(spec.accumulator_bits), spec.lanes)
        super().__init__(
            {
                "read_en": In(1),
                "read_row": In(spec.row_bits),
                "read": Out(words),
                "write_en": In(1),
                "write_row": In(spec.row_bits),
                "write": In(words),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        rows: Any = Memory(
            shape=spec.lanes * spec.accumulator_bits, depth=1 << spec.row_bits, init=[]
        )
        m.submodules.rows = rows
        write = rows.write_port()
        read = rows.read_port(transparent_for=(write,))
        m.d.comb += [
            read.en.eq(self.read_en),
            read.addr.eq(self.read_row),
            self.read.eq(read.data),
            write.en.eq(self.write_en),
            write.addr.eq(self.write_row),
            write.data.eq(self.write),
        ]
        return m


class Lane(wiring.Component):
    """Gathers one result per cycle by its index, and adds it to an accumulator in the next one.

    Parameters
    ----------
    spec : EngineSpec
        Sizes and widths.

    Members
    -------
    results : In(signed(result_bits) x entries)
        Results of all pool vectors.
    index : In(index_bits)
        Pool vector; any other number stands for a result of zero.
    gather : In(1)
        Take the result.
    accumulator, bias : In(signed(accumulator_bits))
        What the result is added to.
    start : In(1)
        Add it to the bias.
    sum : Out(signed(accumulator_bits))
        That sum.
    """

    results: Any
    index: Signal
    gather: Signal
    accumulator: Signal
    bias: Signal
    start: Signal
    sum: Signal

    def __init__(self, spec: EngineSpec):
        self.spec = instance_of("spec", spec, EngineSpec)
        self.module_name = (
            f"weight_pool_lane_s{spec.entries}_r{spec.result_bits}_a{spec.accumulator_bits}"
        )
        super().__init__(
            {
                "results": In(data.ArrayLayout(signed(spec.result_bits), spec.entries)),
                "index": In(spec.index_bits),
                "gather": In(1),
                "accumulator": In(signed(spec.accumulator_bits)),
                "bias": In(signed(spec.accumulator_bits)),
                "start": In(1),
                "sum": Out(signed(spec.accumulator_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec

        # Selected by gates that a change of an index opens and closes, not by a tree of
        # multiplexers in which every result moves.
        is_selected = Signal(spec.entries)
        chosen = Signal(signed(spec.result_bits))
        for entry in range(spec.entries):
            m.d.comb += is_selected[entry].eq(self.index == entry)
        for bit in range(spec.result_bits):
            column = Cat(self.results[entry][bit] for entry in range(spec.entries))
            m.d.comb += chosen[bit].eq((column & is_selected).any())

        gathered = Signal(signed(spec.result_bits), reset_less=True)
        with m.If(self.gather):
            m.d.sync += gathered.eq(chosen)
        # EngineSpec grants that it does not overflow.
        m.d.comb += self.sum.eq(Mux(self.start, self.bias, self.accumulator) + gathered)
        return m


class Finisher(wiring.Component):
    """Turns rows of final sums into rows of codes, some lanes at a time.

    Rows wait in a memory, which has room for those of one pixel.

    Parameters
    ----------
    spec : EngineSpec
        Sizes and widths.

    Members
    -------
    put : In(1)
        A row is written into the memory; only where there is room.
    room : Out(1)
        Whether a row may be written.
    last_row : In(row_bits)
        Rows of a pixel less one.
    read_en, read_row : Out
        Row to read.
    sums : In(signed(accumulator_bits) x lanes)
        The row, from the next cycle on until another one is read.
    relu, mult, shift, has_sign, largest : In
        How a sum becomes a code; see :class:`hdl.weight_pool.WeightPoolEngine`.
    o_valid, o_codes, o_last, o_ready
        Stream of rows of codes.
    """

    put: Signal
    room: Signal
    last_row: Signal
    read_en: Signal
    read_row: Signal
    sums: Any
    relu: Signal
    mult: Signal
    shift: Signal
    has_sign: Signal
    largest: Signal
    o_valid: Signal
    o_codes: Any
    o_last: Signal
    o_ready: Signal

    def __init__(self, spec: EngineSpec):
        self.spec = instance_of("spec", spec, EngineSpec)
        pipelined = "_pipelined" if spec.pipelined else ""
        self.module_name = (
            f"weight_pool_finisher_p{spec.lanes}_q{spec.requantisers}_a{spec.accumulator_bits}"
            f"_b{spec.bits}_r{spec.row_bits}{pipelined}"
        )
        super().__init__(
            {
                "put": In(1),
                "room": Out(1),
                "last_row": In(spec.row_bits),
                "read_en": Out(1),
                "read_row": Out(spec.row_bits),
                "sums": In(data.ArrayLayout(signed(spec.accumulator_bits), spec.lanes)),
                "relu": In(1),
                "mult": In(MULT_WIDTH),
                "shift": In(SHIFT_WIDTH),
                "has_sign": In(1),
                "largest": In(spec.bits),
                "o_valid": Out(1),
                "o_codes": Out(data.ArrayLayout(unsigned(spec.bits), spec.lanes)),
                "o_last": Out(1),
                "o_ready": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        steps, width = spec.finish_steps, spec.requantisers

        move = Signal()  # all that follows the memory
        waiting = Signal(range((1 << spec.row_bits) + 1))
        has_row = Signal()
        step = Signal(range(steps))
        is_last_step = Signal()
        row_last = Signal()
        m.d.comb += [
            move.eq(~self.o_valid | self.o_ready),
            self.room.eq(waiting <= self.last_row),
            is_last_step.eq(step == steps - 1),
            self.read_en.eq(move & (waiting != 0) & (~has_row | is_last_step)),
        ]
        m.d.sync += waiting.eq(waiting + self.put - self.read_en)
        with m.If(self.read_en):
            is_last_row = self.read_row == self.last_row
            m.d.sync += [
                row_last.eq(is_last_row),
                self.read_row.eq(Mux(is_last_row, 0, self.read_row + 1)),
            ]
        with m.If(move):
            m.d.sync += has_row.eq(self.read_en | (has_row & ~is_last_step))
            with m.If(has_row):
                m.d.sync += step.eq(Mux(is_last_step, 0, step + 1))

        # What goes with the sums of a step: whether there are any, and of which end.
        flags = Signal(3)
        m.d.comb += flags.eq(Cat(has_row, is_last_step, row_last))
        for number in range(1 + spec.requantiser_latency + spec.pipelined):
            later = Signal(3, name=f"flags_{number}")
            with m.If(move):
                m.d.sync += later.eq(flags)
            flags = later

        codes = []
        for number in range(width):
            sums = Array(self.sums[first + number] for first in range(0, spec.lanes, width))
            total = Signal(signed(spec.accumulator_bits), name=f"sum_{number}")
            rectified = Signal(
                signed(spec.accumulator_bits), name=f"rectified_{number}", reset_less=True
            )
            m.d.comb += total.eq(sums[step])
            with m.If(move & has_row):
                m.d.sync += rectified.eq(total & ~(self.relu & total[-1]).replicate(len(total)))
            codes.append(self._code(m, platform, number, rectified, move))

        with m.If(move):
            m.d.sync += [self.o_valid.eq(flags[0] & flags[1]), self.o_last.eq(flags[2])]
            with m.If(flags[0]):
                row = Value.cast(self.o_codes)
                m.d.sync += row.eq(Cat(row[width * spec.bits :], *codes))
        return m

    def _code(self, m, platform, number, total, move):
        """Requantise and limit ``total``, with registers that ``move`` loads."""
        spec = self.spec
        requantiser = place(
            m,
            f"requantiser_{number}",
            Requantiser(spec.accumulator_bits, spec.bits, latency=spec.requantiser_latency),
            platform,
        )
        wide = Signal(signed(spec.bits + 1), name=f"wide_{number}")
        smallest = Signal(signed(spec.bits + 1), name=f"smallest_{number}")
        limited = Signal(spec.bits, name=f"limited_{number}")
        code = requantiser.code
        m.d.comb += [
            requantiser.total.eq(total),
            requantiser.move.eq(move),
            requantiser.mult.eq(self.mult),
            requantiser.shift.eq(self.shift),
            requantiser.has_sign.eq(self.has_sign),
        ]
        if spec.pipelined:
            code = Signal(spec.bits, name=f"rounded_{number}", reset_less=True)
            with m.If(move):
                m.d.sync += code.eq(requantiser.code)
        m.d.comb += [
            # Clamped a second time, to the bits that the codes have at run time.
            wide.eq(Cat(code, code[-1] & self.has_sign).as_signed()),
            smallest.eq(~Cat(self.largest, 0).as_signed()),
            limited.eq(
                Mux(wide > self.largest, self.largest, Mux(wide < smallest, smallest, wide))
            ),
        ]
        return limited


class EngineControl(wiring.Component):
    """Moves planes into results, results into accumulators, and final sums out.

    Two pipelines meet at the bank of finished results: planes wait before their group's final one
    while the bank is in use, and rows are gathered while it is full.

    Parameters
    ----------
    spec : EngineSpec
        Sizes.

    Members
    -------
    plane_valid, plane_first, plane_final, plane_last : In(1)
        Plane whose row is read now; see :class:`Transposer`.
    move : Out(1)
        Whether it is.
    has_sign, last_row : In
        Settings.
    step, first, negative, latch : Out(1)
        For :class:`PoolResult`.
    index_valid, index_ready
        Stream of indices.
    row : Out(row_bits)
        Row of accumulators to gather for.
    gather : Out(1)
        Whether it is gathered now.
    accumulator_read, bias_read : Out(1)
        What is read for it.
    sum_row, sum_start : Out
        Row that is added to now, and whether to its bias.
    accumulator_write, finish : Out(1)
        Where the sum goes: back, or to the final ones.
    room : In(1)
        Whether there is room for a row of final sums.
    """

    plane_valid: Signal
    plane_first: Signal
    plane_final: Signal
    plane_last: Signal
    move: Signal
    has_sign: Signal
    last_row: Signal
    step: Signal
    first: Signal
    negative: Signal
    latch: Signal
    index_valid: Signal
    index_ready: Signal
    row: Signal
    gather: Signal
    accumulator_read: Signal
    bias_read: Signal
    sum_row: Signal
    sum_start: Signal
    accumulator_write: Signal
    finish: Signal
    room: Signal

    def __init__(self, spec: EngineSpec):
        self.spec = instance_of("spec", spec, EngineSpec)
        self.module_name = f"weight_pool_control_r{spec.row_bits}"
        row = spec.row_bits
        inputs = {"has_sign": In(1), "last_row": In(row)}
        for name in ("plane_valid", "plane_first", "plane_final", "plane_last"):
            inputs[name] = In(1)
        outputs = {"row": Out(row), "sum_row": Out(row)}
        for name in (
            *("move", "step", "first", "negative", "latch"),
            *("gather", "accumulator_read", "bias_read"),
            *("sum_start", "accumulator_write", "finish"),
        ):
            outputs[name] = Out(1)
        streams = {"index_valid": In(1), "index_ready": Out(1), "room": In(1)}
        super().__init__(inputs | outputs | streams)

    def elaborate(self, platform):
        m = Module()

        # Rows of the table arrive one cycle after their plane.
        entry_valid = Signal()
        entry_first = Signal()
        entry_final = Signal()
        entry_last = Signal()
        bank_valid = Signal()
        bank_last = Signal()
        bank_done = Signal()
        bank_free = Signal()
        m.d.comb += [
            bank_free.eq(~bank_valid | bank_done),
            self.step.eq(entry_valid & ~entry_final),
            self.latch.eq(entry_valid & entry_final & bank_free),
            self.move.eq(~entry_valid | self.step | self.latch),
            self.first.eq(entry_first),
            self.negative.eq(entry_first & self.has_sign),
        ]
        with m.If(self.move):
            m.d.sync += [
                entry_valid.eq(self.plane_valid),
                entry_first.eq(self.plane_first),
                entry_final.eq(self.plane_final),
                entry_last.eq(self.plane_last),
            ]
        with m.If(self.latch):
            m.d.sync += [bank_valid.eq(1), bank_last.eq(entry_last)]
        with m.Elif(bank_done):
            m.d.sync += bank_valid.eq(0)

        # Gather, add: both move together, or wait for room for a final sum.
        advance = Signal()
        is_last_row = Signal()
        is_start = Signal(init=1)
        sum_valid = Signal()
        sum_final = Signal()
        m.d.comb += [
            advance.eq(~(sum_valid & sum_final) | self.room),
            self.index_ready.eq(bank_valid & advance),
            self.gather.eq(self.index_ready & self.index_valid),
            is_last_row.eq(self.row == self.last_row),
            bank_done.eq(self.gather & is_last_row),
            self.accumulator_read.eq(self.gather & ~is_start),
            self.bias_read.eq(self.gather & is_start),
            self.accumulator_write.eq(sum_valid & ~sum_final),
            self.finish.eq(sum_valid & sum_final & self.room),
        ]
        with m.If(self.gather):
            m.d.sync += self.row.eq(self.row + 1)
        with m.If(bank_done):
            m.d.sync += [self.row.eq(0), is_start.eq(bank_last)]
        with m.If(advance):
            m.d.sync += sum_valid.eq(self.gather)
        with m.If(self.gather):
            m.d.sync += [
                self.sum_row.eq(self.row),
                self.sum_start.eq(is_start),
                sum_final.eq(bank_last),
            ]
        return m
