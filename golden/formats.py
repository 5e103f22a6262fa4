"""All number systems by name, and the strings that name a format.

A format string is the stem of a number system, its size (the bits of a code, but for weight pools
the number of vectors) and, after a colon, parameters that are not to be fitted: ``tapered8``,
``tapered8:max_run=4,scale_exp=-1``.
"""

import re

from golden.abfp import AbfpFormat
from golden.dybit import DybitFormat
from golden.elp_bsd import ElpBsdFormat
from golden.fixed import FixedFormat
from golden.spec import Format
from golden.tapered import TaperedFormat
from golden.weight_pool import WeightPoolFormat

__all__ = ["FORMATS", "parse"]

#: One line per number system, by stem.
FORMATS: dict[str, type[Format]] = {
    "fixed": FixedFormat,
    "tapered": TaperedFormat,
    "dybit": DybitFormat,
    "elp_bsd": ElpBsdFormat,
    "abfp": AbfpFormat,
    "weight_pool": WeightPoolFormat,
}


def parse(text: str) -> Format:
    """Format that a string names; ``str`` of the result is its canonical form.

    Raises
    ------
    TypeError
        If ``text`` is not a string.
    ValueError
        If it is not a format string, or names an unknown number system or parameter, or gives a
        parameter twice or a value that is not legal.
    """
    if not isinstance(text, str):
        raise TypeError(f"format must be a string, not {text!r}")
    match = re.fullmatch(r"([a-z][a-z_]*)([1-9][0-9]*)(?::(.+))?", text)
    if match is None:
        raise ValueError(f"format must be like tapered8 or tapered8:max_run=4, not {text!r}")
    stem, size, rest = match.groups()
    if stem not in FORMATS:
        raise ValueError(f"number system must be one of {', '.join(FORMATS)}, not {stem!r}")

    texts: dict[str, str] = {}
    for part in rest.split(",") if rest else []:
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise ValueError(f"parameter must be like max_run=4, not {part!r} in {text!r}")
        if name in texts:
            raise ValueError(f"parameter must be given once, not {name} twice in {text!r}")
        texts[name] = value
    return FORMATS[stem].from_texts(int(size), texts)
