"""Bit-serial look-up engine for weight pools: one table row per plane gives all partial products.

:class:`golden.weight_pool.WeightPoolSpec` defines the results (``results`` and ``convolve``),
:class:`golden.weight_pool_engine.EngineSpec` the widths.  :mod:`hdl.weight_pool_units` has the
units; this file is how they work together.
"""

from typing import Any

from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from golden.spec import instance_of
from golden.weight_pool import WeightPoolSpec
from golden.weight_pool_engine import EngineSpec
from hdl.hierarchy import place
from hdl.requantiser import MULT_WIDTH, SHIFT_WIDTH
from hdl.weight_pool_units import (
    EngineControl,
    Finisher,
    Lane,
    LookUpTable,
    PoolResult,
    RowMemory,
    Transposer,
)

__all__ = ["WeightPoolDatapath", "WeightPoolEngine"]


class WeightPoolDatapath:
    """Sizes of an engine, for those who ask other number systems for their arithmetic.

    Parameters
    ----------
    spec : EngineSpec
        Sizes and widths.
    pool : WeightPoolSpec, optional
        What the table holds from the start.
    """

    def __init__(self, spec: EngineSpec, pool: WeightPoolSpec | None = None):
        self.spec = instance_of("spec", spec, EngineSpec)
        self.pool = pool


class WeightPoolEngine(wiring.Component):
    """Dot products of groups of activations with all pool vectors, gathered by index.

    Each plane of a group reads one row of the table, and every pool vector's result is shifted and
    added to; the finished results are gathered, ``lanes`` output channels per cycle, while those
    of the next group are made.  The sums of a pixel become codes while those of the next one are
    made.  A group takes ``spec.cycles(act_bits, outputs)`` cycles, as long as a pixel does not take
    less than ``spec.finish_cycles(outputs)``; the first row of codes is offered
    ``spec.latency(act_bits)`` cycles after the last group of its pixel was accepted, if nothing was
    before that.

    The table, the accumulators, their start values and the final sums are memories, each a module
    of its own.

    Parameters
    ----------
    spec : EngineSpec
        Sizes and widths.
    pool : WeightPoolSpec, optional
        Pool whose table is there from the start; without, the table is zero until it is loaded.

    Members
    -------
    i : In(stream.Signature({"codes", "last"}))
        Activations of a group, of which the low ``top_plane + 1`` bits count; ``last`` ends a
        pixel.
    indices : In(stream.Signature(index_bits x lanes))
        Pool vectors of a row of output channels, all rows of a group one after the other: the
        published order, with padding where ``lanes`` do not divide the channels.  An index that is
        of no pool vector stands for zero.
    o : Out(stream.Signature({"codes", "last"}))
        Codes of a row of output channels; ``last`` with the last row of a pixel.
    top_plane : In
        Bits of an activation less one.
    has_sign : In(1)
        Whether activations are two's complement.
    last_row : In(row_bits)
        Rows of output channels less one.
    mult, shift : In
        Of the requantiser.
    relu : In(1)
        Replace negative sums by zero.
    result_has_sign : In(1)
        Whether codes that leave are two's complement.
    largest : In(bits)
        Largest code that leaves.
    load_en, load_row, load_entries : In
        Write a row of the table; with two banks, the highest bit of ``load_row`` selects.
    bias_en, bias_row, bias : In
        Write the start values of a row of accumulators.

    Settings and biases must not change between the first group of a layer and its last code; the
    table must not while it is read.

    Raises
    ------
    TypeError, ValueError
        If ``spec`` is no EngineSpec, or ``pool`` does not fit it.
    """

    i: stream.Interface
    indices: stream.Interface
    o: stream.Interface
    top_plane: Signal
    has_sign: Signal
    last_row: Signal
    mult: Signal
    shift: Signal
    relu: Signal
    result_has_sign: Signal
    largest: Signal
    load_en: Signal
    load_row: Signal
    load_entries: Any
    bias_en: Signal
    bias_row: Signal
    bias: Any

    def __init__(self, spec: EngineSpec, pool: WeightPoolSpec | None = None):
        self.spec = instance_of("spec", spec, EngineSpec)
        self.images = None if pool is None else spec.images(pool)
        self.module_name = f"weight_pool_engine_{spec.label}_p{spec.lanes}"
        group = data.StructLayout(
            {"codes": data.ArrayLayout(unsigned(spec.max_act_bits), spec.group), "last": 1}
        )
        row = data.StructLayout(
            {"codes": data.ArrayLayout(unsigned(spec.bits), spec.lanes), "last": 1}
        )
        members: dict[str, Any] = {
            "i": In(stream.Signature(group)),
            "indices": In(
                stream.Signature(data.ArrayLayout(unsigned(spec.index_bits), spec.lanes))
            ),
            "o": Out(stream.Signature(row)),
            "top_plane": In(spec.plane_bits),
            "has_sign": In(1),
            "last_row": In(spec.row_bits),
            "mult": In(MULT_WIDTH),
            "shift": In(SHIFT_WIDTH),
            "relu": In(1),
            "result_has_sign": In(1),
            "largest": In(spec.bits),
            "load_en": In(1),
            "load_row": In(spec.address_bits + spec.banks - 1),
            "load_entries": In(data.ArrayLayout(signed(spec.lut_bits), spec.entries)),
            "bias_en": In(1),
            "bias_row": In(spec.row_bits),
            "bias": In(data.ArrayLayout(signed(spec.accumulator_bits), spec.lanes)),
        }
        super().__init__(members)

    @property
    def latency(self) -> int:
        """Cycles from a pixel's last group of the widest activations to its first code."""
        return self.spec.latency(self.spec.max_act_bits)

    @property
    def throughput(self) -> str:
        """Rate in words, for the description of the design."""
        return f"one group of activations per max(act_bits, outputs / {self.spec.lanes}) cycles"

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        transposer = place(m, "transposer", Transposer(spec), platform)
        control = place(m, "control", EngineControl(spec), platform)
        finisher = place(m, "finisher", Finisher(spec), platform)

        # Planes, most significant first.
        m.d.comb += [
            transposer.i_valid.eq(self.i.valid),
            transposer.i_codes.eq(self.i.p.codes),
            transposer.i_last.eq(self.i.p.last),
            self.i.ready.eq(transposer.i_ready),
            transposer.top_plane.eq(self.top_plane),
            transposer.move.eq(control.move),
            control.plane_valid.eq(transposer.plane_valid),
            control.plane_first.eq(transposer.plane_first),
            control.plane_final.eq(transposer.plane_final),
            control.plane_last.eq(transposer.plane_last),
            control.has_sign.eq(self.has_sign),
            control.last_row.eq(self.last_row),
            control.index_valid.eq(self.indices.valid),
            self.indices.ready.eq(control.index_ready),
            control.room.eq(finisher.room),
        ]

        tables = []
        for bank in range(spec.banks):
            image = None if self.images is None else self.images[bank]
            role = ("low", "high")[bank] if spec.banks == 2 else "table"
            table = place(m, role, LookUpTable(spec, role, image), platform)
            low = bank * spec.address_bits
            is_loaded = self.load_row[spec.address_bits :] == bank
            m.d.comb += [
                table.read_en.eq(control.move & transposer.plane_valid),
                table.address.eq(transposer.address[low : low + spec.address_bits]),
                table.load_en.eq(self.load_en & is_loaded),
                table.load_row.eq(self.load_row[: spec.address_bits]),
                table.load_entries.eq(self.load_entries),
            ]
            tables.append(table)

        results = []
        for entry in range(spec.entries):
            result = place(m, f"result_{entry}", PoolResult(spec), platform)
            m.d.comb += [
                result.entries[bank].eq(table.entries[entry]) for bank, table in enumerate(tables)
            ]
            m.d.comb += [
                result.step.eq(control.step),
                result.first.eq(control.first),
                result.negative.eq(control.negative),
                result.latch.eq(control.latch),
            ]
            results.append(result.result)

        accumulators = place(m, "accumulators", RowMemory(spec, "accumulators"), platform)
        biases = place(m, "biases", RowMemory(spec, "biases"), platform)
        sums = place(m, "sums", RowMemory(spec, "sums"), platform)
        m.d.comb += [
            accumulators.read_en.eq(control.accumulator_read),
            accumulators.read_row.eq(control.row),
            accumulators.write_en.eq(control.accumulator_write),
            accumulators.write_row.eq(control.sum_row),
            biases.read_en.eq(control.bias_read),
            biases.read_row.eq(control.row),
            biases.write_en.eq(self.bias_en),
            biases.write_row.eq(self.bias_row),
            biases.write.eq(self.bias),
        ]
        for number in range(spec.lanes):
            lane = place(m, f"lane_{number}", Lane(spec), platform)
            m.d.comb += [lane.results[entry].eq(result) for entry, result in enumerate(results)]
            m.d.comb += [
                lane.index.eq(self.indices.p[number]),
                lane.gather.eq(control.gather),
                lane.accumulator.eq(accumulators.read[number]),
                lane.bias.eq(biases.read[number]),
                lane.start.eq(control.sum_start),
                accumulators.write[number].eq(lane.sum),
                sums.write[number].eq(lane.sum),
            ]

        m.d.comb += [
            sums.write_en.eq(control.finish),
            sums.write_row.eq(control.sum_row),
            sums.read_en.eq(finisher.read_en),
            sums.read_row.eq(finisher.read_row),
            finisher.put.eq(control.finish),
            finisher.last_row.eq(self.last_row),
            finisher.sums.eq(sums.read),
            finisher.mult.eq(self.mult),
            finisher.shift.eq(self.shift),
            finisher.relu.eq(self.relu),
            finisher.has_sign.eq(self.result_has_sign),
            finisher.largest.eq(self.largest),
            finisher.o_ready.eq(self.o.ready),
            self.o.valid.eq(finisher.o_valid),
            self.o.p.codes.eq(finisher.o_codes),
            self.o.p.last.eq(finisher.o_last),
        ]
        return m
