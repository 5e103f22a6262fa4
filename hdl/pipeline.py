"""Registers that part a combinational unit in stages.

The code of such a unit is the same whatever its latency: at each place where there may be registers
it says what is on its way there, and goes on with what :meth:`Stages.cut` gives back.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import In

__all__ = ["Stages", "latency_label", "move_port"]


def latency_label(latency: int) -> str:
    """Name the latency of a unit in that of its module."""
    return f"_l{latency}" if latency else ""


def move_port(latency: int) -> dict[str, Any]:
    """Make the port of a unit with registers, by name: ``move``, In(1), when all of them load."""
    return {"move": In(1)} if latency else {}


class Stages:
    """Places for registers in a unit, some of which have them.

    Parameters
    ----------
    m : Module
        Gets the registers.
    unit : Component
        With a ``latency``, and a port ``move`` if that is not 0.
    places : sequence of sequence of str
        Names of the places that have registers, by latency.
    reset_less : bool
        Whether reset leaves them as they are, so that what comes out right after it is undefined.
    """

    def __init__(
        self, m: Module, unit: Any, places: Sequence[Sequence[str]], *, reset_less: bool = True
    ):
        self.m = m
        self.places = places[unit.latency]
        self.move = unit.move if self.places else None
        self.reset_less = reset_less

    def cut(self, place: str, **values: Any) -> tuple[Any, ...]:
        """Give back ``values``, from registers if ``place`` has them."""
        if place not in self.places:
            return tuple(values.values())
        registers = tuple(
            Signal.like(value, name=f"{place}_{name}", reset_less=self.reset_less)
            for name, value in values.items()
        )
        with self.m.If(self.move):
            self.m.d.sync += [
                register.eq(value)
                for register, value in zip(registers, values.values(), strict=True)
            ]
        return registers

    def multiply(
        self, place: str, a: Value, b: Value, *, width: int = 6, plus: Value | None = None
    ) -> Value:
        """Sum of ``a * b`` and, of unsigned numbers, ``plus``, with no more bits than the product.

        At ``place`` are the products with ``width`` bits of ``b`` each, the last one with ``plus``.
        """
        if place not in self.places:
            return a * b if plus is None else a * b + plus
        starts = range(0, len(b), width)
        parts = [b[start : start + width] for start in starts]
        if b.shape().signed:
            parts[-1] = parts[-1].as_signed()
        products = [(a * part).shift_left(start) for part, start in zip(parts, starts, strict=True)]
        if plus is not None:
            products[-1] = (products[-1] + plus)[: len(a) + len(b)]
        cut = self.cut(place, **{f"part_{n}": product for n, product in enumerate(products)})
        return reduce(add, cut)
