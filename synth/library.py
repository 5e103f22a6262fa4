"""Cell libraries by name or file, and the importer of compact ones.

A library comes from a Liberty file or from a compact table that ships with the project, and looks
the same afterwards: area in um2, capacitance in fF, time in ns, energy in pJ, leakage in nW.
"""

import csv
import fnmatch
import itertools
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
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
    "smallest_cell",
]

#: Built-in libraries: one compact table each.
FOLDER = Path(__file__).parent / "libraries"

#: What a compact library takes over: function classes, and the drive strengths of each as
#: multiples of the smallest cell.  Input names are arbitrary.
CLASSES: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...] = (
    (("0",), (1,)),
    (("1",), (1,)),
    (("0", "1"), (1,)),
    (("!A",), (0.25, 0.5, 1, 2, 4, 8)),
    (("A",), (0.5, 1, 2, 4, 8)),
    (("!(A&B)",), (0.5, 1, 2, 4)),
    (("!(A&B&C)",), (1, 2)),
    (("!(A&B&C&D)",), (1, 2)),
    (("!(A|B)",), (0.5, 1, 2, 4)),
    (("!(A|B|C)",), (1, 2)),
    (("!(A|B|C|D)",), (1, 2)),
    (("A&B",), (1, 2)),
    (("A&B&C",), (1,)),
    (("A&B&C&D",), (1,)),
    (("A|B",), (0.5, 1, 2)),
    (("A|B|C",), (1,)),
    (("A|B|C|D",), (1,)),
    (("A^B",), (1, 2, 3)),
    (("!(A^B)",), (1, 2, 3)),
    (("S&B|!S&A",), (0.5, 1, 2)),
    (("!(S&B|!S&A)",), (1,)),
    (("!(A&B|C)",), (1, 2)),
    (("!(A&B|C&D)",), (1, 2)),
    (("!(A&B|C|D)",), (1,)),
    (("!(A&B|C&D|E)",), (1,)),
    (("!(A&B|C&D|E&F)",), (1,)),
    (("!((A|B)&C)",), (0.5, 1, 2)),
    (("!((A|B)&(C|D))",), (1, 2)),
    (("!((A|B)&C&D)",), (1,)),
    (("!((A|B)&(C|D)&E)",), (1,)),
    (("!((A|B)&(C|D)&(E|F))",), (1,)),
    (("!(A&B&C|D)",), (1,)),
    (("!((A|B|C)&D)",), (1,)),
    (("A&B|C",), (1,)),
    (("(A|B)&C",), (1,)),
    (("A&B|C&D",), (1,)),
    (("(A|B)&(C|D)",), (1,)),
    (("A&B|C|D",), (1,)),
    (("(A|B)&C&D",), (1,)),
    (("!A&B",), (1,)),
    (("!(!A&B)",), (1,)),
    (("!(A&B|!C)",), (1,)),
    (("!((A|B)&!C)",), (1,)),
    (("A&B|!C",), (1,)),
    (("(A|B)&!C",), (1,)),
    (("!(A&B|!C&!D)",), (1,)),
    (("A&B|!C&!D",), (1,)),
    (("A&B|A&C|B&C",), (1,)),
    (("!(A&B|A&C|B&C)",), (1,)),
    (("A^B", "A&B"), (1,)),
    (("!(A^B)", "!(A&B)"), (1,)),
    (("A^B^C", "A&B|A&C|B&C"), (1,)),
    (("!(A^B^C)", "!(A&B|A&C|B&C)"), (1,)),
)

#: Strengths of flip-flops: plain, with asynchronous clear, with asynchronous preset, with both.
#: The last ones are taken only where one of the two before is missing.
FLIP_FLOPS = (
    (False, False, (1, 2)),
    (True, False, (1,)),
    (False, True, (1,)),
    (True, True, (1,)),
)


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
        library are given as a sequence, or as a text with commas between; there, names that
        hold commas are put into double quotes, as in CSV.

    Returns
    -------
    CellLibrary
        Its usable cells; the others are named in ``notes``.

    Raises
    ------
    ValueError
        If a file cannot be read, is cut off, too large or not of its format; if files of one
        library differ in voltage or temperature, or hold the same cell; or if it lacks what no
        design can do without: a plain flip-flop, a buffer, an inverter, a two-input NAND or NOR.
    """
    if isinstance(name_or_path, str):
        paths = _files(name_or_path)
    else:
        paths = [name_or_path] if isinstance(name_or_path, Path) else list(name_or_path)
    if not paths:
        raise ValueError("library must be a name or at least one path, not an empty list")
    return _read(tuple((Path(path), *_state(Path(path))) for path in paths))


def _files(text: str) -> list[str | Path]:
    """Files that a text names: a built-in library, one file, or several with commas between."""
    if text in built_in():
        return [FOLDER / f"{text}.toml"]
    if "\0" not in text and os.path.lexists(text):
        return [text]
    known = ", ".join(built_in())
    try:
        words = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        words = []
    if not words or not all(words):
        raise ValueError(
            f"library must be one of {known}, or files with commas between, not {text!r}"
        )
    if len(words) == 1 and "/" not in text and "." not in text:
        raise ValueError(f"library must be one of {known}, or a file, not {text!r}")
    return list(words)


def _state(path: Path) -> tuple[int, int]:
    """When a file was last written, and its size: as long as they stay, it is read only once."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return 0, 0  # reading says what is wrong
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)
def _read(files: tuple[tuple[Path, int, int], ...]) -> CellLibrary:
    paths = [path for path, _, _ in files]
    library = _join([_read_file(path) for path in paths])
    _require_basics(library, ", ".join(str(path) for path in paths))
    return library


def _join(parts: Sequence[CellLibrary]) -> CellLibrary:
    """Make one library of the parts that its files hold."""
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
    owners: dict[str, str] = {}
    for part in parts:
        for name in part.cells:
            if name in owners:
                raise ValueError(
                    f"library files must hold different cells, not {name} both in "
                    f"{owners[name]!r} and {part.source!r}"
                )
            owners[name] = part.source
    return replace(
        first,
        source=", ".join(part.source for part in parts),
        max_slew_ns=min(
            (part.max_slew_ns for part in parts if part.max_slew_ns is not None), default=None
        ),
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
    gates = [
        cell for kind in ("nand", "nor") for cell in library.of_kind(kind) if len(cell.inputs) == 2
    ]
    for what, found in (
        ("a plain flip-flop (rising edge, no set or reset)", library.plain_flip_flops),
        ("a buffer", library.of_kind("buffer")),
        ("an inverter", library.of_kind("inverter")),
        ("a NAND or NOR of two inputs", gates),
    ):
        if not found:
            raise ValueError(
                f"library must hold {what}, not only the {len(library.cells)} usable cells "
                f"of {origin!r}"
            )


def _inverts(cell: Cell) -> bool:
    """Whether every output of a plain flip-flop is the complement of its data."""
    ff = cell.ff
    if ff is None:
        return False
    inverted_state = ff.next_state.truth_table() == 0b01
    return all(
        (str(function) == ff.inverted_state) != inverted_state
        for function in cell.functions.values()
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
    exclude: Sequence[str] = (),
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
    exclude : sequence of str, optional
        Patterns, as of a shell, of the names of cells that are not to be chosen, such as delay
        cells that no attribute marks.

    Returns
    -------
    CellLibrary
        The compact library, read back; ``notes`` are those of the sources.

    Raises
    ------
    ValueError
        If a source is no usable library, a pattern fits no cell, ``cells`` names an unknown one,
        or too few are chosen.
    """
    full = load(list(sources))
    for pattern in exclude:
        if not fnmatch.filter(full.cells, pattern):
            raise ValueError(f"exclude must fit at least one cell, not {pattern!r}")
    full = full.select(
        name
        for name in full.cells
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude)
    )
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
    try:
        with tempfile.TemporaryDirectory(prefix=".narrowgauge-", dir=target.parent) as folder:
            partial = Path(folder, "library.toml")
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
    except OSError as error:
        raise ValueError(
            f"target must be writable, not {str(target)!r}: {error.strerror}"
        ) from None
    return replace(library, notes=full.notes)


def choose_cells(library: CellLibrary) -> list[str]:
    """Choose the cells of a compact library by function and drive strength.

    Of every class of :data:`CLASSES` and :data:`FLIP_FLOPS` and every strength that is asked for,
    the cell is taken whose strength is nearest, in steps of a quarter octave, of equally near
    ones the smallest, and of equally small ones that of the least input capacitance; none if all
    are further away than a factor of the square root of 2.  The smallest clock gate is chosen, too.

    Parameters
    ----------
    library : CellLibrary
        Library to choose from.

    Returns
    -------
    list of str
        Names in the order of the classes.
    """
    groups: list[tuple[list[Cell], tuple[float, ...]]] = []
    for texts, strengths in CLASSES:
        members = [cell for cell in library.cells.values() if _computes(cell, texts)]
        groups.append((members, strengths))
    for has_clear, has_preset, strengths in FLIP_FLOPS:
        if has_clear and has_preset and groups[-1][0] and groups[-2][0]:
            continue
        members = [
            cell for cell in library.cells.values() if cell.is_flip_flop(has_clear, has_preset)
        ]
        # Mapping takes those with an output that is not inverted where there are any.
        straight = [cell for cell in members if not _inverts(cell)]
        groups.append((straight or members, strengths))
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
                    cap = sum(cell.pins[pin].cap_ff for pin in cell.inputs)
                    ranked.append((round(4 * abs(octaves)), cell.area_um2, cap, cell.name))
            best = min(ranked, default=(0, 0.0, 0.0, ""))[-1]
            if best and best not in chosen:
                chosen.append(best)
    # What a gate drives is up to the clock tree, so the smallest one will do.
    return chosen + [cell.name for cell in library.clock_gates[:1]]


def smallest_cell(library: CellLibrary, *functions: str) -> Cell | None:
    """Find the smallest gate that computes some functions.

    Parameters
    ----------
    library : CellLibrary
        Library to search.
    functions : str
        One function for each output, in any order and with any names of inputs.

    Returns
    -------
    Cell or None
        None if there is none.
    """
    found = [cell for cell in library.cells.values() if _computes(cell, functions)]
    return min(found, key=lambda cell: (cell.area_um2, cell.name), default=None)


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
    if len(cell.functions) != len(texts) or cell.ff is not None:
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
