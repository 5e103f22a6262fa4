"""Registers that part a combinational unit in stages.

The code of such a unit is the same whatever its latency: at each place where there may be registers
it says what is on its way there, and goes on with what :meth:`Stages.cut` gives back.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from golden.spec import check_int

__all__ = ["StagedUnit", "Stages"]


class StagedUnit(wiring.Component):
    """A combinational unit that may have registers inside.

    Members
    -------
    move : In(1)
        When all registers load; absent without any.

    Parameters
    ----------
    name : str
        Of the module, without its latency.
    members : dict of str to Member
        Ports but ``move``.
    latency : int
        Registers on the way, an index of ``places``.

    Attributes
    ----------
    places : sequence of sequence of str
        Names of the places that have registers, by latency.

    Raises
    ------
    TypeError, ValueError
        If ``latency`` is no integer or out of range.
    """

    places: Sequence[Sequence[str]]
    move: Signal

    def __init__(self, name: str, members: Mapping[str, Any], latency: int):
        check_int("latency", latency, 0, len(self.places) - 1)
        self.latency = latency
        self.module_name = f"{name}_l{latency}" if latency else name
        super().__init__({**members, "move": In(1)} if latency else members)

    def stages(self, m: Module, *, reset_less: bool = True) -> "Stages":
        """Make the registers of the unit in module ``m``; see :class:`Stages`."""
        move = self.move if self.latency else None
        return Stages(m, self.places[self.latency], move, reset_less=reset_less)


class Stages:
    """Places for registers in a unit, some of which have them.

    Parameters
    ----------
    m : Module
        Gets the registers.
    places : sequence of str
        Names of the places that have registers.
    move : Value, optional
        When they load; needed if there are any.
    reset_less : bool
        Whether reset leaves them as they are, so that what comes out right after it is undefined.
    """

    def __init__(
        self, m: Module, places: Sequence[str], move: Value | None, *, reset_less: bool = True
    ):
        self.m = m
        self.places = places
        self.move = move
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
