"""What keeps the words of the ABFP tile in step: counters, scales and flags beside the data."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.abfp_tile import AbfpTileSpec
from golden.spec import instance_of
from hdl.abfp_tile import AbsMax
from hdl.abfp_units import AbfpReciprocal, reciprocal_width
from hdl.hierarchy import place

__all__ = ["LoadSelect", "RowTurns", "TileStatus", "VectorBuffer", "WordSchedule"]

#: Bits of the counter of saturated conversions.
COUNTER_WIDTH = 32


def count_bits(count: int) -> int:
    """Bits of a number below ``count``, at least one."""
    return max((count - 1).bit_length(), 1)


class VectorBuffer(wiring.Component):
    """Control of the memory in which vectors wait for their scale.

    Vectors come in and go out one after the other; a place of the memory is taken from the first
    word that comes in to the last that goes out.

    Parameters
    ----------
    spec : AbfpTileSpec
        The tile.
    lanes : int
        Elements of a word.
    places : int
        Vectors for which there is room, at least 2.
    pipelined : bool
        As for :class:`hdl.abfp_tile.AbsMax`.

    Members
    -------
    i_valid, i_ready
        Of the words that come in.
    magnitudes : In
        Their elements, as :class:`hdl.abfp_tile.AbsMax` takes them.
    write_en, write_address : Out
        Where the memory keeps them.
    read_en, read_address : Out
        Word that the memory gives in the next cycle.
    move : In(1)
        Whether words that go out advance.
    valid, first, last : Out(1)
        Whether the memory gives a word now, and what it is of its vector.
    scale : Out(15) or Out(8)
        Largest magnitude of its vector.
    reciprocal : Out
        Of the significand of that; absent with ``exp_only``.
    bad : Out(1)
        See :class:`hdl.abfp_tile.AbsMax`.
    """

    i_valid: Signal
    i_ready: Signal
    magnitudes: Any
    write_en: Signal
    write_address: Signal
    read_en: Signal
    read_address: Signal
    move: Signal
    valid: Signal
    first: Signal
    last: Signal
    scale: Signal
    reciprocal: Signal
    bad: Signal

    def __init__(
        self, spec: AbfpTileSpec, lanes: int, places: int, pipelined: bool = False
    ) -> None:
        self.spec = instance_of("spec", spec, AbfpTileSpec)
        self.lanes = lanes
        self.places = places
        self.pipelined = pipelined
        self.beats = spec.tile // lanes
        kind = f"_b{spec.activation_bits}" if not spec.exp_only else "_exp"
        self.module_name = (
            f"abfp_vectors{kind}_n{spec.tile}_l{lanes}_p{places}{'_pipelined' if pipelined else ''}"
        )
        address = count_bits(places * self.beats)
        scale = 8 if spec.exp_only else 15
        members: dict[str, Any] = {
            "i_valid": In(1),
            "i_ready": Out(1),
            "magnitudes": In(data.ArrayLayout(scale, lanes)),
            "write_en": Out(1),
            "write_address": Out(address),
            "read_en": Out(1),
            "read_address": Out(address),
            "move": In(1),
            "valid": Out(1),
            "first": Out(1),
            "last": Out(1),
            "scale": Out(scale),
            "bad": Out(1),
        }
        if not spec.exp_only:
            members["reciprocal"] = Out(reciprocal_width(spec.activation_bits))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        abs_max = place(m, "abs_max", AbsMax(self.lanes, spec.exp_only, self.pipelined), platform)
        # Places that words come to, whose scale comes next, and from which words go out.
        fill, settle, give = (
            Signal(range(self.places), name=f"{name}_place") for name in ("fill", "settle", "give")
        )
        beat_bits = (self.beats - 1).bit_length()
        fill_beat, give_beat = (Signal(beat_bits, name=f"{name}_beat") for name in ("fill", "give"))
        taken, known = Signal(self.places), Signal(self.places)
        scales: Any = Array(
            Signal(abs_max.width, name=f"scale_{index}", reset_less=True)
            for index in range(self.places)
        )
        is_filled, is_given = Signal(), Signal()
        m.d.comb += [
            self.i_ready.eq(~taken.bit_select(fill, 1)),
            self.write_en.eq(self.i_valid & self.i_ready),
            self.write_address.eq(Cat(fill_beat, fill)),
            is_filled.eq(self.write_en & (fill_beat == self.beats - 1)),
            abs_max.magnitudes.eq(self.magnitudes),
            abs_max.valid.eq(self.write_en),
            abs_max.first.eq(fill_beat == 0),
            abs_max.last.eq(fill_beat == self.beats - 1),
            self.bad.eq(abs_max.bad),
            self.read_en.eq(self.move & known.bit_select(give, 1)),
            self.read_address.eq(Cat(give_beat, give)),
            is_given.eq(self.read_en & (give_beat == self.beats - 1)),
        ]
        with m.If(self.write_en):
            m.d.sync += fill_beat.eq(fill_beat + 1)
        with m.If(self.read_en):
            m.d.sync += give_beat.eq(give_beat + 1)
        with m.If(abs_max.known):
            m.d.sync += scales[settle].eq(abs_max.largest)
        for index, event in ((fill, is_filled), (settle, abs_max.known), (give, is_given)):
            with m.If(event):
                m.d.sync += index.eq(Mux(index == self.places - 1, 0, index + 1))
        for flags, index, event in ((taken, fill, is_filled), (known, settle, abs_max.known)):
            for number in range(self.places):
                with m.If(event & (index == number)):
                    m.d.sync += flags[number].eq(1)
                with m.Elif(is_given & (give == number)):
                    m.d.sync += flags[number].eq(0)

        with m.If(self.move):
            m.d.sync += self.valid.eq(self.read_en)
        with m.If(self.read_en):
            m.d.sync += [
                self.first.eq(give_beat == 0),
                self.last.eq(give_beat == self.beats - 1),
                self.scale.eq(scales[give]),
            ]
        if not spec.exp_only:
            table = place(m, "reciprocal", AbfpReciprocal(spec.activation_bits), platform)
            m.d.comb += table.fraction.eq(scales[give][:7])
            with m.If(self.read_en):
                m.d.sync += self.reciprocal.eq(table.reciprocal)
        return m


class WordSchedule(wiring.Component):
    """Follows words through quantisers and rows, and counts them and the tiles.

    Parameters
    ----------
    spec : AbfpTileSpec
        The tile.
    words : int
        Words of weights of a row.
    tiles : int
        Tiles in the longest dot product.
    quantiser_latency, dot_latency : int
        Cycles from a word to its codes, and from these to the sum, at least 1.

    Members
    -------
    move : In(1)
        Whether words advance.
    valid, first, last, scale : In
        From :class:`VectorBuffer`.
    last_tile : In
        Tiles of a product, less one.
    read_en, address : Out
        Word of weights that the codes of the next cycle are multiplied by.
    code_valid, code_first : Out(1)
        Whether there are codes now, and whether they are the first of their vector.
    done : Out(1)
        Whether the dot products of a vector are complete.
    done_scale, done_tile, done_first, done_final : Out
        Scale of that vector, its number in its product, whether that is the first or the last one.
    """

    move: Signal
    valid: Signal
    first: Signal
    last: Signal
    scale: Signal
    last_tile: Signal
    read_en: Signal
    address: Signal
    code_valid: Signal
    code_first: Signal
    done: Signal
    done_scale: Signal
    done_tile: Signal
    done_first: Signal
    done_final: Signal

    def __init__(
        self,
        spec: AbfpTileSpec,
        words: int,
        tiles: int,
        quantiser_latency: int,
        dot_latency: int,
    ) -> None:
        self.spec = instance_of("spec", spec, AbfpTileSpec)
        self.quantiser_latency = quantiser_latency
        self.dot_latency = dot_latency
        kind = "_exp" if spec.exp_only else ""
        self.module_name = (
            f"abfp_schedule_w{words}_t{tiles}{kind}_d{quantiser_latency}_{dot_latency}"
        )
        scale = 8 if spec.exp_only else 15
        super().__init__(
            {
                "move": In(1),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "scale": In(scale),
                "last_tile": In(count_bits(tiles)),
                "read_en": Out(1),
                "address": Out(count_bits(words)),
                "code_valid": Out(1),
                "code_first": Out(1),
                "done": Out(1),
                "done_scale": Out(scale),
                "done_tile": Out(count_bits(tiles)),
                "done_first": Out(1),
                "done_final": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        scale: Value = self.scale
        if self.spec.exp_only:
            # From the exponent of the largest magnitude to that of the scale above it.
            scale = Mux(scale == 0, 0, scale + 1)[:8]
        tags: dict[str, Value] = {"first": self.first, "last": self.last, "scale": scale}
        valid = self.valid
        tile = Signal.like(self.last_tile)
        latency = self.quantiser_latency + self.dot_latency
        for cycle in range(1, latency + 1):
            if cycle == self.quantiser_latency:
                is_final = Signal()
                m.d.comb += [
                    is_final.eq(tile == self.last_tile),
                    self.read_en.eq(self.move & valid),
                ]
                with m.If(self.read_en):
                    m.d.sync += self.address.eq(self.address + 1)
                    with m.If(tags["last"]):
                        m.d.sync += tile.eq(tile + 1)
                        with m.If(is_final):
                            m.d.sync += [tile.eq(0), self.address.eq(0)]
                tags |= {"tile": tile, "is_first": tile == 0, "is_final": is_final}
            here = Signal(name=f"valid_{cycle}")
            held: dict[str, Value] = {
                name: Signal.like(tag, name=f"{name}_{cycle}", reset_less=True)
                for name, tag in tags.items()
            }
            with m.If(self.move):
                # At the end, only what completes a vector counts.
                m.d.sync += here.eq(valid & tags["last"] if cycle == latency else valid)
                with m.If(valid):
                    m.d.sync += [held[name].eq(tags[name]) for name in ("first", "last")]
                with m.If(valid & tags["last"]):
                    m.d.sync += [
                        register.eq(tags[name])
                        for name, register in held.items()
                        if name not in ("first", "last")
                    ]
            valid, tags = here, held
            if cycle == self.quantiser_latency:
                m.d.comb += [self.code_valid.eq(valid), self.code_first.eq(tags["first"])]
        m.d.comb += [
            self.done.eq(valid),
            self.done_scale.eq(tags["scale"]),
            self.done_tile.eq(tags["tile"]),
            self.done_first.eq(tags["is_first"]),
            self.done_final.eq(tags["is_final"]),
        ]
        return m


class RowTurns(wiring.Component):
    """Takes the dot products of a vector, and offers them to the converter row after row.

    Parameters
    ----------
    spec : AbfpTileSpec
        The tile.
    rows : int
        Dot products.
    slots : int
        Cycles of a vector, at least ``rows``: the accumulator of a row must be ready again.
    tiles : int
        Tiles in the longest dot product.

    Members
    -------
    done, done_scale, done_tile, done_first, done_final : In
        From :class:`WordSchedule`.
    take : Out(1)
        Whether rows keep their dot products now.
    move : Out(1)
        Whether words may advance.
    sums : In(signed x rows)
        Dot products that were kept.
    convert : In(1)
        Whether the converter takes what it is offered.
    valid, total, row : Out
        Whether a dot product is offered, it, and its row.
    scale, tile, first, final : Out
        What was said of it when it was done.
    step : Out(1)
        Whether a dot product is converted now.
    """

    done: Signal
    done_scale: Signal
    done_tile: Signal
    done_first: Signal
    done_final: Signal
    take: Signal
    move: Signal
    sums: Any
    convert: Signal
    valid: Signal
    total: Signal
    row: Signal
    scale: Signal
    tile: Signal
    first: Signal
    final: Signal
    step: Signal

    def __init__(self, spec: AbfpTileSpec, rows: int, slots: int, tiles: int) -> None:
        self.spec = instance_of("spec", spec, AbfpTileSpec)
        self.rows = rows
        self.slots = slots
        kind = "_exp" if spec.exp_only else ""
        self.module_name = f"abfp_turns_s{spec.sum_bits}_rows{rows}_of{slots}_t{tiles}{kind}"
        scale = 8 if spec.exp_only else 15
        super().__init__(
            {
                "done": In(1),
                "done_scale": In(scale),
                "done_tile": In(count_bits(tiles)),
                "done_first": In(1),
                "done_final": In(1),
                "take": Out(1),
                "move": Out(1),
                "sums": In(data.ArrayLayout(signed(spec.sum_bits), rows)),
                "convert": In(1),
                "valid": Out(1),
                "total": Out(signed(spec.sum_bits)),
                "row": Out(count_bits(rows)),
                "scale": Out(scale),
                "tile": Out(count_bits(tiles)),
                "first": Out(1),
                "final": Out(1),
                "step": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        full = Signal()
        slot = Signal(range(self.slots))
        turn, is_last = Signal(), Signal()
        m.d.comb += [
            turn.eq(self.convert & full),
            is_last.eq(turn & (slot == self.slots - 1)),
            self.take.eq(self.done & (~full | is_last)),
            self.move.eq(~self.done | self.take),
            self.valid.eq(full & (slot < self.rows)),
            self.row.eq(slot),
            self.total.eq(self.sums[self.row]),
            self.step.eq(self.convert & self.valid),
        ]
        with m.If(is_last):
            m.d.sync += slot.eq(0)
        with m.Elif(turn):
            m.d.sync += slot.eq(slot + 1)
        with m.If(self.take):
            m.d.sync += [
                full.eq(1),
                self.scale.eq(self.done_scale),
                self.tile.eq(self.done_tile),
                self.first.eq(self.done_first),
                self.final.eq(self.done_final),
            ]
        with m.Elif(is_last):
            m.d.sync += full.eq(0)
        return m


class LoadSelect(wiring.Component):
    """Which row's weights are written.

    Parameters
    ----------
    rows : int
        Rows.

    Members
    -------
    enable, row : In
        Whether one is, and its number.
    selected : Out(rows)
        A bit for each row.
    """

    enable: Signal
    row: Signal
    selected: Signal

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.module_name = f"abfp_load_rows{rows}"
        super().__init__({"enable": In(1), "row": In(count_bits(rows)), "selected": Out(rows)})

    def elaborate(self, platform):
        m = Module()
        for row in range(self.rows):
            m.d.comb += self.selected[row].eq(self.enable & (self.row == row))
        return m


class TileStatus(wiring.Component):
    """What software reads: saturated conversions modulo 2**32, and whether an input was bad.

    Members
    -------
    saturated, converted, move : In(1)
        A conversion is one that saturates; there is one; it is over.
    bad : In(1)
        An infinity or NaN came in.
    clear : In(1)
        Clear both.
    saturations : Out(32)
    bad_input : Out(1)
    """

    saturated: Signal
    converted: Signal
    move: Signal
    bad: Signal
    clear: Signal
    saturations: Signal
    bad_input: Signal

    module_name = "abfp_status"

    def __init__(self) -> None:
        super().__init__(
            {
                "saturated": In(1),
                "converted": In(1),
                "move": In(1),
                "bad": In(1),
                "clear": In(1),
                "saturations": Out(COUNTER_WIDTH),
                "bad_input": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        with m.If(self.clear):
            m.d.sync += [self.saturations.eq(0), self.bad_input.eq(0)]
        with m.Else():
            with m.If(self.move & self.converted & self.saturated):
                m.d.sync += self.saturations.eq(self.saturations + 1)
            with m.If(self.bad):
                m.d.sync += self.bad_input.eq(1)
        return m
