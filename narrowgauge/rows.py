"""Rows of the tables of a comparison: formats on a network, and measured designs beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "MEASURED",
    "factors",
    "marks",
    "memory_kinds",
    "memory_split",
    "rows_with_measured",
    "share",
]

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
            "energy_per_image_nj",
            "time_per_image_us",
            "storage_bits_per_weight",
            "sqnr_db",
            "accuracy",
            "memory_energy_per_mac_pj",
            "off_chip_energy_per_mac_pj",
            "memory_area_um2",
            "memory_leakage_uw",
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
                "energy_with_glitches_per_mac_pj",
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


#: What memories hold, as tables tell them apart; others are under their own names.
HOLDINGS = {
    "activations": "activations",
    "store": "activations",
    "weights": "weights",
    "weight_scales": "weights",
    "biases": "weights",
    "indices": "weights",
    "table": "weights",
    "accumulators": "sums",
    "sums": "sums",
    "results": "results",
}


def memory_split(row: Mapping[str, Any]) -> dict[str, float]:
    """Energy of memories per multiply-accumulate by what they hold; empty if it is not known.

    Parameters
    ----------
    row : dict
        One of :func:`rows_with_measured`.  The memories of an array beside count with the others.
    """
    if row["memory_energy_per_mac_pj"] is None:
        return {}
    split: dict[str, float] = {}
    for memory in row["memories"]:
        name = memory["name"].rpartition(" ")[2]
        kind = HOLDINGS.get(name, name)
        split[kind] = split.get(kind, 0.0) + memory["energy_per_mac_pj"]
    return split


def memory_kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Energy of memories of all rows by what they hold: 0 where a row has no such memory.

    Parameters
    ----------
    rows : sequence of dict
        Those of :func:`rows_with_measured`; None for a row whose memories have no figures.
    """
    splits = [memory_split(row) for row in rows]
    found = dict.fromkeys(kind for split in splits for kind in split)
    known = [kind for kind in dict.fromkeys(HOLDINGS.values()) if kind in found]
    return {
        kind: [split.get(kind, 0.0) if split else None for split in splits]
        for kind in [*known, *(kind for kind in found if kind not in known)]
    }


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
