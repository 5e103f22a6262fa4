"""The command as its users meet it: what it prints, its exit codes, and what it leaves behind."""

import concurrent.futures
import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest

from golden.formats import FORMATS, parse
from narrowgauge import catalogue, errors
from narrowgauge.cli import main, split_formats
from tests.comparison_sample import comparison

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "import sys; from narrowgauge.cli import main; sys.exit(main())"]

#: Leaves the measuring out, so that the rest of ``compare`` is tested in no time.
FAKE = """
import sys
import narrowgauge.compare
from tests.comparison_sample import comparison
def measure(network, data, formats, settings, *, jobs, progress):
    for name in formats:
        progress(name)
    result = comparison()
    del result["network"]["name"], result["network"]["source"], result["settings"]["command"]
    return result
narrowgauge.compare.compare = measure
from narrowgauge.cli import main
sys.exit(main())
"""


@pytest.fixture
def measured(monkeypatch):
    """Leave the measuring of ``compare`` out; a list of the arguments that it would have got."""
    calls = []

    def measure(network, data, formats, settings, *, jobs, progress):
        calls.append((network, data, list(formats), settings, jobs))
        result = comparison()
        del result["network"]["name"], result["network"]["source"]
        del result["settings"]["command"]
        return result

    monkeypatch.setattr("narrowgauge.compare.compare", measure)
    return calls


def environment(**variables):
    return os.environ | {"PYTHONPATH": str(ROOT)} | variables


def finished(program, *arguments, **options):
    """Run a program to its end; what it printed."""
    options = {"env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], text=True, check=False, **options
    )


def refused(capsys, *arguments):
    """Line on standard error of a command that is bad input, without its beginning."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("narrowgauge: error: ")
    return lines[0].removeprefix("narrowgauge: error: ")


# Help and listings.


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help(capsys, arguments):
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for command in ("compare", "formats", "generate", "table", "test"):
        assert re.search(rf"^  {command} ", text, re.M)
    assert "narrowgauge compare -o out" in text


@pytest.mark.parametrize("command", ["compare", "formats", "generate", "table", "test"])
def test_help_of_commands(capsys, command):
    assert main([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    examples = lines[lines.index("  Examples:") + 1 :]
    assert all(line.startswith(f"    narrowgauge {command}") for line in examples)
    assert examples


def test_examples_are_right(capsys, monkeypatch, measured, tmp_path):
    """Every example of the help is accepted, up to the work itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("synth.verilog.write", lambda *_, **__: None)
    np.savez("pool.npz", pool=np.ones((64, 8)))
    main(["--help"])
    examples = re.findall(
        r"^ +narrowgauge ((?:compare|table|generate) .*)$", capsys.readouterr().out, re.M
    )
    for command in ("formats", "table", "generate"):
        main([command, "--help"])
        text = capsys.readouterr().out.partition("Examples:")[2]
        examples += re.findall(r"^ +narrowgauge (.*)$", text, re.M)
    assert len(examples) >= 10
    for number, example in enumerate(examples):
        command = example.partition("   ")[0]  # a comment may follow
        words = re.sub(r"-o (\w+)", rf"-o \g<1>{number}", command).split()
        assert main(words) == 0, command
        capsys.readouterr()


@pytest.mark.parametrize("command", ["compare", "generate"])
def test_defaults_in_help_are_right(capsys, command):
    main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    options = catalogue.Options()
    assert re.search(rf"--rows INTEGER Rows of [a-z ]+ \({options.rows}\)", text)
    assert re.search(rf"--cols INTEGER Columns of [a-z ]+ \({options.cols}\)", text)
    if command == "generate":
        assert re.search(rf"--length INTEGER [A-Za-z, ]+ \({options.length}\)", text)
        assert re.search(rf"--decoders [^(]+\({options.decoders}\)", text)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"narrowgauge (\d+\.\d+\.\d+|\(not installed\))\n", capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compare", "--help"]])
def test_help_needs_nothing_heavy(arguments):
    program = (
        "import sys; from narrowgauge.cli import main; main(sys.argv[1:]);"
        "heavy = {'amaranth', 'numpy', 'onnx', 'matplotlib', 'pyosys', 'jinja2', 'rich'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert finished(program, *arguments).returncode == 0


def test_formats_needs_no_pictures_and_no_networks():
    program = (
        "import sys; from narrowgauge.cli import main; main(['formats']);"
        "sys.exit(bool({'onnx', 'matplotlib', 'pyosys', 'jinja2'} & set(sys.modules)))"
    )
    assert finished(program).returncode == 0


def test_formats_json(capsys):
    assert main(["formats", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert set(listing) == {"formats", "designs"}
    assert [entry["stem"] for entry in listing["formats"]] == list(FORMATS)
    for entry in listing["formats"]:
        assert set(entry) == {"stem", "title", "example", "parameters"}
        assert parse(entry["example"]).stem == entry["stem"]
    assert listing["formats"][1]["parameters"] == ["max_run", "scale_exp", "runs"]
    names = {entry["name"] for entry in listing["designs"]}
    assert {"fixed-mac", "fixed-array", "tapered-decoder", "tapered-encoder"} <= names
    for entry in listing["designs"]:
        assert set(entry) == {"name", "stem", "presets", "description"}


def test_formats(capsys):
    assert main(["formats"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for name in catalogue.DESIGNS:
        assert re.search(rf"^{name} ", text, re.M)


# Formats of a list.


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("fixed8", ["fixed8"]),
        ("fixed8,tapered8", ["fixed8", "tapered8"]),
        (
            "tapered8:max_run=4,scale_exp=-1,fixed8:frac_bits=3,fixed6",
            ["tapered8:max_run=4,scale_exp=-1", "fixed8:frac_bits=3", "fixed6"],
        ),
        ("tapered8:runs=4-7, fixed8", ["tapered8:runs=4-7", "fixed8"]),
        ("fixed8,,fixed6", ["fixed8", "", "fixed6"]),
        ("fixed8,", ["fixed8", ""]),
        ("fixed8,nonsense", ["fixed8", "nonsense"]),
    ],
)
def test_split_formats(text, parts):
    assert split_formats(text) == parts


# table


def test_table_csv_and_json(capsys):
    assert main(["table", "tapered3:max_run=3", "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "code,binary,hex,value,run,integer,fraction"
    assert lines[4] == "3,011,3,2.0,3,2,0.0"
    assert len(lines) == 9
    assert main(["table", "tapered3:max_run=3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["codes"]) == 8


def test_table_text(capsys):
    assert main(["table", "fixed6"]) == 0
    assert len(re.findall(r"\b[01]{6}\b", capsys.readouterr().out)) == 64


# generate


@pytest.fixture
def written(monkeypatch):
    """Replace the writer of Verilog; a list of the arguments that it would have got."""
    calls = []

    def write(component, folder, *, spec, clock_ns):
        (folder / "top.v").write_text("module top; endmodule\n")
        calls.append((component, spec, clock_ns))

    monkeypatch.setattr("synth.verilog.write", write)
    return calls


def test_generate(capsys, tmp_path, written):
    target = tmp_path / "it's rtl"
    arguments = ["generate", "tapered-array", "tapered6", "-o", str(target), "--rows", "3"]
    arguments += ["--cols", "5", "--length", "100", "--decoders", "pe", "--zero-gating"]
    arguments += ["--pipelined", "--carry-save"]
    assert main([*arguments, "--clock-ns", "1.25"]) == 0
    ((component, spec, clock_ns),) = written
    array = component.spec
    assert (array.rows, array.cols, array.decoders, array.zero_gating) == (3, 5, "pe", True)
    assert (array.pipelined, array.carry_save) == (True, True)
    assert (array.mac.length, array.mac.bits, spec, clock_ns) == (100, 6, "tapered6", 1.25)
    assert "top.v" in capsys.readouterr().out
    assert (target / "top.v").exists()


def test_generate_for_real(tmp_path, capsys):
    """Whole folder, twice the same bytes."""
    seen = []
    for _ in range(2):
        assert main(["generate", "fixed-mac", "fixed4", "-o", str(tmp_path / "out")]) == 0
        files = sorted((tmp_path / "out").iterdir())
        seen.append({path.name: path.read_bytes() for path in files})
    assert seen[0] == seen[1]
    kinds = {Path(name).suffix for name in seen[0]}
    assert {".v", ".json", ".sdc", ".core"} <= kinds
    listed = capsys.readouterr().out.splitlines()
    assert {f"  {name}" for name in seen[0]} - {"  .narrowgauge"} <= set(listed)


def test_generate_without_flags(tmp_path, written):
    assert main(["generate", "fixed-array", "-o", str(tmp_path / "out")]) == 0
    array = written[0][0].spec
    assert (array.zero_gating, array.pipelined, array.carry_save) == (False, False, False)


def test_generate_uses_the_first_preset(tmp_path, written):
    assert main(["generate", "fixed-mac", "-o", str(tmp_path / "out")]) == 0
    assert written[0][1:] == (catalogue.DESIGNS["fixed-mac"].presets[0], 2.0)


# test


@pytest.fixture
def tested(monkeypatch):
    """Calls of the regression, all of whose tests pass but the last one if ``fails`` is set."""
    regression = pytest.importorskip("narrowgauge.regression")
    calls = SimpleNamespace(chosen=[], options=None, fails=False)

    def run(chosen, *, progress, **options):
        calls.chosen, calls.options = chosen, options
        for case in chosen:
            progress(case, [])
        return [
            regression.Outcome(
                case=case,
                simulator=f"{case.simulator} 12.0",
                test="every_code",
                passed=not (calls.fails and case is chosen[-1]),
                seconds=1.5,
                case_seconds=2.5,
                message="expected 3, got 4" if calls.fails and case is chosen[-1] else "",
                seed=7,
            )
            for case in chosen
        ]

    monkeypatch.setattr(regression, "run", run)
    monkeypatch.setattr("sim.runner.available_simulators", lambda: ["icarus", "verilator"])
    return calls


@pytest.mark.parametrize("passes", [True, False])
def test_test(capsys, tested, passes):
    tested.fails = not passes
    arguments = ["test", "tapered-decoder", "--spec", "tapered6", "--spec", "tapered4", "--quick"]
    arguments += ["--simulator", "icarus", "--seed", "7", "--jobs", "1", "--test", "every_code"]
    assert main(arguments) == (0 if passes else 1)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert f"2 tests, {0 if passes else 1} failed; icarus 12.0, seed 7" in printed.out
    assert ("tapered-decoder/tapered4/every_code: expected 3, got 4" in printed.out) == (not passes)
    again = (
        "narrowgauge test tapered-decoder/tapered4/every_code --simulator icarus --seed 7 --quick"
    )
    assert (again in printed.out) == (not passes)
    assert tested.options == {"seed": 7, "jobs": 1}
    assert [(case.spec, case.tests) for case in tested.chosen] == [
        ("tapered6", ("every_code",)),
        ("tapered4", ("every_code",)),
    ]
    assert not any(case.thorough or case.library for case in tested.chosen)


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ([], ["icarus", "icarus", "verilator", "icarus, gates", "icarus, gates"]),
        (["--simulator", "icarus"], ["icarus", "icarus"]),
        (["--simulator", "both"], ["icarus", "icarus", "verilator", "verilator"]),
        (["--gate-level"], ["icarus, gates", "icarus, gates"]),
        (["--gate-level", "--simulator", "verilator"], ["verilator, gates"] * 2),
    ],
)
def test_ways_to_test(tested, options, levels):
    arguments = ["test", "tapered-decoder", "--spec", "tapered6", "--spec", "tapered4"]
    assert main([*arguments, *options, "--library", "lib"]) == 0
    assert [case.level for case in tested.chosen] == levels
    assert {case.library for case in tested.chosen if "gates" in case.level} <= {"lib"}


def test_test_json(capsys, tested):
    tested.fails = True
    assert main(["test", "tapered-decoder", "--spec", "tapered4", "--gate-level", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    (outcome,) = printed["outcomes"]
    assert (printed["seed"], outcome["passed"]) == (7, False)
    assert outcome["command"] == (
        "narrowgauge test tapered-decoder/tapered4/every_code --simulator icarus --seed 7 "
        "--gate-level"
    )
    assert outcome["case"]["library"] == "nangate45"
    assert printed["coverage"] == {}


# compare


def test_compare(capsys, tmp_path, measured):
    target = tmp_path / "two words"
    arguments = ["compare", "-o", str(target), "--formats", "fixed8,tapered8:runs=4-7,fixed6"]
    arguments += ["--clock-ns", "1.5", "--rows", "4", "--cols", "8", "--method", "paper"]
    assert main([*arguments, "--seed", "5", "--jobs", "3", "--library", "lib"]) == 0
    ((network, data, formats, settings, jobs),) = measured
    assert formats == ["fixed8", "tapered8:runs=4-7", "fixed6"]
    assert (settings.library, settings.clock_ns, settings.method) == ("lib", 1.5, "paper")
    assert (settings.options.rows, settings.options.cols) == (4, 8)
    assert (settings.seed, jobs) == (5, 3)
    assert len(network.mac_nodes) == 6
    assert len(data.images) == 540
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "tapered8:runs=4-7" in printed.out
    assert printed.out.splitlines()[-1] == f"Report: {target / 'report.html'}"
    result = json.loads((target / "compare.json").read_text())
    assert result["schema"] == 1
    assert list(result["network"])[:2] == ["name", "source"]
    assert result["network"]["name"] == "digits"
    quoted = f"narrowgauge compare -o '{target}' --formats fixed8,tapered8:runs=4-7,fixed6 "
    assert result["settings"]["command"].startswith(quoted)
    for name in ("compare.csv", "report.html"):
        assert (target / name).stat().st_size > 500


def test_compare_defaults(tmp_path, measured):
    assert main(["compare", "-o", str(tmp_path / "out")]) == 0
    ((_, _, formats, settings, jobs),) = measured
    assert formats[0] == "fixed8"
    assert any(name.startswith("tapered") for name in formats)
    assert (settings.library, settings.clock_ns, settings.method) == ("nangate45", 2.0, "sweep")
    assert settings.options == catalogue.Options()
    assert jobs >= 1


def test_compare_with_a_network_of_the_user(tmp_path, measured):
    networks = ROOT / "narrowgauge" / "networks"
    arguments = ["--model", str(networks / "digits.onnx"), "--data", str(networks / "digits.npz")]
    assert main(["compare", "-o", str(tmp_path / "out"), *arguments]) == 0
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (result["network"]["name"], result["network"]["source"]) == ("digits", "digits.onnx")


def test_compare_twice(tmp_path, measured):
    for _ in range(2):
        assert main(["compare", "-o", str(tmp_path / "out")]) == 0
    assert sorted(os.listdir(tmp_path / "out")) == [
        ".narrowgauge", "compare.csv", "compare.json", "report.html",
    ]  # fmt: skip


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], r"No such command 'nonsense'.*see 'narrowgauge --help'"),
        (["--nonsense"], r"No such option.*--nonsense"),
        (["table"], r"Missing argument 'SPEC' \(see 'narrowgauge table --help'\)"),
        (["table", "posit8"], r"number system must be one of fixed, .*, not 'posit'"),
        (["table", "fixed"], r"format must be like tapered8 .*, not 'fixed'"),
        (["table", "fixed8\nfixed6"], r"format must be like tapered8 .*, not 'fixed8\\nfixed6'"),
        (["table", "fixed1"], r"bits must be between 2 and 16, not 1"),
        (["table", "tapered8:max_run=9"], r"max_run must be between 1 and 8, not 9"),
        (["table", "fixed8:x=1"], r"parameter of fixed must be one of frac_bits, .*, not 'x'"),
        (["table", "fixed8", "--csv", "--json"], r"--csv and --json exclude each other"),
        (["formats", "x"], r"Got unexpected extra argument \(x\)"),
        (["generate", "fixed-mac"], r"Missing option '-o' / '--output'"),
        (["generate", "fixed-nonsense", "-o", "out"], r"design must be one of .*, not 'fixed-nons"),
        (["generate", "fixed-mac", "tapered8", "-o", "out"],
         r"spec must be a format of fixed for fixed-mac, not tapered8"),
        (["generate", "fixed-mac", "-o", "out", "--rows", "2"],
         r"rows must be left out for fixed-mac, which has no such option"),
        (["generate", "fixed-mac", "-o", "out", "--zero-gating"],
         r"zero_gating must be left out for fixed-mac"),
        (["generate", "fixed-array", "-o", "out", "--rows", "0"],
         r"rows must be between 1 and 256, not 0"),
        (["generate", "fixed-array", "-o", "out", "--cols", "many"],
         r"Invalid value for '--cols': 'many' is not a valid integer"),
        (["generate", "fixed-array", "-o", "out", "--length", "-1"],
         r"length must be between 1 and 1048576, not -1"),
        (["generate", "fixed-array", "-o", "out", "--decoders", "x"],
         r"Invalid value for '--decoders': 'x' is not one of 'edge', 'pe'"),
        (["generate", "fixed-mac", "-o", "out", "--clock-ns", "0"],
         r"Invalid value for '--clock-ns': must be a positive number, not 0"),
        (["test", "--seed", "-1"], r"Invalid value for '--seed': -1 is not in the range x>=0"),
        (["test", "--jobs", "0"], r"Invalid value for '--jobs': 0 is not in the range x>=1"),
        (["test", "--simulator", "x"], r".*'x' is not one of 'icarus', 'verilator', 'both'"),
        (["test", "fixed-mac", "--gate-level", "--library", "no.lib"], r".*no\.lib"),
        (["test", "fixed-array/fixed4/9x9"],
         r"size of fixed-array must be one of .*4x4.*, not '9x9'"),
        (["compare"], r"Missing option '-o' / '--output'"),
        (["compare", "-o", ""], r"output must be the name of a folder, not ''"),
        (["compare", "-o", "out", "--clock-ns", "nan"], r".*must be a positive number, not nan"),
        (["compare", "-o", "out", "--clock-ns", "inf"], r".*must be a positive number, not inf"),
        (["compare", "-o", "out", "--method", "x"], r".*'x' is not one of 'sweep', 'paper'"),
        (["compare", "-o", "out", "--model", "a.onnx"],
         r"--model and --data must be given together, not --model alone"),
        (["compare", "-o", "out", "--data", "a.npz"],
         r"--model and --data must be given together, not --data alone"),
        (["compare", "-o", "out", "--model", "a\nb.onnx", "--data", "a.npz"],
         r"model must be a readable file, not a\\nb.onnx \(No such file or directory\)"),
        (["compare", "-o", "out", "--formats", "fixed8,fixed8"],
         r"formats must be different, not fixed8 twice"),
        (["compare", "-o", "out", "--formats", "fixed8,"],
         r"format must be like tapered8 .*, not ''"),
        (["compare", "-o", "out", "--library", "no such"], r".*no such.*"),
        (["compare", "-o", "out", "--rows", "1000", "--formats", "fixed4"],
         r"rows must be between 1 and 256, not 1000"),
    ],
)  # fmt: skip
def test_bad_input(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("synth.verilog.write", lambda *_, **__: None)
    assert re.match(message, refused(capsys, *arguments))
    assert os.listdir(tmp_path) == []


def test_file_that_is_no_library(capsys, tmp_path):
    library = tmp_path / "cells.lib"
    library.write_text("hello")
    arguments = ["compare", "-o", str(tmp_path / "out"), "--library", str(library)]
    assert "cells.lib" in refused(capsys, *arguments)
    assert os.listdir(tmp_path) == ["cells.lib"]


@pytest.mark.parametrize("command", ["compare", "generate"])
def test_output_of_somebody_else(capsys, tmp_path, command, measured, written):
    (tmp_path / "thesis.tex").write_text("mine")
    arguments = [command, *(["fixed-mac"] if command == "generate" else []), "-o", str(tmp_path)]
    message = refused(capsys, *arguments)
    assert message.startswith("output must be new, empty or an earlier result of narrowgauge")
    assert os.listdir(tmp_path) == ["thesis.tex"]
    assert measured == written == []  # refused before the work


def test_output_that_is_a_file(capsys, tmp_path, measured):
    (tmp_path / "out").write_text("mine")
    message = refused(capsys, "compare", "-o", str(tmp_path / "out"))
    assert re.match("output must be a folder, not the file", message)
    assert (tmp_path / "out").read_text() == "mine"


def test_full_disk(tmp_path):
    """All files together are larger than a file may become."""
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000));" + FAKE
    process = finished(program, "compare", "-o", str(tmp_path / "out"))
    assert process.returncode == 2
    assert process.stdout == ""
    target = str(tmp_path / "out")
    assert (
        process.stderr
        == f"narrowgauge: error: output must be writable, not {target!r} (File too large)\n"
    )
    assert os.listdir(tmp_path) == []


# Errors in general.


def caught(function, *arguments):
    with pytest.raises(Exception) as info:  # noqa: PT011  # callers judge
        function(*arguments)
    return info.value


def test_mistakes_are_explained():
    assert errors.explain(caught(parse, "x")) == (
        "format must be like tapered8 or tapered8:max_run=4, not 'x'"
    )
    assert errors.explain(caught(parse, 3)) == "format must be a string, not 3"
    assert errors.explain(caught(open, "/no/such file")) == (
        "No such file or directory: '/no/such file'"
    )
    assert errors.explain(OSError(errno.ENOSPC, "No space left on device")) == (
        "No space left on device"
    )
    assert errors.explain(OSError(errno.EXDEV, "Cross-device link", "a", None, b"b\n")) == (
        r"Cross-device link: 'a': 'b\n'"
    )
    assert errors.explain(click.FileError("f", "is gone")) == "Could not open file 'f': is gone"
    assert "memory" in errors.explain(MemoryError())
    assert "killed" in errors.explain(concurrent.futures.BrokenExecutor())


def test_own_error_classes_are_mistakes():
    class BrokenToolError(ValueError):
        pass

    assert errors.explain(BrokenToolError("tool stopped")) is None
    BrokenToolError.__module__ = "synth.tool"
    assert errors.explain(BrokenToolError("tool\tstopped")) == r"tool\tstopped"


def test_bugs_are_not_explained():
    """Errors of the same types that are no statements of this project about its input."""
    assert errors.explain(caught(np.zeros(3).reshape, 2)) is None
    assert errors.explain(caught(int, "x must be")) is None
    assert errors.explain(caught(lambda: [].nonsense)) is None
    assert errors.explain(KeyError("key must be known")) is None
    assert errors.explain(OSError("no system error")) is None
    # Raised in a package of this project, but not on purpose.
    assert errors.explain(caught(split_formats, 3)) is None
    assert errors.explain(caught(catalogue.find, [])) is None


def test_bugs_keep_their_traceback(monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("narrowgauge.table.print_codes", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["table", "fixed4"])
    assert capsys.readouterr().err == ""


#: Runs a function of a module with one argument in a worker process.
WORKER = """
import importlib, sys
from narrowgauge import errors
from narrowgauge.workers import worker_pool
def work():
    function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    with worker_pool(1) as pool:
        return pool.submit(function, sys.argv[3]).result()
sys.exit(errors.run(work))
"""


def test_mistake_that_a_worker_finds():
    process = finished(WORKER, "golden.formats", "parse", "fixed99")
    error = process.stderr
    assert error == "narrowgauge: error: bits must be between 2 and 16, not 99\n"
    assert process.returncode == 2


def test_bug_in_a_worker():
    process = finished(WORKER, "math", "lgamma", "x must be")
    error = process.stderr
    assert "Traceback" in error
    assert process.returncode == 1


def test_bug_of_another_package_in_a_worker():
    """Its message has the form of a rule, but the project did not raise it."""
    process = finished(WORKER, "json", "loads", "x must be")
    error = process.stderr
    assert "Traceback" in error
    process = finished(WORKER, "statistics", "NormalDist", "x must be")
    error = process.stderr
    assert "must be" in error
    assert "Traceback" in error


def test_killed_worker():
    program = """
import os, sys
from narrowgauge import errors
from narrowgauge.workers import worker_pool
def work():
    with worker_pool(1) as pool:
        pool.submit(os._exit, 1).result()
sys.exit(errors.run(work))
"""
    process = finished(program)
    error = process.stderr
    assert process.returncode == 2
    assert re.fullmatch(r"narrowgauge: error: worker processes must run to their end.*\n", error)


def test_warnings_are_for_developers():
    program = (
        "import sys, warnings, narrowgauge.table;"
        "narrowgauge.table.print_codes = lambda *_: warnings.warn('x');"
        "from narrowgauge.cli import main; sys.exit(main(['table', 'fixed4']))"
    )
    assert finished(program).stderr == ""
    loud = finished(program, env=environment(PYTHONWARNINGS="default"))
    assert "UserWarning: x" in loud.stderr


# Pipes, terminals and interruptions.


def test_reader_that_stops_early():
    reader, writer = os.pipe()
    os.close(reader)
    for arguments in (["table", "fixed8"], ["table", "fixed16", "--csv"], ["formats", "--json"]):
        process = subprocess.run(
            [*COMMAND, *arguments],
            env=environment(),
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert (process.returncode, process.stderr) == (128 + signal.SIGPIPE, b"")
    os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_on_a_full_disk():
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [*COMMAND, "table", "fixed4"],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert process.returncode == 2
    assert process.stderr == b"narrowgauge: error: No space left on device\n"


def test_closed_standard_output():
    process = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "table", "fixed4"],
        env=environment(), stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, b"")


def test_locale_without_unicode():
    variables = environment(PYTHONIOENCODING="ascii", LC_ALL="C")
    process = subprocess.run([*COMMAND, "formats"], env=variables, capture_output=True, check=False)
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout.isascii()


def on_terminal(program, arguments, columns):
    """What a program prints to a terminal of so many columns, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {key: value for key, value in environment().items() if key != "COLUMNS"}
    variables |= {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    chunks = []
    while select.select([ours], [], [], 60)[0]:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(ours)
    return b"".join(chunks).decode(), process.wait()


@pytest.mark.parametrize("columns", [60, 80])
def test_terminal(tmp_path, columns):
    """Tables fit, a bar shows how far it is, and is gone at the end."""
    arguments = ["compare", "-o", str(tmp_path / "out"), "--formats", "fixed8,tapered8,fixed6"]
    text, status = on_terminal(FAKE, arguments, columns)
    assert status == 0
    last, _, after = text.rpartition("3/3")
    assert "1/3" in last or "0/3" in last
    assert "\x1b[2K" in after  # the line of the bar is erased
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    tables = plain[plain.rindex("digits: ") : plain.rindex("Report:")]
    assert max(len(line) for line in tables.splitlines()) <= columns
    assert "tapered8:runs=4-7" in tables


def test_pipe(tmp_path):
    """Neither colours nor progress."""
    process = finished(FAKE, "compare", "-o", str(tmp_path / "out"))
    assert process.stderr == ""
    assert "\x1b" not in process.stdout
    assert max(map(len, process.stdout.splitlines()[:-1])) <= 80


def marked(mark):
    """Processes that have a variable of this value in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if mark.encode() in (path / "environ").read_bytes() and state != "Z":
                found.append(int(path.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


def busy():
    """Run for ever, like a tool that hangs.

    Nobody looks after one of its child processes; the other one is in a session of its own.
    """
    with tempfile.TemporaryDirectory():
        forgotten = subprocess.Popen(["sleep", "600"])
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        try:
            with open("started", "a") as file:
                file.write("x")
            forgotten.wait()
        finally:
            # One job takes longer to tidy up than the other one.
            with contextlib.suppress(FileExistsError):
                Path(tempfile.tempdir, "slow").touch(exist_ok=False)
                time.sleep(0.5)
            child.kill()
            child.wait()


def jobs_begun(folder):
    """How many jobs are busy in this folder."""
    path = Path(folder, "started")
    return len(path.read_text()) if path.exists() else 0


def fail_when_busy():
    """Fail like a job with bad input, while another one is busy."""
    wait_until(lambda: jobs_begun(".") == 1)
    parse("x")


#: Does several jobs, two at a time.
BUSY = """
import sys
from narrowgauge import errors, output, workers
from tests.test_narrowgauge_cli import busy, busy_destructor, fail_when_busy
def work():
    with output.result_folder("out", "compare"), workers.worker_pool(2) as pool:
        if sys.argv[1:] == ["destructor"]:
            pool.submit(busy_destructor).result()
        if len(sys.argv) > 1:
            pool.submit(busy)
            pool.submit(fail_when_busy).result()
        for future in [pool.submit(busy) for _ in range(4)]:
            future.result()
if __name__ == "__main__":
    sys.exit(errors.run(work))
"""


def start_busy(folder, mark, *arguments):
    (folder / "busy.py").write_text(BUSY)
    (folder / "scratch").mkdir()
    return subprocess.Popen(
        [sys.executable, "busy.py", *arguments],
        cwd=folder,
        env=environment(MARK=mark, TMPDIR=str(folder / "scratch")),
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def check_nothing_is_left(folder, mark):
    wait_until(lambda: not marked(mark), 5)
    assert set(os.listdir(folder)) == {"busy.py", "scratch", "started"}
    assert os.listdir(folder / "scratch") == []


@needs_proc
@pytest.mark.parametrize(
    ("number", "to_all"),
    [
        (signal.SIGINT, True),
        (signal.SIGINT, False),
        (signal.SIGTERM, False),
        (signal.SIGHUP, False),
    ],
)
def test_interruption(tmp_path, number, to_all):
    """As on a terminal, all processes of the group get the signal; or the main one alone does."""
    mark = uuid.uuid4().hex
    process = start_busy(tmp_path, mark)
    wait_until(lambda: jobs_begun(tmp_path) == 2)
    # The program, the tracker of its resources, and two workers with two children each.
    assert len(marked(mark)) == 8
    (os.killpg if to_all else os.kill)(process.pid, number)
    _, error = process.communicate(timeout=30)
    assert error == "narrowgauge: interrupted\n"
    assert process.returncode == 128 + number
    check_nothing_is_left(tmp_path, mark)
    # None of the jobs that were waiting was begun.
    assert jobs_begun(tmp_path) == 2


def busy_destructor():
    """Be told to end in a destructor, where exceptions are lost."""

    class Slow:
        def __del__(self):
            with open("started", "a") as file:
                file.write("xx")
            time.sleep(1)

    while True:
        Slow()


@needs_proc
def test_interruption_in_a_destructor(tmp_path):
    mark = uuid.uuid4().hex
    process = start_busy(tmp_path, mark, "destructor")
    wait_until(lambda: jobs_begun(tmp_path) >= 2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert error == "narrowgauge: interrupted\n"
    check_nothing_is_left(tmp_path, mark)


@needs_proc
def test_killed_program_takes_its_workers_along(tmp_path):
    mark = uuid.uuid4().hex
    process = start_busy(tmp_path, mark)
    wait_until(lambda: jobs_begun(tmp_path) == 2)
    # The program, the tracker of its resources, and two workers with two children each.
    assert len(marked(mark)) == 8
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not marked(mark), 10)


@needs_proc
def test_mistake_ends_other_jobs(tmp_path):
    mark = uuid.uuid4().hex
    process = start_busy(tmp_path, mark, "fail")
    _, error = process.communicate(timeout=60)
    assert error.startswith("narrowgauge: error: format must be like tapered8")
    assert error.count("\n") == 1
    assert process.returncode == 2
    check_nothing_is_left(tmp_path, mark)


@needs_proc
def test_nohup():
    """A signal that is ignored stays ignored."""
    program = (
        "import os, signal; from narrowgauge import errors;"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "os._exit(errors.run(lambda: os.kill(os.getpid(), signal.SIGHUP) or 0))"
    )
    assert finished(program).returncode == 0


@needs_proc
@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_comparison(tmp_path, jobs):
    """The real one, in the middle of a synthesis."""
    mark, scratch = uuid.uuid4().hex, tmp_path / "scratch"
    scratch.mkdir()
    folders = {"NARROWGAUGE_CACHE": str(tmp_path / "cache"), "TMPDIR": str(scratch)}
    process = subprocess.Popen(
        [*COMMAND, "compare", "-o", "out", "--formats", "fixed4,fixed5", "--jobs", str(jobs)],
        cwd=tmp_path, env=environment(MARK=mark, **folders),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: any(log.stat().st_size for log in scratch.rglob("child.log")))
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert (output, error) == ("", "narrowgauge: interrupted\n")
    assert process.returncode == 130
    wait_until(lambda: not marked(mark), 5)
    assert os.listdir(scratch) == []
    assert set(os.listdir(tmp_path)) <= {"cache", "scratch"}
