"""What people read of a comparison: terminal tables, JSON, CSV and the page with pictures."""

import csv
import html
import html.parser
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from golden.formats import parse
from narrowgauge import report, table
from narrowgauge.pictures import (
    NARROW,
    group_marks,
    histogram,
    pareto_front,
    part_colours,
    scatter,
    strip,
    strip_limits,
)
from narrowgauge.rows import memory_kinds
from tests.comparison_sample import comparison, memory, with_memories

ROOT = Path(__file__).parents[1]
HOSTILE = "</script><script>alert(1)</script><b \"'&"


def printed(width, function, *arguments):
    """Lines that a function prints to a pipe of this width."""
    console = table.terminal(width)
    console.file = io.StringIO()
    function(console, *arguments)
    return console.file.getvalue().splitlines()


# Figures.


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1.0, 3, "1.00"),
        (0.05, 3, "0.0500"),
        (1234.5, 3, "1234"),
        (-9.87, 2, "-9.9"),
        (0.0, 3, "0"),
        (None, 3, "-"),
        (math.inf, 3, "-"),
        (math.nan, 3, "-"),
    ],
)
def test_figure(value, digits, text):
    assert table.figure(value, digits) == text


def test_aligned_figures_share_their_decimals():
    assert table.aligned([99.5, 1.25, None, -0.5], 4) == ["99.50", "1.25", "-", "-0.50"]


# Codes.


@pytest.mark.parametrize(
    ("text", "values"),
    [
        # spec/tapered.md, table of n = 4, IS = 3; codes 9 to 15 are the negatives of 7 to 1.
        (
            "tapered4:max_run=3",
            [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, -3, -2.5, -2, -1.5, -1, -0.75, -0.5, -0.25],
        ),
        ("fixed3:frac_bits=1", [0, 0.5, 1, 1.5, -2, -1.5, -1, -0.5]),
    ],
)
def test_code_values(text, values):
    columns = parse(text).spec().code_table()
    assert columns["value"] == values
    assert columns["code"] == list(range(len(values)))


def test_tapered_fields():
    """By hand: in 01101, a run of three ones (I = 2), its end, and a fraction of one bit."""
    columns = parse("tapered5:max_run=5,scale_exp=-1").spec().code_table()
    rows = list(zip(*columns.values(), strict=True))
    assert list(columns) == ["code", "binary", "hex", "value", "run", "integer", "fraction"]
    assert rows[0b00000] == (0, "00000", "00", 0.0, 1, 0, 0.0)
    assert rows[0b00011] == (3, "00011", "03", 3 / 16, 1, 0, 3 / 8)
    assert rows[0b01101] == (13, "01101", "0d", 1.25, 3, 2, 0.5)
    assert rows[0b01111] == (15, "01111", "0f", 2.0, 5, 4, 0.0)
    assert rows[0b10000] == (16, "10000", "10", -2.5, 5, -5, 0.0)
    assert rows[0b10110] == (22, "10110", "16", -0.75, 2, -2, 0.5)


def test_fixed_fields():
    columns = parse("fixed4:frac_bits=6").spec().code_table()
    assert columns["integer"] == [*range(8), *range(-8, 0)]
    assert columns["hex"][10] == "a"


def test_codes_as_csv_and_json():
    spec = parse("fixed10").spec()
    rows = list(csv.DictReader(io.StringIO(table.codes_csv(spec))))
    assert len(rows) == 1024
    assert rows[513] == {
        "code": "513", "binary": "1000000001", "hex": "201", "value": str(-511 / 512),
        "integer": "-511",
    }  # fmt: skip
    parsed = json.loads(table.codes_json(spec))
    assert (parsed["spec"], parsed["bits"]) == ("fixed10:frac_bits=9", 10)
    assert [str(code["value"]) for code in parsed["codes"]] == [row["value"] for row in rows]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("text", ["fixed8", "tapered8", "tapered5", "fixed2"])
def test_all_codes_are_printed(text, width):
    spec = parse(text).spec()
    lines = printed(width, table.print_codes, spec)
    found = re.findall(rf"(?<![01.]) *([01]{{{spec.bits}}})  *[0-9a-f]+ ", "\n".join(lines))
    assert sorted(found) == [f"{code:0{spec.bits}b}" for code in range(1 << spec.bits)]
    assert max(map(len, lines)) <= max(width, 40)


def test_codes_beside_each_other():
    """Read down the first block, then down the second."""
    lines = printed(80, table.print_codes, parse("fixed4").spec())
    assert lines[0].startswith("fixed4:frac_bits=3: 16 values from -1 to 0.875, 0.125 apart")
    blocks = [line.split() for line in lines[2:]]
    count = blocks[0].count("binary")
    assert count == 3
    assert blocks[1][:4] == ["0000", "0", "0.000", "0"]
    assert blocks[1][4:8] == ["0110", "6", "0.750", "6"]
    assert len({line.index("binary") for line in lines[2:3]}) == 1


def test_long_tables_are_cut():
    lines = printed(80, table.print_codes, parse("fixed16").spec())
    assert sum("more with --csv" in line for line in lines) == 1
    assert "... 65504 more with --csv or --json ..." in lines
    heading = lines.index("") + 1
    assert len(lines) == heading + 1 + 16 + 1 + 16
    assert lines[-1].split() == ["1" * 16, "ffff", "-0.000030517578125", "-1"]


# The terminal.


@pytest.mark.parametrize("width", range(40, 101, 4))
def test_comparison_fits(width):
    lines = printed(width, table.print_comparison, comparison())
    assert max(map(len, lines)) <= width
    # Nothing was cut: every figure of every row is there.
    words = " ".join(lines).split()
    for row in comparison()["rows"]:
        wanted = [row["spec"], f"{row['accuracy']:.2f}", f"{row['sqnr_db']:.1f}"]
        wanted += [f"{row['area_um2'] / 1000:.1f}", f"{row['energy_per_mac_pj']:.3f}"]
        assert set(wanted) <= set(words)
    assert "…" not in "".join(lines)


def test_comparison_at_80_columns():
    """The whole first table side by side; figures worked out from the sample by hand."""
    lines = printed(80, table.print_comparison, comparison())
    rows = {line.split()[0]: line.split() for line in lines[6:12] if line.strip()}
    assert rows["fixed8"][1:] == [
        "99.00", "40.0", "256", "200.0", "1.00", "1.000", "1.00", "1.50", "4000",
    ]  # fmt: skip
    assert rows["tapered8:runs=4-7"][1:] == [
        "98.50", "36.0", "256", "150.0", "0.75", "1.100", "1.10", "1.50", "3000",
    ]  # fmt: skip
    split = next(index for index, line in enumerate(lines) if "energy goes" in line)
    assert lines[split + 1].split() == [
        "format", "decode", "mult.", "accum.", "regs", "encode", "clock", "leak",
    ]  # fmt: skip
    assert lines[split + 3].split()[1:] == ["5.0", "35.0", "20.0", "15.0", "2.0", "18.0", "5.0"]


def test_comparison_says_on_what():
    text = " ".join(printed(80, table.print_comparison, comparison()))
    for fact in (
        "synthetic",
        "99.07 %",
        "540 images",
        "16x16",
        "2 ns",
        "synthetic45",
        "narrowgauge 0.1.0, Yosys 0.70 (pyosys)",
    ):
        assert fact in text


def test_comparison_without_labels():
    result = comparison()
    result["network"]["float_accuracy"] = None
    for row in result["rows"]:
        row["accuracy"] = None
    result["rows"][0]["sqnr_db"] = math.inf
    lines = printed(80, table.print_comparison, result)
    assert "float32" not in "".join(lines)
    assert next(line for line in lines if line.startswith("fixed8")).split()[1:3] == ["-", "-"]


def test_comparison_with_a_note():
    result = comparison()
    result["rows"][1]["note"] = "saturates"
    assert "tapered8:runs=4-7: saturates" in printed(80, table.print_comparison, result)


#: Memory of a made-up engine that does 64 products in a cycle.
MEMORY = memory("table", None)


def with_engine():
    """The sample, with its second row an engine that was retrained."""
    result = comparison()
    result["rows"][1] |= {
        "retrained": True,
        "memories": [MEMORY, MEMORY | {"name": "sums", "accesses_per_mac": 0.25}],
        "macs_per_cycle": 64,
        "area_per_mac_um2": 150_000 / 64,
    }
    return result


def test_comparison_with_an_engine():
    """Areas are compared for equal throughput; memories and retraining are stated."""
    lines = printed(80, table.print_comparison, with_engine())
    rows = [line.split() for line in lines]
    (first,) = [row for row in rows if row[:1] == ["tapered8:runs=4-7"] and "64" in row]
    # 150 000 / 64 over 200 000 / 256.
    assert first[3:6] == ["64", "150.0", "3.00"]
    assert rows[rows.index(first) + 1] == ["retrained"]
    heading = next(number for number, line in enumerate(lines) if "Memories" in line)
    assert lines[heading] == "Memories on the chip are not counted; --memory names a model of them."
    assert "Memories" not in " ".join(printed(80, table.print_comparison, comparison()))


def test_page_with_an_engine():
    text = report.html_text(with_engine())
    assert "tapered8:runs=4-7 (retrained)</th>" in text
    rows = re.findall(r"<tr[^>]*>\s*<th[^>]*>tapered8:runs=4-7</th>(.*?)</tr>", text, re.S)
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in rows]
    assert ["table", "256", "512", "-", "15.62", "0"] in cells
    assert "Their energy is not counted" in text
    assert 'id="memories"' not in report.html_text(comparison())
    assert "memories" not in report.csv_text(with_engine())


def test_comparison_with_memories():
    """What memories cost is beside the figures of the logic, by what they hold."""
    lines = printed(80, table.print_comparison, with_memories())
    heading = lines.index("Memories beside the logic, pJ per MAC, in no figure above")
    assert lines[heading + 1] == "model synthetic45; off chip ddr, 20 pJ a bit"
    rows = [line.split() for line in lines[heading + 5 :]]
    # Weights, and with them biases, of 0.5 and 0.125 pJ for the first row.
    assert rows[0] == ["fixed8", "0.250", "0.62", "0.125", "1.00", "4.0", "256"]
    assert rows[4] == ["fixed4", "0.250", "2.62", "0.125", "3.00", "20.0", "256"]
    assert all(len(line) <= 80 for line in lines)
    # The weights of each row.
    assert "5 of 20 memories are of sizes for which" in " ".join(lines)
    # The figures above are those without memories.
    plain = printed(80, table.print_comparison, comparison())
    assert lines[: heading - 1] == plain[: heading - 1]


def test_comparison_with_off_chip_memory_alone():
    result = comparison()
    result["memory"]["off_chip"] = with_memories()["memory"]["off_chip"]
    for row in result["rows"]:
        row["off_chip_energy_per_mac_pj"] = 2.5
    lines = printed(80, table.print_comparison, result)
    assert "off chip ddr, 20 pJ a bit" in lines
    assert ["fixed8", "2.50"] in [line.split() for line in lines]
    assert "Memories on the chip are not counted; --memory names a model of them." in lines


def test_page_with_memories():
    """The page has each memory, a bar of logic and memories, and every source."""
    text = report.html_text(with_memories())
    rows = re.findall(r"<tr[^>]*>\s*<th[^>]*>fixed8</th>(.*?)</tr>", text, re.S)
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in rows]
    assert [
        "activations", "256", "512", "8 macros", "15.62", "0.00",
        "32.0", "16.0", "0.25", "64.0", "128", "0.250",
    ] in cells  # fmt: skip
    kinds = {cell[0]: cell[3] for cell in cells if cell[1:3] == ["256", "512"]}
    assert kinds == {
        "activations": "8 macros",
        "weights": "8 macros *",
        "biases": "registers",
        "results": "8 macros",
    }
    for fact in (
        "Mind: nothing is true",
        "data sheet of nothing: https://example.org/sheet, sheet.lib, licence: CC0",
        "a paper",
        "ddr, 20.0 pJ a bit",
        "apart, 1.00 pJ",
    ):
        assert fact in " ".join(text.split())
    figure = text[text.index('aria-label="Energy of logic and memories"') :]
    bars = re.findall(r'class="bar".*?</b>', figure, re.S)[:5]
    # Logic of 1 pJ and memories of 1 pJ; the longest bar is 0.3 and 3, so that of 3.3 is full.
    first = dict(re.findall(r'title="([a-z]+)" style="width: ([0-9.]+)%', bars[0]))
    assert {name: float(width) for name, width in first.items()} == pytest.approx(
        {"logic": 100 / 3.3, "activations": 25 / 3.3, "weights": 62.5 / 3.3, "results": 12.5 / 3.3},
        abs=1e-3,
    )
    assert "<b>2.00</b>" in bars[0]
    assert 'aria-label="Energy of logic' not in report.html_text(comparison())


def test_memories_that_some_rows_have():
    """A row without sums has 0 for them; one without figures has none."""
    result = with_memories()
    result["rows"][1]["memories"].append(memory("beside sums", 0.75))
    result["rows"][2]["memory_energy_per_mac_pj"] = None
    kinds = memory_kinds(result["rows"])
    assert list(kinds) == ["activations", "weights", "sums", "results"]
    assert kinds["sums"] == [0.0, 0.75, None, 0.0, 0.0]
    result["rows"][3]["memories"].append(memory("queue", 0.5))
    assert list(memory_kinds(result["rows"]))[-1] == "queue"
    assert 'title="queue"' in report.html_text(result)


def test_csv_with_memories():
    rows = list(csv.DictReader(io.StringIO(report.csv_text(with_memories()))))
    assert (rows[0]["memory_model"], rows[0]["off_chip"]) == ("synthetic45", "ddr")
    assert rows[1]["memory_energy_per_mac_pj"] == "1.5"
    assert rows[1]["off_chip_energy_per_mac_pj"] == "8.0"
    assert rows[1]["memory_weights_pj"] == "1.125"
    for row in rows:
        parts = ("activations", "weights", "results")
        total = sum(float(row[f"memory_{part}_pj"]) for part in parts)
        assert total == pytest.approx(float(row["memory_energy_per_mac_pj"]))


def test_markup_in_names_is_text():
    result = comparison()
    result["rows"][1]["spec"] = "[red]x[/red]:cat:"
    assert any("[red]x[/red]:cat:" in line for line in printed(80, table.print_comparison, result))


def test_new_parts_come_last():
    rows = [
        {"energy_breakdown_pj": {"leakage": 1.0, "lookup": 2.0}},
        {"energy_breakdown_pj": {"decode": 1.0}},
    ]
    assert table.parts(rows, "energy_breakdown_pj") == ["decode", "leakage", "lookup"]


# JSON and CSV.


def test_json():
    result = comparison()
    assert json.loads(report.json_text(result)) == result


def test_json_has_no_infinity():
    result = comparison()
    result["rows"][0]["sqnr_db"] = math.inf
    text = report.json_text(result)
    assert json.loads(text, parse_constant=pytest.fail)["rows"][0]["sqnr_db"] is None


def test_csv():
    rows = list(csv.DictReader(io.StringIO(report.csv_text(comparison()))))
    assert [row["spec"] for row in rows] == [
        "fixed8", "tapered8:runs=4-7", "fixed6", "tapered6", "fixed4",
    ]  # fmt: skip
    assert rows[0]["area_um2"] == "200000.0"
    assert rows[0]["area_multiply_um2"] == "80000.0"
    assert rows[0]["energy_clock_pj"] == "0.18"
    # Lines of several results can be put together.
    assert rows[0]["library"] == "synthetic45"
    assert rows[0]["clock_ns"] == "2.0"
    assert rows[0]["yosys"] == "Yosys 0.70 (pyosys)"
    for row in rows:
        energies = [float(row[key]) for key in row if re.fullmatch(r"energy_[a-z]+_pj", key)]
        assert len(energies) == 7
        assert sum(energies) == pytest.approx(float(row["energy_per_mac_pj"]))


# Pictures.


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1.0, 1.0)], [0]),
        # The second costs more and gives less; the third costs most and gives most.
        ([(1.0, 5.0), (2.0, 4.0), (3.0, 6.0)], [0, 2]),
        # Of equal cost the better one, of equal merit the cheaper one, of equal points the first.
        ([(1.0, 1.0), (1.0, 2.0), (2.0, 2.0)], [1]),
        ([(2.0, 2.0), (1.0, 1.0), (2.0, 2.0)], [1, 0]),
    ],
)
def test_pareto_front(points, front):
    assert pareto_front(points) == front


def picture_texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_scatter_names_every_point():
    points = [("fixed8", "fixed", 1.0, 99.0), ("tapered8", "tapered", 1.01, 98.9)]
    svg = scatter("a", points, "energy, pJ", "accuracy, %", reference=("float32", 99.07))
    assert {"fixed8", "tapered8", "float32", "energy, pJ"} <= set(picture_texts(svg))
    # One marker for each point.
    assert svg.count("<use ") == 2
    marks = group_marks(["fixed", "tapered", "fixed"])
    assert list(marks) == ["fixed", "tapered"]
    for variable, _ in marks.values():
        assert f"fill: var({variable})" in svg


def test_labels_of_close_points_do_not_cover_each_other():
    points = [(f"format{n}", "fixed", 1.0 + n / 1000, 99.0) for n in range(6)]
    svg = scatter("a", points, "x", "y")
    places = re.findall(r' x="([\d.]+)" y="([\d.]+)"[^>]*>format\d<', svg)
    assert len(places) == 6
    for one, (x, y) in enumerate(places):
        for other_x, other_y in places[:one]:
            assert abs(float(x) - float(other_x)) > 40 or abs(float(y) - float(other_y)) > 10


def test_lines_lead_to_labels_that_are_far():
    """Two points have room beside each other, twenty at the same place have not."""
    far = [(f"format{n}", "fixed", 1.0, 99.0) for n in range(20)]
    lines = scatter("a", far, "x", "y").count('class="line" data-system="fixed"')
    assert 8 < lines < 20
    near = scatter("a", [*far[:1], ("b", "fixed", 2.0, 98.0)], "x", "y")
    assert 'class="line"' not in near


def test_scatter_of_one_point():
    assert "fixed8" in picture_texts(scatter("a", [("fixed8", "fixed", 0.5, 99.0)], "x", "y"))


def front_of(svg):
    """Corners of the line that joins the best points, in units of the drawing, y downwards."""
    outline = re.search(r'<g class="front[^"]*">\n<path d="([^"]*)"', svg)[1]
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", outline)]


def point_places(svg):
    """Place of each point by what its tooltip says."""
    pattern = r'<g class="point"[^>]*><title>([^<]*)</title>.*?<use [^>]*x="([\d.]+)" y="([\d.]+)"'
    return {name: (float(x), float(y)) for name, x, y in re.findall(pattern, svg, re.S)}


def test_points_know_their_number_system():
    points = [("fixed8", "fixed", 1.0, 99.0), ("a<b", "tapered", 1.5, 98.0)]
    svg = scatter("a", points, "x", "y")
    assert re.findall(r'class="point" data-system="(\w+)"', svg) == ["fixed", "tapered"]
    assert list(point_places(svg)) == ["fixed8: 1, 99", "a&lt;b: 1.5, 98"]
    # A point and its label each.
    assert svg.count('data-system="tapered"') == 2


def test_front_of_more_and_of_less():
    """Of the second picture, b betters a, and c costs least of the second kind."""
    points = [("a", "x", 1.0, 3.0), ("b", "x", 1.0, 2.0), ("c", "x", 2.0, 1.0)]
    svg = scatter("a", points, "x", "y")
    corners = front_of(svg)
    assert corners[0] == point_places(svg)["a: 1, 3"]
    assert {y for _, y in corners} == {corners[0][1]}
    svg = scatter("a", points, "x", "y", less_is_better=True)
    places = point_places(svg)
    assert 'class="front less"' in svg
    (bx, by), (cx, cy) = places["b: 1, 2"], places["c: 2, 1"]
    assert front_of(svg)[:3] == [(bx, by), (cx, by), (cx, cy)]
    assert front_of(svg)[-1][1] == cy


def test_costs_are_drawn_from_zero_unless_that_wastes_the_picture():
    ticks = picture_texts(scatter("a", [("p", "x", 0.4, 1.0), ("q", "x", 1.0, 2.0)], "x", "y"))
    assert "0.0" in ticks
    ticks = picture_texts(scatter("a", [("p", "x", 1.4, 1.0), ("q", "x", 2.0, 2.0)], "x", "y"))
    assert "0.0" not in ticks


def test_narrow_pictures_leave_labels_out_that_would_cover_others():
    points = [(f"weight_pool{n}", "pool", 1.0 + n / 100, 99.0 + n / 100) for n in range(20)]
    wide, narrow = (scatter("a", points, "x", "y", **size) for size in ({}, {"size": NARROW}))
    assert sum(text.startswith("weight") for text in picture_texts(wide)) == 20
    shown = [text for text in picture_texts(narrow) if text.startswith("weight")]
    assert 3 < len(shown) < 20
    assert "weight_pool0" in shown


def test_names_in_pictures_are_short():
    """Parameters are left out where nothing else has the name."""
    result = comparison()
    result["rows"][2]["spec"] = "elp_bsd4:set=E4-2,scale_pow2=yes"
    result["rows"][3]["spec"] = "tapered8"
    charts = re.search(r'<div class="wide">(.*?)</div>', report.html_text(result), re.S)[1]
    assert {"fixed8", "tapered8:runs=4-7", "elp_bsd4", "tapered8"} <= set(picture_texts(charts))


def test_charts_are_of_the_figures():
    """Of fixed8, by hand: 256 MACs, of which 87.5 % are used, in 1.5 ns are 149.3 in one."""
    charts = re.findall(r'<div class="wide">(.*?)</div>', report.html_text(comparison()), re.S)
    assert [next(name for name in point_places(chart) if name.startswith("fixed8:"))
            for chart in charts] == [
        "fixed8: 1, 99", "fixed8: 1, 40", "fixed8: 200, 149.3", "fixed8: 1.5, 1",
    ]  # fmt: skip
    assert ["front less" in chart for chart in charts] == [False, False, False, True]


def test_bars_are_as_long_as_their_parts():
    """In percent of the longest bar, here that of 8 pJ."""
    result = comparison()
    result["rows"] = result["rows"][:2]
    result["rows"][0]["energy_breakdown_pj"] = {"multiply": 3.0, "clock": 1.0}
    result["rows"][1]["energy_breakdown_pj"] = {"multiply": 6.0, "lookup": 2.0}
    page = report.html_text(result)
    figure = re.search(r'<figure aria-label="Energy per multiply-accumulate, pJ">(.*?)</figure>',
                       page, re.S)[1]  # fmt: skip
    bars = re.findall(
        r'data-system="(\w+)">\s*<div class="format">(.*?)</div>(.*?)</b>', figure, re.S
    )
    assert [bar[:2] for bar in bars] == [("fixed", "fixed8"), ("tapered", "tapered8:runs=4-7")]
    pattern = r'title="([\w-]+)" style="width: ([\d.]+)%; background: var\((--series-\d)\)"'
    parts = [re.findall(pattern, bar[2]) for bar in bars]
    colours = part_colours(["multiply", "clock", "lookup"])
    assert len(set(colours.values())) == 3
    assert parts == [
        [("multiply", "37.5000", colours["multiply"]), ("clock", "12.5000", colours["clock"])],
        [("multiply", "75.0000", colours["multiply"]), ("lookup", "25.0000", colours["lookup"])],
    ]
    assert [bar[2].rpartition("<b>")[2] for bar in bars] == ["4.00", "8.00"]


def test_parts_keep_their_colours():
    assert part_colours(["clock", "x"])["clock"] == part_colours(["decode", "clock"])["clock"]


def test_strips_mark_every_value_in_range():
    """A strip is 1000 units wide, here from -1.08 to 1.08."""
    limits = strip_limits([-1.0, 0.0, 1.0])
    assert limits == pytest.approx((-1.08, 1.08))
    path, shown, count = strip([-2.0, -0.54, 0.0, 0.0, 0.54], limits)
    assert (path, shown, count) == ("M250 0v10M500 0v10M750 0v10", 3, 4)
    assert strip([7.0], limits) == ("", 0, 1)


def test_histogram_is_as_high_as_its_counts():
    assert histogram([0.0, 0.5, 1.0], [1, 4]) == (
        "M37.04 100V75H500V0H962.96V100Z"
    )  # 0.04 / 1.08 of 1000 on either side
    assert histogram([0.0, 1.0], [0]).count("100") == 3


def test_many_values_stay_small():
    values = [code / (1 << 16) for code in range(-(1 << 15), 1 << 15)]
    path, shown, _ = strip(values, (-0.5, 0.5))
    assert shown == 1 << 16
    assert len(path) < 20_000


def test_pictures_have_no_colours_of_their_own():
    page = report.html_text(comparison())
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert not re.search(r"#[0-9a-f]{6}\b", pictures)
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", pictures))
    style = re.search(r"<style>(.*)</style>", page, re.S)[1]
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", style))


# The page.


class Page(html.parser.HTMLParser):
    """Checks that elements are nested, and collects identifiers, links and texts."""

    VOID = {"meta", "br", "hr", "img", "input", "link"}

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.texts = [], [], [], []
        self.attributes = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_page_is_well_formed():
    page = Page(report.html_text(comparison()))
    assert len(page.ids) == len(set(page.ids))
    # Four charts for wide and for narrow pages, the histogram, and a strip for each format.
    assert page.tags.count("svg") == 2 * 4 + 1 + 5
    assert page.tags.count("script") == 1


def test_page_loads_nothing():
    text = report.html_text(comparison())
    assert not re.search(r"https?:|//[a-z]", text.replace("// Rows without", ""))
    for tag, name, value in Page(text).attributes:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
        assert name not in {"src", "srcset", "action", "onclick", "onload"}
        if name.endswith("href"):
            assert value.startswith("#")
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert re.findall(r"url\((.)", text) == ["#"] * text.count("url(")


def test_page_shows_all_figures():
    text = " ".join(" ".join(Page(report.html_text(comparison())).texts).split())
    for fact in (
        "narrowgauge compare -o build/compare", "synthetic45", "licence: none",
        "conv1", "conv2", "DFF_X1", "XOR2_X1", "tapered_pe", "fixed_encoder", "98.50", "4000",
        "Yosys 0.70", "sweep", "99.07", "of pyosys 0.70", "0" * 64, "1" * 64, "2" * 64, "3" * 64,
        "0.050 ns of setup: 1.500 ns in all", "667 MHz",
    ):  # fmt: skip
        assert fact in text


def test_page_has_the_figures_of_a_row():
    """Of tapered8:runs=4-7, by hand: 87.5 % utilisation, 150 000 um2 / 256 = 585.9 um2."""
    text = report.html_text(comparison())
    rows = re.findall(r"<tr[^>]*>\s*<th[^>]*>tapered8:runs=4-7</th>(.*?)</tr>", text, re.S)
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in rows]
    assert cells[0] == [
        "98.50", "36.0", "1.100", "1.10", "585.9", "0.75", "1.50", "0.500", "3000", "8.0",
    ]  # fmt: skip
    assert cells[-1] == [
        "tapered-array", "8 / 8 / 28", "256", "87.5", "75\u202f000", "150.0", "100.0",
    ]  # fmt: skip


def test_page_escapes_names():
    result = comparison()
    result["network"]["name"] = HOSTILE
    result["network"]["source"] = HOSTILE
    result["settings"]["command"] = HOSTILE
    result["weights"]["layer"] = HOSTILE
    result["library"]["name"] = HOSTILE
    for row in result["rows"]:
        row["spec"] += HOSTILE
        row["note"] = HOSTILE
        row["layers"][0]["name"] = HOSTILE
        row["units"][0]["module"] = HOSTILE
        row["critical_path"][0]["cell"] = HOSTILE
        row["values"]["spec"] = HOSTILE
    page = Page(report.html_text(result))
    assert page.tags.count("script") == 1
    assert page.tags.count("b") == Page(report.html_text(comparison())).tags.count("b")
    assert sum(HOSTILE in text for text in page.texts) >= 30


def test_dollar_signs_are_no_formulas():
    result = comparison()
    result["rows"][0]["spec"] = "a$x^2$b"
    assert "a$x^2$b" in picture_texts(report.html_text(result))


def test_page_without_accuracy():
    result = comparison()
    result["network"]["float_accuracy"] = None
    for row in result["rows"]:
        row["accuracy"] = None
    page = Page(report.html_text(result))
    assert page.tags.count("svg") == 2 * 3 + 1 + 5
    assert "Least energy" not in " ".join(page.texts)
    assert "None" not in " ".join(page.texts)


def test_page_with_unknown_parts_and_wires():
    result = comparison()
    result["settings"]["wire_cap_ff"] = 1.5
    result["rows"][0]["energy_breakdown_pj"]["lookup"] = 0.125
    text = " ".join(Page(report.html_text(result)).texts)
    assert "lookup" in text
    assert "1.5 fF for each pin" in " ".join(text.split())


def answers(result):
    """Question, figure and the rest of each answer on the page."""
    found = re.findall(r'<div class="answer">(.*?)</div>\n</div>', report.html_text(result), re.S)
    return [" ".join(re.sub(r"<[^>]*>", " ", answer).split()) for answer in found]


def test_answers():
    """Of the sample, fixed8 and tapered8 are within 1 point of 99.07 %."""
    assert answers(comparison()) == [
        "Least energy 1.00 pJ per MAC fixed8 , the baseline",
        "Least area 586 \u00b5m\u00b2 per MAC tapered8:runs=4-7 , 25 % less than fixed8",
        "Best accuracy 99.00 % fixed8 , the baseline",
    ]


def test_answers_without_memories():
    """What a look-up engine keeps in memories is not in its figures, and that is said."""
    result = comparison()
    result["rows"][1] |= {"memories": [MEMORY], "energy_per_mac_pj": 0.5, "accuracy": 99.5}
    energy, area, accuracy = answers(result)
    assert energy == (
        "Least energy 0.500 pJ per MAC tapered8:runs=4-7 , 50 % less than fixed8 ; "
        "its memories not counted"
    )
    assert area.endswith("; its memories not counted")
    assert accuracy == "Best accuracy 99.50 % tapered8:runs=4-7"


def test_answers_when_something_else_is_best():
    result = comparison()
    result["rows"][2]["accuracy"] = 99.2
    assert answers(result)[0] == "Least energy 0.600 pJ per MAC fixed6 , 40 % less than fixed8"
    assert answers(result)[2] == "Best accuracy 99.20 % fixed6"


def test_no_answer_when_nothing_is_good_enough():
    result = comparison()
    for row in result["rows"]:
        row["accuracy"] = 90.0
    assert answers(result) == []


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1.004, "as much as"), (0.75, "25 % less than"), (1.2, "20 % more than")],
)
def test_change_in_words(ratio, words):
    result = comparison()
    result["rows"] = result["rows"][:2]
    result["rows"][0]["accuracy"] = 50.0
    result["rows"][1]["energy_per_mac_pj"] = ratio
    assert words in answers(result)[0]


def test_same_bytes_whatever_the_user_has_set(tmp_path):
    """Neither the hash seed nor the user's settings of matplotlib reach the page."""
    (tmp_path / "matplotlibrc").write_text("axes.labelpad: 30\nsvg.fonttype: path\n")
    program = (
        "import sys; from narrowgauge.report import html_text;"
        "from tests.comparison_sample import comparison;"
        "sys.stdout.buffer.write(html_text(comparison()).encode())"
    )
    environment = os.environ | {
        "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "MATPLOTLIBRC": str(tmp_path),
    }  # fmt: skip
    other = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    assert other.stdout.decode() == report.html_text(comparison())
    assert other.stderr == b""


def test_write(tmp_path):
    report.write(comparison(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "compare.csv", "compare.json", "report.html",
    ]  # fmt: skip


# Legibility.


def luminance(colour):
    """Relative luminance, as the Web Content Accessibility Guidelines define it."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colours_are_legible(mode):
    """Texts have a contrast of 4.5 or more, marks and bars of 2 or more, in both modes."""
    style = (ROOT / "narrowgauge" / "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.S)[:2]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", light))
    if mode == "dark":
        colours |= dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", dark))
    for name in ("ink", "muted", "accent"):
        assert contrast(colours[name], colours["paper"]) >= 4.5
        assert contrast(colours[name], colours["panel"]) >= 4.5
    series = [name for name in colours if name.startswith("series-")]
    assert len(series) == 10
    for name in series:
        assert contrast(colours[name], colours["paper"]) >= 2.0


# In a browser.

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
in_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")

#: Sorts and filters as a reader would, and says what the page looks like then.
PROBE = """
<script>
const probed = document.querySelector("table.sortable");
const isShown = (element) => element.checkVisibility({ visibilityProperty: true });
const shown = (selector) => [...document.querySelectorAll(selector)].filter(isShown);
const column = () =>
  [...probed.tBodies[0].rows].filter(isShown).map((row) => row.cells[0].textContent);
const pictures = () => shown(".pictures svg").map((svg) => ({
  width: svg.getBoundingClientRect().width,
  points: [...svg.querySelectorAll(".point")].filter(isShown).map(
    (point) => point.querySelector("title").textContent),
  labels: [...svg.querySelectorAll("g[data-system]:not(.point, .line)")].filter(isShown).length,
  front: svg.querySelector(".front path").getAttribute("d"),
}));
const state = () => ({
  column: column(), pictures: pictures(), bars: shown(".bar").length,
  details: shown("details").length, strips: shown(".strips [data-system]").length,
  output: document.querySelector("output").value,
});
const seen = { sorted: [column()] };
for (const index of [3, 3, 0]) {
  const head = probed.tHead.rows[0].cells[index];
  head.querySelector("button").click();
  seen.sorted.push([head.getAttribute("aria-sort"), ...column()]);
}
const button = probed.tHead.querySelector("button");
button.focus();
seen.focus = document.activeElement === button && button.tabIndex === 0;
seen.all = state();
document.querySelector("input[value=tapered]").click();
seen.tapered = state();
document.querySelector("form.filter button").click();
const page = document.documentElement;
seen.wide = page.scrollWidth > page.clientWidth;
seen.paper = getComputedStyle(document.body).backgroundColor;
seen.sticky = getComputedStyle(document.querySelector("form.filter")).position;
setTimeout(() => {
  seen.again = state();
  // With the longest name among the default formats.
  document.querySelector("tbody th").textContent = "weight_pool64:act_bits=4 (retrained)";
  const scroll = document.querySelector(".scroll");
  seen.cut = scroll.scrollWidth > scroll.clientWidth;
  document.body.dataset.seen = JSON.stringify(seen);
}, 50);
</script>
"""

#: A window cannot be as narrow as a telephone, a frame can.
FRAME = """<!DOCTYPE html><iframe src="page.html" style="width: 360px; height: 640px"></iframe>
<script>
addEventListener("load", () => setTimeout(() => {
  const body = document.querySelector("iframe").contentDocument.body;
  document.body.dataset.seen = body.dataset.seen;
}, 500));
</script>
"""


def browser(tmp_path, *arguments):
    """Run Chromium to its end."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--virtual-time-budget=3000", "--no-first-run", "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def browse(tmp_path, *options, frame=False, extra=""):
    """Open the page: what the probe says, and what the browser prints of it."""
    text = report.html_text(with_memories()).replace("</body>", PROBE + extra + "</body>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME, encoding="utf-8")
    opened = tmp_path / ("frame.html" if frame else "page.html")
    dom, console = browser(tmp_path, "--dump-dom", *options, opened.as_uri())
    return json.loads(html.unescape(re.search('data-seen="([^"]*)"', dom)[1])), console


@pytest.fixture(scope="module")
def desktop(tmp_path_factory):
    return browse(tmp_path_factory.mktemp("desktop"), "--window-size=1280,900")


@in_chromium
def test_browser_has_nothing_to_complain_of(desktop):
    seen, console = desktop
    assert console == []
    assert seen["wide"] is False
    assert seen["cut"] is False
    assert seen["paper"] == "rgb(255, 255, 255)"


@in_chromium
def test_browser_sorts(desktop):
    seen, _ = desktop
    assert seen["sorted"] == [
        ["fixed8", "tapered8:runs=4-7", "fixed6", "tapered6", "fixed4"],
        ["ascending", "fixed4", "fixed6", "tapered6", "fixed8", "tapered8:runs=4-7"],  # energy
        ["descending", "tapered8:runs=4-7", "fixed8", "tapered6", "fixed6", "fixed4"],
        ["ascending", "fixed4", "fixed6", "fixed8", "tapered6", "tapered8:runs=4-7"],  # name
    ]
    assert seen["focus"]  # and so works with a keyboard


@in_chromium
def test_browser_draws_charts(desktop):
    seen, _ = desktop
    pictures = seen["all"]["pictures"]
    assert len(pictures) == 4
    for picture in pictures:
        assert picture["width"] > 400
        assert len(picture["points"]) == picture["labels"] == 5
    # From fixed4 by fixed6 and tapered6 to fixed8: three steps upwards.
    assert pictures[1]["front"].count("V") == 3
    assert (seen["all"]["bars"], seen["all"]["strips"], seen["all"]["details"]) == (15, 5, 12)


@in_chromium
def test_browser_redraws_the_front_as_it_was(desktop):
    """What the page's script draws of all points is what was drawn into the page."""
    seen, _ = desktop
    page = report.html_text(comparison())
    drawn = re.findall(r'<div class="wide">(.*?)</svg>', page, re.S)
    for svg, picture in zip(drawn, seen["all"]["pictures"], strict=True):
        corners, x, y = [], 0.0, 0.0
        for letter, numbers in re.findall(r"([MHV]) ([\d. ]+)", picture["front"]):
            values = [float(number) for number in numbers.split()]
            x, y = values if letter == "M" else (values[0], y) if letter == "H" else (x, values[0])
            corners.append((x, y))
        expected = [*dict.fromkeys(front_of(svg))]
        assert [x for x, _ in corners] == pytest.approx([x for x, _ in expected], abs=0.01)
        assert [y for _, y in corners] == pytest.approx([y for _, y in expected], abs=0.01)


@in_chromium
def test_browser_filters(desktop):
    seen, _ = desktop
    few = seen["tapered"]
    assert few["column"] == ["tapered6", "tapered8:runs=4-7"]
    assert few["output"] == "2 of 5 formats"
    assert (few["bars"], few["strips"], few["details"]) == (6, 2, 2 + 2 * 2)
    for picture in few["pictures"]:
        assert [point.split(":")[0] for point in picture["points"]] == ["tapered8", "tapered6"]
        assert picture["labels"] == 2
    # Of the two, tapered6 costs less of everything and gives less; where less is better it wins.
    assert [picture["front"].count("V") for picture in few["pictures"]] == [1, 1, 0, 0]
    assert seen["again"] == seen["all"]
    assert seen["all"]["output"] == "5 of 5 formats"


@in_chromium
def test_browser_on_a_telephone(tmp_path):
    seen, console = browse(tmp_path, frame=True)
    assert console == []
    assert seen["wide"] is False  # tables scroll, the page does not
    assert seen["sticky"] == "static"
    pictures = seen["all"]["pictures"]
    assert len(pictures) == 4
    for picture in pictures:
        # Drawn for this width, so that texts are as large as they were meant.
        assert 0.9 * NARROW[0] < picture["width"] < 360
        assert len(picture["points"]) == 5


@in_chromium
def test_browser_in_dark_mode(tmp_path):
    """Also shows that what goes wrong in a page would be seen."""
    extra = "<script>nonsense()</script>"
    seen, console = browse(tmp_path, "--blink-settings=preferredColorScheme=0", extra=extra)
    assert seen["paper"] == "rgb(17, 22, 29)"
    assert any("nonsense is not defined" in line for line in console)


@in_chromium
def test_browser_prints(tmp_path):
    """On paper everything is open, which takes seven pages and not five."""
    (tmp_path / "page.html").write_text(report.html_text(comparison()), encoding="utf-8")
    target = tmp_path / "page.pdf"
    browser(tmp_path, f"--print-to-pdf={target}", (tmp_path / "page.html").as_uri())
    content = target.read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert 6 <= len(re.findall(rb"/Type /Page\b", content)) <= 8


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("tapered8:runs=4-7", ["tapered8:runs=4-7"]),
        ("elp_bsd4:set=E4-2,scale_pow2=yes", ["elp_bsd4:set=E4-2,", " scale_pow2=yes"]),
        ("dybit8:weight_bits=4,signed=no", ["dybit8:", " weight_bits=4,", " signed=no"]),
    ],
)
def test_long_names_take_several_lines(name, lines):
    result = json.loads(json.dumps(comparison()))
    result["rows"][1]["spec"] = name
    printed_lines = printed(80, table.print_comparison, result)
    starts = [line.split("  ")[0].rstrip() for line in printed_lines]
    index = next(i for i, line in enumerate(printed_lines) if line.startswith(lines[0]))
    assert printed_lines[index].split()[0] == lines[0]
    for offset, part in enumerate(lines[1:], 1):
        assert printed_lines[index + offset].rstrip() == part
    assert starts.count("") < len(printed_lines)
    assert max(map(len, printed_lines)) <= 80
