"""Driving a design under test: settings, clock, reset, and its streams ``i`` and ``o``.

Ports change at the falling edge of the clock and are read before the rising edge, when everything
has settled, so that the order in which a simulator handles an edge does not matter.  All cycles are
counted from the falling edge.  Writes are never cocotb's ``Immediate``, which is faster, but leaves
nets of Icarus Verilog 11 undefined for good.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, Timer
from cocotb.types import Logic

from sim.layout import pack, unpack
from sim.parameters import Parameters, load
from sim.system import Integers, Layer, hardware_bias

__all__ = ["ONE", "Device", "Transfers", "apply", "apply_clocked", "check", "coins", "read"]

PERIOD_NS = 10

#: What a port of one bit is compared with in every cycle: faster than an integer.
ONE = Logic(1)

#: Cycles without a transfer after which a stream counts as stuck.
PATIENCE = 5000

#: Probability of a cycle in which registers do not go on.
PAUSE = 0.2

#: Random numbers that are drawn at a time.
CHUNK = 4096

#: Bins of every bench that transfers.
STREAM_BINS = ("input pauses", "input waits", "result waits", "result is taken at once")


def check(expected: Integers, got: Integers, describe: Callable[..., str]) -> None:
    """Compare results.

    Parameters
    ----------
    expected, got : ndarray
        Of the same shape.
    describe : callable
        Says, for the indices of a result, which case it is.

    Raises
    ------
    AssertionError
        Names the first case that differs.
    """
    wrong = np.argwhere(np.asarray(expected) != np.asarray(got))
    if len(wrong):
        first = tuple(wrong[0].tolist())
        raise AssertionError(
            f"{describe(*first)}: expected {expected[first]}, got {got[first]}; "
            f"{len(wrong)} of {np.size(expected)} results are wrong; seed {load().seed}"
        )


def read(port: Any) -> int:
    """Word at a port; AssertionError if a bit is undefined."""
    value = port.value
    if not value.is_resolvable:
        raise AssertionError(f"{port._name} must have defined bits, not {value}")
    return int(value)


async def apply(inputs: Any, words: Sequence[int], output: Any) -> list[int]:
    """Words that a combinational design gives at port ``output`` for words at port ``inputs``."""
    settled = Timer(1, "ns")
    results = []
    for word in words:
        inputs.value = word
        await settled
        results.append(read(output))
    return results


async def apply_clocked(
    dut: Any, words: Sequence[int], ports: tuple[Any, Any], latency: int, rng: np.random.Generator
) -> list[int]:
    """Send words through a design with registers that go on in cycles with ``move`` only.

    Parameters
    ----------
    dut : handle
        With ports ``clk`` and ``move``.
    words : sequence of int
        For the first of ``ports``.
    ports : tuple of handle
        Input and output.
    latency : int
        Cycles with ``move`` after which a result is there.
    rng : Generator
        Draws the cycles without, in which the input is any of the words.

    Returns
    -------
    list of int
        Words of the output.
    """
    inputs, output = ports
    settled = Timer(1, "ns")
    results: list[int] = []
    moved = 0
    moves = coins(1 - PAUSE, rng)
    while len(results) < len(words):
        move = next(moves)
        dut.clk.value = 0
        dut.move.value = int(move)
        inputs.value = words[moved if move and moved < len(words) else rng.integers(len(words))]
        await settled
        dut.clk.value = 1
        await settled
        moved += move
        if move and moved >= latency:
            results.append(read(output))
    return results


@dataclass
class Transfers:
    """What passed through the streams.

    Attributes
    ----------
    results : list of int
        Words of ``o``.
    accepted : list of int
        Cycle in which each word of ``i`` was accepted.
    offered, taken : list of int
        Cycle in which each word of ``o`` was first offered, and in which it was taken.
    """

    results: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)


class Device:
    """A clocked design with an input stream ``i`` and an output stream ``o``.

    Parameters
    ----------
    dut : handle
        Top module.
    parameters : Parameters
        What the bench knows of it.
    """

    def __init__(self, dut: Any, parameters: Parameters):
        self.dut = dut
        self.parameters = parameters
        self.cycle = 0
        self._falling = FallingEdge(dut.clk)
        #: Wait for it before reading ports, and for the next cycle before writing them.
        self.settled = ReadOnly()

    def layout(self, port: str) -> Any:
        """Layout of a port."""
        return self.parameters.ports[port]

    def set(self, port: str, value: Any) -> None:
        """Set one input port to an integer, or to one for each of its lanes."""
        (word,) = pack(self.layout(port), np.asarray(value)[None])
        getattr(self.dut, port).value = word

    def configure(self, layer: Layer, bias_q: Any, *, relu: bool) -> None:
        """Set formats, bias (in units of the golden accumulator) and ReLU."""
        mac = self.parameters.system.mac
        for port, value in mac.settings(*layer).items():
            self.set(port, value)
        self.set("bias", hardware_bias(mac, layer, bias_q))
        self.set("relu", int(relu))

    async def start(self) -> None:
        """Give every input a value, start the clock and reset."""
        for port, layout in self.parameters.ports.items():
            if layout["direction"] == "in":
                getattr(self.dut, port).value = 0
        # Its edges come from the simulator itself: several times as fast as from Python.
        Clock(self.dut.clk, PERIOD_NS, unit="ns", impl="gpi").start(start_high=False)
        # Only from the first falling edge on does every cycle have a rising edge.
        await self.tick()
        await self.reset()

    async def reset(self) -> None:
        """Reset for one cycle, whatever the streams are doing."""
        self.dut.rst.value = 1
        await self.tick()
        self.dut.rst.value = 0
        self.dut.i__valid.value = 0
        self.dut.o__ready.value = 0

    async def tick(self, cycles: int = 1) -> None:
        """Let cycles pass."""
        for _ in range(cycles):
            await self._falling
        self.cycle += cycles

    async def idle(self, cycles: int) -> None:
        """Let cycles pass in which nothing may be offered."""
        for _ in range(cycles):
            await self.settled
            assert self.dut.o__valid.value == 0, f"an extra result comes in cycle {self.cycle}"
            await self.tick()

    def put_words(self, **fields: Any) -> list[int]:
        """Words for ``i`` from columns of its fields."""
        return pack(self.layout("i__payload"), fields)

    def results(self, words: Sequence[int]) -> Any:
        """Columns of the fields of ``o`` from its words."""
        return unpack(self.layout("o__payload"), words)

    async def flow(self, words: Sequence[int], count: int, latency: int) -> list[int]:
        """Transfer words at one a cycle, to a design that must take and give them at that rate.

        Parameters
        ----------
        words : sequence of int
            For ``i``.
        count : int
            Results to expect.
        latency : int
            Cycles to wait for the last result.

        Returns
        -------
        list of int
            Words of ``o``.
        """
        dut, falling = self.dut, self._falling
        i_payload, o_payload, o_valid = dut.i__payload, dut.o__payload, dut.o__valid
        dut.o__ready.value = 1
        dut.i__valid.value = 1
        results = []
        for word in words:
            i_payload.value = word
            await falling
            # Results are taken at once, so valid and its word stay from the edge to here.  A word
            # of ``i`` that was not accepted would be missing at the end.
            if o_valid.value == ONE:
                results.append(read(o_payload))
        dut.i__valid.value = 0
        for _ in range(latency - 1):
            await falling
            if o_valid.value == ONE:
                results.append(read(o_payload))
        await falling
        dut.o__ready.value = 0
        self.cycle += len(words) + latency
        assert len(results) == count, f"expected {count} results at full rate, got {len(results)}"
        return results

    async def transfer(
        self,
        words: Sequence[int],
        count: int,
        *,
        gaps: tuple[float, float] = (0.0, 0.0),
        rng: np.random.Generator | None = None,
    ) -> Transfers:
        """Offer words to ``i`` while taking results from ``o``, by the rules of streams.

        Parameters
        ----------
        words : sequence of int
            For ``i``.
        count : int
            Results to take.
        gaps : tuple of float
            Probability of a pause before each word, and of each cycle in which ``o`` waits.
        rng : Generator, optional
            Draws the pauses; needed if there are any.

        Returns
        -------
        Transfers

        Raises
        ------
        AssertionError
            If a result that waits is taken back or changed, or nothing moves any more.
        """
        dut = self.dut
        i_valid, i_payload, i_ready = dut.i__valid, dut.i__payload, dut.i__ready
        o_valid, o_payload, o_ready = dut.o__valid, dut.o__payload, dut.o__ready
        hits = dict.fromkeys(STREAM_BINS, 0)
        seen = Transfers()
        go, take = (coins(1 - gap, rng) for gap in gaps)
        offering = False
        # What the ports were last set to: writing one takes longer than anything else here.
        is_valid: bool | None = None
        is_ready: bool | None = None
        held: int | None = None
        last = self.cycle
        while len(seen.accepted) < len(words) or len(seen.taken) < count:
            sent = len(seen.accepted)
            if not offering and sent < len(words) and next(go):
                i_payload.value = words[sent]
                offering = True
            ready = len(seen.taken) < count and next(take)
            if is_valid != offering:
                i_valid.value = is_valid = offering
            if is_ready != ready:
                o_ready.value = is_ready = ready
            await self.settled

            accepted = offering and i_ready.value == ONE
            hits["input pauses"] += not offering and 0 < sent < len(words)
            hits["input waits"] += offering and not accepted
            if accepted:
                seen.accepted.append(self.cycle)
                offering = False
            word = read(o_payload) if o_valid.value == ONE else None
            if held is not None:
                assert word == held, f"result {held:#x} waits, but becomes {word}"
            elif word is not None:
                seen.offered.append(self.cycle)
                hits["result is taken at once"] += ready
            hits["result waits"] += word is not None and not ready
            held = word
            if word is not None and ready:
                seen.taken.append(self.cycle)
                seen.results.append(word)
                held = None

            if accepted or (word is not None and ready):
                last = self.cycle
            assert self.cycle - last < PATIENCE, (
                f"nothing moved for {PATIENCE} cycles after {len(seen.accepted)} of {len(words)} "
                f"words and {len(seen.taken)} of {count} results"
            )
            await self.tick()
        i_valid.value = 0
        o_ready.value = 0
        coverage = self.parameters.coverage
        coverage.declare("streams", STREAM_BINS)
        for name, number in hits.items():
            coverage.hit("streams", name, number)
        return seen


def coins(probability: float, rng: np.random.Generator | None) -> Iterator[bool]:
    """Endless random decisions; always True with probability 1, for which no ``rng`` is needed."""
    while True:
        if probability == 1 or rng is None:
            yield True
        else:
            yield from (rng.random(CHUNK) < probability).tolist()
