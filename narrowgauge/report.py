"""Files of a comparison: compare.json, compare.csv and a page with pictures, report.html."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from narrowgauge.output import write_text
from narrowgauge.pictures import group_marks, part_colours, scatter, stacked_bars, value_strips
from narrowgauge.table import aligned, figure, parts

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
            return value if math.isfinite(value) else None
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value


def csv_text(result: Mapping[str, Any]) -> str:
    """Write a line for each row, with a column for each figure and part of area and energy."""
    rows = result["rows"]
    plain = [key for key in rows[0] if key not in NESTED]
    columns = {key: [row.get(key) for row in rows] for key in plain}
    for key, unit in (("area_breakdown_um2", "um2"), ("energy_breakdown_pj", "pj")):
        kind = key.split("_")[0]
        for part in parts(rows, key):
            columns[f"{kind}_{part}_{unit}"] = [row[key].get(part, 0.0) for row in rows]
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
    return environment.get_template("report.html").render(
        result=result,
        style=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),
        base=rows[0],
        answers=_answers(result),
        comparison=_comparison(rows),
        hardware=_hardware(rows),
        memories=_memories(rows),
        splits=_splits(rows),
        pictures=_pictures(result),
        legend=_legend(rows),
        groups=group_marks([_stem(row) for row in rows]),
        layers=[(row["spec"], _layers(row["layers"])) for row in rows],
        builds=[
            {
                "spec": row["spec"],
                "modules": _modules(row["units"]),
                "place": row.get("critical_path_unit"),
                "path": _path(row["critical_path"]),
            }
            for row in rows
        ],
        figure=figure,
        percent=_percent,
        tolerated_loss=TOLERATED_LOSS,
    )


# Tables.


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a table shows, and by what it is sorted."""

    text: str
    value: str | float | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table of the page."""

    title: str
    unit: str
    cells: Sequence[Cell]
    is_text: bool = False


def _texts(title: str, values: Iterable[Any], unit: str = "") -> Column:
    cells = [Cell(text=str(value), value=str(value)) for value in values]
    return Column(title=title, unit=unit, cells=cells, is_text=True)


def _figures(title: str, unit: str, values: Iterable[float | None], digits: int) -> Column:
    known = [_finite(value) for value in values]
    texts = aligned(known, digits)
    cells = [Cell(text=text, value=value) for text, value in zip(texts, known, strict=True)]
    return Column(title=title, unit=unit, cells=cells)


def _counts(title: str, values: Iterable[int], unit: str = "") -> Column:
    cells = [Cell(text=f"{value:,}".replace(",", "\u202f"), value=value) for value in values]
    return Column(title=title, unit=unit, cells=cells)


def _ratios(values: Sequence[float]) -> Column:
    """Factors of the baseline, which is the first value."""
    ratios = [value / values[0] for value in values]
    cells = [Cell(text=f"{ratio:.2f}", value=ratio) for ratio in ratios]
    return Column(title="", unit="\u00d7", cells=cells)


def _comparison(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Tabulate what each format gives and costs."""

    def take(key: str) -> list[Any]:
        return [row[key] for row in rows]

    names = [row["spec"] + (" (retrained)" if row["retrained"] else "") for row in rows]
    return [
        _texts("format", names),
        _figures("accuracy", "%", take("accuracy"), 4),
        _figures("SQNR", "dB", take("sqnr_db"), 3),
        _figures("energy", "pJ per MAC", take("energy_per_mac_pj"), 4),
        _ratios(take("energy_per_mac_pj")),
        _figures("area per MAC", "\u00b5m\u00b2", take("area_per_mac_um2"), 4),
        _ratios(take("area_per_mac_um2")),
        _figures("critical path", "ns", take("critical_path_ns"), 3),
        _figures("slack", "ns", take("slack_ns"), 3),
        _figures("leakage", "\u00b5W", take("leakage_uw"), 3),
        _figures("storage", "bits per weight", take("storage_bits_per_weight"), 2),
    ]


def _hardware(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Tabulate what was built for each format."""
    widths = [
        f"{row['weight_bits']} / {row['activation_bits']} / {row['accumulator_bits']}"
        for row in rows
    ]
    return [
        _texts("format", [row["spec"] for row in rows]),
        _texts("design", [row["design"] for row in rows]),
        _texts("bits", widths, "weight / activation / sum"),
        _counts("MACs", [row["macs_per_cycle"] for row in rows], "per cycle"),
        _figures("utilisation", "%", [100 * row["utilisation"] for row in rows], 3),
        _counts("cells", [row["cells"] for row in rows]),
        _figures("area", "1000 \u00b5m\u00b2", [row["area_um2"] / 1000 for row in rows], 4),
        _figures("activity", "% of nets", [100 * row["nets_annotated"] for row in rows], 4),
    ]


def _memories(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Tabulate the memories that are in neither area nor energy; nothing if there are none."""
    memories = [(row["spec"], memory) for row in rows for memory in row["memories"]]
    if not memories:
        return []
    return [
        _texts("format", [spec for spec, _ in memories]),
        _texts("memory", [memory["name"] for _, memory in memories]),
        _counts("rows", [memory["rows"] for _, memory in memories]),
        _counts("row", [memory["row_bits"] for _, memory in memories], "bits"),
        _figures(
            "accesses", "rows per MAC", [memory["accesses_per_mac"] for _, memory in memories], 3
        ),
    ]


def _splits(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Column]]]:
    """Tabulate area and energy of each part."""
    return [
        (
            title,
            [
                _texts("format", [row["spec"] for row in rows]),
                *(
                    _figures(part, unit, [row[key].get(part, 0.0) * scale for row in rows], 4)
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
    return [
        _texts("layer", [layer["name"] for layer in layers]),
        _counts("MACs", [layer["macs"] for layer in layers], "per image"),
        _counts("length", [layer["length"] for layer in layers]),
        _texts("weights", [layer["weight_spec"] for layer in layers]),
        _texts("activations", [layer["activation_spec"] for layer in layers]),
        _figures("SQNR", "dB", [layer["sqnr_db"] for layer in layers], 3),
        _figures("energy", "pJ per MAC", energies, 4),
    ]


def _path(steps: Sequence[Mapping[str, Any]]) -> list[Column]:
    return [
        _texts("cell", [step["cell"] for step in steps]),
        _texts("pin", [step["pin"] for step in steps]),
        _figures("delay", "ns", [step["delay_ns"] for step in steps], 3),
        _figures("arrival", "ns", [step["arrival_ns"] for step in steps], 4),
    ]


def _modules(units: Sequence[Mapping[str, Any]]) -> list[Column]:
    totals = [unit["count"] * unit["area_um2"] for unit in units]
    return [
        _texts("module", [unit["module"] for unit in units]),
        _counts("instances", [unit["count"] for unit in units]),
        _counts("cells each", [unit["cells"] for unit in units]),
        _figures("area each", "\u00b5m\u00b2", [unit["area_um2"] for unit in units], 4),
        _figures("area of all", "1000 \u00b5m\u00b2", [total / 1000 for total in totals], 4),
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
    has_memories: bool


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
                has_memories=bool(best["memories"]),
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
            has_memories=False,  # accuracy is the same with them
        )
    )
    return answers


def _legend(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Parts of both splits with their colours."""
    names = dict.fromkeys([*parts(rows, "area_breakdown_um2"), *parts(rows, "energy_breakdown_pj")])
    return list(part_colours(list(names)).items())


def _pictures(result: Mapping[str, Any]) -> dict[str, Markup]:
    """All pictures that the result has figures for, by name."""
    rows, weights = result["rows"], result["weights"]
    names = [name for name, _ in _legend(rows)]

    def points(key: str) -> list[tuple[str, str, float, float]]:
        return [
            (row["spec"], _stem(row), row["energy_per_mac_pj"], row[key])
            for row in rows
            if _finite(row[key]) is not None
        ]

    energy_label = "energy per multiply-accumulate, pJ"
    makers: dict[str, Callable[[], str]] = {
        "values": lambda: value_strips(
            "values",
            weights["edges"],
            weights["counts"],
            [(row["values"]["spec"], row["values"]["values"]) for row in rows],
        ),
        "area": lambda: stacked_bars(
            "area",
            [
                (row["spec"], _scaled(row["area_breakdown_um2"], 1 / row["macs_per_cycle"]))
                for row in rows
            ],
            names,
        ),
        "energy": lambda: stacked_bars(
            "energy", [(row["spec"], row["energy_breakdown_pj"]) for row in rows], names
        ),
    }
    accuracies, ratios = points("accuracy"), points("sqnr_db")
    wanted = result["network"]["float_accuracy"]
    if accuracies:
        reference = None if wanted is None else ("float32", wanted)
        makers["accuracy"] = lambda: scatter(
            "accuracy", accuracies, energy_label, "accuracy, %", reference
        )
    if ratios:
        makers["sqnr"] = lambda: scatter("sqnr", ratios, energy_label, "SQNR of the logits, dB")
    return {name: Markup(make()) for name, make in makers.items()}


def _stem(row: Mapping[str, Any]) -> str:
    """Get the number system of a row."""
    return str(row["design"]).partition("-")[0]


def _scaled(breakdown: Mapping[str, float], factor: float) -> dict[str, float]:
    return {part: value * factor for part, value in breakdown.items()}
