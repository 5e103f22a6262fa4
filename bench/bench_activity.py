"""Speed of the activity simulation against Icarus Verilog with VCD, on the same netlist.

Run as ``python bench/bench_activity.py``; exits 1 if a target is missed.  The netlist is an 8-bit
multiply-accumulate unit with operand registers and a 28-bit sum, mapped by the default recipe and
by one of single gates.  A MAC-cycle is one cycle of one lane.  Without delays every net settles
once; with delays, of one step each or of the library, glitches are counted.  Both simulators get
the same operands; Icarus runs one lane, because it has no others, without delays.  Times are those
that the processor spent on each, so that others on the machine matter less.
"""

import argparse
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from synth.activity import LANES_PER_WORD, STATE_WORDS, Simulator, pack
from synth.delays import Delays, library_delays, unit_delays
from synth.glitches import GlitchSimulator
from synth.library import load
from synth.netlist import Netlist, cell_models
from synth.timing import analyse
from synth.yosys import MappedNetlist, map_netlist

#: MAC-cycles per second that the simulation must reach without delays, and with delays.
TARGET = 5_000_000
DELAY_TARGET = 100_000
#: Words of lanes in which the states of cells are counted.
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


def bit_parallel(
    netlist: Netlist,
    words: int,
    seconds: float,
    delays: Delays | None = None,
    state_words: int = 0,
) -> float:
    """MAC-cycles per second, toggles of all nets counted, operands packed on the way."""
    lanes = words * LANES_PER_WORD
    simulator = (
        Simulator(netlist, lanes, state_words=state_words)
        if delays is None
        else GlitchSimulator(netlist, lanes, delays, state_words=state_words)
    )
    a, b = operands((16, lanes))
    cycles, begin = 0, time.thread_time()
    while time.thread_time() - begin < seconds:
        row = cycles % len(a)
        simulator.step({"a": pack(a[row], 8), "b": pack(b[row], 8)})
        cycles += 1
    simulator.activity()
    return cycles * lanes / (time.thread_time() - begin)


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
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run(
            ["vvp", "-N", "bench"], cwd=folder, check=True, capture_output=True, text=True
        )
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime
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
    met = True
    for recipe in ("default", "plain"):
        mapped = map_netlist(MAC, "mac", library, clock_ns=2.0, recipe=recipe)
        netlist, timing = Netlist(mapped, library), analyse(mapped.module, library)
        print(f"\nrecipe {recipe}: {mapped.cell_count} cells, {mapped.area_um2:.0f} um2")
        icarus = None
        if shutil.which("iverilog"):
            icarus = event_driven(mapped, netlist, options.cycles)
            print(f"{'Icarus with VCD':>20} {icarus:12.0f} MAC-cycles/s")
        late = library_delays(netlist, timing=timing)
        for title, delays, target, state_words in (
            ("without delays", None, TARGET, 0),
            ("without delays, states counted", None, TARGET, STATE_WORDS),
            ("delays of one step", unit_delays(netlist), DELAY_TARGET, 0),
            ("delays of the library", late, DELAY_TARGET, 0),
            ("delays of the library, states counted", late, DELAY_TARGET, STATE_WORDS),
        ):
            print(f"  {title}, target {target} MAC-cycles/s")
            best = 0.0
            for words in (64, 128, 256, 512, 1024):
                speed = bit_parallel(netlist, words, options.seconds, delays, state_words)
                best = max(best, speed)
                ratio = "" if icarus is None else f", {speed / icarus:7.0f}x Icarus"
                print(f"{words:14d} words {speed:12.0f} MAC-cycles/s{ratio}", flush=True)
            print(f"{'met' if best >= target else 'MISSED':>20}")
            met &= best >= target
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
