"""Options that several commands have, and checks of them."""

import math
from collections.abc import Callable
from typing import Any

import click

__all__ = ["cell_states", "clock_gating", "hardware", "positive"]


def positive(context: click.Context, option: click.Parameter, number: float | None) -> float | None:
    """Refuse what is not a finite number above 0; an option that is left out may be none."""
    if number is not None and not 0 < number < math.inf:
        raise click.BadParameter(f"must be a positive number, not {number:g}", context, option)
    return number


def hardware(array_size: int = 16) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of designs, fields of `narrowgauge.catalogue.Options`.

    Parameters
    ----------
    array_size : int
        Rows and columns of an array if they are left out, for the help.
    """
    options = (
        click.option("--rows", type=int, help=f"Rows of an array ({array_size})."),
        click.option("--cols", type=int, help=f"Columns of an array ({array_size})."),
        click.option("--length", type=int, help="Longest dot product, held exactly (2048)."),
        click.option("--lanes", type=int, help="Lanes of a tile or a look-up engine (8)."),
        click.option(
            "--outputs", type=int, help="Most outputs of a layer of a look-up engine (256)."
        ),
        click.option("--requantisers", type=int, help="Requantisers of a look-up engine (1)."),
        click.option(
            "--decoders",
            type=click.Choice(["edge", "pe"]),
            help="Where an array decodes: at its edges, or in each processing element (edge).",
        ),
        click.option(
            "--zero-gating", is_flag=True, help="Hold an array's multipliers still for zeros."
        ),
        click.option(
            "--pipelined", is_flag=True, help="More registers, for a shorter clock period."
        ),
        click.option(
            "--carry-save", is_flag=True, help="Accumulate in an array as sums and carries."
        ),
        click.option("--modes", help="Modes of a fused multiplier (8x8-4x4-2x2)."),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


clock_gating = click.option(
    "--clock-gating",
    type=click.IntRange(min=1),
    metavar="N",
    help="Gate the clock of N or more flip-flops with the same enable.  [default: no clock gates]",
)

cell_states = click.option(
    "--states",
    is_flag=True,
    help="Take energy and leakage by the states of cells that occur, not by means over all.",
)
