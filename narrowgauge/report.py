"""Files of a comparison: compare.json, compare.csv and a page with pictures, report.html."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from narrowgauge.columns import Column, comparison_columns, counts, figures, texts
from narrowgauge.output import write_text
from narrowgauge.pictures import (
    NARROW,
    WIDE,
    Point,
    group_marks,
    histogram,
    part_colours,
    scatter,
    strip,
    strip_limits,
)
from narrowgauge.rows import memory_kinds, memory_split, rows_with_measured, share
from narrowgauge.table import NONE, aligned, figure, finite, parts

__all__ = ["csv_text", "html_text", "json_text", "write"]

FOLDER = Path(__file__).parent

#: Loss of accuracy against float32, in points, up to which a row counts as an answer.
TOLERATED_LOSS = 1.0

#: Parts of a row that are no single figure.
NESTED = {
    "critical_path",
    "layers",
    "units",
    "values",
    "memories",
    "area_breakdown_um2",
    "energy_breakdown_pj",
}

#: Colours of what memories hold, as those of the parts of a circuit.
MEMORY_COLOURS = {
    "logic": "leakage",
    "activations": "multiply",
    "weights": "accumulate",
    "sums": "registers",
    "results": "encode",
}


def write(result: Mapping[str, Any], folder: Path) -> None:
    """Write all files of a comparison.

    Parameters
    ----------
    result : dict
        In the form of ``compare.json``.
    folder : Path
        Where to.
    """
    write_text(folder / "compare.json", json_text(result))
    write_text(folder / "compare.csv", csv_text(result))
    write_text(folder / "report.html", html_text(result))


def json_text(result: Mapping[str, Any]) -> str:
    """Write ``result`` as JSON; what is not finite becomes null, which every reader knows."""
    return json.dumps(_finite(result), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    match value:
        case float():
            return finite(value)
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value


def csv_text(result: Mapping[str, Any]) -> str:
    """Write a line for each row, with a column for each figure and part of area and energy.

    Each line says of what library, clock and versions it is, so that lines of several results can
    be put together.
    """
    rows = rows_with_measured(result)
    plain = [key for key in rows[0] if key not in NESTED]
    columns = {key: [row.get(key) for row in rows] for key in plain}
    for key, unit in (("area_breakdown_um2", "um2"), ("energy_breakdown_pj", "pj")):
        kind = key.split("_")[0]
        for part in parts(rows, key):
            columns[f"{kind}_{part}_{unit}"] = [share(row, key, part) for row in rows]
    columns |= {f"memory_{kind}_pj": values for kind, values in memory_kinds(rows).items()}
    common = {
        "library": result["library"]["name"],
        "library_version": result["library"]["version"],
        "clock_ns": result["settings"]["clock_ns"],
        "memory_model": (result["memory"]["model"] or {}).get("name"),
        "off_chip": (result["memory"]["off_chip"] or {}).get("name"),
        "seed": result["settings"]["seed"],
        "narrowgauge": result["tools"]["narrowgauge"],
        "yosys": result["tools"]["yosys"],
    }
    columns |= {key: [value] * len(rows) for key, value in common.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(_finite, columns.values()), strict=True))
    return text.getvalue()


def html_text(result: Mapping[str, Any]) -> str:
    """Write the page: one file that loads nothing, the same bytes for the same result."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = result["rows"]
    every = rows_with_measured(result)
    return environment.get_template("report.html").render(
        result=result,
        style=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),
        base=rows[0],
        answers=_answers(result),
        comparison=comparison_columns(every),
        hardware=_hardware(every),
        memories=_memories(rows),
        splits=_splits(every),
        notes=[(row, _stem(row)) for row in every if row["note"]],
        systems=[_stem(row) for row in every],
        memory_systems=[_stem(row) for row in rows for _ in row["memories"]],
        charts=_charts(result),
        bars=_bars(every),
        memory_bars=_memory_bars(rows),
        memory_legend=list(_memory_colours(rows).items()),
        values=_values(result),
        legend=_legend(every),
        groups=group_marks([_stem(row) for row in every]),
        layers=[(row["spec"], _layers(row["layers"])) for row in rows],
        builds=[
            {
                "row": row,
                "modules": _modules(row["units"]),
                "path": _path(row["critical_path"]),
            }
            for row in rows
        ],
        figure=figure,
        percent=_percent,
        tolerated_loss=TOLERATED_LOSS,
    )


# Tables.


def _hardware(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Tabulate what was built for each format."""
    widths = [
        NONE
        if row["weight_bits"] is None
        else f"{row['weight_bits']} / {row['activation_bits']} / {row['accumulator_bits']}"
        for row in rows
    ]
    shares = [row["utilisation"] for row in rows]
    return [
        texts("format", [row["spec"] for row in rows]),
        texts("design", [row["design"] for row in rows]),
        texts("bits", widths, "weight / activation / sum"),
        counts("MACs", [row["macs_per_cycle"] for row in rows], "per cycle"),
        figures("utilisation", "%", [_scale(share, 100) for share in shares], 3),
        counts("cells", [row["cells"] for row in rows]),
        figures("area", "1000 \u00b5m\u00b2", [row["area_um2"] / 1000 for row in rows], 4),
        figures("activity", "% of nets", [100 * row["nets_annotated"] for row in rows], 4),
    ]


def _memories(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Tabulate memories, which are in neither area nor energy; nothing if there are none."""
    memories = [(row["spec"], memory) for row in rows for memory in row["memories"]]
    if not memories:
        return []
    return [
        texts("format", [spec for spec, _ in memories]),
        texts("memory", [memory["name"] for _, memory in memories]),
        counts("rows", [memory["rows"] for _, memory in memories]),
        counts("row", [memory["row_bits"] for _, memory in memories], "bits"),
        texts("is", [_memory_kind(memory) for _, memory in memories]),
        figures("reads", "per 1000 MACs", [1000 * one["reads_per_mac"] for _, one in memories], 4),
        figures(
            "writes", "per 1000 MACs", [1000 * one["writes_per_mac"] for _, one in memories], 4
        ),
        *(
            figures(title, unit, [_scale(one[key], scale) for _, one in memories], 3)
            for title, unit, key, scale in (
                ("read", "pJ", "read_pj", 1),
                ("write", "pJ", "write_pj", 1),
                ("energy", "pJ per MAC", "energy_per_mac_pj", 1),
                ("area", "1000 \u00b5m\u00b2", "area_um2", 1e-3),
                ("leakage", "\u00b5W", "leakage_uw", 1),
                ("access", "ns", "access_ns", 1),
            )
            if any(one[key] is not None for _, one in memories)
        ),
    ]


def _memory_kind(memory: Mapping[str, Any]) -> str:
    """Tell what a memory is made of; a star says that its model has no points of this size."""
    if memory["kind"] is None:
        return NONE
    count = memory["banks"] * memory["across"] * memory["down"]
    if memory["kind"] == "registers":
        return f"registers, {memory['banks']} banks" if memory["banks"] > 1 else "registers"
    macros = f"{count} macros" if count > 1 else "1 macro"
    return macros if memory["in_range"] else f"{macros} *"


def _memory_colours(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Colour of the logic and of what memories hold, of what occurs in any row."""
    kinds = memory_kinds(rows)
    names = ["logic", *kinds] if kinds else []
    shown = [MEMORY_COLOURS.get(name, "memory") for name in names]
    colours = part_colours(shown)
    return {name: colours[part] for name, part in zip(names, shown, strict=True)}


def _memory_bars(rows: Sequence[Mapping[str, Any]]) -> list["Bar"]:
    """Energy of logic and of memories beside it; nothing if that of memories is not known."""
    order = list(_memory_colours(rows))
    splits = [{"logic": row["energy_per_mac_pj"]} | memory_split(row) for row in rows]
    return _stacked(rows, splits, order) if order else []


def _splits(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Column]]]:
    """Tabulate area and energy of each part."""
    return [
        (
            title,
            [
                texts("format", [row["spec"] for row in rows]),
                *(
                    figures(part, unit, [_scale(share(row, key, part), scale) for row in rows], 4)
                    for part in parts(rows, key)
                ),
            ],
        )
        for title, key, unit, scale in (
            ("Area", "area_breakdown_um2", "1000 \u00b5m\u00b2", 1e-3),
            ("Energy per multiply-accumulate", "energy_breakdown_pj", "fJ", 1e3),
        )
    ]


def _layers(layers: Sequence[Mapping[str, Any]]) -> list[Column]:
    energies = [layer["energy_per_mac_pj"] for layer in layers]
    delayed = [layer["energy_with_glitches_per_mac_pj"] for layer in layers]
    return [
        texts("layer", [layer["name"] for layer in layers]),
        counts("MACs", [layer["macs"] for layer in layers], "per image"),
        counts("length", [layer["length"] for layer in layers]),
        texts("weights", [layer["weight_spec"] for layer in layers]),
        texts("activations", [layer["activation_spec"] for layer in layers]),
        figures("SQNR", "dB", [layer["sqnr_db"] for layer in layers], 3),
        figures("energy", "pJ per MAC", energies, 4),
        *(
            [figures("with glitches", "pJ per MAC", delayed, 4)]
            if any(energy is not None for energy in delayed)
            else []
        ),
        figures("energy", "nJ per image", [layer["energy_per_image_nj"] for layer in layers], 4),
        figures("time", "\u00b5s per image", [layer["time_per_image_us"] for layer in layers], 3),
    ]


def _path(steps: Sequence[Mapping[str, Any]]) -> list[Column]:
    return [
        texts("cell", [step["cell"] for step in steps]),
        texts("pin", [step["pin"] for step in steps]),
        texts("edge", [step["edge"] for step in steps]),
        counts("fan-out", [step["fanout"] for step in steps]),
        figures("load", "fF", [step["load_ff"] for step in steps], 3),
        figures("slew", "ns", [step["slew_ns"] for step in steps], 2),
        figures("delay", "ns", [step["delay_ns"] for step in steps], 3),
        figures("arrival", "ns", [step["arrival_ns"] for step in steps], 4),
    ]


def _modules(units: Sequence[Mapping[str, Any]]) -> list[Column]:
    totals = [unit["count"] * unit["area_um2"] for unit in units]
    return [
        texts("module", [unit["module"] for unit in units]),
        counts("instances", [unit["count"] for unit in units]),
        counts("cells each", [unit["cells"] for unit in units]),
        figures("area each", "\u00b5m\u00b2", [unit["area_um2"] for unit in units], 4),
        figures("area of all", "1000 \u00b5m\u00b2", [total / 1000 for total in totals], 4),
    ]


def _percent(ratio: float) -> str:
    """Change against the baseline in words."""
    change = round(100 * (ratio - 1))
    if change == 0:
        return "as much as"
    return f"{abs(change)} % {'more' if change > 0 else 'less'} than"


# Answers and pictures.


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A row that is best in something, among those whose accuracy is tolerable."""

    question: str
    spec: str
    text: str
    unit: str
    ratio: float | None
    memories: str


def _answers(result: Mapping[str, Any]) -> list[Answer]:
    """Which format to take; nothing without accuracies, or if none is good enough."""
    rows = result["rows"]
    wanted = result["network"]["float_accuracy"]
    if wanted is None or any(row["accuracy"] is None for row in rows):
        return []
    good = [row for row in rows if row["accuracy"] >= wanted - TOLERATED_LOSS]
    if not good:
        return []
    base = rows[0]
    answers = []
    for question, key, scale, unit in (
        ("Least energy", "energy_per_mac_pj", 1.0, "pJ per MAC"),
        ("Least area", "area_per_mac_um2", 1.0, "\u00b5m\u00b2 per MAC"),
    ):
        best = min(good, key=lambda row: (row[key], -row["accuracy"]))
        answers.append(
            Answer(
                question=question,
                spec=best["spec"],
                text=figure(best[key] * scale, 3),
                unit=unit,
                ratio=None if best is base else best[key] / base[key],
                memories=_apart(best, key),
            )
        )
    best = max(good, key=lambda row: (row["accuracy"], -row["energy_per_mac_pj"]))
    answers.append(
        Answer(
            question="Best accuracy",
            spec=best["spec"],
            text=f"{best['accuracy']:.2f}",
            unit="%",
            ratio=None,
            memories="",  # accuracy is the same with them
        )
    )
    return answers


def _apart(row: Mapping[str, Any], key: str) -> str:
    """Say of a figure what memories would add to it; empty without memories."""
    if not row["memories"]:
        return ""
    cost = row["memory_energy_per_mac_pj"] if key == "energy_per_mac_pj" else None
    return "not counted" if cost is None else f"apart, {figure(cost, 3)} pJ"


def _legend(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Parts of both splits with their colours."""
    names = dict.fromkeys([*parts(rows, "area_breakdown_um2"), *parts(rows, "energy_breakdown_pj")])
    return list(part_colours(list(names)).items())


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Formats as points, drawn for wide and for narrow pages."""

    title: str
    better: str
    wide: Markup
    narrow: Markup


def _charts(result: Mapping[str, Any]) -> list[Chart]:
    """Draw what formats give against what they cost, of what the result has figures for."""
    rows = rows_with_measured(result)
    labels = _short_names([row["spec"] for row in rows])
    energies = [row["energy_per_mac_pj"] for row in rows]
    energy = "energy per multiply-accumulate, pJ"
    wanted = result["network"]["float_accuracy"]
    # Products of the network for which a cycle has room, at the shortest clock period.
    throughputs = [
        None
        if row["utilisation"] is None
        else row["macs_per_cycle"] * row["utilisation"] / row["critical_path_ns"]
        for row in rows
    ]

    def draw(
        title: str,
        better: str,
        costs: Sequence[float | None],
        values: Sequence[float | None],
        x_label: str,
        y_label: str,
        **options: Any,
    ) -> list[Chart]:
        points: list[Point] = [
            (label, _stem(row), known_cost, known)
            for label, row, cost, value in zip(labels, rows, costs, values, strict=True)
            if (known := finite(value)) is not None and (known_cost := finite(cost)) is not None
        ]
        if not points:
            return []
        name = title.replace(" ", "-")
        wide, narrow = (
            Markup(scatter(f"{name}-{kind}", points, x_label, y_label, size=size, **options))
            for kind, size in (("wide", WIDE), ("narrow", NARROW))
        )
        return [Chart(title=title, better=better, wide=wide, narrow=narrow)]

    return [
        *draw(
            "Accuracy against energy",
            "up and to the left",
            energies,
            [row["accuracy"] for row in rows],
            energy,
            "accuracy, %",
            reference=None if wanted is None else ("float32", wanted),
        ),
        *draw(
            "SQNR against energy",
            "up and to the left",
            energies,
            [row["sqnr_db"] for row in rows],
            energy,
            "SQNR of the logits, dB",
        ),
        *draw(
            "Throughput against area",
            "up and to the left",
            [row["area_um2"] / 1000 for row in rows],
            throughputs,
            "area, 1000 \u00b5m\u00b2",
            "throughput, 10\u2079 MAC/s",
        ),
        *draw(
            "Energy against delay",
            "down and to the left",
            [row["critical_path_ns"] for row in rows],
            energies,
            "critical path, ns",
            "energy per MAC, pJ",
            less_is_better=True,
        ),
    ]


def _short_names(specs: Sequence[str]) -> list[str]:
    """Names without parameters where these are not needed to tell them apart."""
    stems = [spec.partition(":")[0] for spec in specs]
    return [
        stem if stems.count(stem) == 1 else spec for stem, spec in zip(stems, specs, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One format as a bar: its total and its parts in percent of the longest bar."""

    spec: str
    system: str
    text: str
    parts: Sequence[tuple[str, float]]


def _bars(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Bar]]]:
    """Split energy and area of each format into parts."""
    rows = [row for row in rows if row["macs_per_cycle"] is not None]
    energies = [row["energy_breakdown_pj"] for row in rows]
    areas = [_scaled(row["area_breakdown_um2"], 1 / row["macs_per_cycle"]) for row in rows]
    order = [name for name, _ in _legend(rows)]
    return [
        ("Energy per multiply-accumulate, pJ", _stacked(rows, energies, order)),
        ("Area per MAC of a cycle, \u00b5m\u00b2", _stacked(rows, areas, order)),
    ]


def _stacked(
    rows: Sequence[Mapping[str, Any]],
    breakdowns: Sequence[Mapping[str, float]],
    order: Sequence[str],
) -> list[Bar]:
    totals = [sum(breakdown.values()) for breakdown in breakdowns]
    longest = max(totals) or 1.0
    return [
        Bar(
            spec=row["spec"],
            system=_stem(row),
            text=text,
            parts=[(part, 100 * breakdown.get(part, 0.0) / longest) for part in order],
        )
        for row, breakdown, text in zip(rows, breakdowns, aligned(totals, 3), strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Values that a format has for the weights of a layer."""

    spec: str
    system: str
    path: str
    shown: int
    count: int


def _values(result: Mapping[str, Any]) -> dict[str, Any]:
    """Histogram of weights, and what the formats have for them."""
    weights = result["weights"]
    limits = strip_limits(weights["edges"])
    strips = []
    for row in result["rows"]:
        path, shown, count = strip(row["values"]["values"], limits)
        strips.append(
            Strip(
                spec=row["values"]["spec"], system=_stem(row), path=path, shown=shown, count=count
            )
        )
    ticks = aligned([limits[0], 0.0, limits[1]], 2)
    zero = 100 * -limits[0] / (limits[1] - limits[0])
    return {
        "histogram": histogram(weights["edges"], weights["counts"]),
        "strips": strips,
        "ticks": ticks,
        "zero": zero if 0 < zero < 100 else None,
    }


def _stem(row: Mapping[str, Any]) -> str:
    """Get the number system of a row."""
    return str(row["design"]).partition("-")[0]


def _scale(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _scaled(breakdown: Mapping[str, float], factor: float) -> dict[str, float]:
    return {part: value * factor for part, value in breakdown.items()}
