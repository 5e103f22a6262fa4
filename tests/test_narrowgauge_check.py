"""What a result says against an earlier one, and tables for papers and programs."""

import copy
import csv
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from narrowgauge import report
from narrowgauge.check import compare_results, print_differences, read_result
from narrowgauge.cli import main
from narrowgauge.columns import Cell, Column
from narrowgauge.paper import (
    comparison_latex,
    comparison_markdown,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
)
from narrowgauge.table import terminal
from tests.comparison_sample import comparison

SPECIAL = 'a_b%c$d&e#f{g}h\\i~j^k|l<m>n"o`p\nq'


@pytest.fixture
def sample():
    """A result as its file says it."""
    return json.loads(report.json_text(comparison()))


@pytest.fixture
def changed(sample):
    """The same result with a change of every kind."""
    result = copy.deepcopy(sample)
    result["tools"]["numpy"] = "9.9"
    result["settings"]["command"] = "narrowgauge compare --check old.json"
    result["library"]["digest"] = "f" * 64
    first, second = result["rows"][:2]
    first["energy_per_mac_pj"] = 1.25
    first["sqnr_db"] = None
    first["layers"][1]["macs"] = 336_705
    first["layers"][1]["energy_per_mac_pj"] = 0.5
    del second["note"]
    second["critical_path"].pop()
    del result["rows"][4]
    return result


def found(old, new):
    """Row, field and both values of every change."""
    changes = compare_results(old, new).changes
    return [(change.row, change.field, change.old, change.new) for change in changes]


def printed(old, new, style="text", width=80):
    console = terminal(width)
    console.file = io.StringIO()
    print_differences(console, compare_results(old, new), old_name="old.json", style=style)
    return console.file.getvalue()


# What differs.


def test_all_changes_are_found(sample, changed):
    assert found(sample, changed) == [
        ("", "library.digest", "0" * 64, "f" * 64),
        ("fixed8", "energy_per_mac_pj", 1.0, 1.25),
        ("fixed8", "sqnr_db", 40.0, None),
        ("fixed8", "layers.conv2.macs", 336_704, 336_705),
        ("fixed8", "layers.conv2.energy_per_mac_pj", 1.0, 0.5),
        ("tapered8:runs=4-7", "critical_path", "2 entries", "1 entries"),
        ("tapered8:runs=4-7", "note", "", "absent"),
        ("fixed4", "row", "present", "absent"),
    ]
    differences = compare_results(sample, changed)
    assert [change.field for change in differences.versions] == ["numpy"]
    assert not differences.same
    relative = {change.field: change.relative for change in differences.changes}
    assert relative["energy_per_mac_pj"] == 0.25
    assert relative["layers.conv2.energy_per_mac_pj"] == -0.5
    assert relative["sqnr_db"] is relative["row"] is None


def test_every_single_figure_counts(sample):
    """Also the last bit of one: results are the same on every run, or something has changed."""
    for path, value in leaves(sample):
        if path in (("schema",), ("settings", "command")) or path[0] == "tools":
            continue
        other = copy.deepcopy(sample)
        *above, key = path
        place = other
        for step in above:
            place = place[step]
        place[key] = 1.000_000_000_000_001 * value + 1e-12 if is_number(value) else f"{value}!"
        # A row, layer or unit of another name is another one.
        is_name = key in ("spec", "name", "role") and len(path) in (3, 5)
        assert len(found(sample, other)) == (2 if is_name else 1), path


def leaves(value, path=()):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        # One of the elements of a list stands for all.
        for key, item in list(items) if isinstance(value, dict) else list(items)[:1]:
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_command_and_versions_alone_are_no_change(sample):
    other = copy.deepcopy(sample)
    other["settings"]["command"] = "another"
    other["tools"]["python"] = "4.0"
    other["tools"]["new"] = "1"
    differences = compare_results(sample, other)
    assert differences.same
    assert [(one.field, one.old, one.new) for one in differences.versions] == [
        ("python", "3.12.0", "4.0"), ("new", "absent", "1"),
    ]  # fmt: skip


def test_order_of_rows(sample):
    """The first one is the baseline."""
    other = copy.deepcopy(sample)
    other["rows"][:2] = other["rows"][1::-1]
    ((row, field, was, now),) = found(sample, other)
    assert (row, field) == ("", "order of rows")
    assert was.startswith("fixed8, tapered8:runs=4-7, fixed6")
    assert now.startswith("tapered8:runs=4-7, fixed8, fixed6")


def test_rows_whose_names_begin_alike(sample):
    sample["rows"][0]["spec"] = "tapered8:runs=4-7.5"
    other = copy.deepcopy(sample)
    other["rows"][0]["cells"] += 1
    assert [row for row, *_ in found(sample, other)] == ["tapered8:runs=4-7.5"]


def test_units_that_are_the_same_module(sample):
    """Activations and weights of as many bits have equal skews."""
    for unit in sample["rows"][0]["units"]:
        unit["module"] = "skew"
    other = copy.deepcopy(sample)
    other["rows"][0]["units"][0]["cells"] += 1
    assert [field for _, field, *_ in found(sample, other)] == ["units.pe.cells"]


def test_truth_is_no_number(sample):
    other = copy.deepcopy(sample)
    other["settings"]["seed"] = True
    assert found(sample, other) == [("", "settings.seed", 1, True)]


# How it is printed.


def test_text(sample, changed):
    lines = printed(sample, changed).splitlines()
    assert max(map(len, lines)) <= 80
    words = [" ".join(line.split()) for line in lines]
    assert "numpy 2.4.6 9.9" in words
    assert "library.digest 000000000... fffffffff..." in words
    start = words.index("fixed8")
    assert words[start : start + 5] == [
        "fixed8", "energy_per_mac_pj 1 1.25 +25 %", "sqnr_db 40 null",
        "layers.conv2.energy_per_mac_pj 1 0.5 -50 %", "... 1 more in layers",
    ]  # fmt: skip
    assert words[-1] == ("Of 4 rows, 3 differ from old.json, and so does what they have in common.")


def test_text_when_nothing_changed(sample):
    assert printed(sample, sample) == "The figures of 5 rows are those of old.json.\n"
    one = copy.deepcopy(sample)
    one["rows"] = one["rows"][:1]
    assert printed(one, one) == "The figures of 1 row are those of old.json.\n"
    other = copy.deepcopy(sample)
    other["rows"][0]["cells"] += 1
    assert printed(sample, other).splitlines()[-1] == "Of 5 rows, 1 differs from old.json."


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (1.0000001, "1 1.0000001 +1e-05 %"),
        (1.0 + 2**-52, "1.0 1.0000000000000002 +2.22e-14 %"),
        (-0.5, "1 -0.5 -150 %"),
        (1e-20, "1.0 1e-20 -100 %"),
    ],
)
def test_values_that_differ_look_different(sample, new, words):
    other = copy.deepcopy(sample)
    other["rows"][0]["energy_per_mac_pj"] = new
    lines = [" ".join(line.split()) for line in printed(sample, other, width=100).splitlines()]
    shown = words.split()
    expected = [word if len(word) <= 12 else f"{word[:9]}..." for word in shown]
    assert " ".join(["energy_per_mac_pj", *expected]) in lines


def test_json_and_csv_have_everything(sample, changed):
    listing = json.loads(printed(sample, changed, "json"))
    assert listing["same"] is False
    assert [one["field"] for one in listing["versions"]] == ["numpy"]
    assert listing["changes"][1] == {
        "row": "fixed8", "field": "energy_per_mac_pj", "old": 1.0, "new": 1.25, "relative": 0.25,
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(printed(sample, changed, "csv"))))
    assert [row["field"] for row in rows][:3] == [
        "tools.numpy", "library.digest", "energy_per_mac_pj",
    ]  # fmt: skip
    assert len(rows) == len(listing["changes"]) + 1
    assert rows[2]["relative"] == "0.25"


def test_markdown_and_latex_of_changes(sample, changed):
    text = printed(sample, changed, "markdown")
    assert re.search(
        r"^\| fixed8 +\| energy\\_per\\_mac\\_pj +\| 1 +\| 1.25 +\| \+25 %", text, re.M
    )
    assert text.splitlines()[-1].startswith("Of 4 rows, 3 differ")
    assert printed(sample, sample, "markdown") == "The figures of 5 rows are those of old.json.\n"
    text = printed(sample, changed, "latex")
    assert r"\texttt{fixed8} & energy\_per\_mac\_pj & 1 & 1.25 & +25 \% \\" in text
    assert r"\caption{Of 4 rows, 3 differ" in text


# Files that are none.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"check must be a compare.json, not '.*old.json', which is no JSON"),
        (b"{", r"which is no JSON"),
        (b"\xff\xfe", r"which is no text"),
        (b"[" * 100_000, r"which is no JSON"),
        (b"[]", r"which states no schema"),
        (b"{}", r"which states no schema"),
        (b'{"schema": 2}', r"schema of '.*old.json' must be 1, not 2"),
        (b'{"schema": "1\\n"}', r"schema of '.*old.json' must be 1, not '1\\n'"),
        (b'{"schema": 1}', r"whose network is no object"),
    ],
)
def test_files_that_are_no_results(tmp_path, content, message):
    path = tmp_path / "old.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_result(path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("tools",), [], "tools is no object"),
        (("library",), None, "library is no object"),
        (("network", "source"), 1, "network.source is not a text"),
        (("settings", "library"), 1, "settings.library is not a text"),
        (("settings", "clock_ns"), "2", "settings.clock_ns is not a positive number"),
        (("settings", "clock_ns"), -1, "settings.clock_ns is not a positive number"),
        (("settings", "clock_ns"), float("nan"), "settings.clock_ns is not a positive number"),
        (("settings", "rows"), 1.5, "settings.rows is not a whole number"),
        (("settings", "cols"), True, "settings.cols is not a whole number"),
        (("settings", "method"), ["sweep"], "settings.method is not sweep or paper"),
        (("settings", "seed"), -1, "settings.seed is not a whole number from 0"),
        (("rows",), {}, "rows are no list of objects"),
        (("rows",), [], "rows are no list of objects"),
        (("rows", 0), "fixed8", "rows are no list of objects"),
        (("rows", 0, "spec"), None, "rows do not each have a spec of their own"),
        (("rows", 0, "spec"), "fixed6", "rows do not each have a spec of their own"),
    ],
)
def test_results_that_cannot_be_repeated(tmp_path, sample, place, value, message):
    *above, key = place
    inner = sample
    for step in above:
        inner = inner[step]
    inner[key] = value
    (tmp_path / "old.json").write_text(json.dumps(sample))
    with pytest.raises(ValueError, match=rf"check must be a compare.json, .*, whose {message}"):
        read_result(tmp_path / "old.json")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"check must be a readable file, .*\(No such file"):
        read_result(tmp_path / "missing.json")
    with pytest.raises(ValueError, match=r"check must be a readable file, .*\(Is a directory"):
        read_result(tmp_path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(100 << 20)  # takes no space
    with pytest.raises(ValueError, match="check must be at most 64 MiB, not 100 MiB"):
        read_result(tmp_path / "huge.json")


# The command.


@pytest.fixture
def measured(monkeypatch):
    """Leave the measuring out; the arguments that it would have got, and the result it gives."""
    calls = []
    result = comparison()

    def measure(network, data, formats, settings, *, jobs, progress):
        calls.append((list(formats), settings))
        given = copy.deepcopy(result)
        for name in ("name", "source", "digest", "data_digest"):
            del given["network"][name]
        del given["settings"]["command"]
        return given

    monkeypatch.setattr("narrowgauge.compare.compare", measure)
    return calls, result


@pytest.fixture
def earlier(measured, tmp_path, monkeypatch, capsys):
    """Folder of an earlier result, in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "-o", "out"]) == 0
    capsys.readouterr()
    measured[0].clear()
    return tmp_path / "out"


def test_check_repeats_what_was_done(measured, earlier, capsys):
    old = json.loads((earlier / "compare.json").read_text())
    old["settings"] |= {
        "library": "mine.lib", "clock_ns": 1.5, "rows": 4, "cols": 8, "method": "paper", "seed": 7,
    }  # fmt: skip
    (earlier.parent / "old.json").write_text(json.dumps(old))
    assert main(["compare", "--check", "old.json"]) == 1  # the made-up result has other settings
    ((formats, settings),) = measured[0]
    assert formats == [row["spec"] for row in old["rows"]]
    assert (settings.library, settings.clock_ns, settings.method) == ("mine.lib", 1.5, "paper")
    assert (settings.options.rows, settings.options.cols, settings.seed) == (4, 8, 7)
    # What is given counts.
    arguments = ["--formats", "fixed8,fixed6", "--clock-ns", "2", "--rows", "16", "--seed", "1"]
    main(["compare", "--check", "old.json", *arguments])
    formats, settings = measured[0][1]
    assert formats == ["fixed8", "fixed6"]
    assert (settings.clock_ns, settings.options.rows, settings.options.cols) == (2.0, 16, 8)
    assert (settings.seed, settings.method) == (1, "paper")
    assert sorted(os.listdir(".")) == ["old.json", "out"]


def test_check_says_what_changed(measured, earlier, capsys):
    assert main(["compare", "--check", "out/compare.json"]) == 0
    assert capsys.readouterr().out == "The figures of 5 rows are those of out/compare.json.\n"
    measured[1]["tools"]["numpy"] = "9.9"
    assert main(["compare", "--check", "out/compare.json"]) == 0
    assert "numpy" in capsys.readouterr().out
    measured[1]["rows"][2]["area_um2"] *= 2
    assert main(["compare", "--check", "out/compare.json", "--format", "json"]) == 1
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert (change["row"], change["field"], change["relative"]) == ("fixed6", "area_um2", 1.0)


def test_check_against_what_is_replaced(measured, earlier, capsys):
    measured[1]["rows"][2]["area_um2"] *= 2
    for code in (1, 0):
        assert main(["compare", "-o", "out", "--check", "out/compare.json"]) == code
    rows = json.loads((earlier / "compare.json").read_text())["rows"]
    assert rows[2]["area_um2"] == 240_000.0


def test_check_of_the_users_network(measured, earlier, capsys):
    old = json.loads((earlier / "compare.json").read_text())
    old["network"]["source"] = "net.onnx"
    (earlier.parent / "old.json").write_text(json.dumps(old))
    assert main(["compare", "--check", "old.json"]) == 2
    assert capsys.readouterr().err == (
        "narrowgauge: error: model must be given to repeat a result of 'net.onnx', not left out\n"
    )


def test_check_refuses_before_the_work(measured, earlier, capsys):
    (earlier.parent / "old.json").write_text('{"schema": 7}')
    assert main(["compare", "-o", "new", "--check", "old.json"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, measured[0]) == ("", [])
    assert printed.err == "narrowgauge: error: schema of 'old.json' must be 1, not 7\n"
    assert not Path("new").exists()


def test_network_and_data_have_digests(earlier):
    folder = Path(report.__file__).parent / "networks"
    network = json.loads((earlier / "compare.json").read_text())["network"]
    for field, name in (("digest", "digits.onnx"), ("data_digest", "digits.npz")):
        assert network[field] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


# Tables for papers.


@pytest.mark.parametrize("style", ["markdown", "latex", "csv", "json"])
def test_format_prints_nothing_else(measured, tmp_path, capsys, style):
    assert main(["compare", "-o", str(tmp_path / "out"), "--format", style]) == 0
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    writers = {
        "markdown": comparison_markdown, "latex": comparison_latex,
        "csv": report.csv_text, "json": report.json_text,
    }  # fmt: skip
    assert out == writers[style](result)


def test_latex_of_a_comparison(sample):
    sample["rows"][1] |= {
        "spec": "elp_bsd4:set=E4-2", "slack_ns": -0.25, "note": "100 % of it", "retrained": True,
    }  # fmt: skip
    lines = comparison_latex(sample).splitlines()
    assert r"\begin{tabular}{lrrrrrrrrrr}" in lines
    start = lines.index(r"\toprule")
    assert lines[start + 1] == (
        r"format & accuracy & SQNR & energy &  & area per MAC &  & critical path & slack & leakage"
        r" & storage \\"
    )
    assert lines[start + 2] == (
        r" & (\%) & (dB) & (pJ per MAC) & $\times$ & ($\mu$m\textsuperscript{2}) & $\times$ & (ns)"
        r" & (ns) & ($\mu$W) & (bits per weight) \\"
    )
    # 150 000 / 256 um2, to four digits of the largest, 781.2.
    assert lines[start + 5] == (
        r"\texttt{elp\_bsd4:set=E4-2 (retrained)} & 98.50 & 36.0 & 1.100 & 1.10 & 585.9 & 0.75"
        r" & 1.50 & $-$0.250 & 3000 & 8.0 \\"
    )
    (caption,) = (line for line in lines if line.startswith(r"\caption"))
    assert r"elp\_bsd4:set=E4-2: 100 \% of it.}" in caption
    for fact in ("synthetic45", "2 ns clock", "Yosys 0.70", "seed 1"):
        assert fact in caption
    sample["rows"][1]["sqnr_db"] = None
    assert r"98.50 & -- & 1.100" in comparison_latex(sample)


def test_markdown_of_a_comparison(sample):
    sample["rows"][1] |= {"spec": "elp_bsd4:set=E4-2", "note": "a|b"}
    lines = comparison_markdown(sample).splitlines()
    heading, rule, *_ = table = [line for line in lines if line.startswith("|")]
    cells = [cell.strip() for cell in heading.strip("|").split("|")]
    assert cells[:6] == ["format", "accuracy (%)", "SQNR (dB)", "energy (pJ per MAC)", "\u00d7",
                         "area per MAC (\u00b5m\u00b2)"]  # fmt: skip
    assert re.fullmatch(r"\| :-+ (\| -+: )+\|", rule)
    assert len({len(line) for line in table}) == 1
    assert len(table) == 2 + 5
    assert re.match(r"\| elp\\_bsd4:set=E4-2 +\| +98.50 \| +36.0 \|", table[3])
    assert lines[-1] == r"- elp\_bsd4:set=E4-2: a\|b"
    assert lines[0].endswith("narrowgauge 0.1.0, Yosys 0.70 (pyosys).")


def test_special_characters_are_text():
    assert latex_text(SPECIAL) == (
        r"a\_b\%c\$d\&e\#f\{g\}h\textbackslash{}i\textasciitilde{}j\textasciicircum{}k\textbar{}l"
        r"\textless{}m\textgreater{}n''o\textasciigrave{}p q"
    )
    assert markdown_text(SPECIAL) == (r"a\_b%c\$d\&e#f{g}h\\i\~j^k\|l\<m\>n" + r'"o\`p q')
    key = Column(title=SPECIAL, unit="", cells=[Cell(text=SPECIAL, value="")] * 2, is_text=True)
    figures = Column(
        title="", unit=SPECIAL, cells=[Cell(text="1", value=1), Cell(text="-", value=None)]
    )
    latex = latex_table([key, figures], SPECIAL)
    assert [len(re.findall(r"(?<!\\)&", line)) for line in latex.splitlines()[6:]] == [
        1, 1, 0, 1, 1, 0, 0, 0,
    ]  # fmt: skip
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    for line in markdown_table([key, figures]).splitlines():
        assert len(re.findall(r"(?<!\\)\|", line)) == 3


def test_markdown_reads_as_it_was_written():
    """By an independent parser, the one that Rich brings along."""
    names = [SPECIAL, "elp_bsd4:set=E4-2,scale_pow2=yes", "*a* <b>x</b> [c](d) `e` ~~f~~ &amp; |"]
    cells = [Cell(text=name, value=name) for name in names]
    text = markdown_table([Column(title="a_b_c", unit="*%*", cells=cells, is_text=True)])
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    shown = [
        html.unescape(cell) for cell in re.findall("<t[dh].*?>(.*?)</t[dh]>", parser.render(text))
    ]
    assert shown == ["a_b_c (*%*)", *(name.replace("\n", " ") for name in names)]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_is_set_without_errors(tmp_path, sample):
    sample["network"]["name"] = SPECIAL
    for row, name in zip(sample["rows"], [SPECIAL, *"\u00b5\u00b2\u00d7", "[a]"], strict=False):
        row["spec"] = name
    (tmp_path / "a.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}"
        + comparison_latex(sample)
        + r"\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")
