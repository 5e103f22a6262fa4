"""Results of earlier runs that are read again: files of JSON in a published form.

A form is a JSON Schema in ``narrowgauge/schema``.  The keywords that these use are known here, and
no other: a file is held against all of its form, without a package more to install.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["MAX_BYTES", "load_form", "read_json", "require_form"]

#: Larger files are no results: one of all formats has about 2 MB.
MAX_BYTES = 64 << 20

FOLDER = Path(__file__).parent / "schema"

#: Keywords that say something to readers only.
SILENT = {"$schema", "$id", "$defs", "title", "description"}

Form = Mapping[str, Any]


def read_json(path: Path, field: str, kind: str) -> dict[str, Any]:
    """Read a result.

    Parameters
    ----------
    path : Path
        File.
    field : str
        What named it, for messages.
    kind : str
        What it must be, such as ``"compare.json"``.

    Returns
    -------
    dict
        Its content, of which only ``schema`` is known to be there.

    Raises
    ------
    ValueError
        If there is no such file, or it holds something else.
    """
    rule = f"{field} must be a {kind}"
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{field} must be at most {MAX_BYTES >> 20} MiB, not {size >> 20} MiB")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{rule}, not {str(path)!r}, which is no text") from None
    except OSError as error:
        raise ValueError(
            f"{field} must be a readable file, not {str(path)!r} ({error.strerror})"
        ) from error
    try:
        result = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{rule}, not {str(path)!r}, which is no JSON") from None
    if not isinstance(result, dict) or "schema" not in result:
        raise ValueError(f"{rule}, not {str(path)!r}, which states no schema")
    return result


@functools.cache
def load_form(name: str) -> Form:
    """Form of a result by the name of its file, such as ``"measure.json"``."""
    form: Form = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return form


def require_form(value: Any, form: Form, start: str = "") -> None:
    """Refuse a value of JSON that has not some form.

    Parameters
    ----------
    value : any value of JSON
        What was read.
    form : dict
        JSON Schema (draft 2020-12), of which the keywords of our own forms are known.
    start : str
        Begins the message.

    Raises
    ------
    ValueError
        If it has not; the message names the first place, the rule and the value.
    """
    for place, rule, found in _faults((), value, form, form):
        name = ".".join(map(str, place)) or "it"
        raise ValueError(f"{start}{name} must {rule}, not {_shown(found)}")


def _shown(value: Any) -> str:
    """Short text of a value, of one line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


#: Keys and numbers that lead to a value, the rule that it breaks, and what is there.
Fault = tuple[tuple[str | int, ...], str, Any]


def _faults(place: tuple[str | int, ...], value: Any, form: Form, whole: Form) -> Iterator[Fault]:
    for keyword, argument in form.items():
        if keyword == "$ref":
            inner = whole
            for step in argument.removeprefix("#/").split("/"):
                inner = inner[step]
            yield from _faults(place, value, inner, whole)
        elif keyword in RULES:
            applies, holds, rule = RULES[keyword]
            if applies(value) and not holds(value, argument):
                yield place, rule(argument, value), value
        elif keyword in INNER:
            yield from INNER[keyword](place, value, form, whole)
        elif keyword not in SILENT:
            raise ValueError(f"form must have known keywords only, not {keyword!r}")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


#: What is of which type; JSON as Python reads it also has numbers that are none.
TYPES: dict[str, Callable[[Any], bool]] = {
    "object": _is_object,
    "array": _is_list,
    "string": _is_text,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: _is_number(value) and abs(value) < math.inf,
    "integer": lambda value: _is_number(value) and abs(value) < math.inf and value == int(value),
}


def _any_type(value: Any, names: str | list[str]) -> bool:
    return any(TYPES[name](value) for name in ([names] if isinstance(names, str) else names))


def _type_words(names: str | list[str], value: Any) -> str:
    return f"be of type {names if isinstance(names, str) else ' or '.join(names)}"


def _same(value: Any, other: Any) -> bool:
    """Whether two single values are equal; Python takes true for 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _anything(value: Any) -> bool:
    return True


Rule = tuple[
    Callable[[Any], bool],  # which values it is about
    Callable[[Any, Any], bool],  # whether a value keeps it
    Callable[[Any, Any], str],  # what it says, of a value that does not
]

#: Keywords about a value by itself.
RULES: dict[str, Rule] = {
    "type": (_anything, _any_type, _type_words),
    "const": (_anything, _same, lambda only, value: f"be {_shown(only)}"),
    "enum": (
        _anything,
        lambda value, known: any(_same(value, one) for one in known),
        lambda known, value: f"be one of {', '.join(map(_shown, known))}",
    ),
    "required": (
        _is_object,
        lambda value, names: all(name in value for name in names),
        lambda names, value: f"have {next(name for name in names if name not in value)}",
    ),
    "minProperties": (
        _is_object,
        lambda value, least: len(value) >= least,
        lambda least, value: f"have at least {least} fields",
    ),
    "minItems": (
        _is_list,
        lambda value, least: len(value) >= least,
        lambda least, value: f"have at least {least} entries",
    ),
    "minimum": (
        _is_number,
        lambda value, least: value >= least,
        lambda least, value: f"be at least {least}",
    ),
    "exclusiveMinimum": (
        _is_number,
        lambda value, bound: value > bound,
        lambda bound, value: f"be above {bound}",
    ),
    "maximum": (
        _is_number,
        lambda value, most: value <= most,
        lambda most, value: f"be at most {most}",
    ),
    "pattern": (
        _is_text,
        # To the end of the text: Python's $ is also before a line feed there.
        lambda value, pattern: re.search(re.sub(r"\$$", r"\\Z", pattern), value) is not None,
        lambda pattern, value: f"be a text like {pattern}",
    ),
}


def _named_fields(
    place: tuple[str | int, ...], value: Any, form: Form, whole: Form
) -> Iterator[Fault]:
    """Fields that a form has by name."""
    for name, inner in form["properties"].items():
        if isinstance(value, dict) and name in value:
            yield from _faults((*place, name), value[name], inner, whole)


def _other_fields(
    place: tuple[str | int, ...], value: Any, form: Form, whole: Form
) -> Iterator[Fault]:
    """Fields that a form has no name for."""
    for name in value if isinstance(value, dict) else ():
        if name in form.get("properties", {}):
            continue
        if form["additionalProperties"] is False:
            yield place, "have no field that its form does not know", name
        else:
            yield from _faults((*place, name), value[name], form["additionalProperties"], whole)


def _field_names(
    place: tuple[str | int, ...], value: Any, form: Form, whole: Form
) -> Iterator[Fault]:
    for name in value if isinstance(value, dict) else ():
        yield from _faults((*place, name), name, form["propertyNames"], whole)


def _entries(place: tuple[str | int, ...], value: Any, form: Form, whole: Form) -> Iterator[Fault]:
    for index, entry in enumerate(value if isinstance(value, list) else ()):
        yield from _faults((*place, index), entry, form["items"], whole)


#: Keywords about what is in a value.
INNER = {
    "properties": _named_fields,
    "additionalProperties": _other_fields,
    "propertyNames": _field_names,
    "items": _entries,
}
