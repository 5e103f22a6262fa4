"""What a bench knows of the design that it tests."""

import atexit
import functools
import importlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.coverage import Coverage
from sim.layout import Layout
from sim.system import System

__all__ = ["Parameters", "load"]


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Contents of the files that :mod:`sim.runner` writes for a bench.

    Attributes
    ----------
    stem : str
        Number system; :mod:`sim` has a file of that name.
    mac : dict
        Fields of the design's :class:`golden.mac.MacSpec`.
    ports : dict of str to Layout
        Of all ports of the top module but clock and reset.
    attributes : dict
        What the component states of itself: ``latency``, ``rows``, ``cols``, and so on.
    thorough : bool
        Whether to take more time and try more cases.
    exhaustive : bool
        Whether to try all pairs of codes and all settings, where there are few; the simulation of
        cells takes too long for that.
    seed : int
        Of all random stimuli.
    arrays : dict of str to ndarray
        Tensors.
    coverage : Coverage
        Bins of the bench; written when the process ends.
    """

    stem: str
    mac: Mapping[str, Any]
    ports: Mapping[str, Layout]
    attributes: Mapping[str, Any]
    thorough: bool
    exhaustive: bool
    seed: int
    arrays: Mapping[str, npt.NDArray[Any]]
    coverage: Coverage = field(default_factory=Coverage)

    @functools.cached_property
    def system(self) -> System:
        """The number system."""
        return importlib.import_module(f"sim.{self.stem}").make_system(self.mac)

    def rng(self, test: str) -> np.random.Generator:
        """Make the generator of a test, the same whatever other tests run."""
        return np.random.default_rng([self.seed, zlib.crc32(test.encode())])


@functools.cache
def load() -> Parameters:
    """Parameters of the running bench.

    Raises
    ------
    ValueError
        If this is no process that :mod:`sim.runner` started.
    """
    name = os.environ.get("NARROWGAUGE_BENCH")
    if name is None:
        raise ValueError("NARROWGAUGE_BENCH must name the folder of a bench: see sim.runner")
    folder = Path(name)
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        contents = dict(arrays)
    parameters = json.loads((folder / "parameters.json").read_text(encoding="utf-8"))
    loaded = Parameters(**parameters, arrays=contents)
    # Both simulators end Python in good order.
    atexit.register(loaded.coverage.write, folder)
    return loaded
