"""``narrowgauge timing``: the critical path of a design, cell by cell."""

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import click

from narrowgauge import errors, options

if TYPE_CHECKING:
    from synth.timing import Timing

__all__ = ["timing"]

EXAMPLES = """\b
Examples:
  narrowgauge timing fixed-mac
  narrowgauge timing tapered-mac tapered8:runs=4-7 --library asap7 --clock-ns 0.6
  narrowgauge timing fixed-array --pipelined --clock-ns 1 --all --check
"""

#: Rows and columns of an array: paths end at the registers of a processing element.
ARRAY_SIZE = 2


@click.command(short_help="Print the critical path of a design cell by cell.", epilog=EXAMPLES)
@click.argument("design")
@click.argument("spec", required=False)
@click.option(
    "--library",
    default="nangate45",
    show_default=True,
    help="Built-in cell library, or Liberty files (also .gz) with commas between.",
)
@click.option(
    "--clock-ns",
    type=float,
    default=2.0,
    show_default=True,
    help="Clock period that the design is mapped for.",
)
@click.option(
    "--wire-cap-ff",
    type=float,
    default=0.0,
    show_default=True,
    help="Capacitance of the wire to every pin, in fF.",
)
@options.clock_gating
@options.hardware(ARRAY_SIZE)
@click.option("--module", help="Module of the design to map instead of all of it.")
@click.option("--all", "all_kinds", is_flag=True, help="The longest path of each kind.")
@click.option("--check", is_flag=True, help="Exit with 1 if the clock is missed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def timing(
    design: str,
    spec: str | None,
    library: str,
    clock_ns: float,
    wire_cap_ff: float,
    clock_gating: int | None,
    module: str | None,
    all_kinds: bool,
    check: bool,
    as_json: bool,
    **choices: Any,
) -> int:
    """Map a design for a clock and print its critical path cell by cell.

    DESIGN is one of those that `narrowgauge formats` lists, SPEC a format of its number system; it
    is mapped as a whole, or the --module alone.
    """
    from narrowgauge import catalogue
    from synth.library import load
    from synth.timing import analyse
    from synth.verilog import to_verilog
    from synth.yosys import map_netlist, yosys_version

    if not 0 < clock_ns < math.inf:
        raise ValueError(f"clock_ns must be a positive number, not {clock_ns:g}")
    if not 0 <= wire_cap_ff < math.inf:
        raise ValueError(f"wire_cap_ff must be a number of 0 or more, not {wire_cap_ff:g}")
    unit, form, chosen = catalogue.choose(design, spec, choices, rows=ARRAY_SIZE, cols=ARRAY_SIZE)
    cells = load(library)
    verilog = to_verilog(unit.build(form, chosen))
    top = verilog.top if module is None else module
    if top not in verilog.modules:
        raise ValueError(f"module must be one of {', '.join(verilog.modules)}, not {top!r}")
    mapped = map_netlist(
        verilog.modules,
        top,
        cells,
        clock_ns=clock_ns,
        wire_cap_ff=wire_cap_ff,
        clock_gating=clock_gating,
    )
    result = analyse(mapped.module, cells, wire_cap_ff=wire_cap_ff)
    slack_ns = result.slack_ns(clock_ns)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "design": unit.name,
                    "spec": str(form),
                    "module": top,
                    "library": {"name": cells.name, "version": cells.version},
                    "tools": {"yosys": yosys_version()},
                    "clock_ns": clock_ns,
                    "wire_cap_ff": wire_cap_ff,
                    "clock_gating": clock_gating,
                    "critical_path_ns": result.critical_path_ns,
                    "max_frequency_mhz": _frequency(result),
                    "slack_ns": slack_ns,
                    "met": slack_ns >= 0,
                    "paths": [
                        dataclasses.asdict(path) | {"delay_ns": path.delay_ns}
                        for path in result.paths.values()
                    ],
                },
                indent=1,
            )
        )
    else:
        click.echo(
            f"{unit.name} for {form}, module {top}; {cells.name} at {cells.voltage_v:g} V and "
            f"{cells.temperature_c:g} C; {yosys_version()}"
        )
        _print_paths(result, all_kinds=all_kinds)
        click.echo(_verdict(result, clock_ns))
    return errors.CHECK_FAILED if check and slack_ns < 0 else errors.DONE


def _frequency(result: "Timing") -> float | None:
    return result.max_frequency_mhz if result.critical_path_ns else None


def _print_paths(result: "Timing", *, all_kinds: bool) -> None:
    """Print one path of each kind, or the critical one alone; times in ns, loads in fF."""
    critical = result.critical_path
    if critical is None:
        click.echo("\nno path: nothing depends on an input or a register")
        return
    for path in result.paths.values() if all_kinds else [critical]:
        click.echo(f"\n{path.kind}, {path.delay_ns:.4f} ns; times in ns, loads in fF")
        click.echo(path.table())
    click.echo()


def _verdict(result: "Timing", clock_ns: float) -> str:
    """Say whether the clock is met, and what the fastest one is."""
    slack_ns = result.slack_ns(clock_ns)
    frequency = _frequency(result)
    most = f"; {frequency:.0f} MHz at most" if frequency else ""
    if slack_ns >= 0:
        return f"clock of {clock_ns:g} ns met, slack {slack_ns:.4f} ns{most}"
    return (
        f"clock of {clock_ns:g} ns MISSED by {-slack_ns:.4f} ns: "
        f"no attempt of the recipe meets it{most}"
    )
