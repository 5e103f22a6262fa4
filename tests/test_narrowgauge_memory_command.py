"""The command prints the figures of a memory and their sources, or one line of what is wrong."""

import json

import pytest

from narrowgauge.cli import main
from synth.library import load
from synth.memory import choose_model, memory_cost


def test_json(capsys):
    assert main(["memory", "2048x100", "--library", "sky130", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    library = load("sky130")
    cost = memory_cost(choose_model("sky130", library), library, 2048, 100)
    assert (result["rows"], result["row_bits"]) == (2048, 100)
    assert result["library"]["name"] == "sky130"
    assert (result["read_pj"], result["write_pj"]) == (cost.read_pj, cost.write_pj)
    assert result["leakage_uw"] == cost.leakage_uw
    # Macros of at most 32 bits and 1024 rows.
    assert (result["across"], result["down"]) == (4, 2)
    sources = {source["name"]: source for source in result["model"]["sources"]}
    assert sources["openram-spice"]["licence"] == "Apache-2.0"


def test_text(capsys):
    assert main(["memory", "64x32", "--library", "asap7"]) == 0
    text = capsys.readouterr().out
    assert "memory     64 rows of 32 bits, 1 macro\n" in text
    assert "mind       no point of this size" in text
    assert "https://github.com/The-OpenROAD-Project/asap7_sram_0p0" in text
    assert "licence: BSD-3-Clause" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "http" not in line)


def test_text_of_a_table(capsys):
    assert main(["memory", "1024x64", "--memory", "horowitz2014"]) == 0
    text = capsys.readouterr().out
    assert "read       10.0 pJ\n" in text
    assert "leakage    not stated\n" in text
    assert "ISSCC 2014" in text


def test_text_of_registers(capsys):
    assert main(["memory", "8x8", "--memory", "jouppi2021"]) == 0
    text = capsys.readouterr().out
    assert "8 rows of 8 bits, registers\n" in text
    assert "cells      DFF_X1 and MUX2_X1 of nangate45\n" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0x3"], "size must be ROWSxBITS, such as 1024x64, not '0x3'"),
        (["3x0"], "size must be ROWSxBITS, such as 1024x64, not '3x0'"),
        (["64"], "size must be ROWSxBITS, such as 1024x64, not '64'"),
        (["-1x8"], "No such option"),
        (
            ["8x8", "--memory", "none"],
            "memory must name a model for the library nangate45, not none",
        ),
        (["8x8", "--memory", "sram"], "memory must be one of asap7, "),
        (["8x8", "--memory", "no.toml"], "memory must be a file that can be read, not 'no.toml'"),
    ],
)
def test_bad_input(capsys, arguments, message):
    assert main(["memory", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("narrowgauge: error: ")
    assert message in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "sram"], "memory must be one of asap7, "),
        (["--off-chip", "flash"], "off_chip must be one of ddr, "),
    ],
)
def test_bad_input_of_a_comparison(capsys, tmp_path, arguments, message):
    """It is refused before anything is mapped, and no folder stays."""
    folder = tmp_path / "out"
    assert main(["compare", "-o", str(folder), "--formats", "fixed8", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("narrowgauge: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not folder.exists()
