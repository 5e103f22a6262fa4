"""Checks of options that several commands have."""

import math

import click

__all__ = ["positive"]


def positive(context: click.Context, option: click.Parameter, number: float | None) -> float | None:
    """Refuse what is not a finite number above 0; an option that is left out may be none."""
    if number is not None and not 0 < number < math.inf:
        raise click.BadParameter(f"must be a positive number, not {number:g}", context, option)
    return number
