"""``narrowgauge fpga``: totals add up, tables fit, and a mistake is one line."""

import itertools
import json
import re

import pytest

import synth.pnr
from narrowgauge.cli import main
from synth.pnr import Placement

DECODER = ["fpga", "dybit-decoder", "dybit4", "--fpga", "ice40"]
FIFO = """\
module fifo #(parameter int WIDTH = 8) (
  input logic clk, rst, push, pop, input logic [WIDTH-1:0] d,
  output logic [WIDTH-1:0] q, output logic empty
);
  logic [WIDTH-1:0] rows [16384];
  logic [14:0] head, tail;
  assign empty = head == tail;
  always_ff @(posedge clk) begin
    if (push) rows[head[13:0]] <= d;
    q <= rows[tail[13:0]];
    head <= rst ? '0 : head + 15'(push);
    tail <= rst ? '0 : tail + 15'(pop);
  end
endmodule
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for all tests, of their own."""
    folder = tmp_path_factory.getbasetemp() / "fpga-cache"
    monkeypatch.setenv("NARROWGAUGE_CACHE", str(folder))


@pytest.fixture
def placer(monkeypatch):
    """Let each placement reach the next of some frequencies, installed or not."""

    def replace(*frequencies):
        results = itertools.cycle(frequencies)
        calls = []

        def place(netlist, **options):
            calls.append(options)
            return Placement(
                mhz=next(results),
                kind="input to output",
                logic_ns=3.0,
                routing_ns=4.5,
                cells=5,
                used={"ICESTORM_LC": [31, 7680]},
                seed=options["seed"],
                tool="nextpnr 0",
            )

        monkeypatch.setattr(synth.pnr, "require_nextpnr", lambda family: None)
        monkeypatch.setattr(synth.pnr, "place_and_route", place)
        return calls

    return replace


def run(capsys, *words):
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_totals_are_those_of_the_modules(capsys):
    words = ["fpga", "fixed-array", "fixed4", "--fpga", "ice40", "--rows", "2", "--cols", "2"]
    code, out, _ = run(capsys, *words, "--length", "16", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["design"], result["spec"]) == ("fixed-array", "fixed4")
    assert (result["family"], result["device"], result["flat"]) == ("ice40", "hx8k", False)
    assert result["clock"] == "clk"
    assert result["frequency"] is None
    assert len(result["modules"]) > 3
    for kind, total in result["resources"].items():
        assert total == sum(
            module["resources"][kind] * module["instances"] for module in result["modules"]
        )
    assert 4 in {module["instances"] for module in result["modules"]}  # elements
    assert result["resources"]["luts"] == result["cells"]["SB_LUT4"]
    assert result["resources"]["flip_flops"] == sum(
        count for cell, count in result["cells"].items() if cell.startswith("SB_DFF")
    )

    code, out, _ = run(capsys, *words, "--length", "16")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    luts = result["resources"]["luts"]
    (row,) = [line for line in lines if line.startswith("LUTs")]
    assert row.split() == ["LUTs", str(luts), f"{luts / 76.8:.1f}", "%", "of", "7680"]
    for module in result["modules"]:
        (row,) = [line.split() for line in lines if line.split()[:1] == [module["name"]]]
        used = [module["resources"][kind] for kind in ("luts", "flip_flops", "carries")]
        assert row[1:] == [str(number) for number in (module["instances"], *used)]


def test_files_with_memories(capsys, tmp_path):
    source = tmp_path / "a fifo;.sv"
    source.write_text(FIFO)
    folder = tmp_path / "out"
    words = ["fpga", str(source), "--top", "fifo", "--fpga", "ecp5", "-o", str(folder)]
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert re.search(r"^fifo\.rows +1 +131072 +block RAM$", out, re.M)
    result = json.loads((folder / "fpga.json").read_text())
    # More than become flip-flops elsewhere; eight of 16 Kbit, the bits of parity aside.
    assert result["resources"]["block_rams"] == 8
    assert (result["clock"], result["spec"], result["notes"]) == ("clk", None, [])
    assert result["command"].startswith("narrowgauge fpga")
    netlist = json.loads((folder / "fifo.json").read_text())["modules"]
    types = [cell["type"] for cell in netlist["fifo"]["cells"].values()]
    assert {name: types.count(name) for name in types} == result["cells"]


def test_combinational_files(capsys, tmp_path):
    source = tmp_path / "top.v"
    source.write_text("module top(input a, b, output y); assign y = a ^ b; endmodule\n")
    code, out, _ = run(capsys, "fpga", str(source), "--top", "top", "--fpga", "ice40", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["clock"] is None
    assert result["cells"] == {"SB_LUT4": 1}


def test_frequency_is_the_median(capsys, placer):
    calls = placer(90.0, 110.0, 130.0)
    words = [*DECODER, "--frequency", "--seeds", "3", "--seed", "5"]
    code, out, _ = run(capsys, *words, "--json")
    assert code == 0
    result = json.loads(out)
    assert [call["seed"] for call in calls] == [5, 6, 7]
    assert {call["target_mhz"] for call in calls} == {100.0}
    assert {call["clock"] for call in calls} == {None}  # a decoder has none
    frequency = result["frequency"]
    assert (frequency["mhz"], frequency["target_mhz"], frequency["met"]) == (110.0, 100.0, True)
    assert [(each["seed"], each["mhz"]) for each in frequency["runs"]] == [
        (5, 90.0),
        (6, 110.0),
        (7, 130.0),
    ]
    assert result["tools"] == {"yosys": "Yosys 0.70 (pyosys)", "nextpnr": "nextpnr 0"}
    _, out, _ = run(capsys, *words)
    assert max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    assert "110.0 MHz at most, median of 3 seeds, 90.0 to 130.0; 100 MHz met" in text
    assert "input to output, 9.09 ns: 5 cells and registers 3.00 ns, routing 4.50 ns" in text
    assert "ICESTORM_LC 31 of 7680" in text


def test_missed_clock(capsys, placer):
    placer(99.0)
    words = [*DECODER, "--frequency"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "99.0 MHz at most, seed 1; 100 MHz MISSED" in out
    assert run(capsys, *words, "--check")[0] == 1
    assert run(capsys, *words, "--check", "--clock-ns", "10.2")[0] == 0


def test_nextpnr_is_missing(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = run(capsys, *DECODER, "--frequency")
    assert (code, out) == (2, "")
    assert err == (
        "narrowgauge: error: nextpnr for ice40 must be installed, with the extra fpga: "
        "pip install 'narrowgauge[fpga]'\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fpga", "fixed-mac"], "Missing option '--fpga'"),
        (["fpga", "--fpga", "ice40"], "Missing argument 'DESIGN [SPEC] | FILES...'"),
        (["fpga", "fixed-mac", "--fpga", "max10"], "family must be one of ice40, ecp5, xilinx, n"),
        ([*DECODER, "--device", "25k"], "device must be one of hx8k, up5k for ice40, not '25k'"),
        (["fpga", "x", "--fpga", "ecp5"], "design must be one of fixed-encoder, "),
        (["fpga", "fixed-mac", "dybit4", "--fpga", "ecp5"], "spec must be a format of fixed for f"),
        (["fpga", "fixed-mac", "fixed8", "a", "--fpga", "ecp5"], "FILES need --top"),
        ([*DECODER, "--rows", "2"], "rows must be left out for dybit-decoder, which has no such o"),
        ([*DECODER, "--check"], "--check must come with --frequency"),
        ([*DECODER, "--clock-ns", "0"], "'--clock-ns': must be a positive number, not 0"),
        ([*DECODER, "--time-limit", "nan"], "'--time-limit': must be a positive number, not nan"),
        ([*DECODER, "--seeds", "0"], "--seeds"),
        (["fpga", "d", "--fpga", "xilinx", "--frequency"], "one of ice40, ecp5 to be placed and r"),
        (["fpga", "none.v", "--top", "t", "--fpga", "ice40"], "none.v"),
        (
            ["fpga", "a.v", "--top", "t", "--fpga", "ice40", "--rows", "2"],
            "rows must be left out f",
        ),
        (
            ["fpga", "fixed-mac", "--fpga", "ice40", "--time-limit", "0.01"],
            "Yosys took longer than 0.01 s to map fixed_mac_b8_a27",
        ),
    ],
)
def test_bad_input_is_one_line(capsys, words, message):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("narrowgauge: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_nothing_is_left_after_an_error(capsys, tmp_path):
    source = tmp_path / "top.v"
    source.write_text("module top(input a, output y); assign y = ; endmodule\n")
    folder = tmp_path / "out"
    words = ["fpga", str(source), "--top", "top", "--fpga", "ice40", "-o", str(folder)]
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "top.v" in err
    assert not folder.exists()
