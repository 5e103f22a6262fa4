"""The command ``narrowgauge library``: facts, import, and what a user sees of bad files."""

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from narrowgauge.cli import main
from narrowgauge.library_command import library_facts
from synth.library import load
from tests.tiny_liberty import BASICS, BUFFER, FLIP_FLOP, INVERTER, NAND, TIE, liberty

#: From the units of the hand-made library: 10 ps, 0.5 pF, and 0.5 pF x (0.1 V)^2 = 5 fJ.
PS, FF, FJ = 10.0, 500.0, 5.0

#: Its outputs take 4 and 8 units of energy.
HALF_ADDER = """cell (HA) { area : 5; pin (A, B) { direction : input; capacitance : 0.1; }
  pin (C) { direction : output; function : "A B";
    internal_power () { power (scalar) { values ("4"); } } }
  pin (S) { direction : output; function : "A ^ B";
    internal_power () { power (scalar) { values ("8"); } } } }"""
LATCH = "cell (L) { latch (I, J) { } area : 1; }"
SCAN = "cell (S) { test_cell () { } area : 1; }"


def write(folder, *cells, name="tiny.lib"):
    path = folder / name
    path.write_text(liberty(*cells))
    return path


class TestFacts:
    def test_by_hand(self, tmp_path):
        """Four inverters are 40 fF or 0.08 units; see the hand-made library for the tables."""
        library = load(write(tmp_path, *BASICS, TIE, LATCH, SCAN, LATCH))
        facts = library_facts(library)
        assert facts["cells"] == {"buffer": 1, "flip-flop": 1, "inverter": 1, "nand": 1, "tie1": 1}
        assert facts["left_out"] == {"latch": 2, "scan cell": 1}
        slew = (5 - 1.92 / 2 + 7) / 2
        assert facts["fo4_slew_ps"] == pytest.approx(slew * PS)
        # Rise 10 (slew) + 5 (load), fall 1/2 (load) + (slew - 1).
        rise, fall = 10 * (slew - 1) + 5 * 0.08, 0.08 / 2 + slew - 1
        assert facts["fo4_delay_ps"] == pytest.approx((rise + fall) / 2 * PS)
        inverter = facts["examples"]["inverter"]
        assert (inverter["cell"], inverter["area_um2"]) == ("INV", 2.5)
        assert inverter["delay_ps"] == pytest.approx(facts["fo4_delay_ps"])
        # Rise: the slew and 1; fall: 1.
        assert inverter["energy_fj"] == pytest.approx((slew + 1 + 1) / 2 * FJ)
        assert inverter["clock_fj"] is None
        assert facts["examples"]["nand2"]["energy_fj"] == pytest.approx((6 + 2) / 2 * FJ)
        flip_flop = facts["examples"]["flip-flop"]
        assert (flip_flop["delay_ps"], flip_flop["clock_fj"]) == (
            pytest.approx((11 + 12) / 2 * PS),
            pytest.approx((1 + 2 + 3 + 4) / 2 * FJ),
        )
        assert set(facts["examples"]) == {"inverter", "nand2", "flip-flop"}

    def test_several_outputs(self, tmp_path):
        facts = library_facts(load(write(tmp_path, *BASICS, HALF_ADDER)))
        assert facts["examples"]["half adder"]["energy_fj"] == pytest.approx((4 + 8) / 2 * FJ)

    @pytest.mark.parametrize(
        ("name", "adder"),
        [
            ("nangate45", "FA_X1"),
            ("sky130", "sky130_fd_sc_hd__fa_1"),
            ("asap7", "FAx1_ASAP7_75t_R"),
        ],
    )
    def test_full_adders(self, name, adder):
        assert library_facts(load(name))["examples"]["full adder"]["cell"] == adder


class TestShow:
    def test_text(self, capsys):
        assert main(["library", "show", "asap7"]) == 0
        out = capsys.readouterr().out
        assert "FO4          delay 18.89 ps, slew 24.74 ps" in out
        assert "licence      the library: BSD-3-Clause" in out
        assert "FAx1_ASAP7_75t_R" in out

    def test_several_files_and_json(self, tmp_path, capsys):
        parts = [
            write(tmp_path, INVERTER, BUFFER, LATCH, name="a 'b'.lib"),
            write(tmp_path, NAND, FLIP_FLOP, name="c,d.lib"),
        ]
        assert main(["library", "show", "--json", *map(str, parts)]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["source"] == "a 'b'.lib, c,d.lib"
        assert sum(facts["cells"].values()) == 4
        assert facts["left_out"] == {"latch": 1}

    def test_what_is_left_out(self, tmp_path, capsys):
        path = write(tmp_path, *BASICS, LATCH, SCAN, LATCH)
        assert main(["library", "show", str(path)]) == 0
        assert "left out     3: 2 latch, 1 scan cell\n" in capsys.readouterr().out


class TestList:
    def test_text(self, capsys):
        assert main(["library", "list"]) == 0
        out = capsys.readouterr().out
        assert [line.split()[0] for line in out.splitlines()] == ["asap7", "nangate45", "sky130"]

    def test_json(self, capsys):
        assert main(["library", "list", "--json"]) == 0
        listing = json.loads(capsys.readouterr().out)
        assert [entry["voltage_v"] for entry in listing] == [0.7, 1.1, 1.8]
        assert all(entry["licence"] and entry["cells"] > 40 for entry in listing)


class TestImport:
    def test_several_files(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write(tmp_path, INVERTER, BUFFER, TIE, name="-a b.lib")
        (tmp_path / "c.lib.gz").write_bytes(gzip.compress(liberty(NAND, FLIP_FLOP, SCAN).encode()))
        words = ["library", "import", "--name", "mine", "--licence", "MIT", "--exclude", "TIE*"]
        assert main([*words, "--", "-a b.lib", "c.lib.gz"]) == 0
        out = capsys.readouterr().out
        assert "left out     1: 1 scan cell" in out
        assert f"mine.toml: {(tmp_path / 'mine.toml').stat().st_size} bytes" in out
        library = load("mine.toml")
        assert sorted(library.cells) == ["BUF", "DFF", "INV", "NAND2"]
        assert (library.name, library.licence) == ("mine", "MIT")
        assert library.source == "-a b.lib, c.lib.gz"
        assert sorted(os.listdir()) == ["-a b.lib", "c.lib.gz", "mine.toml"]

    def test_replaces_only_what_it_wrote(self, tmp_path, capsys):
        source = str(write(tmp_path, *BASICS))
        target = tmp_path / "x.toml"
        words = ["library", "import", source, "--name", "x", "-o", str(target)]
        assert main(words) == 0
        assert main([*words, "--version", "2"]) == 0
        assert load(target).version == "2"
        target.write_text("[tool]\n")
        assert main(words) == 2
        assert "output must be a new file or an earlier compact lib" in capsys.readouterr().err
        assert target.read_text() == "[tool]\n"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"--name": 'a"b'}, "name must be a letter and then letters, digits, '_', '.' or '-'"),
            ({"--name": ""}, "name must be a letter and then"),
            ({"-o": "x.lib"}, "output must be a file that ends in .toml, not 'x.lib'"),
            ({"-o": "no/x.toml"}, "output must be in a folder that exists, not 'no/x.toml'"),
            ({"--exclude": "ZZ*"}, "exclude must fit at least one cell, not 'ZZ*'"),
        ],
    )
    def test_bad_arguments(self, tmp_path, monkeypatch, capsys, changes, message):
        monkeypatch.chdir(tmp_path)
        source = write(tmp_path, *BASICS)
        options = {"--name": "x", "-o": "x.toml"} | changes
        words = [word for pair in options.items() for word in pair]
        assert main(["library", "import", str(source), *words]) == 2
        assert message in capsys.readouterr().err
        assert os.listdir() == ["tiny.lib"]


#: Content of a file that is no library, and what is said about it.
BAD = {
    "empty": (b"", "must be a Liberty file, not "),
    "no text": (b"\x7fELF\x00\xff", "must be a text file, not "),
    "braces": (liberty(*BASICS)[:-3].encode(), "at whose end 1 groups are open"),
    "more braces": (liberty(*BASICS).encode() + b"}", "no Liberty in line"),
    "cut off": (gzip.compress(liberty(*BASICS).encode())[:-20], "must be a complete gzip file"),
    "include": (b'library (x) { include_file ("/etc/passwd"); }', "must hold all of its text"),
    "nothing usable": (liberty(LATCH).encode(), "must hold a plain flip-flop"),
    "units": (liberty(*BASICS).replace("10ps", "10 parsec").encode(), "must be like '1ns'"),
    "Verilog": (b"module m; endmodule", "no Liberty in line 1"),
    "bomb": (gzip.compress(bytes(64 << 20), 1) * 64, "of at most 64 MiB of text"),
    "text": (b"library (x) { }" + b" " * 100_000_000, "of at most 64 MiB of text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path, case):
    """One line and exit code 2, in 3 GB of address space, and no file."""
    content, message = BAD[case]
    path = tmp_path / 'it\'s "a" $(lib); .lib'
    path.write_bytes(content)
    program = "import sys; from narrowgauge.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "library", "import", str(path), "--name", "x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ
        | {"PYTHONPATH": str(Path(__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("narrowgauge: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert os.listdir(tmp_path) == [path.name]
