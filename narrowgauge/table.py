"""Tables for the terminal: number systems, codes of a format, and comparisons.

Everything fits the width of the terminal, 80 columns in a pipe; where the columns of a comparison
do not, the rest of them follows below.
"""

import csv
import io
import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from golden.spec import Spec
from narrowgauge.rows import factors, marks, memory_kinds, rows_with_measured, share

__all__ = [
    "NONE",
    "PARTS",
    "Column",
    "aligned",
    "codes_csv",
    "codes_json",
    "comparison_heading",
    "comparison_notes",
    "figure",
    "finite",
    "parts",
    "print_codes",
    "print_comparison",
    "print_formats",
    "print_table",
    "print_wrapped",
    "terminal",
]

#: Formats of up to so many codes are printed in full; of wider ones so many codes of either end.
FULL_CODES = 256
END_CODES = 16

#: Most decimals of a value in a table of codes; values that need more are in scientific notation.
MAX_DECIMALS = 16

#: Columns of a format's name in a comparison, which leave room for all figures in 80.
NAME_WIDTH = 18

#: Spaces between columns, and between two tables of codes side by side.
GAP = 2
BLOCK_GAP = 2

#: Parts of a circuit in the order of the data; others come after them.
PARTS = (
    "decode",
    "multiply",
    "accumulate",
    "registers",
    "encode",
    "clock",
    "control",
    "memory",
    "leakage",
)

#: Short headings for the parts of an energy.
PART_HEADINGS = {
    "accumulate": "accum.",
    "leakage": "leak",
    "memory": "mem.",
    "multiply": "mult.",
    "registers": "regs",
}

#: Headings for what memories hold.
MEMORY_HEADINGS = {
    "activations": "\nactiv.",
    "weights": "\nweights",
    "sums": "\nsums",
    "results": "\nresults",
}

#: Said where memories have no figures.
MEMORY_LEFT_OUT = "Memories on the chip are not counted; --memory names a model of them."

#: Cells of a missing figure.
NONE = "-"


class _Terminal(Console):
    """Console that leaves a closed pipe to the caller."""

    def on_broken_pipe(self) -> None:
        """Raise the ``BrokenPipeError`` again that is being handled."""
        raise


def terminal(width: int | None = None, *, stderr: bool = False) -> Console:
    """Make a console that prints text as it is; colours only where it is a terminal.

    Parameters
    ----------
    width : int, optional
        Columns; those of the terminal, or of the environment variable ``COLUMNS``, or 80.
    stderr : bool
        Whether it prints to standard error.
    """
    return _Terminal(width=width, stderr=stderr, markup=False, highlight=False, emoji=False)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    heading : str
        One or more lines.
    cells : sequence of str
        One for each row.
    is_text : bool
        Text is left-aligned and may be wrapped; figures are right-aligned and never cut.
    """

    heading: str
    cells: Sequence[str]
    is_text: bool = False

    @property
    def width(self) -> int:
        """Columns of the terminal that the longest cell takes."""
        texts = (self.heading, *self.cells)
        return max(cell_len(line) for text in texts for line in text.split("\n"))


def print_table(console: Console, columns: Sequence[Column]) -> None:
    """Print a table, as two or more with the first column repeated if it is too wide.

    Parameters
    ----------
    console : Console
        Where to.
    columns : sequence of Column
        The first one names the rows.
    """
    key, rest = columns[0], list(columns[1:])
    # At least half of the width is left for figures.
    key_width = min(key.width, max(console.width // 2, 8))
    while rest:
        room, count = console.width - key_width, 0
        while count < len(rest):
            column = rest[count]
            room -= GAP + (min(column.width, 8) if column.is_text else column.width)
            if room < 0 and count > 0:
                break
            count += 1
        _print_columns(console, [key, *rest[:count]], key_width)
        rest = rest[count:]
        if rest:
            console.print()


def _print_columns(console: Console, columns: Sequence[Column], key_width: int) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(
            column.heading,
            justify="left" if column.is_text else "right",
            vertical="top",
            no_wrap=not column.is_text,
            overflow="fold",
            min_width=None if column.is_text else column.width,
            width=key_width if number == 0 else None,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    console.print(table)


def print_wrapped(label: str, text: str, width: int = 80) -> None:
    """Print a text behind its label, over several lines if need be.

    Parameters
    ----------
    label : str
        Start of the first line; the others are indented as far.
    text : str
        The rest, which is broken between words.
    width : int
        Columns.
    """
    room = width - len(label)
    lines: Sequence[str] = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
    for index, part in enumerate(lines):
        click.echo((label if index == 0 else " " * len(label)) + part)


def figure(value: float | None, digits: int = 3) -> str:
    """Text of one figure with so many significant digits, never in scientific notation."""
    return aligned([value], digits)[0]


def aligned(values: Iterable[float | None], digits: int) -> list[str]:
    """Texts of a column of figures with the same number of decimals.

    Parameters
    ----------
    values : iterable of float or None
        None, infinity and NaN are no figures.
    digits : int
        Significant digits of the largest.
    """
    figures = [finite(value) for value in values]
    largest = max((abs(value) for value in figures if value is not None), default=0.0)
    decimals = digits - 1 - math.floor(math.log10(largest)) if largest else 0
    return [_decimal(value, max(decimals, 0)) for value in figures]


def finite(value: float | None) -> float | None:
    """``value``, or None if it is infinite or not a number."""
    return value if value is not None and math.isfinite(value) else None


def _decimal(value: float | None, decimals: int) -> str:
    return NONE if value is None else f"{value:.{decimals}f}"


# Number systems and designs.


def print_formats(console: Console, listing: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print the number systems and the designs.

    Parameters
    ----------
    console : Console
        Where to.
    listing : dict
        As ``narrowgauge formats --json`` prints it.
    """

    def column(heading: str, kind: str, key: str) -> Column:
        cells = [entry[key] for entry in listing[kind]]
        texts = [cell if isinstance(cell, str) else ", ".join(cell) for cell in cells]
        return Column(heading=heading, cells=texts, is_text=True)

    print_table(
        console,
        [
            column("system", "formats", "stem"),
            column("number system", "formats", "title"),
            column("example", "formats", "example"),
            column("parameters", "formats", "parameters"),
        ],
    )
    console.print()
    print_table(
        console,
        [
            column("design", "designs", "name"),
            column("what it is", "designs", "description"),
            column("presets", "designs", "presets"),
        ],
    )


# Codes of a format.


def codes_csv(spec: Spec) -> str:
    """All codes of a format as comma-separated values with a heading."""
    columns = spec.code_table()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def codes_json(spec: Spec) -> str:
    """All codes of a format as JSON, one code to a line."""
    columns = spec.code_table()
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    lines = ",\n".join(json.dumps(row) for row in rows)
    bits = len(columns["binary"][0])
    return f'{{"spec": {json.dumps(str(spec))}, "bits": {bits}, "codes": [\n{lines}\n]}}\n'


def print_codes(console: Console, spec: Spec) -> None:
    """Print the codes of a format: all up to 8 bits, else the first and the last ones.

    Parameters
    ----------
    console : Console
        Where to.
    spec : ElementSpec
        The format.
    """
    columns = spec.code_table()
    values = sorted(set(columns["value"]))
    steps = np.diff(values)
    apart = " to ".join(dict.fromkeys(f"{step:.12g}" for step in (steps.min(), steps.max())))
    console.print(
        f"{spec}: {len(values)} values from {values[0]:.12g} to {values[-1]:.12g}, {apart} apart"
    )
    console.print()
    del columns["code"]
    count = len(columns["value"])
    if count <= FULL_CODES:
        _print_blocks(console, columns)
        return
    head = {name: cells[:END_CODES] for name, cells in columns.items()}
    tail = {name: cells[-END_CODES:] for name, cells in columns.items()}
    both = {name: [*head[name], *tail[name]] for name in columns}
    lines = _code_lines(both)
    left_out = count - 2 * END_CODES
    for line in [*lines[: 1 + END_CODES], f"... {left_out} more with --csv or --json ..."]:
        console.print(line, soft_wrap=True)
    for line in lines[1 + END_CODES :]:
        console.print(line, soft_wrap=True)


def _print_blocks(console: Console, columns: Mapping[str, list[Any]]) -> None:
    """Print a table as several beside each other, as many as fit; it goes on at the top of each."""
    heading, *lines = _code_lines(columns)
    fitting = max(1, (console.width + BLOCK_GAP) // (len(heading) + BLOCK_GAP))
    height = math.ceil(len(lines) / fitting)
    blocks = [lines[start : start + height] for start in range(0, len(lines), height)]
    gap = " " * BLOCK_GAP
    console.print(gap.join([heading] * len(blocks)), style="bold", soft_wrap=True)
    for row in range(height):
        cells = [block[row] for block in blocks if row < len(block)]
        console.print(gap.join(cells), soft_wrap=True)


def _code_lines(columns: Mapping[str, list[Any]]) -> list[str]:
    """Lines of a table of codes, the heading first, all of one length."""
    texts = {}
    for name, cells in columns.items():
        heading = {"integer": "int", "fraction": "frac", "significand": "sig"}.get(name, name)
        is_float = name in ("value", "fraction")
        shown = _decimals(cells) if is_float else [str(cell) for cell in cells]
        width = max(map(len, [heading, *shown]))
        texts[name] = [text.rjust(width) for text in (heading, *shown)]
    return [" ".join(row) for row in zip(*texts.values(), strict=True)]


def _decimals(values: Iterable[float]) -> list[str]:
    """Exact decimal fractions, all with the decimals that the finest needs."""
    exact = [float(value) for value in values]
    # A multiple of 2**-k that is none of 2**-(k - 1) has exactly k decimals.
    needed = max((value.as_integer_ratio()[1].bit_length() - 1 for value in exact), default=0)
    if needed > MAX_DECIMALS:
        return [repr(value) for value in exact]
    return [f"{value:.{needed}f}" for value in exact]


# Comparisons.


def parts(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Names of all parts that occur in a breakdown of any row, in the order of :data:`PARTS`.

    Parameters
    ----------
    rows : sequence of dict
        Rows of a comparison.
    key : str
        ``"area_breakdown_um2"`` or ``"energy_breakdown_pj"``.
    """
    found = dict.fromkeys(name for row in rows for name in row[key])
    return [name for name in PARTS if name in found] + [name for name in found if name not in PARTS]


def print_comparison(console: Console, result: Mapping[str, Any]) -> None:
    """Print the tables of a comparison.

    Parameters
    ----------
    console : Console
        Where to.
    result : dict
        In the form of ``compare.json``.
    """
    rows = rows_with_measured(result)
    for line in comparison_heading(result):
        console.print(line)
    console.print()

    areas = [row["area_um2"] for row in rows]
    densities = [row["area_per_mac_um2"] for row in rows]
    energies = [row["energy_per_mac_pj"] for row in rows]
    names = [_broken(row["spec"]) + "".join(f"\n {mark}" for mark in marks(row)) for row in rows]
    key = Column(heading="\nformat", cells=names, is_text=True)

    def figures(heading: str, values: Iterable[float | None], digits: int) -> Column:
        return Column(heading=heading, cells=aligned(values, digits))

    def ratios(values: Sequence[float | None], heading: str) -> Column:
        return Column(heading=heading, cells=[_decimal(ratio, 2) for ratio in factors(values)])

    print_table(
        console,
        [
            key,
            figures("accur.\n%", [row["accuracy"] for row in rows], 4),
            figures("SQNR\ndB", [row["sqnr_db"] for row in rows], 3),
            Column(heading="MAC\n/clk", cells=[_count(row["macs_per_cycle"]) for row in rows]),
            figures("area\nk um2", [area / 1000 for area in areas], 4),
            ratios(densities, "x per\nMAC"),
            figures("energy\npJ/MAC", energies, 4),
            ratios(energies, "\nx"),
            figures("delay\nns", [row["critical_path_ns"] for row in rows], 3),
            figures("leak\nuW", [row["leakage_uw"] for row in rows], 3),
        ],
    )

    delayed = [row["energy_with_glitches_per_mac_pj"] for row in rows]
    if any(energy is not None for energy in delayed):
        console.print("\nEnergy with glitches, which the other tables leave out")
        added = [
            None if most is None or energy is None else 100 * (most / energy - 1)
            for most, energy in zip(delayed, energies, strict=True)
        ]
        print_table(
            console,
            [
                Column(heading="\nformat", cells=key.cells, is_text=True),
                figures("settled\npJ/MAC", energies, 4),
                ratios(energies, "\nx"),
                figures("with them\npJ/MAC", delayed, 4),
                ratios(delayed, "\nx"),
                Column(heading="more\n%", cells=[_decimal(value, 1) for value in added]),
            ],
        )

    console.print("\nWhere the energy goes, %")
    part_names = parts(rows, "energy_breakdown_pj")
    shares = [
        Column(
            heading=PART_HEADINGS.get(name, name),
            cells=[
                NONE if energy is None or part is None else _decimal(100 * part / energy, 1)
                for part, energy in zip(
                    [share(row, "energy_breakdown_pj", name) for row in rows], energies, strict=True
                )
            ],
        )
        for name in part_names
    ]
    print_table(console, [Column(heading="format", cells=key.cells, is_text=True), *shares])

    _print_memories(console, result, rows, key.cells)

    notes = comparison_notes(result)
    if notes:
        console.print()
    for note in notes:
        console.print(note)


def _print_memories(
    console: Console,
    result: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
) -> None:
    """Print what memories beside the logic cost, which no other table has in it."""
    known = [
        (name, row)
        for name, row in zip(names, rows, strict=True)
        if row["memory_energy_per_mac_pj"] is not None
        or row["off_chip_energy_per_mac_pj"] is not None
    ]
    model, beyond = result["memory"]["model"], result["memory"]["off_chip"]
    if not known:
        if model is None and any(row["memories"] for row in rows):
            console.print(f"\n{MEMORY_LEFT_OUT}")
        return
    console.print("\nMemories beside the logic, pJ per MAC, in no figure above")
    sources = [f"model {model['name']}"] if model else []
    if beyond:
        sources.append(f"off chip {beyond['name']}, {beyond['pj_per_bit']:.3g} pJ a bit")
    console.print("; ".join(sources))
    figures = [
        *memory_kinds([row for _, row in known]).items(),
        ("all of\nthem", [row["memory_energy_per_mac_pj"] for _, row in known]),
        ("off\nchip", [row["off_chip_energy_per_mac_pj"] for _, row in known]),
        ("area\nk um2", [_thousandth(row["memory_area_um2"]) for _, row in known]),
    ]
    print_table(
        console,
        [
            Column(heading="\nformat", cells=[name for name, _ in known], is_text=True),
            *(
                Column(
                    heading=MEMORY_HEADINGS.get(heading, heading),
                    cells=aligned(values, 3),
                )
                for heading, values in figures
                if any(value is not None for value in values)
            ),
        ],
    )
    if model is None:
        console.print(MEMORY_LEFT_OUT)
    every = [memory for _, row in known for memory in row["memories"]]
    beyond_points = sum(memory["in_range"] is False for memory in every)
    if beyond_points:
        console.print(
            f"{beyond_points} of {len(every)} memories are of sizes for which the model's sources "
            "have no points; the report marks them."
        )


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000


def _count(value: float | None) -> str:
    """Text of a number of things, which a design that does not belong to us may have a part of."""
    return NONE if value is None else f"{value:g}"


def _broken(name: str) -> str:
    """Format string of at most NAME_WIDTH columns to a line, if a colon or comma permits."""
    lines = [""]
    for part in re.split(r"(?<=[:,])", name):
        if lines[-1] and len(lines[-1]) + len(part) > NAME_WIDTH:
            lines.append(" ")
        lines[-1] += part
    return "\n".join(lines)


def comparison_heading(result: Mapping[str, Any]) -> list[str]:
    """Say what was compared, on what and with what."""
    network, library = result["network"], result["library"]
    settings, tools = result["settings"], result["tools"]
    accuracy = network["float_accuracy"]
    measured = "" if accuracy is None else f"{accuracy:.2f} % in float32 on "
    versions = [_tool(name, tools[name]) for name in ("narrowgauge", "yosys") if name in tools]
    fewest = settings["clock_gating"]
    gates = f"clock gates for {fewest} registers and more with a common enable"
    return [
        (
            f"{network['name']}: {measured}{network['images']} images of "
            f"{network['macs_per_image']} multiply-accumulates (MAC)"
        ),
        (
            f"{settings['rows']}x{settings['cols']} arrays, {settings['clock_ns']:g} ns clock, "
            f"dot products of up to {settings['length']}, seed {settings['seed']}"
        ),
        (
            f"{library['name']} at {library['voltage_v']:g} V and "
            f"{library['temperature_c']:g} C; {', '.join(versions)}"
        ),
        *([] if fewest is None else [gates]),
        *(["energy and leakage by the states of cells that occur"] if settings["states"] else []),
    ]


def comparison_notes(result: Mapping[str, Any]) -> list[str]:
    """Say what a reader of the rows must know of single ones."""
    rows = rows_with_measured(result)
    return [f"{row['spec']}: {row['note']}" for row in rows if row["note"]]


def _tool(name: str, version: str) -> str:
    """Name and version of a tool, whose version may say its name already."""
    return version if version.casefold().startswith(name.casefold()) else f"{name} {version}"
