"""Designs that ``narrowgauge measure`` has measured, beside the formats of a comparison.

Fair by construction: a file is taken only if its design was mapped to the same cells, by the same
tool and recipe and for the same clock as the formats, and its energies are those of settled values.
What cannot be the same is said of its row: the operands are not those of the network.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from narrowgauge.forms import load_form, read_json, require_form
from narrowgauge.machine import Settings
from narrowgauge.versions import code_digest
from synth.library import load
from synth.yosys import yosys_version

__all__ = ["read_measured"]

#: Recipe of all hardware of a comparison.
RECIPE = "default"

#: Sums of parts are those of the whole to within rounding.
CLOSE = 1e-9


def read_measured(paths: Sequence[Path], settings: Settings) -> list[dict[str, Any]]:
    """Read what ``narrowgauge measure`` wrote, as entries of ``measured`` in ``compare.json``.

    Parameters
    ----------
    paths : sequence of Path
        Files ``measure.json``.
    settings : Settings
        Of the comparison.

    Raises
    ------
    ValueError
        If a file is none, two designs have one name, or a design was measured in a way that does
        not compare.
    """
    entries: list[dict[str, Any]] = []
    for path in paths:
        result = read_json(path, "measured", "measure.json")
        start = f"measured must be a measure.json, not {str(path)!r}: "
        require_form(result, load_form("measure.json"), start)
        _require_sums(result, start)
        _require_same(result, settings, path)
        entry = _entry(result) | {"digest": hashlib.sha256(path.read_bytes()).hexdigest()}
        if any(entry["name"] == other["name"] for other in entries):
            raise ValueError(
                f"measured must be designs of different names, not {entry['name']!r} twice; "
                "narrowgauge measure --name gives another one"
            )
        entries.append(entry)
    return entries


def _require_sums(result: Mapping[str, Any], start: str) -> None:
    """Refuse figures that contradict one another, as in a file that was edited."""
    energy, macs = result["energy_per_cycle_pj"], result["macs_per_cycle"]
    expected = {
        "area_um2": sum(result["area_breakdown_um2"].values()),
        "energy_per_cycle_pj": sum(result["energy_breakdown_pj"].values()),
        "energy_per_mac_pj": None if macs is None else energy / macs,
        "slack_ns": result["clock_ns"] - result["critical_path_ns"],
    }
    for name, value in expected.items():
        found = result[name]
        if (value is None) != (found is None) or not (
            value is None or math.isclose(value, found, rel_tol=CLOSE, abs_tol=CLOSE)
        ):
            raise ValueError(f"{start}{name} must be {value} by its other figures, not {found}")


def _require_same(result: Mapping[str, Any], settings: Settings, path: Path) -> None:
    """Refuse what does not compare."""
    library = load(settings.library)
    asked = result["library"]
    pairs = (
        ("library", library.name, asked["name"]),
        ("digest of the library", library.digest, asked["digest"]),
        ("clock_ns", settings.clock_ns, result["clock_ns"]),
        ("recipe", RECIPE, result["recipe"]),
        ("Yosys", yosys_version(), result["tools"]["yosys"]),
        ("delays", "none", result["delays"]),
        ("clock_gating", settings.clock_gating, result["clock_gating"]),
        ("states", settings.states, result["states"]),
    )
    for name, ours, theirs in pairs:
        if theirs != ours:
            raise ValueError(
                f"{name} of the measured design in {str(path)!r} must be {ours}, as of the "
                f"comparison, not {theirs}"
            )


def _entry(result: Mapping[str, Any]) -> dict[str, Any]:
    macs = result["macs_per_cycle"]
    glitches = result["energy_with_glitches_per_cycle_pj"]
    return {
        "name": result["design"]["name"],
        "top": result["design"]["top"],
        "operands": _operands(result["settings"]["stimuli"]),
        "macs_per_cycle": macs,
        "area_um2": result["area_um2"],
        "area_per_mac_um2": None if macs is None else result["area_um2"] / macs,
        "cells": result["cells"],
        "critical_path_ns": result["critical_path_ns"],
        "slack_ns": result["slack_ns"],
        "energy_per_cycle_pj": result["energy_per_cycle_pj"],
        "energy_per_mac_pj": result["energy_per_mac_pj"],
        "energy_with_glitches_per_mac_pj": (
            None if macs is None or glitches is None else glitches / macs
        ),
        "leakage_uw": result["leakage_uw"],
        "area_breakdown_um2": dict(result["area_breakdown_um2"]),
        "energy_per_cycle_breakdown_pj": dict(result["energy_breakdown_pj"]),
        "nets_annotated": result["nets_annotated"],
        "command": result["settings"]["command"],
        "note": "; ".join(_notes(result)),
    }


def _operands(stimuli: Mapping[str, Any]) -> str:
    """Say what its inputs did, without names of files, which may hold anything."""
    if stimuli["file"] is not None:
        return "operands of a file"
    forms = dict.fromkeys(stimuli["distributions"].values())
    return f"random operands ({', '.join(forms) or 'no inputs'}), seed {stimuli['seed']}"


def _notes(result: Mapping[str, Any]) -> list[str]:
    """Say in what its row differs from those of the formats."""
    macs = result["macs_per_cycle"]
    notes = [
        f"a measured design, on {_operands(result['settings']['stimuli'])}, not on the network's",
        "it states no multiply-accumulates (measure --macs)"
        if macs is None
        else f"{macs:g} multiply-accumulates in a cycle, as it states",
    ]
    if result["tools"]["code"] != code_digest():
        notes.append("measured with other code of narrowgauge")
    return [*notes, *result["notes"]]
