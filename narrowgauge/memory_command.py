"""``narrowgauge memory``: what a memory of some size costs, and where the figures are from."""

import dataclasses
import json
import re

import click

__all__ = ["memory"]

EXAMPLES = """\b
Examples:
  narrowgauge memory 1024x64
  narrowgauge memory 256x32 --library sky130 --json
  narrowgauge memory 4096x128 --library my_cells.lib --memory horowitz2014
"""

SIZE = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")


@click.command(short_help="Energy, leakage, area and delay of a memory.", epilog=EXAMPLES)
@click.argument("size", metavar="ROWSxBITS")
@click.option(
    "--library",
    default="nangate45",
    show_default=True,
    help="Built-in cell library, or Liberty files (also .gz) with commas between.",
)
@click.option(
    "--memory",
    "name",
    metavar="MODEL",
    help="Model: nangate45, sky130, asap7 (that of the library's technology if left out), "
    "horowitz2014, jouppi2021, or a .toml file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def memory(size: str, library: str, name: str | None, as_json: bool) -> None:
    """Tell what a memory of ROWS words of BITS costs, and where the figures are from.

    A large one is several macros, a small one is registers of the library.
    """
    from narrowgauge.memories import memory_facts
    from narrowgauge.table import figure, print_wrapped
    from synth.library import load
    from synth.memory import choose_model, memory_cost

    match = SIZE.fullmatch(size)
    if match is None or 0 in (rows := int(match[1]), width := int(match[2])):
        raise ValueError(f"size must be ROWSxBITS, such as 1024x64, not {size!r}")
    cells = load(library)
    model = choose_model(name, cells)
    if model is None:
        raise ValueError(
            f"memory must name a model for the library {cells.name}, not {name or 'left out'}"
        )
    cost = memory_cost(model, cells, rows, width)
    if as_json:
        facts = memory_facts(model, None)["model"]
        click.echo(
            json.dumps(
                {
                    "rows": rows,
                    "row_bits": width,
                    "library": {"name": cells.name, "version": cells.version},
                    **dataclasses.asdict(cost),
                    "model": facts,
                },
                indent=1,
            )
        )
        return
    macros = cost.across * cost.down
    made = "registers" if cost.kind == "registers" else f"{macros} macro{'s' * (macros > 1)}"
    for label, text in (
        ("memory", f"{rows} rows of {width} bits, {made}"),
        ("read", f"{figure(cost.read_pj)} pJ"),
        ("write", f"{figure(cost.write_pj)} pJ"),
        ("leakage", _with_unit(cost.leakage_uw, "uW")),
        ("area", _with_unit(cost.area_um2, "um2")),
        ("access", _with_unit(cost.access_ns, "ns")),
    ):
        click.echo(f"{label:<10} {text}")
    if cost.kind == "registers":
        print_wrapped(f"{'cells':<11}", cost.source)
        return
    print_wrapped(f"{'model':<11}", f"{model.name}: {model.title}")
    if not cost.in_range:
        print_wrapped(f"{'mind':<11}", "no point of this size; the form goes on beyond its points")
    if model.note:
        print_wrapped(f"{'note':<11}", model.note)
    for source in model.sources.values():
        place = [source[key] for key in ("repository", "path") if key in source]
        place += [f"licence: {source['licence']}"] if "licence" in source else []
        print_wrapped(f"{'source':<11}", "; ".join([source["text"], *place]))


def _with_unit(value: float | None, unit: str) -> str:
    """Text of a figure; "not stated" where a model has none."""
    from narrowgauge.table import figure

    return "not stated" if value is None else f"{figure(value)} {unit}"
