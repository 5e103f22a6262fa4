"""Rows of the tables of a comparison: formats on a network, and measured designs beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MEASURED", "factors", "marks", "rows_with_measured", "share"]

#: What the rows of measured designs have in the place of a design of the catalogue.
MEASURED = "measured"


def rows_with_measured(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a comparison for tables: formats, then measured designs.

    Parameters
    ----------
    result : dict
        In the form of ``compare.json``.

    Returns
    -------
    list of dict
        Rows of which those of measured designs have what tables of all rows show: None for what
        only the formats of a network have and, of a design without multiply-accumulates, for the
        area and energy of one.
    """
    return [*result["rows"], *map(_as_row, result["measured"])]


def _as_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    unknown = dict.fromkeys(
        (
            "weight_bits",
            "activation_bits",
            "accumulator_bits",
            "length",
            "utilisation",
            "storage_bits_per_weight",
            "sqnr_db",
            "accuracy",
        )
    )
    macs = entry["macs_per_cycle"]
    split = {} if macs is None else entry["energy_per_cycle_breakdown_pj"]
    return unknown | {
        "design": MEASURED,
        "spec": entry["name"],
        "retrained": False,
        **{
            name: entry[name]
            for name in (
                "macs_per_cycle",
                "area_um2",
                "area_per_mac_um2",
                "cells",
                "critical_path_ns",
                "slack_ns",
                "energy_per_mac_pj",
                "leakage_uw",
                "area_breakdown_um2",
                "nets_annotated",
                "note",
            )
        },
        "energy_breakdown_pj": {part: value / macs for part, value in split.items()},
        "memories": [],
    }


def marks(row: Mapping[str, Any]) -> list[str]:
    """Words that every table has beside the name of a row."""
    return [
        word
        for word, holds in (
            ("retrained", row["retrained"]),
            ("measured", row["design"] == MEASURED),
        )
        if holds
    ]


def factors(values: Sequence[float | None]) -> list[float | None]:
    """Factors of the baseline, which is the first value; None where there is no figure."""
    base = values[0]
    return [None if value is None or not base else value / base for value in values]


def share(row: Mapping[str, Any], key: str, part: str) -> float | None:
    """Part of a breakdown of a row: 0 where a format has none, None where it is not told apart.

    Parameters
    ----------
    row : dict
        One of :func:`rows_with_measured`.
    key : str
        ``"area_breakdown_um2"`` or ``"energy_breakdown_pj"``.
    part : str
        Name of the part.
    """
    value: float | None = row[key].get(part)
    return 0.0 if value is None and row["design"] != MEASURED else value
