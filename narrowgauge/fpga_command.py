"""``narrowgauge fpga``: what a design takes of an FPGA, and the frequency that it reaches there."""

import contextlib
import dataclasses
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import click

from narrowgauge import errors
from narrowgauge.options import hardware, positive

__all__ = ["fpga", "print_fpga"]

EXAMPLES = """\b
Examples:
  narrowgauge fpga fixed-mac --fpga ice40
  narrowgauge fpga dybit-array dybit4 --fpga ecp5 --rows 8 --cols 8 --frequency
  narrowgauge fpga fixed-mac --fpga ice40 --device up5k --frequency --seeds 5
  narrowgauge fpga fifo.sv --top fifo --fpga xilinx

--frequency needs nextpnr: pip install 'narrowgauge[fpga]'.  See docs/fpga.md.
"""

#: What is counted, and how tables call it.
HEADINGS = {
    "luts": "LUTs",
    "flip_flops": "flip-flops",
    "carries": "carry cells",
    "lut_rams": "LUT RAMs",
    "block_rams": "block RAMs",
    "dsps": "DSPs",
}

LABEL = 16


@click.command(short_help="LUTs, flip-flops, memories and MHz on an FPGA.", epilog=EXAMPLES)
@click.argument("words", nargs=-1, required=True, metavar="DESIGN [SPEC] | FILES...")
@click.option("--top", help="Top module of FILES in Verilog or SystemVerilog.")
@click.option(
    "--fpga", "family", required=True, metavar="ice40|ecp5|xilinx", help="Family to map to."
)
@click.option(
    "--device",
    help="ice40: hx8k or up5k, the one with DSPs; ecp5: 25k, 45k or 85k; xilinx: a35t, a100t or "
    "a200t.  The first is the default.",
)
@click.option("--flat", is_flag=True, help="Map all modules together, not each by itself.")
@click.option("--frequency", is_flag=True, help="Place and route, for the maximum frequency.")
@click.option(
    "--clock-ns",
    type=float,
    callback=positive,
    default=10.0,
    show_default=True,
    help="Clock period that --frequency aims at.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Of the first placement.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Placements, each with the next seed; the median is stated.",
)
@click.option(
    "--time-limit",
    type=float,
    callback=positive,
    default=600.0,
    show_default=True,
    help="Seconds that reading, mapping and each placement may take.",
)
@hardware()
@click.option("--check", is_flag=True, help="With --frequency: exit with 1 if the clock is missed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-o", "--output", help="Folder for fpga.json and the mapped netlist.")
@click.pass_context
def fpga(
    context: click.Context,
    words: tuple[str, ...],
    top: str | None,
    family: str,
    device: str | None,
    flat: bool,
    frequency: bool,
    clock_ns: float,
    seed: int,
    seeds: int,
    time_limit: float,
    check: bool,
    as_json: bool,
    output: str | None,
    **choices: Any,
) -> int:
    """Map a design to an FPGA family and count what it takes.

    DESIGN is one of those that `narrowgauge formats` lists, SPEC a format of its number system;
    with --top, FILES are any Verilog.
    """
    from narrowgauge.output import result_folder, write_text
    from synth.fpga import FAMILIES, find_device, map_fpga
    from synth.pnr import place_and_route, require_nextpnr

    if check and not frequency:
        raise click.UsageError("--check must come with --frequency", context)
    device, facts = find_device(family, device)
    if frequency:
        require_nextpnr(family)
    with result_folder(output, "fpga") if output else contextlib.nullcontext() as folder:
        if top is None:
            names, verilog, images, top, clock = _design(words, choices)
        else:
            names, verilog, images, clock = _files(words, top, choices, time_limit)
            flat = True  # as all designs of others are read
        netlist = map_fpga(
            verilog,
            top,
            family,
            device=device,
            flat=flat,
            images=images,
            timeout_s=time_limit,
        )
        result = names | {
            "top": top,
            "clock": clock,
            "family": family,
            "device": device,
            "flat": flat,
            "tools": {"yosys": netlist.tool},
            "resources": dataclasses.asdict(netlist.resources),
            "capacity": dataclasses.asdict(facts.capacity),
            "block_ram_bits": FAMILIES[family].block_ram_bits,
            "cells": netlist.cells_by_type,
            "others": netlist.others,
            "modules": [
                {
                    "name": module.name,
                    "instances": module.instances,
                    "resources": dataclasses.asdict(netlist.take(module.cells_by_type)),
                }
                for module in netlist.modules
            ],
            "memories": [dataclasses.asdict(memory) for memory in netlist.memories],
            "frequency": None,
            "command": shlex.join(context.find_root().obj or ["narrowgauge", "fpga"]),
        }
        if frequency:
            target_mhz = 1000 / clock_ns
            runs = [
                place_and_route(
                    netlist,
                    clock=clock,
                    target_mhz=target_mhz,
                    seed=number,
                    timeout_s=time_limit,
                )
                for number in range(seed, seed + seeds)
            ]
            result["tools"]["nextpnr"] = runs[0].tool
            median = statistics.median_low(run.mhz for run in runs)
            result["frequency"] = {
                "mhz": median,
                "target_mhz": target_mhz,
                "met": median >= target_mhz,
                "runs": [_without_tool(run) for run in runs],
            }
        if folder is not None:
            write_text(folder / "fpga.json", json.dumps(result, indent=1) + "\n")
            write_text(folder / f"{top}.json", json.dumps({"modules": netlist.netlist}) + "\n")
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        print_fpga(result)
    missed = check and not result["frequency"]["met"]
    return errors.CHECK_FAILED if missed else errors.DONE


def _design(
    words: Sequence[str], choices: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], dict[str, str], str, str | None]:
    """Verilog of a design of the catalogue: names, modules, memory images, top module, clock."""
    from narrowgauge import catalogue
    from synth.verilog import to_verilog

    name, *rest = words
    if len(rest) > 1:
        raise click.UsageError(
            f"DESIGN and SPEC must be at most two words, not {len(words)}; FILES need --top"
        )
    unit, form, options = catalogue.choose(name, rest[0] if rest else None, choices)
    verilog = to_verilog(unit.build(form, options))
    clock = verilog.clocks[0] if verilog.clocks else None
    names = {"design": unit.name, "spec": str(form), "notes": []}
    return names, verilog.modules, verilog.files, verilog.top, clock


def _files(
    words: Sequence[str], top: str, choices: Mapping[str, Any], time_limit: float
) -> tuple[dict[str, Any], dict[str, str], dict[str, str], str | None]:
    """Verilog of the user: names, text, memory images, clock."""
    from synth.foreign import read_foreign

    for option, value in choices.items():
        if value is not None and value is not False:
            raise ValueError(f"{option} must be left out for files, which have no such option")
    design = read_foreign(words, top, keep_memories=True, timeout_s=time_limit)
    names = {"design": top, "spec": None, "files": list(words), "notes": list(design.notes)}
    return names, {top: design.verilog}, {}, design.clock


def _without_tool(run: Any) -> dict[str, Any]:
    """Fields of a placement; the tool is the same for all."""
    return {name: value for name, value in dataclasses.asdict(run).items() if name != "tool"}


def print_fpga(result: Mapping[str, Any]) -> None:
    """Print what a design takes in 80 columns.

    Parameters
    ----------
    result : dict
        In the form of ``fpga.json``.
    """
    from narrowgauge.table import Column, print_table, print_wrapped, terminal
    from synth.fpga import FAMILIES

    family = FAMILIES[result["family"]]
    device = family.devices[result["device"]]
    console = terminal()
    what = f"{result['design']} for {result['spec']}" if result["spec"] else result["design"]
    how = "all modules together" if result["flat"] else "each module by itself"
    print_wrapped("", f"{what}, module {result['top']}; {family.title}, {device.title}; {how}")
    print_wrapped("", "; ".join(result["tools"].values()))
    click.echo()

    used, capacity = result["resources"], result["capacity"]
    rooms = [
        f"{100 * used[name] / capacity[name]:.1f} % of {capacity[name]}" if capacity[name] else "-"
        for name in HEADINGS
    ]
    print_table(
        console,
        [
            Column(heading="", cells=list(HEADINGS.values()), is_text=True),
            Column(heading="used", cells=[str(used[name]) for name in HEADINGS]),
            Column(heading=f"of the {device.title}", cells=rooms),
        ],
    )
    modules = result["modules"]
    if len(modules) > 1:
        click.echo()
        print_table(
            console,
            [
                Column(heading="module", cells=[each["name"] for each in modules], is_text=True),
                Column(heading="times", cells=[str(each["instances"]) for each in modules]),
                *(
                    Column(
                        heading=heading.replace(" ", "\n").replace("-", "-\n"),
                        cells=[str(each["resources"][name]) for each in modules],
                    )
                    for name, heading in HEADINGS.items()
                    if used[name]
                ),
            ],
        )
    memories = result["memories"]
    if memories:
        click.echo()
        print_table(
            console,
            [
                Column(heading="memory", cells=[each["name"] for each in memories], is_text=True),
                Column(heading="times", cells=[str(each["instances"]) for each in memories]),
                Column(heading="bits", cells=[str(each["bits"]) for each in memories]),
                Column(heading="is", cells=[each["kind"] for each in memories], is_text=True),
            ],
        )
    click.echo()
    _print_lines(result)


def _print_lines(result: Mapping[str, Any]) -> None:
    """Print cells, notes and frequency."""
    from narrowgauge.table import print_wrapped

    def line(label: str, text: str) -> None:
        print_wrapped(f"{label:<{LABEL}}", text)

    line("cells", ", ".join(f"{name} {count}" for name, count in result["cells"].items()))
    if result["others"]:
        line("not counted", ", ".join(result["others"]))
    for note in result["notes"]:
        line("note", note)
    frequency = result["frequency"]
    if frequency is None:
        return
    runs = sorted(frequency["runs"], key=lambda run: float(run["mhz"]))
    spread = (
        f", median of {len(runs)} seeds, {runs[0]['mhz']:.1f} to {runs[-1]['mhz']:.1f}"
        if len(runs) > 1
        else f", seed {runs[0]['seed']}"
    )
    verdict = "met" if frequency["met"] else "MISSED"
    line(
        "frequency",
        f"{frequency['mhz']:.1f} MHz at most{spread}; {frequency['target_mhz']:g} MHz {verdict}",
    )
    path = next(run for run in runs if run["mhz"] == frequency["mhz"])
    line(
        "critical path",
        f"{path['kind']}, {1000 / path['mhz']:.2f} ns: {path['cells']} cells and registers "
        f"{path['logic_ns']:.2f} ns, routing {path['routing_ns']:.2f} ns",
    )
    sites = ", ".join(f"{site} {used} of {room}" for site, (used, room) in path["used"].items())
    line("with harness", sites)
