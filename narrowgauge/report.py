"""Files of a comparison: compare.json, compare.csv and a page with pictures, report.html."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from narrowgauge.columns import Column, comparison_columns, counts, figures, texts
from narrowgauge.output import write_text
from narrowgauge.pictures import group_marks, part_colours, scatter, stacked_bars, value_strips
from narrowgauge.table import figure, finite, parts

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
            return finite(value)
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
        comparison=comparison_columns(rows),
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


def _hardware(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Tabulate what was built for each format."""
    widths = [
        f"{row['weight_bits']} / {row['activation_bits']} / {row['accumulator_bits']}"
        for row in rows
    ]
    return [
        texts("format", [row["spec"] for row in rows]),
        texts("design", [row["design"] for row in rows]),
        texts("bits", widths, "weight / activation / sum"),
        counts("MACs", [row["macs_per_cycle"] for row in rows], "per cycle"),
        figures("utilisation", "%", [100 * row["utilisation"] for row in rows], 3),
        counts("cells", [row["cells"] for row in rows]),
        figures("area", "1000 \u00b5m\u00b2", [row["area_um2"] / 1000 for row in rows], 4),
        figures("activity", "% of nets", [100 * row["nets_annotated"] for row in rows], 4),
    ]


def _memories(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Tabulate the memories that are in neither area nor energy; nothing if there are none."""
    memories = [(row["spec"], memory) for row in rows for memory in row["memories"]]
    if not memories:
        return []
    return [
        texts("format", [spec for spec, _ in memories]),
        texts("memory", [memory["name"] for _, memory in memories]),
        counts("rows", [memory["rows"] for _, memory in memories]),
        counts("row", [memory["row_bits"] for _, memory in memories], "bits"),
        figures(
            "accesses", "rows per MAC", [memory["accesses_per_mac"] for _, memory in memories], 3
        ),
    ]


def _splits(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Column]]]:
    """Tabulate area and energy of each part."""
    return [
        (
            title,
            [
                texts("format", [row["spec"] for row in rows]),
                *(
                    figures(part, unit, [row[key].get(part, 0.0) * scale for row in rows], 4)
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
        texts("layer", [layer["name"] for layer in layers]),
        counts("MACs", [layer["macs"] for layer in layers], "per image"),
        counts("length", [layer["length"] for layer in layers]),
        texts("weights", [layer["weight_spec"] for layer in layers]),
        texts("activations", [layer["activation_spec"] for layer in layers]),
        figures("SQNR", "dB", [layer["sqnr_db"] for layer in layers], 3),
        figures("energy", "pJ per MAC", energies, 4),
    ]


def _path(steps: Sequence[Mapping[str, Any]]) -> list[Column]:
    return [
        texts("cell", [step["cell"] for step in steps]),
        texts("pin", [step["pin"] for step in steps]),
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
