"""Results have the published form: every field that is there is described, and none is missing."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest

from narrowgauge.report import csv_text, json_text
from tests.comparison_sample import with_memories

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "narrowgauge" / "schema" / "compare.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def sample():
    """The made-up result with everything that a result can have, as its file says it."""
    result = with_memories()
    del result["rows"][2:]
    result["rows"][1]["layers"][0]["accesses"] = {"table": 0.25}
    return json.loads(json_text(result))


def places(value, path=()):
    """Every value in a JSON document with its path."""
    yield path, value
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_schema_is_strict_and_says_what_everything_is():
    objects = [
        value for _, value in places(SCHEMA) if isinstance(value, dict) and "properties" in value
    ]
    assert len(objects) >= 10
    for value in objects:
        assert value["additionalProperties"] is False
        assert value["required"] == list(value["properties"])
        for description in value["properties"].values():
            assert {"description", "$ref"} & set(description)


def test_sample_has_the_form():
    """So that tests of reports, which use it, are about results as they are."""
    VALIDATOR.validate(sample())


def test_field_that_is_missing_or_new():
    result = sample()
    fields = 0
    for path, value in places(result):
        if not isinstance(value, dict) or path[-1:] == ("accesses",):
            continue
        if "breakdown" not in str(path[-1:]):
            assert not VALIDATOR.is_valid(changed(result, path, "new", 1)), path
        for key in value if "breakdown" not in str(path[-1:]) else ():
            assert not VALIDATOR.is_valid(changed(result, path, key)), (path, key)
            fields += 1
    assert fields > 150


def changed(result, path, key, *new):
    """``result`` with a field set or, without a new value, left out."""
    # Only what leads to the place is copied: the document is large, and there are many places.
    top = copy.copy(result)
    value = top
    for step in path:
        value[step] = copy.copy(value[step])
        value = value[step]
    if new:
        value[key] = new[0]
    else:
        del value[key]
    return top


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("network", "digest"), "abc"),
        (("network", "images"), 0),
        (("settings", "method"), "guess"),
        (("rows",), []),
        (("rows", 0, "cells"), 1.5),
        (("rows", 0, "energy_per_mac_pj"), 0),
        (("rows", 0, "utilisation"), 1.01),
        (("rows", 0, "accuracy"), "99"),
        (("rows", 0, "design"), "fixed"),
        (("rows", 0, "nets_annotated"), 2),
        (("rows", 0, "critical_path", 0, "edge"), "up"),
        (("rows", 0, "energy_breakdown_pj", "clock"), -0.1),
        (("rows", 0, "energy_breakdown_pj", "2nd part"), 0.1),
    ],
)
def test_value_that_is_wrong(path, value):
    result = sample()
    VALIDATOR.validate(result)
    *above, key = path
    at(result, above)[key] = value
    assert not VALIDATOR.is_valid(result)


def test_columns_of_csv_are_documented():
    """Each column of the file is in the table of the page, and no other."""
    page = (ROOT / "docs" / "results.md").read_text()
    table = page.partition("## CSV")[2].partition("## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = [name for cell in cells for name in re.findall("`([^`]+)`", cell)]
    heading = csv_text(with_memories()).splitlines()[0].split(",")
    columns = [
        re.sub(r"^(area|energy)_(?!per_)[a-z-]+_(um2|pj)$", r"\1_PART_\2", name)
        if not name.startswith("memory_")
        else re.sub(r"^memory_(?!energy|area)[a-z-]+_pj$", "memory_KIND_pj", name)
        for name in heading
    ]
    assert set(columns) == set(documented)
    assert len(documented) == len(set(documented))
