"""Steps that the units of the ABFP tile have in common."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from hdl.pipeline import Stages

__all__ = [
    "Flow",
    "checked_cuts",
    "delayed",
    "divider",
    "flow_ports",
    "normalised",
    "shifted_right",
    "split_product",
    "tile_latency",
]


class Flow(Stages):
    """Places for registers in a unit that gets something valid now and then.

    What is not valid does not enter them, so that nothing toggles behind a pause.

    Parameters
    ----------
    m : Module
        Gets the registers.
    unit : Component
        With the ports of :func:`flow_ports`.
    places : mapping of int to sequence of str
        Names of the places that have registers, by latency, in the order in which they are passed.
    """

    def __init__(self, m: Module, unit: Any, places: Mapping[int, Sequence[str]]):
        cuts = places[unit.latency]
        super().__init__(m, cuts, None)
        # Of each place: when its registers load.
        self._moves: dict[str, Value] = {}
        valid: Value = unit.valid if cuts else Const(1)
        for place in cuts:
            self._moves[place] = unit.move & valid
            here = unit.o_valid if place == cuts[-1] else Signal(name=f"{place}_valid")
            with m.If(unit.move):
                m.d.sync += here.eq(valid)
            valid = here

    def loads(self, place: str) -> Value:
        """Whether something valid comes to ``place``, which has registers, and may go on."""
        return self._moves[place]

    def cut(self, place: str, **values: Any) -> tuple[Any, ...]:
        """Give back ``values``, from registers if ``place`` has them."""
        self.move = self._moves.get(place)
        # What never changes needs no register.
        held = {name: value for name, value in values.items() if not isinstance(value, Const)}
        registers = dict(zip(held, super().cut(place, **held), strict=True))
        return tuple(registers.get(name, value) for name, value in values.items())


def flow_ports(latency: int) -> dict[str, Any]:
    """Ports of a unit with so many registers from its inputs to its outputs.

    ``move`` lets everything advance; ``valid`` says whether there is something at the inputs, and
    ``o_valid`` whether there is at the outputs.  None if it is combinational.
    """
    return {"move": In(1), "valid": In(1), "o_valid": Out(1)} if latency else {}


def checked_cuts(cuts: Mapping[int, Sequence[str]], latency: int) -> Sequence[str]:
    """Places that have registers for a latency.

    Raises
    ------
    ValueError
        If a unit cannot have that latency.
    """
    if latency not in cuts:
        raise ValueError(f"latency must be one of {', '.join(map(str, cuts))}, not {latency!r}")
    return cuts[latency]


def tile_latency(cuts: Mapping[int, Sequence[str]], pipelined: bool) -> int:
    """Latency of a unit in a tile: of those that it can have, the shortest or the longest."""
    _, plain, longest = sorted(cuts)
    return longest if pipelined else plain


def delayed(m: Module, move: Value, value: Value, cycles: int, name: str) -> Value:
    """Return ``value`` as it was some moves ago; with no valid value it may be anything."""
    for cycle in range(cycles):
        register = Signal.like(value, name=f"{name}_{cycle + 1}_ago", reset_less=True)
        with m.If(move):
            m.d.sync += register.eq(value)
        value = register
    return value


def divider(divisor: int, limit: int) -> tuple[int, int]:
    """Multiplier and least shift with which ``number * mult >> shift`` divides.

    Parameters
    ----------
    divisor : int
        Positive.
    limit : int
        Largest number that is divided, at least ``divisor - 1``.

    Returns
    -------
    mult, shift : int
        ``mult`` is ``2**shift / divisor`` rounded up.  A number is a multiple of the divisor
        where the ``shift`` bits below the quotient are less than ``mult``.
    """
    # Most is missing below the next quotient where the remainder is largest.
    worst = limit - (limit + 1) % divisor
    for shift in count(1):
        mult = -(-(1 << shift) // divisor)
        if worst * (mult * divisor - (1 << shift)) < 1 << shift:
            return mult, shift
    raise AssertionError("count() has no end")


def split_product(m: Module, number: Value, factor: int, limit: int) -> tuple[Value, Value]:
    """Products of a number with the lower and with the upper half of a constant's bits.

    The sum of the first and the second shifted by ``factor.bit_length() // 2`` is their product.
    Signals are no longer than products of ``limit``, the largest number of interest, are.
    """
    half = factor.bit_length() // 2
    parts = []
    for name, bits in (("low", factor % (1 << half)), ("high", factor >> half)):
        part = Signal(max((limit * bits).bit_length(), 1), name=f"product_{name}")
        m.d.comb += part.eq(number * bits)
        parts.append(part)
    return parts[0], parts[1]


def normalised(
    m: Module, value: Value, name: str, stages: Iterable[int] | None = None
) -> tuple[Value, Value]:
    """Shift leading zeros out of ``value``; also how many there were.

    Of a value of zero the number of zeros has no meaning.  ``stages`` are the bits of that number
    to find, from the highest to the lowest; all by default.
    """
    width = len(value)
    counts: list[Value] = []
    for stage in reversed(range((width - 1).bit_length())) if stages is None else stages:
        step = 1 << stage
        empty = Signal(name=f"{name}_top_{step}_empty")
        shifted = Signal(width, name=f"{name}_after_{step}")
        m.d.comb += [
            empty.eq(value[width - step :] == 0),
            shifted.eq(Mux(empty, Cat(Const(0, step), value[: width - step]), value)),
        ]
        value = shifted
        counts.insert(0, empty)
    return value, Cat(*counts)


def shifted_right(m: Module, value: Value, distance: Value, name: str) -> tuple[Value, Value]:
    """Shift ``value`` to the right; also whether a bit that is 1 was shifted out."""
    width = len(value)
    sticky: Value = Const(0, 1)
    for stage, enable in enumerate(distance):
        step = min(1 << stage, width)
        shifted = Signal(width, name=f"{name}_by_{1 << stage}")
        lost = Signal(name=f"{name}_lost_{1 << stage}")
        m.d.comb += [
            shifted.eq(Mux(enable, value[step:], value)),
            lost.eq(sticky | (enable & value[:step].any())),
        ]
        value, sticky = shifted, lost
    return value, sticky
