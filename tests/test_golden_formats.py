"""Strings that name formats."""

import pytest

from golden.dybit import DybitFormat
from golden.fixed import FixedFormat, FixedSpec
from golden.formats import FORMATS, parse
from golden.tapered import TaperedFormat, TaperedSpec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fixed8", FixedFormat(bits=8)),
        ("fixed16:frac_bits=-3", FixedFormat(bits=16, frac_bits=-3)),
        ("fixed1:signed=no", FixedFormat(bits=1, signed=False)),
        ("dybit4", DybitFormat(bits=4)),
        ("dybit3:scale=0.1,signed=no", DybitFormat(bits=3, scale=0.1, signed=False)),
        ("dybit8:pow2=yes", DybitFormat(bits=8, pow2=True)),
        ("tapered2", TaperedFormat(bits=2)),
        ("tapered8:max_run=4,scale_exp=-1", TaperedFormat(bits=8, max_run=4, scale_exp=-1)),
        ("tapered8:max_run=4", TaperedFormat(bits=8, max_run=4)),
        ("tapered8:scale_exp=3", TaperedFormat(bits=8, scale_exp=3)),
        ("tapered8:runs=4-8", TaperedFormat(bits=8, runs=(4, 8))),
        ("tapered10:max_run=5,runs=5-5", TaperedFormat(bits=10, max_run=5, runs=(5, 5))),
    ],
)
def test_parse(text, expected):
    fmt = parse(text)
    assert fmt == expected
    assert type(fmt) is FORMATS[fmt.stem]
    assert str(fmt) == text
    assert hash(fmt) == hash(parse(str(fmt)))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("tapered8:scale_exp=-1,max_run=4", "tapered8:max_run=4,scale_exp=-1"),
        ("tapered8:scale_exp=-01", "tapered8:scale_exp=-1"),
        ("fixed8:frac_bits=-0", "fixed8:frac_bits=0"),
        ("tapered8:runs=04-8", "tapered8:runs=4-8"),
    ],
)
def test_canonical_form(text, canonical):
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


def test_pinned():
    assert dict(parse("tapered8").pinned) == {}
    assert dict(parse("tapered8:scale_exp=0,runs=2-4").pinned) == {"scale_exp": 0, "runs": (2, 4)}
    assert dict(parse("fixed8:frac_bits=0").pinned) == {"frac_bits": 0}
    with pytest.raises(TypeError, match="does not support item assignment"):
        parse("fixed8").pinned["frac_bits"] = 3


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (FixedSpec(bits=8, frac_bits=7), "fixed8:frac_bits=7"),
        (FixedSpec(bits=4, frac_bits=-2), "fixed4:frac_bits=-2"),
        (TaperedSpec(bits=8, max_run=4, scale_exp=-1), "tapered8:max_run=4,scale_exp=-1"),
        (TaperedSpec(bits=3, max_run=3), "tapered3:max_run=3,scale_exp=0"),
    ],
)
def test_spec_strings(spec, text):
    """A spec prints as a format string with every parameter."""
    assert str(spec) == text
    assert parse(text).spec() == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "format must be like tapered8 or tapered8:max_run=4, not ''"),
        ("tapered", "format must be like tapered8 or tapered8:max_run=4, not 'tapered'"),
        ("8", "format must be like tapered8"),
        ("tapered08", "format must be like tapered8"),
        ("tapered8:", "format must be like tapered8"),
        ("tapered8 ", "format must be like tapered8"),
        ("Tapered8", "format must be like tapered8"),
        ("tapered-8", "format must be like tapered8"),
        ("tapered8\n", "format must be like tapered8"),
        ("tapered٨", "format must be like tapered8"),
        ("posit8", "number system must be one of fixed, .*tapered.*, not 'posit'"),
        ("fixed1", "bits must be between 2 and 16, not 1"),
        ("tapered17", "bits must be between 2 and 16, not 17"),
        ("tapered8:max_run", "parameter must be like max_run=4, not 'max_run' in 'tapered8:max"),
        ("tapered8:max_run=", "parameter must be like max_run=4, not 'max_run='"),
        ("tapered8:=4", "parameter must be like max_run=4, not '=4'"),
        ("tapered8:max_run=4,", "parameter must be like max_run=4, not ''"),
        ("tapered8:max_run=4,max_run=4", "parameter must be given once, not max_run twice"),
        (
            "tapered8:frac_bits=4",
            "parameter of tapered must be one of max_run, scale_exp, runs, not 'frac_bits'",
        ),
        (
            "fixed8:max_run=4",
            "parameter of fixed must be one of frac_bits, weight_bits, signed, not 'max_run'",
        ),
        ("tapered8:bits=4", "parameter of tapered must be one of"),
        ("tapered8:max_run=four", "max_run must be an integer, not 'four'"),
        ("tapered8:max_run=-", "max_run must be an integer, not '-'"),
        ("tapered8:max_run=4.0", r"max_run must be an integer, not '4\.0'"),
        ("tapered8:max_run=²", "max_run must be an integer, not '²'"),
        ("tapered8:max_run=9", "max_run must be between 1 and 8, not 9"),
        ("tapered8:scale_exp=4", "scale_exp must be between -4 and 3, not 4"),
        ("fixed8:frac_bits=65", "frac_bits must be between -64 and 64, not 65"),
        ("tapered8:runs=4", "runs must be two integers such as 2-4, not '4'"),
        ("tapered8:runs=4-", "runs must be two integers such as 2-4, not '4-'"),
        ("tapered8:runs=²-4", "runs must be two integers such as 2-4, not '²-4'"),
        ("tapered8:runs=a-b", "runs must be two integers such as 2-4, not 'a-b'"),
        ("tapered8:runs=5-4", "runs must be between 5 and 8, not 4"),
        ("tapered8:runs=2-4,max_run=5", "max_run must be between 2 and 4, not 5"),
    ],
)
def test_bad_strings(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_not_a_string():
    with pytest.raises(TypeError, match="format must be a string, not 8"):
        parse(8)
