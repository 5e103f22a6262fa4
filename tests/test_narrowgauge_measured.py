"""Measured designs beside the formats of a comparison, and the form of the files they come from."""

import copy
import csv
import io
import json
import re
from pathlib import Path

import jsonschema
import pytest

from narrowgauge import report
from narrowgauge.cli import main
from narrowgauge.forms import load_form, read_json, require_form
from narrowgauge.machine import Settings
from narrowgauge.measured import read_measured
from narrowgauge.paper import comparison_latex, comparison_markdown
from narrowgauge.table import print_comparison, terminal
from tests.comparison_sample import comparison, measured_design
from tests.test_narrowgauge_compare_json import at, changed, places

FORMS = {name: load_form(name) for name in ("measure.json", "compare.json")}
VALIDATORS = {name: jsonschema.Draft202012Validator(form) for name, form in FORMS.items()}

MULTIPLY = """module multiply(input clk, input [3:0] a, b, output reg [7:0] y);
  always @(posedge clk) y <= a * b;
endmodule
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A design, measured with and without operands of a file, in folders of their own."""
    path = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NARROWGAUGE_CACHE", str(path / "cache"))
        patch.chdir(path)
        Path("multiply.v").write_text(MULTIPLY)
        words = ["measure", "multiply.v", "--top", "multiply", "--random", "20"]
        assert main([*words, "--macs", "0.5", "-o", "with"]) == 0
        assert main([*words, "--name", "no MACs", "-o", "without"]) == 0
    return path


@pytest.fixture
def result(folder):
    return json.loads((folder / "with" / "measure.json").read_text())


@pytest.fixture
def sample():
    """A made-up comparison with two measured designs, as its file says it."""
    made = comparison()
    made["measured"] = [measured_design(), measured_design("no MACs", None)]
    return json.loads(report.json_text(made))


# The published form, and our own check of it.


def test_form_of_a_measurement(folder):
    """It is strict, says what everything is, and fits what is written."""
    form = FORMS["measure.json"]
    jsonschema.Draft202012Validator.check_schema(form)
    objects = [
        value for _, value in places(form) if isinstance(value, dict) and "properties" in value
    ]
    assert len(objects) >= 8
    for value in objects:
        assert value["additionalProperties"] is False
        assert value["required"] == list(value["properties"])
        for description in value["properties"].values():
            assert {"description", "$ref"} & set(description)
    for name in ("with", "without"):
        VALIDATORS["measure.json"].validate(
            json.loads((folder / name / "measure.json").read_text())
        )


#: What is put in the place of a value; all kinds of JSON, and numbers at the borders of ranges.
WRONG = (None, True, -1, 0, 1, 1.5, 1e308, "", "text", "a\n", "0" * 64, [], {}, [None], {"a": 1})


def agree(name, document):
    """Whether a document has its form, by both judges."""
    try:
        require_form(document, FORMS[name])
        ours = True
    except ValueError:
        ours = False
    assert ours == VALIDATORS[name].is_valid(document)
    return ours


def test_own_check_is_that_of_the_standard(result):
    """Every field of a measurement, left out and of all kinds."""
    name = "measure.json"
    assert agree(name, result)
    del result["critical_path"][1:]
    refused = 0
    for path, value in list(places(result)):
        # A text may end in a line feed for the standard's regular expressions, not for ours.
        for wrong in WRONG:
            if path and not (wrong == "a\n" and isinstance(value, str)):
                *above, key = path
                refused += not agree(name, changed(result, above, key, wrong))
        if isinstance(value, dict):
            agree(name, changed(result, path, "new", 1))
            for key in value:
                refused += not agree(name, changed(result, path, key))
    assert refused > 500


def test_own_check_knows_the_form_of_comparisons(sample):
    del sample["rows"][1:]
    for path, value in list(places(sample["measured"], ("measured",))):
        *above, key = path
        agree("compare.json", changed(sample, above, key, -1))
        if isinstance(value, dict):
            agree("compare.json", changed(sample, path, "new", 1))
    assert agree("compare.json", sample)


@pytest.mark.parametrize(
    ("value", "form", "message"),
    [
        (1, {"type": "string"}, "^it must be of type string, not 1$"),
        (True, {"type": ["integer", "null"]}, "be of type integer or null, not true"),
        (float("inf"), {"type": "number"}, "be of type number, not Infinity"),
        (True, {"const": 1}, "it must be 1, not true"),
        ("c", {"enum": ["a", None]}, 'it must be one of "a", null, not "c"'),
        ({"a": 1}, {"required": ["a", "b"]}, "it must have b, not"),
        ({}, {"minProperties": 1}, "have at least 1 fields"),
        ([], {"minItems": 2}, r"have at least 2 entries, not \[\]"),
        ({"a": {"b": [0, -1]}}, {"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"a": {
            "additionalProperties": {"items": {"minimum": 0}}}}}}},
            r"^a\.b\.1 must be at least 0, not -1"),
        (0, {"exclusiveMinimum": 0}, "be above 0, not 0"),
        (2, {"maximum": 1}, "be at most 1, not 2"),
        ("a\n", {"pattern": "^a$"}, r'be a text like \^a\$, not "a\\n"'),
        ({"A": 1}, {"propertyNames": {"pattern": "^[a-z]$"}}, 'A must be a text like .*, not "A"'),
        ({"a": 1}, {"additionalProperties": False}, "no field that its form does not know, not"),
        (1, {"minimun": 2}, "form must have known keywords only, not 'minimun'"),
    ],
)  # fmt: skip
def test_what_a_check_says(value, form, message):
    with pytest.raises(ValueError, match=message):
        require_form(value, form)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"measured must be a readable file, not .*\(No such"):
        read_json(tmp_path / "gone", "measured", "measure.json")
    (tmp_path / "a").write_text("{")
    with pytest.raises(ValueError, match=r"measured must be a measure.json, not .*is no JSON"):
        read_json(tmp_path / "a", "measured", "measure.json")


# What may stand beside the formats.


def written(path, result):
    path.write_text(json.dumps(result))
    return [path]


def test_entry(folder, result):
    (entry,) = read_measured([folder / "with" / "measure.json"], Settings())
    assert (entry["name"], entry["top"], entry["macs_per_cycle"]) == ("multiply", "multiply", 0.5)
    assert entry["energy_per_mac_pj"] == pytest.approx(2 * result["energy_per_cycle_pj"])
    assert entry["area_per_mac_um2"] == pytest.approx(2 * result["area_um2"])
    assert entry["energy_per_cycle_breakdown_pj"] == result["energy_breakdown_pj"]
    assert entry["note"] == (
        "a measured design, on random operands (uniform), seed 1, not on the network's; "
        "0.5 multiply-accumulates in a cycle, as it states; no reset is known; registers start at 0"
    )
    for name in ("area_um2", "cells", "critical_path_ns", "slack_ns", "leakage_uw"):
        assert entry[name] == result[name]
    (other,) = read_measured([folder / "without" / "measure.json"], Settings())
    assert other["name"] == "no MACs"
    assert (other["energy_per_mac_pj"], other["area_per_mac_um2"]) == (None, None)
    assert "it states no multiply-accumulates (measure --macs)" in other["note"]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("library", "name"), "other", "library of the measured design in .* nangate45, .* other"),
        (("library", "digest"), "f" * 64, "digest of the library of the measured .* not ffff"),
        (("recipe",), "plain", "recipe of .* must be default, as of the comparison, not plain"),
        (("tools", "yosys"), "Yosys 0.1", r"Yosys of .* must be Yosys .*, not Yosys 0\.1"),
        (("delays",), "library", "delays of .* must be none, as of the comparison, not library"),
        (("schema",), 2, "schema must be 1, not 2"),
        (("cells",), "9", 'measure.json\': cells must be of type integer, not "9"'),
        (("area_um2",), 1.0, r"area_um2 must be [0-9.]+ by its other figures, not 1\.0"),
        (("energy_per_cycle_pj",), 1.0, "energy_per_cycle_pj must be .* by its other"),
        (("energy_per_mac_pj",), None, "energy_per_mac_pj must be .* by its other figures, not"),
        (("slack_ns",), 0.0, "slack_ns must be .* by its other figures, not 0.0"),
    ],
)
def test_designs_that_do_not_compare(tmp_path, result, place, value, message):
    *above, key = place
    at(result, above)[key] = value
    with pytest.raises(ValueError, match=message):
        read_measured(written(tmp_path / "measure.json", result), Settings())


def test_other_clock(folder):
    with pytest.raises(ValueError, match=r"clock_ns of .* must be 1\.5, as of the comp.* not 2\.0"):
        read_measured([folder / "with" / "measure.json"], Settings(clock_ns=1.5))


def test_clock_gating(folder):
    with pytest.raises(ValueError, match=r"clock_gating of the measured .* must be 3, .* not None"):
        read_measured([folder / "with" / "measure.json"], Settings(clock_gating=3))
    assert read_measured([], Settings(clock_gating=3)) == []


def test_one_name_twice(folder):
    path = folder / "with" / "measure.json"
    with pytest.raises(ValueError, match="different names, not 'multiply' twice"):
        read_measured([path, path], Settings())


def test_other_code_is_marked(tmp_path, result):
    result["tools"]["code"] = "0" * 64
    result["settings"]["stimuli"]["file"] = "s.npz"
    (entry,) = read_measured(written(tmp_path / "measure.json", result), Settings())
    assert "measured with other code of narrowgauge" in entry["note"]
    assert entry["operands"] == "operands of a file"


def test_name_of_a_design(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for name in ("", " a", "a\n", "\u00b5", "a" * 41):
        assert main(["measure", "multiply.v", "--top", "multiply", "--name", name]) == 2
        assert "name must be up to 40 characters of ASCII" in capsys.readouterr().err


# Where they stand.


def test_terminal(sample):
    console = terminal(80)
    console.file = io.StringIO()
    print_comparison(console, sample)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    # Accuracy, SQNR, products, area, its factor (500 to 781.25 um2), energy, factor, delay, leak.
    first = next(line.split() for line in lines if re.match(r"dot\b", line))
    assert first == ["dot", "-", "-", "4", "2.0", "0.64", "0.750", "0.75", "1.25", "40"]
    first = next(line.split() for line in lines if line.startswith("no MACs"))
    assert first == ["no", "MACs", "-", "-", "-", "2.0", "-", "-", "-", "1.25", "40"]
    assert [line.strip() for line in lines].count("measured") >= 2
    # Shares of energy: logic 2 of 3 pJ and so on, and no part that nobody has told apart.
    shares = "\n".join(lines).split("Where the energy goes, %")[1]
    first = next(line.split() for line in shares.splitlines() if re.match(r"dot\b", line))
    assert first == ["dot", "-", "-", "-", "16.7", "-", "8.3", "8.3", "66.7"]
    assert re.search(r"^dot: a measured design, on random operands", "\n".join(lines), re.M)


def test_csv(sample):
    rows = list(csv.DictReader(io.StringIO(report.csv_text(sample))))
    dot, bare = rows[-2:]
    assert (dot["design"], dot["spec"]) == ("measured", "dot")
    assert (dot["accuracy"], dot["sqnr_db"]) == ("", "")
    assert (dot["energy_per_mac_pj"], dot["energy_logic_pj"], dot["energy_multiply_pj"]) == (
        "0.75", "0.5", "",
    )  # fmt: skip
    assert (bare["energy_per_mac_pj"], bare["energy_logic_pj"], bare["area_logic_um2"]) == (
        "", "", "1500.0",
    )  # fmt: skip
    assert rows[0]["energy_multiply_pj"] == "0.35"
    assert rows[0]["energy_logic_pj"] == "0.0"


def test_papers(sample):
    markdown = comparison_markdown(sample)
    assert re.search(
        r"^\| dot \(measured\) +\| +- \| +- \| +0.750 \| +0.75 \| +500.0 \|", markdown, re.M
    )
    assert r"\texttt{no MACs (measured)} & -- & -- & -- & -- & -- & --" in comparison_latex(sample)


def test_page(sample):
    sample["measured"][0]["command"] = "narrowgauge measure '</script><b>.v'"
    text = report.html_text(sample)
    assert text.count("</script>") == 1
    assert "other designs, mapped alike" in text
    tables = dict(re.findall(r'aria-label="([^"]+)">\s*<table.*?>(.*?)</table>', text, re.S))
    for name in ("Comparison", "Hardware", "Area"):
        assert tables[name].count('data-system="measured"') == 2, name
    charts = dict(re.findall(r'<figure aria-label="([^"]+)">(.*?)</figure>', text, re.S))
    points = {
        name: len(re.findall(r'class="point" data-system="measured"', body))
        for name, body in charts.items()
    }
    # The wide and the narrow picture; only what has an energy of a multiply-accumulate.
    assert points["Energy against delay"] == 2
    for name in ("Accuracy against energy", "SQNR against energy", "Throughput against area"):
        assert points[name] == 0
    assert charts["Energy per multiply-accumulate, pJ"].count('data-system="measured"') == 1
    assert "other designs" not in report.html_text(comparison())


@pytest.fixture
def patched(monkeypatch, folder, tmp_path):
    """The command, with the formats' figures made up."""
    monkeypatch.chdir(tmp_path)

    def measure(network, data, formats, settings, *, jobs, progress):
        made = copy.deepcopy(comparison())
        for name in ("name", "source", "digest", "data_digest"):
            del made["network"][name]
        for name in ("command", "measured"):
            del made["settings"][name]
        del made["measured"]
        made["settings"]["library"] = "nangate45"
        return made

    monkeypatch.setattr("narrowgauge.compare.compare", measure)
    return [str(folder / name / "measure.json") for name in ("with", "without")]


def test_command(patched, capsys):
    words = [word for path in patched for word in ("--measured", path)]
    assert main(["compare", "-o", "out", *words]) == 0
    assert "a measured design" in capsys.readouterr().out
    result = json.loads(Path("out/compare.json").read_text())
    VALIDATORS["compare.json"].validate(result)
    assert [entry["name"] for entry in result["measured"]] == ["multiply", "no MACs"]
    assert result["settings"]["measured"] == patched


def test_check_reads_them_again(patched, tmp_path, capsys):
    copy_of = tmp_path / "measure.json"
    copy_of.write_bytes(Path(patched[0]).read_bytes())
    assert main(["compare", "-o", "out", "--measured", str(copy_of)]) == 0
    capsys.readouterr()
    assert main(["compare", "--check", "out/compare.json"]) == 0
    assert "The figures of 6 rows are those" in capsys.readouterr().out
    result = json.loads(copy_of.read_text())
    # Another command and other bytes are no other figures.
    result["settings"]["command"] = "again"
    copy_of.write_text(json.dumps(result))
    assert main(["compare", "--check", "out/compare.json"]) == 0
    result["leakage_uw"] *= 2
    copy_of.write_text(json.dumps(result))
    capsys.readouterr()
    assert main(["compare", "--check", "out/compare.json", "--format", "json"]) == 1
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert (change["row"], change["field"], change["relative"]) == ("multiply", "leakage_uw", 1.0)
    copy_of.unlink()
    assert main(["compare", "--check", "out/compare.json"]) == 2
    assert "measured must be a readable file" in capsys.readouterr().err


def test_results_from_before_there_were_any(patched, capsys):
    assert main(["compare", "-o", "out"]) == 0
    path = Path("out/compare.json")
    result = json.loads(path.read_text())
    del result["settings"]["measured"], result["measured"]
    Path("old.json").write_text(json.dumps(result))
    capsys.readouterr()
    assert main(["compare", "--check", "old.json"]) == 1  # there is a field more
    result["settings"]["measured"] = [1]
    Path("old.json").write_text(json.dumps(result))
    assert main(["compare", "--check", "old.json"]) == 2
    assert "settings.measured is not a list of texts" in capsys.readouterr().err


def test_refused_before_the_work(patched, capsys):
    assert main(["compare", "-o", "out", "--measured", "gone.json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "narrowgauge: error: measured must be a readable file, not 'gone.json' (No such file or "
        "directory)\n"
    )
    assert not Path("out").exists()
