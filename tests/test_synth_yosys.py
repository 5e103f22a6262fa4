"""Mapping with Yosys: results, caching, and everything that can go wrong with the child process."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import synth.yosys
from synth.activity import Simulator, pack, unpack
from synth.cache import FOLDER_VARIABLE, Cache
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.yosys import RECIPES, Attempt, Recipe, YosysError, map_netlist, yosys_version

COUNTER = """\
module counter(input clk, input rst, input [3:0] step, output reg [3:0] count, output one);
  always @(posedge clk) count <= rst ? 4'd0 : count + step;
  assign one = 1'b1;
endmodule
"""
MAC = """\
module mac(input clk, input signed [7:0] a, input signed [7:0] b, output reg signed [27:0] acc);
  reg signed [7:0] x, y;
  always @(posedge clk) begin x <= a; y <= b; acc <= acc + x * y; end
endmodule
"""
WIRE = "module top(input a, output y); assign y = a; endmodule"


@pytest.fixture(scope="module")
def library():
    return load("nangate45")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def private_folders(tmp_path, monkeypatch):
    """Make the mapper's private folders where a test can look for what is left of them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def sources_without_yosys(monkeypatch, code):
    """Let the child process run ``code`` instead of Yosys."""
    monkeypatch.setattr(synth.yosys, "CHILD", code)


def is_running(pid):
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_counter(library, cache):
    mapped = map_netlist(COUNTER, "counter", library, clock_ns=2.0, cache=cache)
    assert mapped.top == "counter"
    assert mapped.tool == yosys_version() == "Yosys 0.70 (pyosys)"
    assert mapped.clock_ns == 2.0
    types = [cell["type"] for cell in mapped.module["cells"].values()]
    assert mapped.cells_by_type == {name: types.count(name) for name in sorted(set(types))}
    assert mapped.cell_count == len(types)
    assert set(types) <= library.cells.keys()
    assert mapped.cells_by_type["DFF_X1"] == 4
    area = sum(library.cells[name].area_um2 for name in types)
    assert mapped.area_um2 == pytest.approx(area)
    # A constant output is driven by a cell, as on silicon.
    assert mapped.cells_by_type["LOGIC1_X1"] == 1

    simulator = Simulator(Netlist(mapped, library), 1)
    counts = []
    for step in (3, 5, 15, 1):
        simulator.step({"step": pack([step], 4)})
        counts.append(int(unpack(simulator.state("count"), 1)[0]))
    assert counts == [3, 8, 7, 8]
    assert unpack(simulator.settled("one"), 1) == [1]


def test_verilog_is_the_same_netlist(library, cache):
    mapped = map_netlist(COUNTER, "counter", library, clock_ns=2.0, cache=cache)
    instances = re.findall(r"^  (\w+) \S+ \($", mapped.verilog, re.M)
    assert {name: instances.count(name) for name in instances} == mapped.cells_by_type
    # Mapping what is mapped already changes nothing: every cell is known and kept.
    again = map_netlist(mapped.verilog, "counter", library, clock_ns=2.0, cache=cache)
    assert again.cells_by_type["DFF_X1"] == 4


def test_same_bytes_from_two_runs(library, tmp_path):
    first, second = (
        map_netlist(MAC, "mac", library, clock_ns=2.0, cache=Cache(tmp_path / name))
        for name in ("first", "second")
    )
    assert first == second


#: Ways that no recipe of ours takes; several in one netlist.
OTHER_WAYS = [
    ("carry-save", "han-carlson", "area"),
    ("separate", "sklansky", "unsized"),
    ("booth", "serial", "delay"),
]


@pytest.mark.parametrize(
    "recipe",
    [
        *RECIPES,
        *(
            Recipe(
                description=sums,
                attempts=(Attempt(sums=sums, carry=carry, mapper=mapper),),
            )
            for sums, carry, mapper in OTHER_WAYS
        ),
    ],
    ids=[*RECIPES, *(sums for sums, _, _ in OTHER_WAYS)],
)
def test_recipes_compute_the_same(recipe, library, cache):
    mapped = map_netlist(MAC, "mac", library, clock_ns=2.0, recipe=recipe, cache=cache)
    assert mapped.recipe == (recipe if isinstance(recipe, str) else recipe.description)
    simulator = Simulator(Netlist(mapped, library), 64)
    a, b = np.random.default_rng(1).integers(-128, 128, (2, 30, 64))
    for x, y in zip(a, b, strict=True):
        simulator.step({"a": pack(x, 8), "b": pack(y, 8)})
    sums = unpack(simulator.state("acc"), 64, signed=True)
    np.testing.assert_array_equal(sums, (a[:-1] * b[:-1]).sum(axis=0))


def test_recipe_of_ones_own(library, cache):
    recipe = Recipe(
        description="one attempt",
        attempts=(Attempt(sums="chain", carry="kogge-stone", mapper="delay"),),
    )
    mapped = map_netlist(MAC, "mac", library, clock_ns=2.0, recipe=recipe, cache=cache)
    assert mapped.recipe == "one attempt"
    assert mapped.cells_by_type["FA_X1"] > 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sums": "tree"}, "sums must be one of chain, rows, .*, carry-save, separate, not 'tree'"),
        ({"carry": "skip"}, "carry must be one of serial, ripple, .*, kogge-stone, not 'skip'"),
        ({"mapper": ""}, "mapper must be one of area, unsized, .*, speed, prefix, not ''"),
    ],
)
def test_bad_attempt(changes, message):
    with pytest.raises(ValueError, match=message):
        Attempt(**({"sums": "rows", "carry": "ripple", "mapper": "area"} | changes))


def test_default_recipe_is_smaller_and_meets_the_clock(library, cache):
    default, booth, plain = (
        map_netlist(MAC, "mac", library, clock_ns=2.0, recipe=recipe, cache=cache)
        for recipe in ("default", "booth", "plain")
    )
    assert default.area_um2 < 0.85 * min(booth.area_um2, plain.area_um2)
    assert analyse(default.module, library).critical_path_ns <= 2.0


def test_shorter_clock_costs_area(library, cache):
    def result(clock_ns):
        mapped = map_netlist(MAC, "mac", library, clock_ns=clock_ns, cache=cache)
        return mapped.area_um2, analyse(mapped.module, library).critical_path_ns

    relaxed, tight, impossible = result(None), result(1.3), result(0.1)
    assert tight[1] <= 1.3 < relaxed[1]
    assert tight[0] > relaxed[0]
    assert 0.1 < impossible[1] <= tight[1]


def test_near_miss_is_mapped_again(library, tmp_path, monkeypatch):
    """Asking ABC for a little more saves the area of the next attempt, which is much faster."""
    areas = []
    for index, share in enumerate((synth.yosys.CLOSE, 0.0)):
        monkeypatch.setattr(synth.yosys, "CLOSE", share)
        cache = Cache(tmp_path / f"{index}")
        mapped = map_netlist(MAC, "mac", library, clock_ns=1.45, cache=cache)
        assert analyse(mapped.module, library).critical_path_ns <= 1.45
        areas.append(mapped.area_um2)
    assert areas[0] < 0.99 * areas[1]


def test_wires_count_against_the_clock(library, cache):
    plain = map_netlist(MAC, "mac", library, clock_ns=1.6, cache=cache)
    wired = map_netlist(MAC, "mac", library, clock_ns=1.6, wire_cap_ff=1.0, cache=cache)
    delays = [
        analyse(mapped.module, library, wire_cap_ff=1.0).critical_path_ns
        for mapped in (plain, wired)
    ]
    assert delays[1] < delays[0]


def test_without_sums_and_without_logic(library, cache):
    mapped = map_netlist(WIRE, "top", library, clock_ns=2.0, cache=cache)
    assert mapped.cell_count == 0
    assert mapped.area_um2 == 0.0


def test_black_boxes_stay(library, cache):
    top = (
        "module top(input clk, input [1:0] a, output [1:0] y);\n"
        "wire [1:0] q; part p(.clk(clk), .d(a), .q(q)); assign y = ~q; endmodule\n"
    )
    stub = "module part(input clk, input [1:0] d, output [1:0] q); endmodule"
    mapped = map_netlist(top, "top", library, clock_ns=2.0, blackboxes={"part": stub}, cache=cache)
    assert mapped.cells_by_type == {"INV_X1": 2, "part": 1}
    assert mapped.area_um2 == pytest.approx(2 * library.cells["INV_X1"].area_um2)


def test_two_clocks_are_mapped_without_timing(library, cache):
    source = (
        "module top(input c, input d, input [1:0] a, output reg [1:0] y);\n"
        "always @(posedge c) y[0] <= a[0];\nalways @(posedge d) y[1] <= a[1]; endmodule\n"
    )
    mapped = map_netlist(source, "top", library, clock_ns=2.0, cache=cache)
    assert mapped.cells_by_type == {"DFF_X1": 2}


def test_names_of_registers_stay(library, cache):
    source = (
        "module top(input clk, input [1:0] a, output y);\n"
        "reg [1:0] kept; always @(posedge clk) kept <= a + kept; assign y = ^kept; endmodule\n"
    )
    mapped = map_netlist(source, "top", library, clock_ns=2.0, cache=cache)
    names = mapped.module["netnames"]
    outputs = {
        bit
        for cell in mapped.module["cells"].values()
        if cell["type"] == "DFF_X1"
        for bit in cell["connections"]["Q"]
    }
    assert set(names["kept"]["bits"]) == outputs


class Runs:
    """Stands in for the mapper's work and counts how often it is done."""

    def __init__(self, *arguments):
        self.arguments = arguments

    count = 0

    def run(self, *arguments):
        Runs.count += 1
        return {"module": {}, "verilog": f"{Runs.count}", "area_um2": 0, "cells_by_type": {}}


def test_cache_depends_on_everything(library, cache, monkeypatch):
    monkeypatch.setattr(synth.yosys, "_Flow", Runs)
    smaller = library.select(["INV_X1", "BUF_X1", "NAND2_X1", "DFF_X1"])
    variants = [
        {},
        {"verilog": WIRE + " "},
        {"verilog": {"a.v": WIRE, "b.v": ""}},
        {"verilog": {"a.v": WIRE, "b.v": WIRE}},
        {"top": "other"},
        {"library": smaller},
        {"clock_ns": 2.0},
        {"clock_ns": 3.0},
        {"recipe": "plain"},
        {"wire_cap_ff": 1.0},
        {"blackboxes": {"part": WIRE}},
        {"blackboxes": {"part": WIRE, "other": WIRE}},
    ]
    results = []
    for _ in range(2):
        for variant in variants:
            arguments = {"verilog": WIRE, "top": "top", "library": library} | variant
            results.append(map_netlist(**arguments, cache=cache).verilog)
    assert results == 2 * [f"{index + 1}" for index in range(len(variants))]
    monkeypatch.setattr(synth.yosys, "yosys_version", lambda: "Yosys 1.0")
    monkeypatch.setattr(Runs, "count", 100)
    assert map_netlist(WIRE, "top", library, cache=cache).verilog == "101"
    monkeypatch.setattr(synth.yosys, "_code_digest", lambda: "other code")
    assert map_netlist(WIRE, "top", library, cache=cache).verilog == "102"


def test_default_cache(library, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "default"))
    first = map_netlist(WIRE, "top", library)
    monkeypatch.setattr(synth.yosys, "_Flow", None)
    assert map_netlist(WIRE, "top", library) == first
    assert list((tmp_path / "default").glob("??/*"))


REFUSED = {
    "syntax": ("module top(input a, output y) assign y = a; endmodule", "syntax error, unexpected"),
    "unknown module": (
        "module top(input a, output y); part p(a, y); endmodule",
        r"Module `\\part' referenced in module `\\top'",
    ),
    "no such top": ("module other(input a, output y); endmodule", "Module `top' not found"),
    "latch": (
        "module top(input a, input e, output reg y); always @* if (e) y = a; endmodule",
        "Latch inferred for signal",
    ),
    "loop": (
        "module top(input a, output y); wire b = a & y; assign y = ~b; endmodule",
        "found logic loop in module top: cell",
    ),
    "undriven": (
        "module top(input a, output y); wire b; assign y = a & b; endmodule",
        r"Wire top\.\\b is used but has no driver",
    ),
    "three states": (
        "module top(input a, input e, output y); assign y = e ? a : 1'bz; endmodule",
        r"unmapped internal cell of type \$_TBUF_",
    ),
    "two drivers": (
        "module top(input a, input b, output y); assign y = a; assign y = b; endmodule",
        "multiple conflicting drivers for top",
    ),
}


@pytest.mark.parametrize("source", REFUSED)
def test_refused_design(source, library, cache, private_folders):
    text, message = REFUSED[source]
    with pytest.raises(YosysError, match=f"Yosys could not map top: .*{message}") as caught:
        map_netlist(text, "top", library, cache=cache)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not list(private_folders.iterdir())
    with pytest.raises(YosysError):  # and a failure is not kept
        map_netlist(text, "top", library, cache=cache)


def test_register_that_the_library_lacks(library, cache):
    plain = library.select(name for name in library.cells if not name.startswith(("DFFR", "DFFS")))
    source = (
        "module top(input clk, input rst, input a, output reg y);\n"
        "always @(posedge clk or posedge rst) if (rst) y <= 0; else y <= a; endmodule\n"
    )
    map_netlist(source, "top", library, cache=cache)
    with pytest.raises(YosysError, match=r"could not map top: .*DFF"):
        map_netlist(source, "top", plain, cache=cache)


def test_names_of_files_reach_messages_only(library, cache):
    name = "my 'file'; exec rm -rf.v"
    with pytest.raises(YosysError, match=re.escape(f"{name}:2: syntax error")):
        map_netlist({"first.v": "", name: "module top(\n;"}, "top", library, cache=cache)
    mapped = map_netlist({name: WIRE}, "top", library, cache=cache)
    assert mapped.cell_count == 0


def test_name_of_two_lines_stays_in_one(library, cache):
    with pytest.raises(YosysError, match="two lines:1: syntax error"):
        map_netlist({"two\nlines": "module top(;"}, "top", library, cache=cache)


@pytest.mark.parametrize("name", ["LOGIC1_X1", "FA_X1", "BUF_X1"])
def test_cells_with_odd_names_are_not_named_in_scripts(name, library, cache):
    """The library still maps; what would be asked for by such a name is done without."""
    odd = replace(library.cells[name], name="A;exec")
    cells = {each: cell for each, cell in library.cells.items() if each != name}
    strange = replace(library, cells=cells | {odd.name: odd})
    source = (
        "module top(input [3:0] a, input [3:0] b, output [7:0] y, output one);"
        "assign y = a * b; assign one = 1'b1; endmodule"
    )
    mapped = map_netlist(source, "top", strange, clock_ns=2.0, cache=cache)
    assert set(mapped.cells_by_type) <= cells.keys()
    simulator = Simulator(Netlist(mapped, strange), 256)
    values = np.arange(256)
    simulator.step({"a": pack(values & 15, 4), "b": pack(values >> 4, 4)})
    results = unpack(simulator.settled("y"), 256)
    np.testing.assert_array_equal(results, (values & 15) * (values >> 4))


def test_library_without_buffer(library, cache):
    few = library.select(["INV_X1", "NAND2_X1", "DFF_X1"])
    with pytest.raises(ValueError, match=r"library .* must hold a buffer and an inverter"):
        map_netlist(WIRE, "top", few, cache=cache)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top": "a; exec x"}, "top must be a plain Verilog identifier, not 'a; exec x'"),
        ({"top": ""}, "top must be a plain Verilog identifier, not ''"),
        ({"top": "1a"}, "top must be a plain Verilog identifier, not '1a'"),
        ({"top": "a\n"}, r"top must be a plain Verilog identifier, not 'a\\n'"),
        ({"blackboxes": {"p q": ""}}, "blackboxes must be a plain Verilog identifier, not 'p q'"),
        ({"recipe": "best"}, "recipe must be one of default, booth, plain, not 'best'"),
        ({"clock_ns": 0.0}, "clock_ns must be positive, not 0.0"),
        ({"clock_ns": float("nan")}, "clock_ns must be positive, not nan"),
        ({"timeout_s": -1}, "timeout_s must be positive, not -1"),
        ({"wire_cap_ff": -0.5}, "wire_cap_ff must not be negative, not -0.5"),
    ],
)
def test_bad_arguments(changes, message, library, cache):
    arguments = {"verilog": WIRE, "top": "top", "library": library, "cache": cache} | changes
    with pytest.raises(ValueError, match=message):
        map_netlist(**arguments)


# A child with a child of its own, as Yosys has ABC; both would run for ten minutes.
SLEEPER = """\
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({path!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
time.sleep(600)
"""


def both_ended(path):
    return all(wait_until(lambda pid=pid: not is_running(pid)) for pid in path.read_text().split())


def test_timeout_ends_the_whole_group(library, cache, tmp_path, monkeypatch, private_folders):
    path = tmp_path / "pids"
    sources_without_yosys(monkeypatch, SLEEPER.format(path=str(path)))
    with pytest.raises(YosysError, match=r"Yosys took longer than 1\.5 s to map top"):
        map_netlist(WIRE, "top", library, timeout_s=1.5, cache=cache)
    assert both_ended(path)
    assert not list(private_folders.iterdir())


def test_interrupt_ends_the_whole_group(library, cache, tmp_path, monkeypatch, private_folders):
    path = tmp_path / "pids"
    sources_without_yosys(monkeypatch, SLEEPER.format(path=str(path)))
    wait = subprocess.Popen.wait

    def interrupted(process, timeout=None):
        if timeout is None:
            return wait(process)
        assert wait_until(lambda: path.exists() and path.read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        map_netlist(WIRE, "top", library, cache=cache)
    assert both_ended(path)
    assert not list(private_folders.iterdir())
    assert not list(cache.folder.glob("??/*"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_killed_parent_takes_the_child_along(tmp_path):
    path = tmp_path / "pid"
    body = f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = (
        "import synth.yosys; from synth.library import load; from synth.cache import Cache\n"
        "prologue = synth.yosys.CHILD.partition('from pyosys')[0]\n"
        f"body = {body!r}\n"
        "synth.yosys.CHILD = prologue + body\n"
        f"cache = Cache({str(tmp_path / 'cache')!r})\n"
        f"synth.yosys.map_netlist({WIRE!r}, 'top', load('nangate45'), cache=cache)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        assert wait_until(lambda: path.exists() and path.read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_until(lambda: not is_running(int(path.read_text())))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "Yosys was ended by SIGKILL while it mapped top"),
        ("import os; os.abort()", "Yosys was ended by SIGABRT while it mapped top"),
        ("import os; os.kill(os.getpid(), 40)", "Yosys was ended by signal 40 while it mapped"),
        ("raise SystemExit(3)", "Yosys could not map top: it printed nothing"),
        (
            "print(*range(9), sep='\\n'); raise SystemExit(1)",
            r"Yosys could not map top: 6 \| 7 \| 8$",
        ),
    ],
)
def test_crash(code, message, library, cache, monkeypatch, private_folders):
    sources_without_yosys(monkeypatch, code)
    with pytest.raises(YosysError, match=message):
        map_netlist(WIRE, "top", library, cache=cache)
    assert not list(private_folders.iterdir())


def test_temporary_folder_of_any_name(library, tmp_path, monkeypatch):
    odd = tmp_path / "my 'temporary' $(touch x); \"files\" & more"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    mapped = map_netlist(COUNTER, "counter", library, cache=Cache(tmp_path / "cache"))
    assert mapped.cells_by_type
    assert not list(odd.iterdir())


@contextlib.contextmanager
def files_of_at_most(size):
    """Writes fail half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(library, tmp_path, monkeypatch, private_folders):
    """Where Yosys works, where its files are written, and where results are kept."""
    folder = tmp_path / "kept"
    with files_of_at_most(4096), pytest.raises(OSError, match="File too large"):
        map_netlist(WIRE, "top", library, cache=Cache(folder))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    with monkeypatch.context() as context:
        context.setattr("synth.yosys.CHILD", limit + synth.yosys.CHILD)
        message = r"Yosys must write the whole of \w+\.json, not a part: .* may be full$"
        with pytest.raises(ValueError, match=message):
            map_netlist(COUNTER, "counter", library, cache=Cache(folder))
    cut = "\nif os.path.exists('netlist.v'): os.truncate('netlist.v', 80)\n"
    with monkeypatch.context() as context:
        context.setattr("synth.yosys.CHILD", f"import os\n{synth.yosys.CHILD}{cut}")
        with pytest.raises(ValueError, match=r"must write the whole of netlist\.v, not a part"):
            map_netlist(COUNTER, "counter", library, cache=Cache(folder))
    assert not list(private_folders.iterdir())
    assert not list(folder.glob("??/*"))

    result = json.dumps({"netlist": "x" * 9000}).encode()
    with files_of_at_most(4096):
        assert Cache(folder).compute("0" * 64, lambda: result) == result
    assert [path for path in folder.rglob("*") if path.is_file()] == []


#: Ways to ask for more than a GiB: Python, C++ behind it, and a program that the child starts.
GLUTTONS = {
    "python": "everything = bytearray(2 << 30)",
    "c++": "from pyosys import libyosys\nimport ctypes\n"
    "ctypes.CDLL('libstdc++.so.6')._Znwm(ctypes.c_size_t(2 << 30))",
    "grandchild": "import subprocess, sys\n"
    "raise SystemExit(subprocess.run([sys.executable, '-c', 'bytearray(2 << 30)']).returncode)",
}


@pytest.mark.parametrize("glutton", GLUTTONS)
def test_bound_of_memory(glutton, library, cache, monkeypatch, private_folders):
    monkeypatch.setenv("NARROWGAUGE_MEMORY_GIB", "1")
    sources_without_yosys(monkeypatch, GLUTTONS[glutton])
    message = (
        "Yosys needs more than 1 GiB of memory to map top; NARROWGAUGE_MEMORY_GIB in the "
        "environment raises this limit"
    )
    with pytest.raises(YosysError, match=f"^{message}$"):
        map_netlist(WIRE, "top", library, cache=cache)
    assert not list(private_folders.iterdir())


def test_bound_of_memory_of_yosys_itself(library, cache, monkeypatch):
    """The real program stops at a bound that it cannot work with, and names it."""
    monkeypatch.setenv("NARROWGAUGE_MEMORY_GIB", "0.04")
    with pytest.raises(YosysError, match=r"more than 0\.04 GiB of memory to map top"):
        map_netlist(WIRE, "top", library, cache=cache)


@pytest.mark.parametrize("text", ["0", "-1", "much", "nan", "inf"])
def test_bad_bound_of_memory(text, library, cache, monkeypatch):
    monkeypatch.setenv("NARROWGAUGE_MEMORY_GIB", text)
    message = f"NARROWGAUGE_MEMORY_GIB must be a positive number of GiB, not '{text}'"
    with pytest.raises(ValueError, match=message):
        map_netlist(WIRE, "top", library, cache=cache)


def test_temporary_files_go_with_the_folder(library, cache, monkeypatch):
    """Whoever is killed leaves its files where they are removed."""
    code = "import os; print(os.path.samefile(os.environ['TMPDIR'], '.')); raise SystemExit(1)"
    sources_without_yosys(monkeypatch, code)
    with pytest.raises(YosysError, match=r"could not map top: True$"):
        map_netlist(WIRE, "top", library, cache=cache)


def test_yosys_killed_half_way(library, cache, monkeypatch):
    """The first of its runs is whole, the second one is killed; the next call starts afresh."""
    runs = []
    popen = subprocess.Popen

    def start(*arguments, **options):
        runs.append(popen(*arguments, **options))
        if len(runs) == 2:
            runs[-1].kill()
        return runs[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(YosysError, match="Yosys was ended by SIGKILL while it mapped counter"):
        map_netlist(COUNTER, "counter", library, cache=cache)
    assert map_netlist(COUNTER, "counter", library, cache=cache).cells_by_type["DFF_X1"] == 4


def test_result_is_read_from_the_cache_as_written(library, cache):
    first = map_netlist(COUNTER, "counter", library, cache=cache)
    assert first == map_netlist(COUNTER, "counter", library, cache=cache)
    assert json.loads(json.dumps(first.module)) == first.module


def test_no_plain_folder(library, cache, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "my 'files'")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="TMPDIR must be a writable folder named with letters"):
        map_netlist(WIRE, "top", library, cache=cache)
