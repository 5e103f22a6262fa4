"""The ``narrowgauge`` command.

What a command needs is imported when it runs, so that help and listings appear at once.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from narrowgauge import errors
from narrowgauge.fpga_command import fpga as fpga_command
from narrowgauge.library_command import library as library_group
from narrowgauge.measure_command import measure as measure_command
from narrowgauge.memory_command import memory as memory_command
from narrowgauge.options import cell_states, clock_gating, hardware, positive
from narrowgauge.timing_command import timing as timing_command

__all__ = ["main", "split_formats"]


COUNT = click.IntRange(min=1)
FILE = click.Path(path_type=Path)

#: Source of the network that is embedded, in a result.
EMBEDDED = "embedded, see narrowgauge/networks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the program by default.

    Returns
    -------
    int
        Exit code: 0 done, 1 a check failed, 2 bad input.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Warnings are for developers, who can ask for them with PYTHONWARNINGS.
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        return errors.run(lambda: _invoke(words))


def _invoke(words: list[str]) -> int:
    try:
        with narrowgauge.make_context("narrowgauge", words) as context:
            context.obj = ["narrowgauge", *words]
            return int(narrowgauge.invoke(context) or errors.DONE)
    except click.exceptions.Exit as end:
        return end.exit_code


def split_formats(text: str) -> list[str]:
    """Split a list of format strings at its commas.

    Parameters
    ----------
    text : str
        Such as ``"fixed8,tapered8:max_run=4,scale_exp=-1"``, which is two formats: what follows a
        comma is a parameter of the format before it if it is like ``name=value``.

    Returns
    -------
    list of str
        Format strings, which may be wrong.
    """
    return [part.strip() for part in re.split(r",(?!\s*[a-z_]+=)", text)]


EXAMPLES = """\b
Examples:
  narrowgauge compare -o out                     embedded network, all formats
  narrowgauge compare -o out --formats fixed8,tapered8:max_run=4,scale_exp=-1
  narrowgauge table tapered8:max_run=4
  narrowgauge generate tapered-array -o rtl --rows 8 --cols 8
  narrowgauge test fixed-mac tapered-mac --jobs 2
"""

EXIT_CODES = """\b
Exit codes: 0 done, 1 a check failed, 2 bad input (one line on standard error),
130 interrupted.
"""


def _examples(*lines: str) -> str:
    """Epilog with examples, kept line by line."""
    return "\n".join(["\b", "Examples:", *(f"  narrowgauge {line}" for line in lines)])


def _print_version(context: click.Context, option: click.Parameter, is_given: bool) -> None:
    if is_given and not context.resilient_parsing:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            version = installed("narrowgauge")
        except PackageNotFoundError:
            version = "(not installed)"
        click.echo(f"narrowgauge {version}")
        context.exit()


@click.group(
    epilog=f"{EXAMPLES}\n{EXIT_CODES}",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def narrowgauge(context: click.Context) -> None:
    """Compare, generate and test hardware for narrow DNN number systems.

    A format is written as its number system and the bits of a code, then what is not to be fitted
    to the network: fixed8, tapered8, tapered8:max_run=4,scale_exp=-1.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


narrowgauge.add_command(fpga_command)
narrowgauge.add_command(library_group)
narrowgauge.add_command(measure_command)
narrowgauge.add_command(memory_command)
narrowgauge.add_command(timing_command)


@narrowgauge.command(epilog=_examples("formats", "formats --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def formats(as_json: bool) -> None:
    """List the number systems and the designs."""
    from golden.formats import FORMATS
    from narrowgauge.catalogue import DESIGNS, SYSTEMS

    listing = {
        "formats": [
            {
                "stem": stem,
                "title": system.title,
                "example": system.presets[0],
                "parameters": list(FORMATS[stem].parameters),
            }
            for stem, system in SYSTEMS.items()
        ],
        "designs": [
            {
                "name": design.name,
                "stem": design.stem,
                "presets": list(design.presets),
                "description": design.description,
            }
            for design in DESIGNS.values()
        ],
    }
    if as_json:
        click.echo(json.dumps(listing, indent=1))
        return
    from narrowgauge.table import print_formats, terminal

    print_formats(terminal(), listing)


@narrowgauge.command(
    epilog=_examples(
        "table tapered8:max_run=4,scale_exp=-1", "table fixed6 --json", "table fixed16 --csv"
    )
)
@click.argument("spec")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def table(spec: str, as_csv: bool, as_json: bool) -> None:
    """Print the codes of a format and their exact values.

    Of formats with more than 8 bits, the text shows the first and the last codes; --csv and --json
    have all.
    """
    from golden.formats import parse
    from narrowgauge.table import codes_csv, codes_json, print_codes, terminal

    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    full = parse(spec).spec()
    if as_csv:
        click.echo(codes_csv(full), nl=False)
    elif as_json:
        click.echo(codes_json(full), nl=False)
    else:
        print_codes(terminal(), full)


@narrowgauge.command(
    epilog=_examples(
        "generate tapered-array -o rtl",
        "generate tapered-mac tapered8:runs=4-7 -o mac --length 1024",
        "generate fixed-array fixed6 -o rtl6 --rows 8 --cols 32 --clock-ns 1.5",
        "generate weight_pool-engine weight_pool64 -o engine --pool pool.npz",
    )
)
@click.argument("design")
@click.argument("spec", required=False)
@click.option("-o", "--output", required=True, help="Folder for the files; see compare.")
@hardware()
@click.option(
    "--pool",
    metavar="FILE",
    help="Pool of a look-up engine, whose table it then has from the start: an .npy or .npz file "
    "with the array pool [entries, group].",
)
@click.option(
    "--clock-ns",
    type=float,
    callback=positive,
    default=2.0,
    show_default=True,
    help="Clock period of the constraints.",
)
def generate(design: str, spec: str | None, output: str, clock_ns: float, **choices: Any) -> None:
    """Write Verilog and what a flow needs beside it.

    DESIGN is one of those that `narrowgauge formats` lists, SPEC a format of its number system;
    the default is the first preset of the design.
    """
    from narrowgauge import catalogue
    from narrowgauge.output import result_folder
    from synth.verilog import write

    unit, form, options = catalogue.choose(design, spec, choices)
    with result_folder(output, "generate") as folder:
        component = unit.build(form, options)
        write(component, folder, spec=str(form), clock_ns=clock_ns)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    click.echo(f"{unit.name} for {form}, in {output}:")
    for name in names:
        click.echo(f"  {name}")


@narrowgauge.command(
    epilog=_examples(
        "test",
        "test tapered-mac fixed-mac --quick --jobs 2",
        "test tapered-array --spec tapered6 --simulator verilator --seed 7",
        "test fixed-mac --gate-level --library my_cells.lib.gz",
        "test fixed-array/fixed8/4x4/cycle_count --simulator icarus --seed 7",
    )
)
@click.argument("names", nargs=-1, metavar="[DESIGN]...")
@click.option(
    "--simulator",
    type=click.Choice(["icarus", "verilator", "both"]),
    help="Test all that is chosen on this simulator, and the generated Verilog only.",
)
@click.option(
    "--gate-level", is_flag=True, help="Test designs after mapping to library cells, and only so."
)
@click.option(
    "--library",
    default="nangate45",
    show_default=True,
    help="Built-in cell library, or Liberty files (also .gz) with commas between.",
)
@click.option(
    "--spec", "specs", multiple=True, help="Format, instead of the presets; may be repeated."
)
@click.option("--test", "tests", multiple=True, help="Test by its name; may be repeated.")
@click.option("--quick", is_flag=True, help="Try less, in about a third of the time.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Of all stimuli (1, or that of the environment variable NARROWGAUGE_SEED).",
)
@click.option("--jobs", type=COUNT, help="Simulations at a time (one for each processor).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def test(
    names: tuple[str, ...],
    simulator: str | None,
    gate_level: bool,
    library: str,
    specs: tuple[str, ...],
    tests: tuple[str, ...],
    quick: bool,
    seed: int | None,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Simulate designs against the golden model.

    DESIGN is a design (all if left out), or the name of a case or of a test as a failure states it.

    The Verilog of each design is simulated in each of its presets on Icarus Verilog, in one of them
    on Verilator, and mapped to library cells; with --simulator or --gate-level, in one of these
    ways.  All bins of the coverage of stimuli and results must be hit where all tests are run.
    """
    from narrowgauge import regression
    from narrowgauge.outcomes import outcomes_json, print_outcomes
    from narrowgauge.table import terminal
    from sim.runner import SIMULATORS, available_simulators

    if simulator is None:
        found = available_simulators()
    else:
        found = list(SIMULATORS) if simulator == "both" else [simulator]
    if simulator is None and not gate_level:
        chosen = regression.everything(
            names, specs, simulators=found, library=library, thorough=not quick, tests=tests
        )
    else:
        chosen = regression.cases(
            names,
            specs,
            simulators=found[:1] if simulator is None else found,
            library=library if gate_level else None,
            thorough=not quick,
            tests=tests,
        )
    with _progress("designs", len(chosen)) as advance:
        outcomes = regression.run(
            chosen, seed=seed, jobs=jobs, progress=lambda case, done: advance(case.name)
        )
    if as_json:
        click.echo(outcomes_json(outcomes), nl=False)
    else:
        print_outcomes(terminal(), outcomes)
    passed = all(outcome.passed for outcome in outcomes)
    return errors.DONE if passed else errors.CHECK_FAILED


@narrowgauge.command(
    short_help="Measure formats on one network: the main job.",
    epilog=_examples(
        "compare -o out",
        "compare -o out --formats fixed8,tapered8:max_run=4,scale_exp=-1,tapered6",
        "compare -o out --model net.onnx --data images.npz",
        "compare -o out --library my_cells.lib.gz --clock-ns 1.2 --rows 32 --cols 32",
        "compare -o out --format latex",
        "compare -o out --measured dot/measure.json",
        "compare --check old/compare.json",
    ),
)
@click.option(
    "-o",
    "--output",
    help="Folder for the results: a new or empty one, or that of an earlier comparison, which is "
    "replaced unless its files were changed.  May be left out with --check.",
)
@click.option("--model", type=FILE, help="Network as an ONNX file; the embedded one if left out.")
@click.option(
    "--data",
    type=FILE,
    help="Its images: an .npz file with x, their classes y, and calibration (other images).",
)
@click.option(
    "--formats", "texts", help="Format strings with commas between; the first is the baseline."
)
@click.option(
    "--library",
    default="nangate45",
    show_default=True,
    help="Built-in cell library, or Liberty files (also .gz) with commas between.",
)
@click.option(
    "--clock-ns",
    type=float,
    callback=positive,
    default=2.0,
    show_default=True,
    help="Clock period that the hardware is mapped for.",
)
@click.option("--rows", type=int, help="Rows of the arrays (16).")
@click.option("--cols", type=int, help="Columns of the arrays (16).")
@click.option(
    "--memory",
    metavar="MODEL",
    help="Model of the memories beside the logic: nangate45, sky130, asap7 (that of the library's "
    "technology if left out), horowitz2014, jouppi2021, none, or a .toml file.",
)
@click.option(
    "--off-chip",
    default="ddr",
    show_default=True,
    metavar="KIND",
    help="Off-chip memory: ddr, lpddr2, gddr6, hbm2, none, or pJ per bit.",
)
@click.option(
    "--method",
    type=click.Choice(["sweep", "paper"]),
    default="sweep",
    show_default=True,
    help="How formats are fitted: least squared error, or the rules of the papers.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Of the operands that are simulated.",
)
@clock_gating
@click.option(
    "--glitches",
    is_flag=True,
    help="State the energy with glitches too; takes about twice as long.",
)
@cell_states
@click.option("--jobs", type=COUNT, help="Formats at a time (one for each processor).")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "latex", "csv", "json"]),
    default="text",
    show_default=True,
    help="Of what is printed.",
)
@click.option(
    "--measured",
    type=FILE,
    multiple=True,
    metavar="FILE.json",
    help="Result of narrowgauge measure for a row beside the formats; may be repeated.",
)
@click.option(
    "--check",
    type=FILE,
    help="Earlier compare.json, which is repeated with its formats and settings where none are "
    "given; prints what changed instead of the tables.  Exit code 1 if a figure did.",
)
@click.pass_context
def compare(
    context: click.Context,
    output: str | None,
    model: Path | None,
    data: Path | None,
    texts: str | None,
    jobs: int | None,
    style: str,
    check: Path | None,
    **options: Any,
) -> int:
    """Compare accuracy, area, delay and energy of formats on one network.

    Prints tables and writes report.html, compare.json and compare.csv.
    """
    if output is None and check is None:
        raise click.UsageError("Missing option '-o' / '--output'", context)
    if (model is None) != (data is None):
        given = "--model" if data is None else "--data"
        raise click.UsageError(f"--model and --data must be given together, not {given} alone")

    from narrowgauge import output as files
    from narrowgauge.catalogue import Options
    from narrowgauge.compare import DEFAULT_FORMATS, Settings
    from narrowgauge.compare import compare as measure
    from narrowgauge.measured import read_measured

    formats = DEFAULT_FORMATS if texts is None else split_formats(texts)
    old = None
    if check is not None:
        from narrowgauge.check import read_result

        old = read_result(check)
        _take_over(context, options, old["settings"])
        if texts is None:
            formats = [row["spec"] for row in old["rows"]]
        if model is None and old["network"]["source"] != EMBEDDED:
            source = old["network"]["source"]
            raise ValueError(f"model must be given to repeat a result of {source!r}, not left out")
    beside = [Path(path) for path in options.pop("measured")]
    sizes = {name: options.pop(name) for name in ("rows", "cols")}
    settings = Settings(
        options=Options(**{name: size for name, size in sizes.items() if size is not None}),
        **options,
    )
    designs = read_measured(beside, settings)
    with contextlib.ExitStack() as stack:
        # Everything that keeps a result from being written is found before the work.
        folder = None
        if output is not None:
            folder = stack.enter_context(files.result_folder(output, "compare"))
        names, network, images = _network(model, data)
        with _progress("formats", len(formats)) as progress:
            result = measure(
                network, images, formats, settings, jobs=jobs or _processors(), progress=progress
            )
        result["network"] = names | result["network"]
        result["measured"] = designs
        result["settings"]["measured"] = [str(path) for path in beside]
        result["settings"]["command"] = shlex.join(context.obj)
        if folder:
            from narrowgauge import report

            report.write(result, folder)

    if old is not None:
        return _print_check(old, result, str(check), style)
    _print_result(result, style)
    if style == "text":
        click.echo(f"\nReport: {Path(str(output), 'report.html')}")
    return errors.DONE


def _take_over(context: click.Context, options: dict[str, Any], settings: dict[str, Any]) -> None:
    """Put the settings of an earlier result in the place of those that are not given."""
    for name in options:
        # What was added since then is not in old results.
        is_given = context.get_parameter_source(name) != click.core.ParameterSource.DEFAULT
        if not is_given and name in settings:
            options[name] = settings[name]


def _print_result(result: dict[str, Any], style: str) -> None:
    """Print a comparison in one of its forms."""
    from narrowgauge import paper, report
    from narrowgauge.table import print_comparison, terminal

    writers = {
        "markdown": paper.comparison_markdown,
        "latex": paper.comparison_latex,
        "csv": report.csv_text,
        "json": report.json_text,
    }
    if style == "text":
        print_comparison(terminal(), result)
    else:
        click.echo(writers[style](result), nl=False)


def _print_check(old: dict[str, Any], result: dict[str, Any], old_name: str, style: str) -> int:
    """Print what differs from an earlier result; exit code."""
    from narrowgauge.check import compare_results, print_differences
    from narrowgauge.report import json_text
    from narrowgauge.table import terminal

    # As it would be read again: JSON knows neither infinity nor tuples.
    differences = compare_results(old, json.loads(json_text(result)))
    print_differences(terminal(), differences, old_name=old_name, style=style)
    return errors.DONE if differences.same else errors.CHECK_FAILED


def _network(model: Path | None, data: Path | None) -> tuple[dict[str, str], Any, Any]:
    """Read network and images, embedded or the user's; first, what a result says of them."""
    from narrowgauge import networks, onnx_reader

    if model is None or data is None:
        embedded = networks.digits()
        model, data = embedded.model_path, embedded.data_path
        names = {"name": embedded.name, "source": EMBEDDED}
    else:
        names = {"name": model.stem, "source": model.name}
    network, images = onnx_reader.read(model), onnx_reader.load_data(data)
    digests = {"digest": _file_digest(model), "data_digest": _file_digest(data)}
    return names | digests, network, images


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _processors() -> int:
    """Processors that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Bar on standard error if that is a terminal; the function moves it on by one."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from narrowgauge.table import terminal

    console = terminal(stderr=True)
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=total)

        def advance(name: str) -> None:
            bar.update(task, advance=1, description=name)

        yield advance
