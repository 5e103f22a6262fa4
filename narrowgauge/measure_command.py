"""``narrowgauge measure``: any Verilog through the gauge."""

import contextlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narrowgauge import errors
from narrowgauge.options import cell_states, clock_gating, positive

if TYPE_CHECKING:
    from narrowgauge.measure import Bench
    from narrowgauge.stimuli import Stimuli

__all__ = ["measure", "print_measurement"]

EXAMPLES = """\b
Examples:
  narrowgauge measure adder.v --top adder
  narrowgauge measure pkg.sv dot.sv --top dot -P WIDTH=8 -I include
  narrowgauge measure mac.sv --top mac --stimuli operands.npz --reset rst_n=0
  narrowgauge measure mac.sv --top mac --random 1000 --distribution normal \\
      --distribution weights=sparse:8 --set enable=1 --operations 16 -o out

Stimuli are an .npz file with an array of integers for each input, by the name
of the port, one row per cycle: [cycles], or [cycles, numbers] for a port of
several numbers side by side, the first one in the least significant bits.
Clock and resets have none.  See docs/measure.md.
"""

#: Streams of random numbers, if not said otherwise.
RANDOM_STREAMS = 64
RANDOM_CYCLES = 256

LABEL = 18

#: Names that a table, a page and a list of options can hold.
NAME = re.compile(r"[!-~]([ -~]{0,38}[!-~])?")
NAME_RULE = "up to 40 characters of ASCII without spaces at its ends"


def _pairs(
    read: Callable[[str], Any] = str, default: Any = ...
) -> Callable[[click.Context, click.Parameter, Sequence[str]], dict[str, Any]]:
    """Make a callback that turns ``NAME=VALUE`` of an option into a dictionary.

    ``read`` makes a value of a text or raises ``ValueError``; ``default`` is what a name alone
    means, an ellipsis if it means nothing.
    """

    def callback(
        context: click.Context, option: click.Parameter, texts: Sequence[str]
    ) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not name or (not equals and default is ...):
                raise click.BadParameter(f"must be NAME=VALUE, not {text!r}", context, option)
            if name in pairs:
                raise click.BadParameter(f"must be given once for {name!r}", context, option)
            try:
                pairs[name] = read(value) if equals else default
            except ValueError:
                raise click.BadParameter(
                    f"must be a number in range for {name!r}, not {value!r}", context, option
                ) from None
        return pairs

    return callback


def _level(text: str) -> int:
    if text not in ("0", "1"):
        raise ValueError(text)
    return int(text)


def _integer(text: str) -> int:
    return int(text, 0)


def _number(name: str, default: float | None, help_text: str) -> Callable[[Any], Any]:
    return click.option(
        name,
        type=float,
        callback=positive,
        default=default,
        show_default=default is not None,
        help=help_text,
    )


@click.command(
    short_help="Put any Verilog through the same gauge.",
    epilog=EXAMPLES,
)
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option("--top", required=True, help="Top module.")
@click.option("--name", metavar="TEXT", help="What it is called in a comparison (the top module).")
@click.option(
    "-D",
    "--define",
    "defines",
    callback=_pairs(default="1"),
    multiple=True,
    metavar="NAME[=TEXT]",
    help="Define a macro; may be repeated.",
)
@click.option(
    "-I", "--include", "includes", multiple=True, metavar="DIR", help="Folder of included files."
)
@click.option(
    "-P",
    "--parameter",
    "parameters",
    callback=_pairs(),
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of the top module; may be repeated.",
)
@click.option("--standard", help="1364-2005 for sources that use newer keywords as names.")
@click.option(
    "--reader",
    default="slang",
    show_default=True,
    help="Front end: slang, or yosys, which reads Verilog-2005 as it does our own designs.",
)
@click.option("--clock", metavar="PORT", help="The clock, to have it checked; it is found.")
@click.option(
    "--reset",
    "resets",
    callback=_pairs(_level, None),
    multiple=True,
    metavar="PORT[=0|1]",
    help="A reset and its active level; asynchronous ones, and those with rst or reset in their "
    "name, are found.",
)
@click.option(
    "--reset-cycles",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Cycles for which resets are held; they do not count.",
)
@click.option("--stimuli", metavar="FILE.npz", help="What the inputs do; see below.")
@click.option(
    "--random",
    "random_cycles",
    type=click.IntRange(min=1),
    metavar="CYCLES",
    help=f"Random inputs, for so many cycles ({RANDOM_CYCLES}, if there are no stimuli).",
)
@click.option(
    "--distribution",
    "distributions",
    multiple=True,
    metavar="[PORT=]NAME[:BITS]",
    help="Of random numbers: uniform, normal, sparse or counter; BITS of a number, where a port "
    "has several (uniform).",
)
@click.option(
    "--set",
    "constants",
    callback=_pairs(_integer),
    multiple=True,
    metavar="PORT=VALUE",
    help="Keep an input at a value.",
)
@click.option(
    "--streams",
    type=click.IntRange(min=1),
    help=f"Streams side by side, each from reset: random ones ({RANDOM_STREAMS}), or parts of "
    "equal length of the stimuli (1).",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of random numbers."
)
@click.option(
    "--delays",
    default="none",
    show_default=True,
    help="Simulate with unit or library delays, so that glitches count.",
)
@click.option(
    "--glitches",
    is_flag=True,
    help="State the energy with glitches too, by the delays of the library.",
)
@click.option(
    "--hierarchy",
    type=click.IntRange(min=1),
    metavar="LEVELS",
    help="Area and energy of the instances of modules, so many levels deep, in a netlist that is "
    "mapped module by module.",
)
@clock_gating
@cell_states
@click.option(
    "--library",
    default="nangate45",
    show_default=True,
    help="Built-in cell library, or Liberty files (also .gz) with commas between.",
)
@_number("--clock-ns", 2.0, "Clock period that the design is mapped for.")
@_number("--operations", 1.0, "Useful operations in a cycle, for the energy of one.")
@_number("--macs", None, "Multiply-accumulates in a cycle, for the energy and area of one.")
@_number("--time-limit", 300.0, "Seconds that reading, and mapping, may each take.")
@click.option("--check", is_flag=True, help="Exit with 1 if the clock is missed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-o", "--output", help="Folder for measure.json and the mapped netlist.")
@click.pass_context
def measure(
    context: click.Context,
    files: tuple[str, ...],
    top: str,
    name: str | None,
    defines: dict[str, str],
    includes: tuple[str, ...],
    parameters: dict[str, str],
    standard: str | None,
    reader: str,
    clock: str | None,
    resets: dict[str, int | None],
    reset_cycles: int,
    stimuli: str | None,
    random_cycles: int | None,
    distributions: tuple[str, ...],
    constants: dict[str, int],
    streams: int | None,
    seed: int,
    delays: str,
    clock_gating: int | None,
    states: bool,
    glitches: bool,
    hierarchy: int | None,
    library: str,
    clock_ns: float,
    operations: float,
    macs: float | None,
    time_limit: float,
    check: bool,
    as_json: bool,
    output: str | None,
) -> int:
    """Measure area, delay and energy of any Verilog or SystemVerilog.

    FILES hold the design, combinational or with one clock.  It is flattened, mapped with the
    recipe of our own designs, and simulated on what its inputs do.
    """
    from narrowgauge.measure import Settings, bench
    from narrowgauge.measure import measure as run
    from narrowgauge.output import result_folder, write_text
    from synth.foreign import read_foreign
    from synth.library import load

    if stimuli is not None and (random_cycles is not None or distributions):
        raise click.UsageError("--stimuli excludes --random and --distribution")
    settings = Settings(
        clock_ns=clock_ns,
        operations=operations,
        macs=macs,
        reset_cycles=reset_cycles,
        timeout_s=time_limit,
        delays=delays,
        clock_gating=clock_gating,
        states=states,
        glitches=glitches,
        hierarchy=hierarchy,
    )
    # Identifiers may be longer than what a table has room for.
    name = top[:40] if name is None else name
    if not NAME.fullmatch(name):
        raise ValueError(f"name must be {NAME_RULE}, not {name!r}")
    cells = load(library)
    with result_folder(output, "measure") if output else contextlib.nullcontext() as folder:
        with _busy(f"reading {top}"):
            design = read_foreign(
                files,
                top,
                defines=defines,
                includes=includes,
                parameters=parameters,
                standard=standard,
                reader=reader,
                hierarchy=hierarchy is not None,
                timeout_s=time_limit,
            )
        chosen = [_distribution(text) for text in distributions]
        roles = bench(
            design,
            clock=clock,
            resets=resets,
            constants=constants,
            driven=[port for port, _ in chosen if port is not None],
        )
        driven, facts = _stimuli(
            roles, stimuli, random_cycles or RANDOM_CYCLES, dict(chosen), streams, seed
        )
        with _busy(f"mapping and simulating {top}"):
            result, mapped = run(design, roles, driven, cells, settings)
        result["design"] |= {
            "name": name,
            "files": list(files),
            "defines": defines,
            "parameters": parameters,
        }
        result["settings"] = {
            "clock_ns": clock_ns,
            "operations": operations,
            "reset_cycles": reset_cycles,
            "constants": constants,
            "stimuli": facts,
            "command": shlex.join(context.find_root().obj or ["narrowgauge", "measure"]),
        }
        if folder is not None:
            write_text(folder / "measure.json", json.dumps(result, indent=1) + "\n")
            write_text(folder / f"{top}.v", mapped.verilog)
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        print_measurement(result)
    return errors.CHECK_FAILED if check and result["slack_ns"] < 0 else errors.DONE


@contextlib.contextmanager
def _busy(what: str) -> Iterator[None]:
    """Say on a terminal what takes its time, and nothing in a pipe."""
    from narrowgauge.table import terminal

    console = terminal(stderr=True)
    with console.status(what) if console.is_terminal else contextlib.nullcontext():
        yield


def _distribution(text: str) -> tuple[str | None, Any]:
    from narrowgauge.stimuli import Distribution

    port, equals, form = text.rpartition("=")
    return (port if equals else None), Distribution.parse(form)


def _stimuli(
    roles: "Bench",
    path: str | None,
    cycles: int,
    chosen: Mapping[str | None, Any],
    streams: int | None,
    seed: int,
) -> tuple["Stimuli", dict[str, Any]]:
    """Make what the inputs do, and say what it is."""
    from narrowgauge.stimuli import Distribution, load_stimuli, random_stimuli

    if path is not None:
        count = streams or 1
        given = load_stimuli(path, roles.widths, streams=count)
        return given, {
            "file": Path(path).name,
            "distributions": {},
            "streams": count,
            "cycles": given.cycles,
            "seed": None,
        }
    count = streams or RANDOM_STREAMS
    default = chosen.get(None, Distribution())
    by_port = {port: form for port, form in chosen.items() if port is not None}
    drawn = random_stimuli(
        roles.widths, streams=count, cycles=cycles, seed=seed, default=default, by_port=by_port
    )
    forms = {port: str(by_port.get(port, default)) for port in roles.widths}
    return drawn, {
        "file": None,
        "distributions": forms,
        "streams": count,
        "cycles": cycles,
        "seed": seed,
    }


def print_measurement(result: Mapping[str, Any]) -> None:
    """Print a measurement in 80 columns.

    Parameters
    ----------
    result : dict
        In the form of ``measure.json``.
    """
    from narrowgauge.table import figure, print_wrapped

    library, design = result["library"], result["design"]
    settings, stimuli = result["settings"], result["settings"]["stimuli"]

    def line(label: str, text: str) -> None:
        print_wrapped(f"{label:<{LABEL}}", text)

    def split(kinds: Mapping[str, float]) -> str:
        return ", ".join(f"{kind} {figure(value)}" for kind, value in kinds.items() if value)

    files = design["files"]
    line(
        "design",
        f"{design['top']} of {', '.join(files) if len(files) <= 2 else f'{len(files)} files'}",
    )
    line(
        "library",
        f"{library['name']} at {library['voltage_v']:g} V and {library['temperature_c']:g} C; "
        f"{result['tools']['yosys']}",
    )
    if design["clock"]:
        resets = ", ".join(f"{name}={level}" for name, level in design["resets"].items())
        line("clock", f"{design['clock']}, {design['clock_edge']} edge; reset {resets or 'none'}")
    glitches = f"; {result['delays']} delays" if result["delays"] != "none" else ""
    line("stimuli", _describe(stimuli, result["cycles"]) + glitches)
    line("area", f"{figure(result['area_um2'], 5)} um2: {split(result['area_breakdown_um2'])}")
    kinds = {"flip_flops": "flip-flop"}
    if result["clock_gating"] is not None:
        kinds["clock_gates"] = "clock gate"
    parts = [f"{result[key]} {kind}{'s' * (result[key] != 1)}" for key, kind in kinds.items()]
    line("cells", f"{result['cells']}, of which {', '.join(parts)}")
    kind = result["critical_path_kind"]
    line("critical path", f"{result['critical_path_ns']:.3f} ns{f', {kind}' if kind else ''}")
    frequency = result["max_frequency_mhz"]
    verdict = "met" if result["slack_ns"] >= 0 else "MISSED"
    line(
        "slack",
        f"{result['slack_ns']:.3f} ns at {result['clock_ns']:g} ns: {verdict}"
        + (f"; {frequency:.0f} MHz at most" if frequency else ""),
    )
    line(
        "energy per cycle",
        f"{figure(result['energy_per_cycle_pj'], 4)} pJ: {split(result['energy_breakdown_pj'])}",
    )
    glitching = result["energy_with_glitches_per_cycle_pj"]
    if glitching is not None:
        line("with glitches", f"{figure(glitching, 4)} pJ per cycle")
    if settings["operations"] != 1:
        line(
            "per operation",
            f"{figure(result['energy_per_operation_pj'], 4)} pJ, "
            f"{settings['operations']:g} in a cycle",
        )
    if result["macs_per_cycle"] is not None:
        line(
            "per MAC",
            f"{figure(result['energy_per_mac_pj'], 4)} pJ, {result['macs_per_cycle']:g} "
            "multiply-accumulates in a cycle",
        )
    line("power", f"{figure(result['power_uw'], 4)} uW, leakage {figure(result['leakage_uw'])} uW")
    line("nets annotated", f"{100 * result['nets_annotated']:g} %")
    if result["hierarchy"] is not None:
        _print_hierarchy(result)
    for note in result["notes"]:
        line("note", note)


def _print_hierarchy(result: Mapping[str, Any]) -> None:
    """Print what each instance costs, and what it costs to tell them apart."""
    from narrowgauge.table import Column, aligned, figure, print_table, print_wrapped, terminal

    tree = result["hierarchy"]
    entries = tree["instances"]
    area, energy = tree["area_um2"], tree["energy_per_cycle_pj"]
    changes = [
        f"{100 * (tree[name] / result[name] - 1 if result[name] else 0):+.1f} %"
        for name in ("area_um2", "energy_per_cycle_pj")
    ]
    print_wrapped(
        f"{'by instance':<{LABEL}}",
        f"mapped module by module: {figure(area, 5)} um2 ({changes[0]}), {figure(energy, 4)} pJ "
        f"per cycle ({changes[1]}), {tree['critical_path_ns']:.3f} ns",
    )
    click.echo()

    def figures(heading: str, values: list[float], digits: int) -> Column:
        return Column(heading=heading, cells=aligned(values, digits))

    def shares(name: str, total: float) -> Column:
        values = [100 * entry[name] / total if total else 0.0 for entry in entries]
        return Column(heading="\n%", cells=[f"{value:.1f}" for value in values])

    print_table(
        terminal(),
        [
            Column(
                heading="\ninstance",
                cells=_tree([entry["path"] for entry in entries], result["design"]["top"]),
                is_text=True,
            ),
            Column(heading="\nmodule", cells=[entry["module"] for entry in entries], is_text=True),
            Column(heading="\ncells", cells=[str(entry["cells"]) for entry in entries]),
            figures("area\num2", [entry["area_um2"] for entry in entries], 4),
            shares("area_um2", area),
            figures("energy\npJ/cycle", [entry["energy_per_cycle_pj"] for entry in entries], 3),
            shares("energy_per_cycle_pj", energy),
            figures("leak\nuW", [entry["leakage_uw"] for entry in entries], 3),
        ],
    )


def _tree(paths: Sequence[str], top: str) -> list[str]:
    """Names of instances, each below the one that it is in."""
    names = []
    for path in paths:
        # Names may hold dots themselves.
        around = [other for other in paths if not other or path.startswith(f"{other}.")]
        inner = path[len(around[-1]) :].lstrip(".") if path else top
        names.append("  " * len(around if path else []) + inner)
    return names


def _describe(stimuli: Mapping[str, Any], cycles: int) -> str:
    streams = f", {stimuli['streams']} streams" if stimuli["streams"] > 1 else ""
    if stimuli["file"] is not None:
        return f"{stimuli['file']}: {cycles} cycles{streams}"
    forms = list(dict.fromkeys(stimuli["distributions"].values()))
    names = ", ".join(forms) or "no inputs"
    return f"random ({names}), seed {stimuli['seed']}: {cycles} cycles{streams}"
