"""Exact rational arithmetic against which the golden models are tested; slow and obvious."""

import json
from bisect import bisect_left
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

VECTORS = Path(__file__).parents[1] / ".." / "shared" / "spec" / "vectors"


def load_vectors(system):
    """Test vectors of a number system; skips the test where they are absent."""
    path = VECTORS / f"{system}.json"
    if not path.exists():
        pytest.skip(f"needs {path.name} of the specification")
    return json.loads(path.read_text())


@cache
def tapered_values(bits, max_run, scale_exp=0):
    """Value of each code by the bit-string definition, spec/tapered.md, section 1."""
    return tuple(
        _tapered_value(format(code, f"0{bits}b"), max_run) * Fraction(2) ** scale_exp
        for code in range(1 << bits)
    )


def _tapered_value(word, max_run):
    repeated = "1" if word[0] == "0" else "0"
    length = 1
    while length < min(max_run, len(word)) and word[length] == repeated:
        length += 1
    rest = word[length:]
    if length < max_run:
        rest = rest[1:]
    integer = length - 1 if repeated == "1" else -length
    return integer + Fraction(int(rest or "0", 2), 1 << len(rest))


@cache
def fixed_values(bits, frac_bits):
    """Value of each code as a sum of its bits, of which the first counts negative."""
    values = []
    for code in range(1 << bits):
        word = format(code, f"0{bits}b")
        integer = sum(1 << bits - 1 - i for i, bit in enumerate(word) if i and bit == "1")
        values.append((integer - (int(word[0]) << bits - 1)) * Fraction(2) ** -frac_bits)
    return tuple(values)


class Rounder:
    """Nearest code by comparing exact distances to both neighbours."""

    def __init__(self, values):
        self.values, self.codes = zip(
            *sorted((value, code) for code, value in enumerate(values)), strict=True
        )

    def __call__(self, x):
        x = Fraction(x)
        above = bisect_left(self.values, x)
        if above == 0:
            return self.codes[0]
        if above == len(self.values):
            return self.codes[-1]
        down, up = x - self.values[above - 1], self.values[above] - x
        candidates = {above - 1: down, above: up}
        best = [i for i, distance in candidates.items() if distance == min(down, up)]
        if len(best) == 2:
            best = [i for i in best if self.codes[i] % 2 == 0]
        (index,) = best
        return self.codes[index]

    @property
    def midpoints(self):
        """Midpoints between neighbouring values."""
        return [(low + high) / 2 for low, high in pairwise(self.values)]

    def points(self, dtype):
        """Values, midpoints, both neighbours of each in ``dtype``, and numbers out of range."""
        exact = np.array([float(x) for x in [*self.values, *self.midpoints]], dtype)
        outside = np.array([3 * float(self.values[0]), 3 * float(self.values[-1])], dtype)
        infinity = dtype(np.inf)
        return np.concatenate(
            [exact, np.nextafter(exact, infinity), np.nextafter(exact, -infinity), outside]
        )
