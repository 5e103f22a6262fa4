"""``narrowgauge timing``: the path adds up, and a clock that is missed is said so."""

import json
import re

import pytest

import synth.timing
from narrowgauge.cli import main
from synth.library import load

DECODER = ["timing", "dybit-decoder", "dybit4"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for all tests, of their own."""
    folder = tmp_path_factory.getbasetemp() / "timing-cache"
    monkeypatch.setenv("NARROWGAUGE_CACHE", str(folder))


def run(capsys, *words):
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_path_adds_up(capsys):
    code, out, _ = run(capsys, "timing", "fixed-mac", "fixed4", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["design"], result["spec"], result["met"]) == ("fixed-mac", "fixed4", True)
    kinds = {path["kind"]: path for path in result["paths"]}
    assert {"input to register", "register to register"} <= kinds.keys()
    for path in kinds.values():
        arrival = 0.0
        for step in path["steps"]:
            arrival += step["delay_ns"]
            assert step["arrival_ns"] == pytest.approx(arrival)
        assert path["delay_ns"] == pytest.approx(arrival + path["setup_ns"])
    path = kinds["register to register"]
    library = load("nangate45")
    assert library.cells[path["steps"][0]["cell"]].ff is not None
    assert all(library.cells[step["cell"]].ff is None for step in path["steps"][1:])
    assert path["setup_ns"] > 0
    longest = max(each["delay_ns"] for each in kinds.values())
    assert result["critical_path_ns"] == longest
    assert result["slack_ns"] == pytest.approx(2.0 - longest)
    assert result["max_frequency_mhz"] == pytest.approx(1000 / longest)


def test_cell_by_cell(capsys):
    _, out, _ = run(capsys, *DECODER, "--json")
    result = json.loads(out)
    code, out, _ = run(capsys, *DECODER)
    assert code == 0
    (path,) = result["paths"]
    assert path["kind"] == "input to output"
    lines = out.splitlines()
    assert lines[0].startswith(f"dybit-decoder for dybit4, module {result['module']}; nangate45 at")
    cells = [re.search(r"\((\w+)\)", line)[1] for line in lines if re.search(r" [v^] ", line)]
    assert cells == ["in", *(step["cell"] for step in path["steps"][1:])]
    assert lines[-1] == (
        f"clock of 2 ns met, slack {result['slack_ns']:.4f} ns; "
        f"{result['max_frequency_mhz']:.0f} MHz at most"
    )


def test_every_kind(capsys):
    words = ["timing", "fixed-array", "fixed4", "--module", "skew_w4_n2"]
    _, one, _ = run(capsys, *words)
    _, every, _ = run(capsys, *words, "--all")
    kinds = [re.findall(r"^(\w+ to \w+), [\d.]+ ns", out, re.M) for out in (one, every)]
    assert kinds[0] == ["register to register"]
    assert kinds[1] == ["input to register", "register to output", "register to register"]


def test_missed_clock(capsys):
    words = [*DECODER, "--clock-ns", "0.01"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert re.search(
        r"clock of 0\.01 ns MISSED by 0\.\d{4} ns: no attempt of the recipe meets it; \d+ MHz", out
    )
    assert run(capsys, *words, "--check")[0] == 1
    assert run(capsys, *DECODER, "--check")[0] == 0


def test_wires_take_time(capsys):
    delays = []
    for load_ff in ("0", "5"):
        _, out, _ = run(capsys, *DECODER, "--json", "--wire-cap-ff", load_ff)
        delays.append(json.loads(out)["critical_path_ns"])
    assert delays[0] < delays[1]


def test_nothing_to_time(capsys, monkeypatch):
    empty = synth.timing.Timing(paths={}, load_ff={}, slew_ns={})
    monkeypatch.setattr(synth.timing, "analyse", lambda *_, **__: empty)
    code, out, _ = run(capsys, *DECODER)
    assert code == 0
    assert "no path: nothing depends on an input or a register" in out
    assert out.splitlines()[-1] == "clock of 2 ns met, slack 2.0000 ns"
    _, out, _ = run(capsys, *DECODER, "--json")
    assert json.loads(out)["max_frequency_mhz"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*DECODER, "--clock-ns", "0"], "clock_ns must be a positive number, not 0"),
        ([*DECODER, "--clock-ns", "nan"], "clock_ns must be a positive number, not nan"),
        ([*DECODER, "--clock-ns", "inf"], "clock_ns must be a positive number, not inf"),
        ([*DECODER, "--wire-cap-ff", "-1"], "wire_cap_ff must be a number of 0 or more, not -1"),
        ([*DECODER, "--module", "x"], "module must be one of dybit_weight_decoder_b4, not 'x'"),
        ([*DECODER, "--rows", "2"], "rows must be left out for dybit-decoder, which has no such"),
        (["timing", "fixed-mac", "dybit4"], "spec must be a format of fixed for fixed-mac, not dy"),
        ([*DECODER, "--library", "none.lib"], "none.lib"),
    ],
)
def test_bad_input(words, message, capsys):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert re.match(f"narrowgauge: error: .*{message}", err)
    assert err.count("\n") == 1


def test_clock_gates(capsys):
    lanes = ["timing", "weight_pool-engine", "--lanes", "2", "--json"]
    lanes += ["--module", "weight_pool_result_l8_m8"]
    _, plain, _ = run(capsys, *lanes)
    code, gated, _ = run(capsys, *lanes, "--clock-gating", "4")
    assert code == 0
    assert json.loads(plain)["clock_gating"] is None
    assert json.loads(gated)["clock_gating"] == 4
    assert json.loads(plain)["critical_path_ns"] != json.loads(gated)["critical_path_ns"]
    code, _, err = run(capsys, *lanes, "--clock-gating", "0")
    assert code == 2
    assert "--clock-gating" in err
    assert "0 is not in the range x>=1" in err


def test_modes(capsys):
    fused = ["timing", "dybit-fused_mac", "--modes", "8x8-4x4", "--json"]
    code, out, _ = run(capsys, *fused, "--module", "dybit_fused_weight_decoder_m8x8_4x4")
    assert code == 0
    assert json.loads(out)["module"] == "dybit_fused_weight_decoder_m8x8_4x4"
