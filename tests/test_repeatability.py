"""The same figures to the last digit, whatever the processor and the surroundings are."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

#: An SQNR as `compare` states it, and the energies of a unit on seeded operands.
FIGURES = """
import numpy as np
from golden.formats import parse
from golden.inference import quantise
from narrowgauge.compare import _decibels
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import read
from synth.activity import Simulator
from synth.energy import EnergyModel
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.yosys import map_netlist

embedded = digits()
network, data = read(embedded.model_path), embedded.data
images, calibration = data.images[::6], data.calibration[:64]
evaluation = quantise(network, parse("fixed6").system(), calibration).evaluate(images)
print(_decibels(evaluation.sqnr_db))
for name, ratio in evaluation.tensor_sqnr_db.items():
    print(name, _decibels(ratio))

text = '''module mac(input clk, input [7:0] a, b, output reg [19:0] y);
  always @(posedge clk) y <= y + a * b;
endmodule'''
library = load("nangate45")
mapped = map_netlist(text, "mac", library, clock_ns=2.0)
netlist, timing = Netlist(mapped, library), analyse(mapped.module, library)
simulator = Simulator(netlist, 512)
generator = np.random.default_rng(5)
for _ in range(40):
    simulator.step({name: generator.integers(0, 1 << 64, (8, 8), np.uint64) for name in "ab"})
model = EnergyModel(netlist, ["logic"] * len(netlist.instances), clock_ns=2.0, timing=timing)
print(model.measure(simulator.activity())[0].split_pj)
"""

#: Kernels of BLAS and of NumPy as on a processor of 2008, one thread, other text and hash settings.
OTHER = {
    "OPENBLAS_CORETYPE": "Nehalem",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": " ".join(
        np.show_config(mode="dicts")["SIMD Extensions"].get("found", ())
    ),
    "PYTHONHASHSEED": "77",
    "LC_ALL": "C",
    "TZ": "Asia/Tokyo",
}


def figures(tmp_path, changes):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FIGURES],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NARROWGAUGE_CACHE": str(tmp_path)} | changes,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the settings are of x86 processors")
def test_another_processor(tmp_path):
    here, there = figures(tmp_path, {}), figures(tmp_path, OTHER)
    assert len(here.splitlines()) > 5
    assert here == there


def test_another_machine(tmp_path):
    """A result that another machine once gave is repeated, from an empty cache, to the last digit.

    After a change that is meant to move figures, `settings.command` of the file makes it anew.
    """
    known = Path(__file__).with_name("results") / "digits_4x4.json"
    program = "from narrowgauge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "compare", "--check", str(known), "--jobs", "1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NARROWGAUGE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "The figures of 2 rows are those of" in done.stdout
