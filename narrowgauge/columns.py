"""Columns of tables that are read outside of a terminal: on the page, in papers, in other programs.

A column has its unit apart from its title, and each cell the value that its text stands for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from narrowgauge.rows import factors, marks
from narrowgauge.table import NONE, aligned, finite

__all__ = ["Cell", "Column", "comparison_columns", "counts", "figures", "texts"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a table shows, and by what it is sorted."""

    text: str
    value: str | float | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    title, unit : str
        What it shows; either may be empty.
    cells : sequence of Cell
        One for each row.
    is_text : bool
        Text is left-aligned, figures are right-aligned.
    """

    title: str
    unit: str
    cells: Sequence[Cell]
    is_text: bool = False


def texts(title: str, values: Iterable[Any], unit: str = "") -> Column:
    """Column of texts."""
    cells = [Cell(text=str(value), value=str(value)) for value in values]
    return Column(title=title, unit=unit, cells=cells, is_text=True)


def figures(title: str, unit: str, values: Iterable[float | None], digits: int) -> Column:
    """Column of figures with the same decimals, so many significant digits for the largest."""
    known = [finite(value) for value in values]
    shown = aligned(known, digits)
    cells = [Cell(text=text, value=value) for text, value in zip(shown, known, strict=True)]
    return Column(title=title, unit=unit, cells=cells)


def counts(title: str, values: Iterable[float | None], unit: str = "") -> Column:
    """Column of numbers that are mostly whole, with narrow spaces between thousands."""
    cells = [
        Cell(text=NONE if value is None else f"{value:,}".replace(",", "\u202f"), value=value)
        for value in values
    ]
    return Column(title=title, unit=unit, cells=cells)


def _ratios(values: Sequence[float | None]) -> Column:
    """Factors of the baseline, which is the first value."""
    cells = [
        Cell(text=NONE if ratio is None else f"{ratio:.2f}", value=ratio)
        for ratio in factors(values)
    ]
    return Column(title="", unit="\u00d7", cells=cells)


def comparison_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Tabulate what each format gives and costs.

    Parameters
    ----------
    rows : sequence of dict
        Rows of a comparison, see :func:`narrowgauge.rows.rows_with_measured`; the first one is the
        baseline.
    """

    def take(key: str) -> list[Any]:
        return [row[key] for row in rows]

    names = [row["spec"] + "".join(f" ({mark})" for mark in marks(row)) for row in rows]
    delayed = take("energy_with_glitches_per_mac_pj")
    glitches = [
        figures("with glitches", "pJ per MAC", delayed, 4),
        _ratios(delayed),
    ]
    return [
        texts("format", names),
        figures("accuracy", "%", take("accuracy"), 4),
        figures("SQNR", "dB", take("sqnr_db"), 3),
        figures("energy", "pJ per MAC", take("energy_per_mac_pj"), 4),
        _ratios(take("energy_per_mac_pj")),
        *(glitches if any(energy is not None for energy in delayed) else ()),
        figures("area per MAC", "\u00b5m\u00b2", take("area_per_mac_um2"), 4),
        _ratios(take("area_per_mac_um2")),
        figures("critical path", "ns", take("critical_path_ns"), 3),
        figures("slack", "ns", take("slack_ns"), 3),
        figures("leakage", "\u00b5W", take("leakage_uw"), 3),
        figures("storage", "bits per weight", take("storage_bits_per_weight"), 2),
        *(
            figures(title, "pJ per MAC", take(key), 3)
            for title, key in (
                ("memories", "memory_energy_per_mac_pj"),
                ("off chip", "off_chip_energy_per_mac_pj"),
            )
            if any(value is not None for value in take(key))
        ),
    ]
