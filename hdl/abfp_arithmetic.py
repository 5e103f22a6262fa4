"""Steps that the units of the ABFP tile have in common."""

from itertools import count

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

__all__ = ["divider", "normalised", "shifted_right"]


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


def normalised(m: Module, value: Value, name: str) -> tuple[Value, Value]:
    """Shift leading zeros out of ``value``; also how many there were.

    Of a value of zero the number of zeros has no meaning.
    """
    width = len(value)
    counts: list[Value] = []
    for stage in reversed(range((width - 1).bit_length())):
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
