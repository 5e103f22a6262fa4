"""What differs between two results of ``narrowgauge compare``, and by how much."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from narrowgauge import paper, table
from narrowgauge.columns import Column, texts
from narrowgauge.compare import SCHEMA
from narrowgauge.forms import read_json

__all__ = ["Change", "Differences", "compare_results", "print_differences", "read_result"]

#: Parts of a result that are lists of things with names, and where each has its name.
NAMES = {
    "rows": "spec",
    "measured": "name",
    "layers": "name",
    "units": "role",
    "memories": "name",
}

#: Says how the result was made, not what it is.
NOT_COMPARED = ("settings.command",)

#: Value of what one of the results does not have.
ABSENT = "absent"

#: Settings by which a comparison can be repeated, and what they must be.
SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "library": ("a text", lambda value: isinstance(value, str)),
    "clock_ns": ("a positive number", lambda value: _is_number(value) and 0 < value < math.inf),
    "rows": ("a whole number", lambda value: _is_whole(value)),
    "cols": ("a whole number", lambda value: _is_whole(value)),
    "method": ("sweep or paper", lambda value: value in ("sweep", "paper")),
    "seed": ("a whole number from 0", lambda value: _is_whole(value) and value >= 0),
    "clock_gating": (
        "a whole number from 1, or null",
        lambda value: value is None or (_is_whole(value) and value >= 1),
    ),
    # Results had none before there were any.
    "memory": ("a text", lambda value: value is None or isinstance(value, str)),
    "off_chip": ("a text", lambda value: value is None or isinstance(value, str)),
    "glitches": ("true or false", lambda value: value is None or isinstance(value, bool)),
    "states": ("true or false", lambda value: value is None or isinstance(value, bool)),
    "measured": ("a list of texts", lambda value: value is None or _is_texts(value)),
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One value that differs.

    Parameters
    ----------
    row : str
        Format of the row; empty for what all rows have in common.
    field : str
        Where in the row, or in the result, such as ``"layers.conv1.energy_per_mac_pj"``.
    old, new : any value of JSON
        What it was and what it is; :data:`ABSENT` where there was, or is, no such field.
    """

    row: str
    field: str
    old: Any
    new: Any

    @property
    def relative(self) -> float | None:
        """Change of a figure by what it was; None where that is no number."""
        if not (_is_number(self.old) and _is_number(self.new)) or self.old == 0:
            return None
        return float((self.new - self.old) / abs(self.old))

    def as_json(self) -> dict[str, Any]:
        """Form of a value of JSON."""
        return {
            "row": self.row,
            "field": self.field,
            "old": self.old,
            "new": self.new,
            "relative": self.relative,
        }


@dataclass(frozen=True, kw_only=True)
class Differences:
    """How one result differs from another.

    Parameters
    ----------
    versions : tuple of Change
        Tools with other versions.  They explain changes and are none by themselves.
    changes : tuple of Change
        Everything else, in the order of the results.
    rows : int
        Rows of the new result.
    """

    versions: tuple[Change, ...]
    changes: tuple[Change, ...]
    rows: int

    @property
    def same(self) -> bool:
        """Whether nothing but versions differs."""
        return not self.changes


def read_result(path: Path) -> dict[str, Any]:
    """Read an earlier result.

    Parameters
    ----------
    path : Path
        A ``compare.json``.

    Returns
    -------
    dict
        Its content, which has what :func:`compare_results` and a repetition need.

    Raises
    ------
    ValueError
        If there is no such file, or it is no result, or one in another form.
    """
    result = read_json(path, "check", "compare.json")
    if result["schema"] != SCHEMA:
        raise ValueError(f"schema of {str(path)!r} must be {SCHEMA}, not {result['schema']!r}")
    _check_form(result, f"check must be a compare.json, not {str(path)!r}, whose")
    return result


def _check_form(result: Mapping[str, Any], start: str) -> None:
    """Refuse what cannot be repeated and compared; ``start`` begins the message."""
    for name in ("network", "library", "tools", "settings"):
        if not isinstance(result.get(name), dict):
            raise ValueError(f"{start} {name} is no object")
    if not isinstance(result["network"].get("source"), str):
        raise ValueError(f"{start} network.source is not a text")
    for name, (rule, holds) in SETTINGS.items():
        if not holds(result["settings"].get(name)):
            raise ValueError(f"{start} settings.{name} is not {rule}")
    rows = result.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{start} rows are no list of objects")
    specs = [row.get("spec") for row in rows]
    if not all(isinstance(spec, str) for spec in specs) or len(set(specs)) < len(specs):
        raise ValueError(f"{start} rows do not each have a spec of their own")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare_results(old: Mapping[str, Any], new: Mapping[str, Any]) -> Differences:
    """Find all that differs between two results.

    Figures are compared exactly.  Rows are matched by their formats, layers, units and memories by
    their names.

    Parameters
    ----------
    old, new : dict
        In the form of ``compare.json``.
    """
    versions = [
        Change(row="", field=".".join(place), old=was, new=now)
        for place, was, now in _walk((), old["tools"], new["tools"])
    ]
    changes = []
    for place, was, now in _walk((), old, new):
        field = ".".join(place)
        if place[0] == "measured" and place[2:] in (("command",), ("digest",)):
            continue  # what was read, not what it says
        if place[0] in ("rows", "measured") and len(place) > 1:
            row, field = place[1], ".".join(place[2:]) or "row"
            changes.append(Change(row=row, field=field, old=was, new=now))
        elif place[0] != "tools" and field not in NOT_COMPARED:
            changes.append(Change(row="", field=field, old=was, new=now))
    rows = len(new["rows"]) + len(new.get("measured", ()))
    return Differences(versions=tuple(versions), changes=tuple(changes), rows=rows)


#: Keys that lead to a value, the value that was there, and the one that is there.
Found = tuple[tuple[str, ...], Any, Any]


def _walk(place: tuple[str, ...], old: Any, new: Any) -> Iterator[Found]:
    """Places at which two values of JSON differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key in old and key in new:
                yield from _walk((*place, key), old[key], new[key])
            else:
                was, now = (_summary(one.get(key, ABSENT)) for one in (old, new))
                yield (*place, key), was, now
    elif isinstance(old, list) and isinstance(new, list):
        yield from _walk_lists(place, old, new)
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield place, _summary(old), _summary(new)


def _walk_lists(place: tuple[str, ...], old: list[Any], new: list[Any]) -> Iterator[Found]:
    name = NAMES.get(place[-1])
    if name and all(isinstance(item, dict) and name in item for item in [*old, *new]):
        before, after = ({str(item[name]): item for item in items} for items in (old, new))
        yield from _walk(place, before, after)
        both = before.keys() & after.keys()
        was, now = (", ".join(key for key in one if key in both) for one in (before, after))
        if was != now:
            yield (*place[:-1], f"order of {place[-1]}"), was, now
    elif len(old) != len(new):
        yield place, _summary(old), _summary(new)
    else:
        for index, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from _walk((*place, str(index)), was, now)


def _summary(value: Any) -> Any:
    """``value``, or what there is of it if it is no single one."""
    match value:
        case dict():
            return "present"
        case list():
            return f"{len(value)} entries"
    return value


# Tables.

#: Most columns of a value in text.
TEXT_WIDTH = 12

#: Parts of a row of which text shows the largest change only.
LONG_PARTS = ("critical_path", "layers", "memories", "units", "values")


def print_differences(
    console: Console, differences: Differences, *, old_name: str, style: str = "text"
) -> None:
    """Print what changed.

    Parameters
    ----------
    console : Console
        Where to.
    differences : Differences
        Of the result from an old one.
    old_name : str
        What the old one is called.
    style : str
        ``"text"``, which sums up the parts of rows that are long lists; ``"markdown"``,
        ``"latex"``, ``"csv"`` or ``"json"``, which have every value.
    """
    if style == "json":
        listing = {
            "same": differences.same,
            "versions": [change.as_json() for change in differences.versions],
            "changes": [change.as_json() for change in differences.changes],
        }
        _print(console, json.dumps(listing, indent=1) + "\n")
        return
    everything = [*_named_tools(differences.versions), *differences.changes]
    verdict = _verdict(differences, old_name)
    if style == "csv":
        _print(console, _csv_text(everything))
    elif style == "markdown":
        shown = paper.markdown_table(_columns(everything)) + "\n" if everything else ""
        _print(console, f"{shown}{paper.markdown_text(verdict)}\n")
    elif style == "latex":
        _print(console, paper.latex_table(_columns(everything), verdict))
    else:
        if differences.versions:
            console.print("Versions that differ")
            _print_table(console, differences.versions)
            console.print()
        if differences.changes:
            console.print("What changed")
            _print_table(console, _summed_up(differences.changes))
            console.print()
        console.print(verdict)


def _csv_text(changes: Sequence[Change]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ("row", "field", "old", "new", "relative"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(change.as_json() for change in changes)
    return text.getvalue()


def _print(console: Console, text: str) -> None:
    """Print text of which no line may be broken."""
    console.print(text, end="", soft_wrap=True)


def _verdict(differences: Differences, old_name: str) -> str:
    count = differences.rows
    rows = f"{count} {'row' if count == 1 else 'rows'}"
    if differences.same:
        return f"The figures of {rows} are those of {old_name}."
    changed = {change.row for change in differences.changes} - {""}
    is_common = any(not change.row for change in differences.changes)
    common = ", and so does what they have in common" if is_common else ""
    verb = "differs" if len(changed) == 1 else "differ"
    return f"Of {rows}, {len(changed)} {verb} from {old_name}{common}."


def _named_tools(versions: Sequence[Change]) -> list[Change]:
    return [
        Change(row="", field=f"tools.{one.field}", old=one.old, new=one.new) for one in versions
    ]


def _summed_up(changes: Sequence[Change]) -> list[Change]:
    """Keep of each long part of a row the change that is largest, and count the others."""
    shown: list[Change] = []
    parts: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        part = change.field.partition(".")[0]
        if change.row and part in LONG_PARTS:
            parts.setdefault((change.row, part), []).append(change)
        else:
            shown.append(change)
    for members in parts.values():
        first = max(members, key=lambda change: abs(change.relative or 0.0))
        shown.append(first)
        if len(members) > 1:
            rest = f"... {len(members) - 1} more in {first.field.partition('.')[0]}"
            shown.append(Change(row=first.row, field=rest, old="", new=""))
    order = list(dict.fromkeys(change.row for change in changes))
    return sorted(shown, key=lambda change: order.index(change.row))


def _columns(changes: Sequence[Change]) -> list[Column]:
    values = [_value_texts(change) for change in changes]
    return [
        texts("row", [change.row or "all" for change in changes]),
        texts("field", [change.field for change in changes]),
        texts("was", [old for old, _ in values]),
        texts("is", [new for _, new in values]),
        texts("change", [_change_text(change) for change in changes]),
    ]


def _value_texts(change: Change) -> tuple[str, str]:
    """Both values with as many digits as tell them apart."""
    values = (change.old, change.new)
    if not all(_is_number(value) for value in values):
        was, now = (
            f"{value:.6g}" if _is_number(value) else "null" if value is None else str(value)
            for value in values
        )
        return was, now
    for digits in (4, 6, 9):
        old, new = (f"{value:.{digits}g}" for value in values)
        if old != new and "e" not in old + new:
            return old, new
    return repr(change.old), repr(change.new)


def _change_text(change: Change) -> str:
    if change.relative is not None:
        return f"{100 * change.relative:+.3g} %"
    return ""


def _print_table(console: Console, changes: Sequence[Change]) -> None:
    """Print changes below the name of their row."""
    lines: list[tuple[str, ...]] = []
    for row, members in groupby(changes, key=lambda change: change.row):
        lines += [(row, "", "", "")] if row else []
        for change in members:
            field = f"  {change.field}" if row else change.field
            lines.append((field, *map(_cut, _value_texts(change)), _change_text(change)))
    headings = ("", "was", "is", "change")
    table.print_table(
        console,
        [
            table.Column(heading=heading, cells=cells, is_text=not heading)
            for heading, cells in zip(headings, zip(*lines, strict=True), strict=True)
        ],
    )


def _cut(text: str) -> str:
    """Shorten ``text`` to one line for which a table of several columns has room."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_WIDTH else f"{line[: TEXT_WIDTH - 3]}..."
