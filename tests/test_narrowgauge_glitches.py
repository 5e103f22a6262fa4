"""Energy with glitches beside that of settled values: in a comparison, and of measured designs."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from narrowgauge import report
from narrowgauge.catalogue import Options
from narrowgauge.check import compare_results
from narrowgauge.cli import main
from narrowgauge.compare import Settings, compare
from narrowgauge.measured import read_measured
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import Data, read
from narrowgauge.paper import comparison_markdown
from narrowgauge.table import figure, print_comparison, terminal
from tests.comparison_sample import comparison, measured_design

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "narrowgauge" / "schema" / "compare.json").read_text())
FIELD = "energy_with_glitches_per_mac_pj"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NARROWGAUGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_compare():
    """A figure more, and all others as they are without it, also from the cache."""
    embedded = digits()
    network = read(embedded.model_path)
    data = embedded.data
    small = Data(
        images=data.images[::40], labels=data.labels[::40], calibration=data.calibration[:16]
    )
    settings = Settings(options=Options(rows=4, cols=4, length=300), glitches=True)
    counted = compare(network, small, ["fixed3"], settings, jobs=1)
    plain = compare(network, small, ["fixed3"], replace(settings, glitches=False), jobs=1)
    assert (counted["settings"]["glitches"], plain["settings"]["glitches"]) == (True, False)
    (row,), (without,) = counted["rows"], plain["rows"]
    for one in (row, without):
        jsonschema.validate(one, {"$ref": "#/$defs/row", "$defs": SCHEMA["$defs"]})
    assert 1.01 < row[FIELD] / row["energy_per_mac_pj"] < 1.5
    layers = row["layers"]
    assert all(layer[FIELD] > layer["energy_per_mac_pj"] for layer in layers)
    macs = sum(layer["macs"] for layer in layers)
    assert row[FIELD] == pytest.approx(sum(one[FIELD] * one["macs"] for one in layers) / macs)
    assert without.pop(FIELD) is None
    del row[FIELD]
    for one in (*layers, *without["layers"]):
        del one[FIELD]
    assert row == without


@pytest.fixture
def sample():
    """A made-up comparison with glitches, as its file says it."""
    made = comparison()
    made["settings"]["glitches"] = True
    for row, factor in zip(made["rows"], (1.25, 1.5, 1.2, 1.4, 1.1), strict=True):
        row[FIELD] = factor * row["energy_per_mac_pj"]
        for layer in row["layers"]:
            layer[FIELD] = factor * layer["energy_per_mac_pj"]
    made["measured"] = [measured_design() | {FIELD: 0.9}, measured_design("other", None)]
    return json.loads(report.json_text(made))


def test_terminal(sample):
    def printed(result):
        console = terminal(80)
        console.file = io.StringIO()
        print_comparison(console, result)
        return console.file.getvalue()

    text = printed(sample)
    assert max(map(len, text.splitlines())) <= 80
    table = text.partition("Energy with glitches")[2].partition("Where the energy goes")[0]
    rows = [line.split() for line in table.splitlines()]
    assert ["fixed8", "1.000", "1.00", "1.250", "1.00", "25.0"] in rows
    assert ["tapered8:runs=4-7", "1.100", "1.10", "1.650", "1.32", "50.0"] in rows
    assert ["dot", "0.750", "0.75", "0.900", "0.72", "20.0"] in rows
    assert ["other", "-", "-", "-", "-", "-"] in rows
    assert "Energy with glitches" not in printed(comparison())


def test_files(sample):
    jsonschema.validate(sample, SCHEMA)
    rows = list(csv.DictReader(io.StringIO(report.csv_text(sample))))
    assert [row[FIELD] for row in rows[:2]] == ["1.25", "1.6500000000000001"]
    assert [row[FIELD] for row in rows[-2:]] == ["0.9", ""]
    heading = comparison_markdown(sample).partition("\n|")[2].partition("\n")[0]
    assert "with glitches (pJ per MAC)" in heading
    assert "with glitches" not in comparison_markdown(comparison())


def test_page(sample):
    text = report.html_text(sample)
    assert text.count("with glitches<small>pJ per MAC</small>") == 1 + len(sample["rows"])
    assert "not passed on to the next" in text
    plain = report.html_text(comparison())
    assert "with glitches" not in plain
    assert "glitches within a cycle are not counted" in plain


def test_check(sample):
    other = json.loads(json.dumps(sample))
    other["rows"][1][FIELD] *= 2
    (change,) = compare_results(sample, other).changes
    assert (change.row, change.field, change.relative) == ("tapered8:runs=4-7", FIELD, 1.0)


def test_command(monkeypatch, tmp_path, capsys):
    """The option is a setting, which a check takes over."""
    seen = []

    def made(network, data, formats, settings, *, jobs, progress):
        seen.append(settings.glitches)
        result = comparison()
        result["settings"]["glitches"] = settings.glitches
        for name in ("name", "source", "digest", "data_digest"):
            del result["network"][name]
        return result

    monkeypatch.setattr("narrowgauge.compare.compare", made)
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "-o", "out", "--glitches", "--library", "nangate45"]) == 0
    old = json.loads(Path("out/compare.json").read_text())
    old["settings"]["library"] = "nangate45"
    Path("old.json").write_text(json.dumps(old))
    main(["compare", "--check", "old.json"])
    main(["compare", "-o", "other"])
    assert seen == [True, True, False]
    old["settings"]["glitches"] = "yes"
    Path("old.json").write_text(json.dumps(old))
    capsys.readouterr()
    assert main(["compare", "--check", "old.json"]) == 2
    assert "settings.glitches is not true or false" in capsys.readouterr().err


def test_measured_design(monkeypatch, tmp_path, capsys):
    """Both figures in one run are those of two."""
    monkeypatch.chdir(tmp_path)
    Path("m.v").write_text(
        "module m(input [3:0] a, b, output [7:0] y); assign y = a * b; endmodule\n"
    )
    words = ["measure", "m.v", "--top", "m", "--random", "20", "--macs", "2"]
    results = []
    for more in (["--glitches"], ["--delays", "library"], []):
        assert main([*words, *more, "-o", "out"]) == 0
        results.append((json.loads(Path("out/measure.json").read_text()), capsys.readouterr().out))
    (both, text), (late, _), (plain, other) = results
    energy = both["energy_with_glitches_per_cycle_pj"]
    assert energy == pytest.approx(late["energy_per_cycle_pj"])
    assert both["energy_per_cycle_pj"] == plain["energy_per_cycle_pj"]
    assert late["energy_with_glitches_per_cycle_pj"] is None
    assert re.search(rf"^with glitches +{figure(energy, 4)} pJ per cycle$", text, re.M)
    assert "with glitches" not in other
    Path("b.json").write_text(json.dumps(both))
    Path("p.json").write_text(json.dumps(plain | {"design": plain["design"] | {"name": "p"}}))
    first, second = read_measured([Path("b.json"), Path("p.json")], Settings())
    assert first[FIELD] == pytest.approx(energy / 2)
    assert second[FIELD] is None
    assert main([*words, "--glitches", "--delays", "unit"]) == 2
    assert "delays must be none to count glitches apart, not 'unit'" in capsys.readouterr().err
