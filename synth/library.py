"""Cell libraries by name or file, and the importer of compact ones.

A library comes from a Liberty file or from a compact table that ships with the project, and looks
the same afterwards: area in um2, capacitance in fF, time in ns, energy in pJ, leakage in nW.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from synth.cells import Cell, CellLibrary, EnergyArc, FlipFlop, Pin, SetupArc, Table, TimingArc
from synth.compact import compact_text, parse_compact
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
    "built_in",
    "choose_cells",
    "import_library",
    "load",
]

#: Built-in libraries: one compact table each.
FOLDER = Path(__file__).parent / "libraries"

#: What a compact library takes over: function classes, and the drive strengths of each as
#: multiples of the smallest cell.  Input names are arbitrary.
CLASSES: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = (
    (("0",), (1,)),
    (("1",), (1,)),
    (("!A",), (1, 2, 4, 8)),
    (("A",), (1, 2, 4, 8)),
    (("!(A&B)",), (1, 2, 4)),
    (("!(A&B&C)",), (1, 2)),
    (("!(A&B&C&D)",), (1, 2)),
    (("!(A|B)",), (1, 2, 4)),
    (("!(A|B|C)",), (1, 2)),
    (("!(A|B|C|D)",), (1, 2)),
    (("A&B",), (1, 2)),
    (("A&B&C",), (1,)),
    (("A&B&C&D",), (1,)),
    (("A|B",), (1, 2)),
    (("A|B|C",), (1,)),
    (("A|B|C|D",), (1,)),
    (("A^B",), (1, 2)),
    (("!(A^B)",), (1, 2)),
    (("S&B|!S&A",), (1, 2)),
    (("!(A&B|C)",), (1, 2)),
    (("!(A&B|C&D)",), (1, 2)),
    (("!(A&B|C|D)",), (1,)),
    (("!(A&B|C&D|E)",), (1,)),
    (("!(A&B|C&D|E&F)",), (1,)),
    (("!((A|B)&C)",), (1, 2)),
    (("!((A|B)&(C|D))",), (1, 2)),
    (("!((A|B)&C&D)",), (1,)),
    (("!((A|B)&(C|D)&E)",), (1,)),
    (("!((A|B)&(C|D)&(E|F))",), (1,)),
    (("A^B", "A&B"), (1,)),
    (("A^B^C", "A&B|A&C|B&C"), (1,)),
)

#: Strengths of flip-flops: plain, with asynchronous clear, with asynchronous preset.
FLIP_FLOPS = ((False, False, (1, 2)), (True, False, (1,)), (False, True, (1,)))


def built_in() -> tuple[str, ...]:
    """Names of the libraries that ship with the project."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(name_or_path: str | Path | Sequence[str | Path]) -> CellLibrary:
    """Load a cell library.

    Parameters
    ----------
    name_or_path : str, Path or sequence of those
        Name of a built-in library, such as ``"nangate45"``; path of a Liberty file, compressed by
        gzip or not, or of a compact library (``.toml``).  Several Liberty files that make up one
        library are given as a sequence.

    Returns
    -------
    CellLibrary
        Its usable cells; the others are named in ``notes``.

    Raises
    ------
    ValueError
        If a file cannot be read, is cut off or not of its format; if files of one library differ
        in voltage or temperature; or if it lacks what no design can do without: a plain
        flip-flop, a buffer, an inverter, a two-input NAND or NOR.
    """
    if isinstance(name_or_path, str) and name_or_path in built_in():
        name_or_path = FOLDER / f"{name_or_path}.toml"
    paths = [name_or_path] if isinstance(name_or_path, str | Path) else list(name_or_path)
    library = _read(paths)
    _require_basics(library, ", ".join(str(path) for path in paths))
    return library


def _read(paths: Sequence[str | Path]) -> CellLibrary:
    if not paths:
        raise ValueError("library must be a name or at least one path, not an empty list")
    parts = [_read_file(Path(path)) for path in paths]
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if (part.voltage_v, part.temperature_c) != (first.voltage_v, first.temperature_c):
            raise ValueError(
                f"library files must be of one voltage and temperature, not "
                f"{first.source!r} at {first.voltage_v:g} V, {first.temperature_c:g} C and "
                f"{part.source!r} at {part.voltage_v:g} V, {part.temperature_c:g} C"
            )
    return replace(
        first,
        source=", ".join(part.source for part in parts),
        cells={name: cell for part in parts for name, cell in part.cells.items()},
        notes=tuple(note for part in parts for note in part.notes),
    )


def _read_file(path: Path) -> CellLibrary:
    text = read_text(path)
    if path.suffix == ".toml":
        return parse_compact(text, str(path))
    return from_liberty(parse_liberty(text, str(path)), str(path))


def _require_basics(library: CellLibrary, origin: str) -> None:
    """Refuse a library with which nothing can be mapped."""
    plain = [cell for cell in library.of_kind("flip-flop") if _is_flip_flop(cell, False, False)]
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


def _is_flip_flop(cell: Cell, has_clear: bool, has_preset: bool) -> bool:
    """Whether a cell is a rising-edge D flip-flop with just these asynchronous inputs."""
    ff = cell.ff
    return (
        ff is not None
        and ff.clock_edge == "rising"
        and next(iter(ff.next_state.inputs), None) in cell.inputs
        and ff.next_state.truth_table() in (0b10, 0b01)
        and (ff.clear is not None) == has_clear
        and (ff.preset is not None) == has_preset
    )


def import_library(
    sources: Sequence[str | Path],
    target: Path,
    *,
    name: str,
    source: str,
    licence: str,
    version: str | None = None,
    cells: Iterable[str] | None = None,
) -> CellLibrary:
    """Make a compact library from Liberty files.

    Parameters
    ----------
    sources : sequence of str or Path
        Liberty files of one library.
    target : Path
        TOML file to write; it appears whole or not at all.
    name, source, licence : str
        Name of the new library, where its figures come from and under which terms.
    version : str, optional
        Version of the source; what the Liberty file says when left out.
    cells : iterable of str, optional
        Cells to take over; chosen by :func:`choose_cells` when left out.

    Returns
    -------
    CellLibrary
        The compact library, read back.

    Raises
    ------
    ValueError
        If a source is no usable library, ``cells`` names an unknown one, or too few are chosen.
    """
    full = load(list(sources))
    chosen = full.select(choose_cells(full) if cells is None else cells)
    _require_basics(chosen, ", ".join(str(path) for path in sources))
    described = replace(
        chosen,
        name=name,
        source=source,
        licence=licence,
        version=full.version if version is None else version,
    )
    text = compact_text(described)
    library = parse_compact(text, str(target))
    partial = target.with_name(target.name + ".part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        raise ValueError(
            f"target must be writable, not {str(target)!r}: {error.strerror}"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return library


def choose_cells(library: CellLibrary) -> list[str]:
    """Choose the cells of a compact library by function and drive strength.

    Of every class of :data:`CLASSES` and :data:`FLIP_FLOPS` and every strength that is asked for,
    the cell is taken whose strength is nearest, in steps of a quarter octave, and of equally near
    ones the smallest; none if all are further away than a factor of the square root of 2.

    Parameters
    ----------
    library : CellLibrary
        Library to choose from.

    Returns
    -------
    list of str
        Names in the order of the classes.
    """
    groups: list[tuple[list[Cell], tuple[int, ...]]] = []
    for texts, strengths in CLASSES:
        members = [cell for cell in library.cells.values() if _computes(cell, texts)]
        groups.append((members, strengths))
    for has_clear, has_preset, strengths in FLIP_FLOPS:
        members = [
            cell for cell in library.cells.values() if _is_flip_flop(cell, has_clear, has_preset)
        ]
        groups.append((members, strengths))
    chosen: list[str] = []
    for members, strengths in groups:
        resistance = {cell.name: _resistance(cell, library.fo4_slew_ns) for cell in members}
        smallest = min(((cell.area_um2, resistance[cell.name]) for cell in members), default=(0, 0))
        for strength in strengths:
            ranked = []
            for cell in members:
                # Tie cells have no delay and so no strength: any will do.
                ratio = resistance[cell.name] * strength / smallest[1] if smallest[1] else 1.0
                octaves = math.log2(ratio)
                if abs(octaves) < 0.5:
                    ranked.append((round(4 * abs(octaves)), cell.area_um2, cell.name))
            best = min(ranked, default=(0, 0.0, ""))[-1]
            if best and best not in chosen:
                chosen.append(best)
    return chosen


def _resistance(cell: Cell, slew_ns: float) -> float:
    """Increase of delay with load in ns per fF: mean of all arcs of the first output."""
    slopes = []
    for arc in cell.arcs:
        if arc.pin != cell.outputs[0]:
            continue
        for table in (arc.delay_rise, arc.delay_fall):
            if table is not None and len(table.columns) > 1:
                low, high = table.columns[0], table.columns[-1]
                rise = table.value(slew_ns, high) - table.value(slew_ns, low)
                slopes.append(rise / (high - low))
    return sum(slopes) / len(slopes) if slopes else 0.0


def _computes(cell: Cell, texts: tuple[str, ...]) -> bool:
    """Whether a gate computes these functions, whatever its pins are called and ordered."""
    if cell.ff is not None or len(cell.outputs) != len(texts):
        return False
    count, wanted = _truth_tables(texts)
    if len(cell.inputs) != count:
        return False
    own = sorted(cell.functions[pin].truth_table(cell.inputs) for pin in cell.outputs)
    return tuple(own) in wanted


@cache
def _truth_tables(texts: tuple[str, ...]) -> tuple[int, frozenset[tuple[int, ...]]]:
    """Count the inputs of some functions, and tabulate them for every order of the inputs."""
    functions = [Function(text) for text in texts]
    names = sorted({name for function in functions for name in function.inputs})
    orders = itertools.permutations(names)
    tables = (tuple(sorted(f.truth_table(order) for f in functions)) for order in orders)
    return len(names), frozenset(tables)
