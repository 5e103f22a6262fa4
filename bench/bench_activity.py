"""Speed of the activity simulation against Icarus Verilog with VCD, on the same netlist.

Run as ``python bench/bench_activity.py``.  The netlist is an 8-bit multiply-accumulate unit with
operand registers and a 28-bit sum, mapped by the default recipe and by one of single gates.  A
MAC-cycle is one cycle of one lane.  Both simulators get the same operands; Icarus runs one lane,
because it has no others, for as many cycles as fit in a few seconds.
"""

import argparse
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from synth.activity import LANES_PER_WORD, Simulator, pack
from synth.library import load
from synth.netlist import Netlist, cell_models
from synth.yosys import MappedNetlist, map_netlist

#: MAC-cycles per second that the simulation must reach.
TARGET = 1_000_000
LIBRARY = "nangate45"
MAC = """\
module mac(input clk, input rst, input signed [7:0] a, input signed [7:0] b,
           output reg signed [27:0] acc);
  reg signed [7:0] x, y;
  always @(posedge clk) begin
    x <= a; y <= b; acc <= acc + x * y;
    if (rst) begin x <= 0; y <= 0; acc <= 0; end
  end
endmodule
"""
BENCH = """\
module bench;
  reg clk = 0, rst = 0;
  reg [15:0] operands [0:{last}];
  reg [7:0] a = 0, b = 0;
  wire [27:0] acc;
  integer cycle;
  mac unit(.clk(clk), .rst(rst), .a(a), .b(b), .acc(acc));
  initial begin
    $readmemh("operands.hex", operands);
    $dumpfile("activity.vcd");
    $dumpvars(0, bench);
    for (cycle = 0; cycle <= {last}; cycle = cycle + 1) begin
      {{a, b}} = operands[cycle];
      #1 clk = 1;
      #1 clk = 0;
    end
    $display("%0d", $signed(acc));
  end
endmodule
"""


def operands(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Operands like those of a network: bell-shaped weights, activations after a ReLU."""
    generator = np.random.default_rng(1)
    weights = np.clip(np.round(generator.normal(0, 25, shape)), -128, 127)
    activations = np.clip(np.round(generator.laplace(0, 15, shape)), 0, 127)
    return activations.astype(np.int8), weights.astype(np.int8)


def bit_parallel(netlist: Netlist, words: int, seconds: float) -> float:
    """MAC-cycles per second, toggles of all nets counted, operands packed on the way."""
    lanes = words * LANES_PER_WORD
    simulator = Simulator(netlist, lanes)
    a, b = operands((16, lanes))
    cycles, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        row = cycles % len(a)
        simulator.step({"a": pack(a[row], 8), "b": pack(b[row], 8)})
        cycles += 1
    simulator.activity()
    return cycles * lanes / (time.perf_counter() - begin)


def event_driven(mapped: MappedNetlist, netlist: Netlist, cycles: int) -> float:
    """Cycles per second of Icarus that writes a VCD; compilation does not count."""
    a, b = operands((cycles,))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = cell_models(netlist.library, netlist.cells_by_type)
        text = BENCH.format(last=cycles - 1)
        (folder / "bench.v").write_text("\n".join([mapped.verilog, models, text]))
        codes = zip(a.view(np.uint8), b.view(np.uint8), strict=True)
        (folder / "operands.hex").write_text("\n".join(f"{x:02x}{y:02x}" for x, y in codes))
        subprocess.run(["iverilog", "-g2005", "-o", "bench", "bench.v"], cwd=folder, check=True)
        begin = time.perf_counter()
        run = subprocess.run(
            ["vvp", "-N", "bench"], cwd=folder, check=True, capture_output=True, text=True
        )
        seconds = time.perf_counter() - begin
    expected = int((a[:-1].astype(np.int64) * b[:-1]).sum())
    if int(run.stdout.split()[-1]) != expected:
        raise ValueError(f"Icarus must give {expected}, not {run.stdout!r}")
    return cycles / seconds


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Benchmark of the activity simulation.")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each number of words")
    parser.add_argument("--cycles", type=int, default=10_000, help="cycles for Icarus")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    library = load(LIBRARY)
    for recipe in ("default", "plain"):
        mapped = map_netlist(MAC, "mac", library, clock_ns=2.0, recipe=recipe)
        netlist = Netlist(mapped, library)
        print(f"\nrecipe {recipe}: {mapped.cell_count} cells, {mapped.area_um2:.0f} um2")
        icarus = None
        if shutil.which("iverilog"):
            icarus = event_driven(mapped, netlist, options.cycles)
            print(f"{'Icarus with VCD':>20} {icarus:12.0f} MAC-cycles/s")
        for words in (64, 128, 256, 512, 1024):
            speed = bit_parallel(netlist, words, options.seconds)
            ratio = "" if icarus is None else f", {speed / icarus:7.0f}x Icarus"
            print(f"{words:14d} words {speed:12.0f} MAC-cycles/s{ratio}")
        print(f"{'target':>20} {TARGET:12d} MAC-cycles/s")


if __name__ == "__main__":
    main()
