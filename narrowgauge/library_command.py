"""``narrowgauge library``: list, show and import cell libraries."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from synth.cells import Cell, CellLibrary

__all__ = ["library", "library_facts"]

#: Cells that are shown, by what they compute; of several forms the first that the library has.
SHOWN: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("inverter", (("!A",),)),
    ("nand2", (("!(A&B)",),)),
    ("full adder", (("A^B^C", "A&B|A&C|B&C"), ("!(A^B^C)", "!(A&B|A&C|B&C)"))),
    ("half adder", (("A^B", "A&B"), ("!(A^B)", "!(A&B)"))),
)

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")

PS_PER_NS = 1e3
FJ_PER_PJ = 1e3


def library_facts(cells: "CellLibrary") -> dict[str, Any]:
    """Facts of a library in a form that JSON can hold.

    Parameters
    ----------
    cells : CellLibrary
        Library.

    Returns
    -------
    dict
        Its origin and corner; ``cells`` counted by kind; ``left_out`` counted by reason;
        ``fo4_delay_ps`` and ``fo4_slew_ps`` of inverters that each drive four like themselves;
        and ``examples``, of each kind in :data:`SHOWN` and of flip-flops the smallest cell:
        area in um2, leakage in nW, delay in ps and energy in fJ per transition of an output
        (means over all arcs, both edges and all outputs, at the slew and the load of a fan-out of
        four, without the energy of the load), and energy in fJ at the clock pin per period.
    """
    from synth.library import smallest_cell

    fields = ("name", "version", "source", "licence", "voltage_v", "temperature_c", "digest")
    facts: dict[str, Any] = {field: getattr(cells, field) for field in fields}
    facts["cells"] = dict(sorted(Counter(cell.kind for cell in cells.cells.values()).items()))
    reasons = Counter(note.split(" left out: ", 1)[-1] for note in cells.notes)
    facts["left_out"] = dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])))
    facts["fo4_delay_ps"] = cells.fo4_delay_ns * PS_PER_NS
    facts["fo4_slew_ps"] = cells.fo4_slew_ns * PS_PER_NS
    examples = {}
    for kind, forms in SHOWN:
        found = [cell for form in forms if (cell := smallest_cell(cells, *form)) is not None]
        if found:
            examples[kind] = _example(found[0], cells)
    examples["flip-flop"] = _example(cells.plain_flip_flops[0], cells)
    facts["examples"] = examples
    return facts


def _example(cell: "Cell", cells: "CellLibrary") -> dict[str, Any]:
    slew, load = cells.fo4_slew_ns, cells.fo4_load_ff
    delays = [
        table.value(slew, load)
        for arc in cell.arcs
        for table in (arc.delay_rise, arc.delay_fall)
        if table is not None
    ]
    energies = [cell.transition_energy(pin, None, slew, load) for pin in cell.outputs]
    return {
        "cell": cell.name,
        "area_um2": cell.area_um2,
        "delay_ps": PS_PER_NS * sum(delays) / max(len(delays), 1),
        "energy_fj": FJ_PER_PJ * sum(energies) / len(energies),
        "clock_fj": FJ_PER_PJ * cell.clock_energy(slew) if cell.ff is not None else None,
        "leakage_nw": cell.leakage_nw,
    }


def _print_facts(facts: dict[str, Any]) -> None:
    from narrowgauge.table import NONE, figure

    def line(key: str, value: str) -> None:
        click.echo(f"{key:<12} {value}")

    line("name", facts["name"])
    for key in ("version", "source", "licence"):
        line(key, facts[key] or "not stated")
    line("corner", f"{facts['voltage_v']:g} V, {facts['temperature_c']:g} C")
    line("digest", facts["digest"])
    counts = ", ".join(f"{count} {kind}" for kind, count in facts["cells"].items())
    line("cells", f"{sum(facts['cells'].values())}: {counts}")
    _print_left_out(facts["left_out"])
    line("FO4", f"delay {facts['fo4_delay_ps']:.4g} ps, slew {facts['fo4_slew_ps']:.4g} ps")
    rows = [("", "um2", "ps", "fJ", "clock fJ", "leak nW", "cell")]
    for kind, example in facts["examples"].items():
        numbers = [
            example[key] for key in ("area_um2", "delay_ps", "energy_fj", "clock_fj", "leakage_nw")
        ]
        cells = [NONE if number is None else figure(number) for number in numbers]
        rows.append((kind, *cells, example["cell"]))
    click.echo()
    for first, *numbers, last in rows:
        click.echo(f"{first:<12}" + "".join(f"{cell:>10}" for cell in numbers) + f"  {last}")


def _print_left_out(reasons: dict[str, int]) -> None:
    if reasons:
        texts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        click.echo(f"{'left out':<12} {sum(reasons.values())}: {texts}")


@click.group()
def library() -> None:
    """List, show and import cell libraries."""


@library.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_libraries(as_json: bool) -> None:
    """List the built-in libraries."""
    from synth.library import built_in, load

    found = [load(name) for name in built_in()]
    if as_json:
        fields = ("name", "version", "source", "licence", "voltage_v", "temperature_c")
        listing = [
            {field: getattr(cells, field) for field in fields} | {"cells": len(cells.cells)}
            for cells in found
        ]
        click.echo(json.dumps(listing, indent=1))
        return
    for cells in found:
        click.echo(
            f"{cells.name:<12}{cells.voltage_v:g} V  {cells.temperature_c:g} C  "
            f"{len(cells.cells)} cells  {cells.source}"
        )


@library.command("show")
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(names: tuple[str, ...], as_json: bool) -> None:
    """Show facts of a library.

    It is a built-in one, or made of the files that are given.
    """
    from synth.library import load

    facts = library_facts(load(names[0] if len(names) == 1 else names))
    if as_json:
        click.echo(json.dumps(facts, indent=1))
    else:
        _print_facts(facts)


@library.command(
    "import",
    epilog="""\b
Examples:
  narrowgauge library import my_cells.lib.gz --name mine
  narrowgauge library import simple.lib seq.lib invbuf.lib --name asap7 -o cells/asap7.toml
  narrowgauge compare -o out --library mine.toml
""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--name", required=True, help="Name of the new library.")
@click.option("-o", "--output", help="TOML file to write (NAME.toml); an earlier one is replaced.")
@click.option("--source", help="Where the figures come from (the names of the files).")
@click.option("--licence", default="not stated", show_default=True, help="Terms of the source.")
@click.option("--version", "version", help="Version of the source (what the file says).")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Names of cells not to take, such as '*_dly*'; may be repeated.",
)
def import_command(
    files: Sequence[str],
    name: str,
    output: str | None,
    source: str | None,
    licence: str,
    version: str | None,
    exclude: tuple[str, ...],
) -> None:
    """Make a compact library from Liberty files, which together are one library.

    The files may be compressed by gzip.  Cells that cannot be used are left out, and counted.
    """
    from synth.compact import is_compact
    from synth.library import import_library

    if not NAME.fullmatch(name):
        raise ValueError(
            f"name must be a letter and then letters, digits, '_', '.' or '-', not {name!r}"
        )
    target = Path(output or f"{name}.toml")
    if target.suffix != ".toml":
        raise ValueError(f"output must be a file that ends in .toml, not {str(target)!r}")
    if target.exists() and not is_compact(target):
        raise ValueError(
            f"output must be a new file or an earlier compact library, not {str(target)!r}"
        )
    if not target.parent.is_dir():
        raise ValueError(f"output must be in a folder that exists, not {str(target)!r}")
    imported = import_library(
        [*files],
        target,
        name=name,
        source=source or ", ".join(Path(file).name for file in files),
        licence=licence,
        version=version,
        exclude=exclude,
    )
    _print_facts(library_facts(imported))
    click.echo(f"\n{target}: {target.stat().st_size} bytes")
