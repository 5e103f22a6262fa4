"""What the stimuli of a bench and the results that they call for have been, counted in bins.

A bench declares groups of bins with names, and counts what it has checked.  When the simulation
ends, the counts are in ``coverage.json`` beside ``results.xml``; :mod:`sim.runner` returns them.  A
bin that stays empty says that something was never tried.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FILE", "Counts", "Coverage", "empty_bins", "merge"]

#: Hits by group and bin.
Counts = dict[str, dict[str, int]]

#: Name of the file that a simulation leaves.
FILE = "coverage.json"


class Coverage:
    """Counts hits of bins.

    Attributes
    ----------
    counts : dict of str to dict of str to int
        Hits by group and bin, in the order of their declaration.
    """

    def __init__(self) -> None:
        self.counts: Counts = {}

    def declare(self, group: str, bins: Iterable[Any]) -> None:
        """Add bins to a group; those that it has keep their hits.

        Only what the design at hand can be brought to should be declared: each bin must be hit.

        Parameters
        ----------
        group : str
            Such as ``run length``.
        bins : iterable
            Names, or integers.
        """
        counts = self.counts.setdefault(group, {})
        for name in bins:
            counts.setdefault(str(name), 0)

    def count(self, group: str, labels: npt.ArrayLike) -> None:
        """Count each element of an array of bins.

        Parameters
        ----------
        group : str
            As declared.
        labels : array_like of int or str
            Bins, of any shape.

        Raises
        ------
        ValueError
            If the group has no such bin.
        """
        names, hits = np.unique(np.asarray(labels), return_counts=True)
        for name, number in zip(names.tolist(), hits.tolist(), strict=True):
            self.hit(group, str(name), number)

    def mark(self, group: str, masks: Mapping[str, npt.ArrayLike]) -> None:
        """Count the true elements of a mask for each bin.

        Parameters
        ----------
        group : str
            As declared.
        masks : mapping of str to array_like of bool
            Of any shape, by bin.

        Raises
        ------
        ValueError
            If the group has no such bin.
        """
        for name, mask in masks.items():
            self.hit(group, name, int(np.count_nonzero(mask)))

    def hit(self, group: str, name: str, number: int = 1) -> None:
        """Count ``number`` hits of one bin; ValueError if the group has no such bin."""
        counts = self.counts.get(group, {})
        if name not in counts:
            raise ValueError(f"bin must be one of {', '.join(counts)} in {group!r}, not {name!r}")
        counts[name] += number

    @property
    def is_full(self) -> bool:
        """Whether all bins were hit."""
        return not empty_bins(self.counts)

    def write(self, folder: Path) -> None:
        """Write the counts into ``folder``."""
        (folder / FILE).write_text(json.dumps(self.counts), encoding="utf-8")


def merge(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> Counts:
    """Sum of the hits of several simulations; a bin that only some have is a bin of the sum."""
    merged: Counts = {}
    for part in parts:
        for group, counts in part.items():
            sums = merged.setdefault(group, {})
            for name, number in counts.items():
                sums[name] = sums.get(name, 0) + number
    return merged


def empty_bins(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Bins without a hit, as ``group: bin``."""
    return [
        f"{group}: {name}"
        for group, bins in counts.items()
        for name, hits in bins.items()
        if not hits
    ]
