"""Cell libraries: what every cell computes, occupies, weighs on its inputs, delays and consumes.

A library comes from a Liberty file or from a compact table that ships with the project, and looks
the same afterwards: area in um2, capacitance in fF, time in ns, energy in pJ, leakage in nW.
"""

from pathlib import Path

from synth.cells import Cell, CellLibrary, EnergyArc, FlipFlop, Pin, SetupArc, Table, TimingArc
from synth.liberty import Function, parse_liberty, read_text
from synth.liberty_cells import from_liberty

__all__ = [
    "Cell",
    "CellLibrary",
    "EnergyArc",
    "FlipFlop",
    "Function",
    "Pin",
    "SetupArc",
    "Table",
    "TimingArc",
    "load",
]


def load(name_or_path: str | Path) -> CellLibrary:
    """Load a cell library.

    Parameters
    ----------
    name_or_path : str or Path
        Path of a Liberty file, compressed by gzip or not.

    Returns
    -------
    CellLibrary
        Its usable cells; the others are named in ``notes``.

    Raises
    ------
    ValueError
        If the file cannot be read, is cut off or not Liberty, or lacks what no design can do
        without: a flip-flop, a buffer, an inverter, a two-input NAND or NOR.
    """
    path = Path(name_or_path)
    text = read_text(path)
    library = from_liberty(parse_liberty(text, str(path)), text, str(path))
    _require_basics(library, str(path))
    return library


def _require_basics(library: CellLibrary, origin: str) -> None:
    """Refuse a library with which nothing can be mapped."""
    plain = [
        cell
        for cell in library.of_kind("flip-flop")
        if cell.ff is not None
        and cell.ff.clock_edge == "rising"
        and cell.ff.next_state.text in cell.inputs
        and cell.ff.clear is None
        and cell.ff.preset is None
    ]
    gates = [
        cell for kind in ("nand", "nor") for cell in library.of_kind(kind) if len(cell.inputs) == 2
    ]
    for what, found in (
        ("a plain flip-flop (rising edge, no set or reset)", plain),
        ("a buffer", library.of_kind("buffer")),
        ("an inverter", library.of_kind("inverter")),
        ("a NAND or NOR of two inputs", gates),
    ):
        if not found:
            raise ValueError(
                f"library must hold {what}, not only the {len(library.cells)} usable cells "
                f"of {origin!r}"
            )
