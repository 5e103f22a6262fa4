"""What a memory beside the logic costs: energy of an access, leakage, area and delay, by its size.

A model is a table of cited figures with a simple form through them.  Those that are built in are
the files of ``synth/memories``; a user's own has the same form.  Small memories are registers, made
of the cells of the library.  `docs/memories.md` tells where every figure is from.
"""

import hashlib
import itertools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from synth.cells import Cell, CellLibrary

__all__ = [
    "NONE",
    "QUANTITIES",
    "REGISTER_BITS",
    "REGISTER_ROWS",
    "TERMS",
    "MemoryCost",
    "MemoryModel",
    "OffChip",
    "choose_model",
    "memory_cost",
    "model_names",
    "off_chip",
    "off_chip_names",
    "register_cost",
]

#: Built-in models, a file each, and the energies of off-chip memory.
FOLDER = Path(__file__).parent / "memories"
OFF_CHIP = "off_chip"

#: Name of a model that leaves memory out.
NONE = "none"

#: A memory of fewer bits or rows is made of registers, as no generator makes a macro of it (chosen;
#: the smallest published macro of all technologies has 448 bits, the next one 960).
REGISTER_BITS = 1024
REGISTER_ROWS = 8

#: Largest model file, in bytes.
MAX_FILE = 1 << 20

#: Largest coefficient or energy in a model: far beyond all memories, and finite in any product.
MAX_FACTOR = 1e9

#: What a model says of a macro.
QUANTITIES = ("read_pj", "write_pj", "leakage_uw", "area_um2", "access_ns")

#: Terms of a form, over rows and the bits of one.  All grow, and so does a sum of them.
TERMS: Mapping[str, Callable[[int, int], float]] = {
    "constant": lambda rows, width: 1.0,
    "width": lambda rows, width: float(width),
    "rows": lambda rows, width: float(rows),
    "sqrt_rows": lambda rows, width: math.sqrt(rows),
    "width_sqrt_rows": lambda rows, width: width * math.sqrt(rows),
    "sqrt_bits": lambda rows, width: math.sqrt(rows * width),
    "bits": lambda rows, width: float(rows * width),
}

PJ_PER_FF_V2 = 1e-3
UW_PER_NW = 1e-3


@dataclass(frozen=True, kw_only=True)
class MemoryCost:
    """What one memory costs.

    Parameters
    ----------
    kind : str
        ``"sram"``, or ``"registers"`` of the cell library.
    read_pj, write_pj : float
        Energy of reading and of writing one row, in pJ.
    leakage_uw, area_um2, access_ns : float or None
        Leakage in uW, area in um2, and time from the clock edge to the data in ns; None where the
        model does not say.
    across, down : int
        Macros side by side for the bits of a row, and above each other for the rows.
    in_range : bool
        Whether the source of the model has points of this size; elsewhere its form goes on.
    source : str
        Model, or cells, that the figures are from.
    """

    kind: str
    read_pj: float
    write_pj: float
    leakage_uw: float | None
    area_um2: float | None
    access_ns: float | None
    across: int = 1
    down: int = 1
    in_range: bool = True
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """Cited figures of memory macros, and forms through them.

    Parameters
    ----------
    name, title, note : str
        Name to choose it by, what it is, and what its reader must know.
    sources : dict of str to dict of str to str
        Publication or public file of the points: ``text`` and perhaps ``repository``, ``path``
        and ``licence``.
    forms : dict of str to dict of str to float
        Coefficient of each of :data:`TERMS`, for each of :data:`QUANTITIES`.
    origins : dict of str to str
        Sources of each form.
    limits : dict of str to int
        ``min_rows``, ``max_rows``, ``min_width`` and ``max_width`` of the points: a larger memory
        is several macros, a smaller one is out of range.
    capacities : sequence of (int, float)
        Instead of forms: sizes in bits and the energy of an access in pJ.
    access_bits : int
        Bits of those accesses.
    points, checks : sequence of dict
        Figures of the sources through which the forms go, and others to compare with.
    digest : str
        SHA-256 of the file.
    """

    name: str
    title: str
    note: str = ""
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    forms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    capacities: Sequence[tuple[int, float]] = ()
    access_bits: int = 0
    points: Sequence[Mapping[str, Any]] = ()
    checks: Sequence[Mapping[str, Any]] = ()
    digest: str = ""

    def form(self, quantity: str, rows: int, width: int) -> float | None:
        """Evaluate the form of a quantity for one macro; None if there is none."""
        terms = self.forms.get(quantity)
        if terms is None:
            return None
        return sum(factor * TERMS[name](rows, width) for name, factor in terms.items())

    def cost(self, rows: int, width: int) -> MemoryCost:
        """Cost of a memory of macros.

        A memory with more rows or bits than any point is the fewest macros of equal size that hold
        it: each access goes to those that are side by side, all of them leak, and what chooses
        between them is left out.

        Parameters
        ----------
        rows : int
            Rows, at least 1.
        width : int
            Bits of a row, at least 1; all are read or written together.

        Raises
        ------
        ValueError
            If a size is not positive.
        """
        for name, size in (("rows", rows), ("width", width)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        return self._by_capacity(rows, width) if self.capacities else self._of_macros(rows, width)

    def _of_macros(self, rows: int, width: int) -> MemoryCost:
        limits = self.limits
        across, down = -(-width // limits["max_width"]), -(-rows // limits["max_rows"])
        macro = -(-rows // down), -(-width // across)
        read, write, leakage, area, access = (self.form(name, *macro) for name in QUANTITIES)
        assert read is not None  # a model without them is refused
        assert write is not None
        count = across * down
        return MemoryCost(
            kind="sram",
            read_pj=across * read,
            write_pj=across * write,
            leakage_uw=None if leakage is None else count * leakage,
            area_um2=None if area is None else count * area,
            access_ns=access,
            across=across,
            down=down,
            in_range=macro[0] >= limits["min_rows"] and macro[1] >= limits["min_width"],
            source=self.name,
        )

    def _by_capacity(self, rows: int, width: int) -> MemoryCost:
        """Power of the size between two of the sizes; beyond them the outer power goes on."""
        bits = rows * width
        pairs = list(itertools.pairwise(self.capacities))
        low, high = next((pair for pair in pairs if bits <= pair[1][0]), pairs[-1])
        power = math.log(high[1] / low[1]) / math.log(high[0] / low[0])
        energy = low[1] * (bits / low[0]) ** power * width / self.access_bits
        return MemoryCost(
            kind="sram",
            read_pj=energy,
            write_pj=energy,
            leakage_uw=None,
            area_um2=None,
            access_ns=None,
            in_range=self.capacities[0][0] <= bits <= self.capacities[-1][0],
            source=self.name,
        )


@dataclass(frozen=True, kw_only=True)
class OffChip:
    """Energy of off-chip memory.

    Parameters
    ----------
    name : str
        Kind of memory.
    pj_per_bit : float
        Energy of reading or writing one bit, in pJ.
    source : str
        Publication.
    """

    name: str
    pj_per_bit: float
    source: str


def memory_cost(model: MemoryModel, library: CellLibrary, rows: int, width: int) -> MemoryCost:
    """Cost of a memory: macros of a model, or registers if it is small.

    Parameters
    ----------
    model : MemoryModel
        Macros.
    library : CellLibrary
        Cells of registers.
    rows, width : int
        Rows, and bits of one.

    Raises
    ------
    ValueError
        If a size is not positive, or the library lacks the cells of registers.
    """
    macros = model.cost(rows, width)
    if rows * width < REGISTER_BITS or rows < REGISTER_ROWS:
        return register_cost(library, rows, width)
    return macros


def register_cost(library: CellLibrary, rows: int, width: int) -> MemoryCost:
    """Cost of a memory of flip-flops that is read through multiplexers.

    One flip-flop holds a bit; the clock runs only in the row that is written; a tree of 2:1
    multiplexers reads.  Data are random and addresses too.  What decodes the address, gates the
    clock and buffers is left out.

    Parameters
    ----------
    library : CellLibrary
        Cells: the smallest plain flip-flop, and the smallest multiplexer or three NAND gates.
    rows, width : int
        Rows, and bits of one.

    Raises
    ------
    ValueError
        If the library has no such cells.
    """
    flip_flop = next(iter(library.plain_flip_flops), None)
    multiplexer, gates = next(iter(library.of_kind("mux")), None), 1
    if multiplexer is None:
        nands = [cell for cell in library.of_kind("nand") if len(cell.inputs) == 2]
        multiplexer, gates = next(iter(nands), None), 3
    if flip_flop is None or multiplexer is None:
        raise ValueError(
            f"library must have a plain flip-flop, and a multiplexer or a NAND gate, for memories "
            f"of less than {REGISTER_BITS} bits, not {library.name}"
        )
    assert flip_flop.ff is not None  # it is plain
    slew, volts = library.fo4_slew_ns, library.voltage_v
    half_cv2 = PJ_PER_FF_V2 * volts**2 / 2
    clock, output = flip_flop.ff.clock, flip_flop.outputs[0]
    data = next(name for name in flip_flop.inputs if name != clock)
    load = max(multiplexer.pins[name].cap_ff for name in multiplexer.inputs)

    # Written: the clock of a row, every second of its states, and the data inputs of all rows.
    state = flip_flop.transition_energy(output, clock, slew, load) + half_cv2 * load
    per_row = flip_flop.clock_energy(slew, 0.5) + 2 * half_cv2 * flip_flop.pins[clock].cap_ff
    input_pj = flip_flop.passive_energy(data, slew) + half_cv2 * flip_flop.pins[data].cap_ff
    write = width * (per_row + state / 2 + rows * input_pj / 2)

    # Read: an output changes if another word is chosen below it and its bit is another one; every
    # second bit of the address changes.
    switch = gates * multiplexer.transition_energy(multiplexer.outputs[0], None, slew, load)
    switch += half_cv2 * load
    read, left, level = 0.0, rows, 0
    while left > 1:
        count, level = left // 2, level + 1
        read += width * count * (switch * (1 - 0.5**level) / 2 + half_cv2 * load / 2)
        left -= count
    muxes = (rows - 1) * width * gates
    flops = rows * width
    delay = _delay_ns(flip_flop, slew, load) + level * (1 + (gates > 1)) * _delay_ns(
        multiplexer, slew, load
    )
    return MemoryCost(
        kind="registers",
        read_pj=read,
        write_pj=write,
        leakage_uw=UW_PER_NW * (flops * flip_flop.leakage_nw + muxes * multiplexer.leakage_nw),
        area_um2=flops * flip_flop.area_um2 + muxes * multiplexer.area_um2,
        access_ns=delay,
        source=f"{flip_flop.name} and {multiplexer.name} of {library.name}",
    )


def _delay_ns(cell: Cell, slew_ns: float, load_ff: float) -> float:
    """Mean delay of all arcs of a cell."""
    tables = [table for arc in cell.arcs for table in (arc.delay_rise, arc.delay_fall) if table]
    return sum(table.value(slew_ns, load_ff) for table in tables) / len(tables) if tables else 0.0


# Models and their files.


def model_names() -> tuple[str, ...]:
    """Names of the built-in models."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem != OFF_CHIP))


def off_chip_names() -> tuple[str, ...]:
    """Names of the built-in kinds of off-chip memory."""
    return tuple(_off_chip_table())


def choose_model(name: str | None, library: CellLibrary) -> MemoryModel | None:
    """Find a model.

    Parameters
    ----------
    name : str or None
        Name of a built-in model, ``"none"``, or the path of a TOML file; None stands for the model
        of the library's technology.
    library : CellLibrary
        Cell library.

    Returns
    -------
    MemoryModel or None
        None if memory is to be left out, or a library of the user's own has no model.

    Raises
    ------
    ValueError
        If there is no such model, or its file is not one.
    """
    if name is None:
        return _built_in(library.name) if library.name in model_names() else None
    if name == NONE:
        return None
    if name in model_names():
        return _built_in(name)
    if not name.endswith(".toml"):
        known = ", ".join((*model_names(), NONE))
        raise ValueError(f"memory must be one of {known}, or a .toml file, not {name!r}")
    return _read(Path(name), name)


def off_chip(name: str) -> OffChip | None:
    """Find the energy of off-chip memory.

    Parameters
    ----------
    name : str
        Name of a built-in kind, ``"none"``, or pJ per bit.

    Returns
    -------
    OffChip or None
        None if it is to be left out.

    Raises
    ------
    ValueError
        If it is neither.
    """
    table = _off_chip_table()
    if name == NONE:
        return None
    if name in table:
        return table[name]
    try:
        energy = float(name)
    except ValueError:
        energy = math.nan
    if not 0 <= energy < math.inf:
        known = ", ".join((*table, NONE))
        raise ValueError(f"off_chip must be one of {known}, or pJ per bit, not {name!r}")
    return OffChip(name="own", pj_per_bit=energy, source="given on the command line")


@cache
def _built_in(name: str) -> MemoryModel:
    return _read(FOLDER / f"{name}.toml", name)


@cache
def _off_chip_table() -> dict[str, OffChip]:
    data = tomllib.loads((FOLDER / f"{OFF_CHIP}.toml").read_text(encoding="utf-8"))
    return {name: OffChip(name=name, **entry) for name, entry in data.items()}


def _read(path: Path, name: str) -> MemoryModel:
    """Read the file of a model."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"memory must be a regular file, not {name!r}")
        if path.stat().st_size > MAX_FILE:
            raise ValueError(f"memory must be a file of at most {MAX_FILE} bytes, not {name!r}")
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"memory must be a file that can be read, not {name!r} ({error.strerror})"
        ) from error
    try:
        data = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"memory must be a TOML file, not {name!r} ({error})") from error
    except RecursionError as error:
        raise ValueError(f"memory must not be nested that deeply, not {name!r}") from error
    return _parse(data, name, hashlib.sha256(raw).hexdigest())


def _parse(data: Mapping[str, Any], name: str, digest: str) -> MemoryModel:
    """Check the content of a model file."""
    known = ("title", "note", "voltage_v", "temperature_c", "sources", "macro", "points", "checks")
    capacity = ("access_bits", "capacities")
    for key in data:
        if key not in (*known, *capacity, *QUANTITIES):
            raise ValueError(f"memory {name!r} must not have {key!r}")
    title, note = data.get("title"), data.get("note", "")
    if not isinstance(title, str) or not title or not isinstance(note, str):
        raise ValueError(f"title and note of memory {name!r} must be text, not {title!r}, {note!r}")
    sources = data.get("sources")
    if (
        not isinstance(sources, dict)
        or not sources
        or not all(_is_source(entry) for entry in sources.values())
    ):
        raise ValueError(
            f"sources of memory {name!r} must be tables with text, such as "
            f'[sources.datasheet] text = "...", not {sources!r}'
        )
    shared: dict[str, Any] = {
        "name": name,
        "title": title,
        "note": note,
        "sources": sources,
        "points": _points(data, name, "points"),
        "checks": _points(data, name, "checks"),
        "digest": digest,
    }
    if "capacities" in data:
        return MemoryModel(
            capacities=_capacities(data, name),
            access_bits=_whole(data.get("access_bits"), name, "access_bits"),
            **shared,
        )
    macro = data.get("macro")
    keys = ("min_rows", "max_rows", "min_width", "max_width")
    if not isinstance(macro, dict) or set(macro) != set(keys):
        raise ValueError(f"macro of memory {name!r} must have {', '.join(keys)}, not {macro!r}")
    limits = {key: _whole(macro[key], name, key) for key in keys}
    for what in ("rows", "width"):
        if limits[f"min_{what}"] > limits[f"max_{what}"]:
            raise ValueError(
                f"min_{what} of memory {name!r} must be at most max_{what}, "
                f"not {limits[f'min_{what}']}"
            )
    forms = {}
    for quantity in QUANTITIES:
        if quantity in data:
            forms[quantity] = _form(data[quantity], name, quantity)
        elif quantity in ("read_pj", "write_pj"):
            raise ValueError(f"memory {name!r} must have {quantity} or capacities")
    origins = {quantity: str(data[quantity].get("source", "")) for quantity in forms}
    return MemoryModel(forms=forms, origins=origins, limits=limits, **shared)


def _is_source(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and bool(entry.get("text"))
        and all(isinstance(value, str) for value in entry.values())
    )


def _form(record: Any, name: str, quantity: str) -> dict[str, float]:
    """Coefficients of one form."""
    if not isinstance(record, dict):
        raise ValueError(f"{quantity} of memory {name!r} must be a table of terms, not {record!r}")
    terms = {key: value for key, value in record.items() if key != "source"}
    for key, value in terms.items():
        if key not in TERMS:
            raise ValueError(
                f"{quantity} of memory {name!r} must have terms of {', '.join(TERMS)}, not {key!r}"
            )
        if not _is_number(value) or not 0 <= value <= MAX_FACTOR:
            raise ValueError(
                f"{key} of {quantity} of memory {name!r} must be from 0 to {MAX_FACTOR:g}, "
                f"not {value!r}"
            )
    if not any(terms.values()):
        raise ValueError(f"{quantity} of memory {name!r} must have a term above 0, not {record!r}")
    return {key: float(value) for key, value in terms.items()}


def _capacities(data: Mapping[str, Any], name: str) -> list[tuple[int, float]]:
    """Sizes and energies, two or more that grow."""
    entries = data["capacities"]
    pairs = []
    for entry in entries if isinstance(entries, list) else []:
        if (
            not isinstance(entry, dict)
            or set(entry) != {"bits", "pj"}
            or not _is_number(entry["pj"])
            or not 0 < entry["pj"] <= MAX_FACTOR
        ):
            raise ValueError(f"capacities of memory {name!r} must have bits and pj, not {entry!r}")
        pairs.append((_whole(entry["bits"], name, "bits"), float(entry["pj"])))
    grows = all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(pairs))
    if len(pairs) < 2 or not grows:
        raise ValueError(
            f"capacities of memory {name!r} must be two or more, each larger than the one before, "
            f"not {entries!r}"
        )
    return pairs


def _points(data: Mapping[str, Any], name: str, key: str) -> list[dict[str, Any]]:
    """Figures of the sources: a table each with rows, width and source."""
    points = data.get(key, [])
    if not isinstance(points, list) or not all(
        isinstance(point, dict) and {"rows", "width", "source"} <= set(point) for point in points
    ):
        raise ValueError(f"{key} of memory {name!r} must be tables with rows, width and source")
    return points


def _whole(value: Any, name: str, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} of memory {name!r} must be a whole number above 0, not {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
