"""Widths, settings and cycles of the bit-serial look-up engine (spec/weight_pool.md, section 6)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt

from golden.fixed import FixedSpec
from golden.requantiser import Multiplier
from golden.spec import check_int
from golden.weight_pool import WeightPoolFormat, WeightPoolSpec, checked_activations
from golden.weight_pool_table import MAX_ACT_BITS, Layout, table_rows

__all__ = ["EngineSpec"]

#: Bits of the widest accumulator that the requantiser takes.
MAX_ACCUMULATOR_BITS = 48


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One look-up table, a result for each pool vector, and lanes that gather them.

    Parameters
    ----------
    entries : int
        Pool vectors S, 1 to 256.
    group : int
        Weights of a pool vector, 4 or 8.
    lut_bits : int
        Bits of a stored entry of the table, 2 to 16.
    layout : {"full", "nibble"}
        How the table is stored; see :class:`golden.weight_pool.WeightPoolSpec`.
    max_act_bits : int
        Most bits of an activation, 1 to 8; how many it has is set at run time.
    bits : int
        Most bits of a code that leaves, 1 to 16; how many are used is set at run time.
    lanes : int
        Output channels P that are gathered in a cycle, 1 to 256.
    max_outputs : int
        Most output channels of a layer, 1 to 4096; their accumulators are a memory.
    requantisers : int
        Sums of a row that become codes in a cycle; divides ``lanes``.
    pipelined : bool
        Whether there are more registers, for a faster clock.
    length : int
        Most results in one sum, 1 to 2**20: kernel positions times groups of channels.
    accumulator_bits : int
        Bits of a signed accumulator: enough for ``length`` results and a bias that is no larger
        than one of them, at most 48.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If a parameter is out of range, or the accumulator is too narrow.
    """

    stem: ClassVar[str] = "weight_pool"

    entries: int = 64
    group: int = 8
    lut_bits: int = 8
    layout: Layout = "full"
    max_act_bits: int = 8
    bits: int = 8
    lanes: int = 8
    max_outputs: int = 256
    requantisers: int = 1
    pipelined: bool = False
    length: int = 288
    accumulator_bits: int = 32

    def __post_init__(self) -> None:
        check_int("entries", self.entries, 1, 256)
        check_int("group", self.group, 4, 8)
        if self.group not in (4, 8):
            raise ValueError(f"group must be 4 or 8, not {self.group}")
        check_int("lut_bits", self.lut_bits, 2, 16)
        if self.layout not in set(get_args(Layout)) - {"half"}:
            raise ValueError(f"layout must be full or nibble for hardware, not {self.layout!r}")
        check_int("max_act_bits", self.max_act_bits, 1, MAX_ACT_BITS)
        check_int("bits", self.bits, 1, 16)
        check_int("lanes", self.lanes, 1, 256)
        check_int("max_outputs", self.max_outputs, 1, 4096)
        check_int("requantisers", self.requantisers, 1, self.lanes)
        if self.lanes % self.requantisers:
            raise ValueError(
                f"requantisers must divide the {self.lanes} lanes, not {self.requantisers}"
            )
        if not isinstance(self.pipelined, bool):
            raise TypeError(f"pipelined must be a bool, not {self.pipelined!r}")
        check_int("length", self.length, 1, 1 << 20)
        check_int("accumulator_bits", self.accumulator_bits, self.exact_bits, MAX_ACCUMULATOR_BITS)

    @classmethod
    def for_format(cls, form: WeightPoolFormat, length: int, **sizes: Any) -> "EngineSpec":
        """Engine for every spec that ``form`` can be fitted to, and sums of ``length`` weights.

        The accumulator is no wider than that needs, unless ``sizes`` has its bits.
        """
        spec = form.spec()
        fields = {
            "entries": spec.entries,
            "group": spec.group,
            "lut_bits": spec.lut_bits,
            "layout": spec.layout,
            "max_act_bits": MAX_ACT_BITS if form.act_bits is None else form.act_bits,
            "length": -(-length // spec.group),
            "accumulator_bits": MAX_ACCUMULATOR_BITS,
        }
        engine = cls(**(fields | sizes))
        if "accumulator_bits" in sizes:
            return engine
        return replace(engine, accumulator_bits=engine.exact_bits)

    @property
    def exact_bits(self) -> int:
        """Bits of an accumulator that holds every sum, and a bias as large as a result."""
        return self.result_bits + self.length.bit_length()

    @property
    def banks(self) -> int:
        """Tables whose rows are added: one, or one for each half of an address."""
        return 2 if self.layout == "nibble" else 1

    @property
    def address_bits(self) -> int:
        """Bits of the address of a row in a bank."""
        return self.group // self.banks

    @property
    def entry_bits(self) -> int:
        """Bits of a signed entry as it is added to a result."""
        return self.lut_bits + self.banks - 1

    @property
    def result_bits(self) -> int:
        """Bits of the signed result of a pool vector."""
        return self.entry_bits + self.max_act_bits

    @property
    def index_bits(self) -> int:
        """Bits of an index at a lane, one at least."""
        return max(1, (self.entries - 1).bit_length())

    @property
    def plane_bits(self) -> int:
        """Bits of the number of a plane, one at least."""
        return max(1, (self.max_act_bits - 1).bit_length())

    @property
    def row_bits(self) -> int:
        """Bits of the number of a row of accumulators, one at least."""
        return max(1, (self.rows(self.max_outputs) - 1).bit_length())

    @property
    def label(self) -> str:
        """Parameters of the table and the results, as they appear in module names."""
        layout = "_nibble" if self.layout == "nibble" else ""
        return f"s{self.entries}_g{self.group}_l{self.lut_bits}_m{self.max_act_bits}{layout}"

    def rows(self, outputs: int) -> int:
        """Rows of lanes, and words of indices, that a group of activations takes."""
        return -(-outputs // self.lanes)

    def cycles(self, act_bits: int, outputs: int) -> int:
        """Cycles per group of activations when groups follow each other (spec, section 6)."""
        return max(act_bits, self.rows(outputs))

    @property
    def finish_steps(self) -> int:
        """Cycles in which the sums of a row become codes."""
        return self.lanes // self.requantisers

    @property
    def requantiser_latency(self) -> int:
        """Registers in a requantiser."""
        return 3 if self.pipelined else 2

    def finish_cycles(self, outputs: int) -> int:
        """Cycles in which all sums of a pixel become codes; a pixel takes no less."""
        return self.rows(outputs) * self.finish_steps

    def latency(self, act_bits: int) -> int:
        """Cycles from a pixel's last group to its first codes, if nothing is before them."""
        return act_bits + 7 + self.finish_steps + self.requantiser_latency + self.pipelined

    def table_bits_per_mac(self, act_bits: int, outputs: int) -> float:
        """Bits of the table that are read for each product that a layer needs."""
        return act_bits * self.banks * self.entries * self.lut_bits / (outputs * self.group)

    def accumulator_bits_per_mac(self, outputs: int) -> float:
        """Bits of accumulators that are read, and as many written, for each such product."""
        return self.rows(outputs) * self.lanes * self.accumulator_bits / (outputs * self.group)

    def check_pool(self, pool: object) -> WeightPoolSpec:
        """Refuse a pool whose table is of another form.

        Raises
        ------
        TypeError
            If ``pool`` is no :class:`~golden.weight_pool.WeightPoolSpec`.
        ValueError
            If a parameter differs.
        """
        if not isinstance(pool, WeightPoolSpec):
            raise TypeError(f"pool must be a WeightPoolSpec, not {pool!r}")
        for name in ("entries", "group", "lut_bits", "layout"):
            if getattr(pool, name) != getattr(self, name):
                raise ValueError(
                    f"pool.{name} must be {getattr(self, name)}, not {getattr(pool, name)}"
                )
        return pool

    def stored(self, pool: WeightPoolSpec) -> list[npt.NDArray[np.int32]]:
        """Entries of each bank [rows, entries], the one for the low bits of an address first.

        Raises
        ------
        TypeError, ValueError
            As :meth:`check_pool`.
        """
        table = self.check_pool(pool).table
        if self.layout == "full":
            return [table]
        half = table_rows(self.group, "nibble") // 2
        # Row 0 of the other half adds nothing.
        return [table[:half], table[::half]]

    def images(self, pool: WeightPoolSpec) -> list[list[int]]:
        """Rows of each bank as words of a memory, the first pool vector in the low bits."""
        mask = (1 << self.lut_bits) - 1
        return [
            [
                sum((entry & mask) << self.lut_bits * n for n, entry in enumerate(row))
                for row in bank.tolist()
            ]
            for bank in self.stored(pool)
        ]

    def settings(
        self, pool: WeightPoolSpec, activations: FixedSpec, result: FixedSpec, outputs: int
    ) -> dict[str, int]:
        """Run-time settings of a layer by port.

        Parameters
        ----------
        pool : WeightPoolSpec
            Pool and table.
        activations, result : FixedSpec
            Formats of the codes that enter and leave.
        outputs : int
            Output channels.

        Raises
        ------
        TypeError, ValueError
            If this hardware has no setting for a format.
        """
        self.check_pool(pool)
        spec = checked_activations(activations)
        check_int("activations.bits", spec.bits, 1, self.max_act_bits)
        if not isinstance(result, FixedSpec):
            raise TypeError(f"result must be a FixedSpec, not {result!r}")
        check_int("result.bits", result.bits, 1, self.bits)
        check_int("outputs", outputs, 1, self.max_outputs)
        multiplier = Multiplier.of(pool.accumulator_unit(spec) / result.operand_unit)
        return {
            "top_plane": spec.bits - 1,
            "has_sign": int(spec.signed),
            "last_row": self.rows(outputs) - 1,
            "mult": multiplier.mult,
            "shift": multiplier.shift,
            "result_has_sign": int(result.signed),
            "largest": (1 << result.bits - result.signed) - 1,
        }

    def activation_words(self, codes: npt.ArrayLike, channels: int) -> npt.NDArray[np.uint8]:
        """Cut rows of activations into the groups that enter.

        Parameters
        ----------
        codes : array_like of uint8, [m, k]
            Codes; k runs over kernel positions and, innermost, ``channels`` input channels.
        channels : int
            Input channels; the last group of a kernel position is filled with zeros.

        Returns
        -------
        ndarray of uint8, [m, blocks, group]
        """
        rows: npt.NDArray[Any] = np.asarray(codes, np.uint8)
        positions = rows.reshape(len(rows), -1, channels)
        padding = -channels % self.group
        padded = np.pad(positions, ((0, 0), (0, 0), (0, padding)))
        return padded.reshape(len(rows), -1, self.group)

    def lane_words(self, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Cut numbers [..., outputs] into rows [..., rows, lanes], the last one filled with zeros.

        So enter indices, in the published order, and biases.
        """
        values = np.asarray(numbers, np.int64)
        padding = [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % self.lanes)]
        return np.pad(values, padding).reshape(*values.shape[:-1], -1, self.lanes)
