"""The main job: one network in many formats, on the hardware of each, measured the same way.

Fair by construction: every row has the same cell library, mapping, clock, array, operand data
(the codes of the same images) and an accumulator that is exact for the same length.
"""

import functools
import importlib.metadata
import json
import math
import pickle
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from golden.element_layers import ElementCodec
from golden.fixed import FixedFormat
from golden.formats import parse
from golden.inference import Evaluation, LayerStream, QuantisedNetwork, quantise
from golden.mac import ArraySpec
from golden.network import Network
from golden.spec import Format
from narrowgauge.catalogue import SYSTEMS, Options
from narrowgauge.onnx_reader import Data
from narrowgauge.tiles import cut_tiles, required_length, signed_operands, signed_spec
from narrowgauge.workers import worker_pool
from synth.array import MappedArray
from synth.cache import Cache, content_key
from synth.cells import CellLibrary
from synth.energy import unit_energy
from synth.library import load
from synth.yosys import yosys_version

__all__ = ["DEFAULT_FORMATS", "SCHEMA", "Settings", "compare"]

#: Version of the form of the result.
SCHEMA = 1

#: Formats that are compared when none are named; the first one is the baseline.
DEFAULT_FORMATS = (
    "fixed8",
    "tapered8:runs=4-7",
    "tapered8",
    "fixed6",
    "tapered6",
    "fixed5",
    "tapered5",
    "dybit8",
    "dybit4",
    "elp_bsd4:set=E4-2,scale_pow2=yes",
)

#: Images whose operands are streamed through the hardware.
STREAM_IMAGES = 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all rows have in common.

    Parameters
    ----------
    library : str
        Name of a built-in cell library, or path of a Liberty file.
    clock_ns : float
        Clock period that mapping aims at.
    options : Options
        Hardware.
    method : str
        How formats are fitted, see :meth:`golden.spec.Format.fit`.
    seed : int
        Of the choice of tiles.
    """

    library: str = "nangate45"
    clock_ns: float = 2.0
    options: Options = field(default_factory=Options)
    method: Any = "sweep"
    seed: int = 1


def compare(
    network: Network,
    data: Data,
    formats: Sequence[str] = DEFAULT_FORMATS,
    settings: Settings | None = None,
    *,
    jobs: int = 2,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure accuracy, area, delay and energy of a network in each format.

    Parameters
    ----------
    network : Network
        Trained network.
    data : Data
        Test images with labels, and calibration images.
    formats : sequence of str
        Format strings; the first one is the baseline.
    settings : Settings, optional
        Library, clock, array.
    jobs : int
        Formats measured at a time, each in a process of its own.
    progress : callable, optional
        Called with each format string when its row is there.

    Returns
    -------
    dict
        The content of compare.json, without ``network["name"]`` and ``network["source"]``.

    Raises
    ------
    ValueError
        If a format is unknown or listed twice, the data lacks labels or calibration images, or a
        format cannot be fitted, mapped or verified.
    """
    settings = settings or Settings()
    parsed = [parse(text) for text in formats]
    names = [str(form) for form in parsed]
    for form in parsed:
        if "array" not in SYSTEMS[form.stem].units:
            known = ", ".join(stem for stem, system in SYSTEMS.items() if "array" in system.units)
            raise ValueError(f"formats must have an array ({known}), not {form}")
    if not names:
        raise ValueError("formats must name at least one format, not none")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"formats must be different, not {name} twice")
    if data.labels is None:
        raise ValueError("data must have labels (y) to measure accuracy, not images alone")
    if data.calibration is None:
        raise ValueError("data must have calibration images (calibration), not test images alone")
    library = load(settings.library)

    rows: dict[str, dict[str, Any]] = {}
    if jobs == 1 or len(names) == 1:
        for name in names:
            rows[name] = _cached_row(network, data, name, settings)
            if progress:
                progress(name)
    else:
        rows = _in_processes(network, data, names, settings, jobs, progress)

    first = next(iter(rows.values()))
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "network": {
            "float_accuracy": first.pop("float_accuracy"),
            "images": len(data.images),
            "calibration_images": len(data.calibration),
            "mac_layers": len(network.mac_nodes),
            "macs_per_image": sum(network.macs.values()),
            "longest_dot_product": max(node.length for node in network.mac_nodes),
        },
        "library": _library_facts(library),
        "tools": tool_versions(),
        "settings": {
            "rows": settings.options.rows,
            "cols": settings.options.cols,
            "clock_ns": settings.clock_ns,
            "length": first["length"],
            "method": settings.method,
            "seed": settings.seed,
            "decoders": settings.options.decoders,
            "zero_gating": settings.options.zero_gating,
        },
        "rows": [rows[name] for name in names],
        "weights": _weight_histogram(network),
    }
    for row in result["rows"]:
        row.pop("float_accuracy", None)
    return result


def _in_processes(
    network: Network,
    data: Data,
    names: Sequence[str],
    settings: Settings,
    jobs: int,
    progress: Callable[[str], None] | None,
) -> dict[str, dict[str, Any]]:
    """Rows by format, each made by a process of its own."""
    rows = {}
    with worker_pool(min(jobs, len(names))) as pool:
        pending = {pool.submit(_cached_row, network, data, name, settings): name for name in names}
        for future in as_completed(pending):
            rows[pending[future]] = future.result()
            if progress:
                progress(pending[future])
    return rows


def tool_versions() -> dict[str, str]:
    """Versions of everything that figures depend on."""
    packages = ("narrowgauge", "amaranth", "numpy", "onnx")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return versions | {"yosys": yosys_version(), "python": platform.python_version()}


def _library_facts(library: CellLibrary) -> dict[str, Any]:
    fields = ("name", "version", "source", "licence", "voltage_v", "temperature_c", "digest")
    return {name: getattr(library, name) for name in fields}


def _weight_histogram(network: Network) -> dict[str, Any]:
    """Distribution of the largest layer's weights."""
    node = max(network.mac_nodes, key=lambda node: node.matrices().size)
    counts, edges = np.histogram(node.matrices(), bins=81)
    return {"layer": node.name, "edges": edges.tolist(), "counts": counts.tolist()}


def _cached_row(network: Network, data: Data, name: str, settings: Settings) -> dict[str, Any]:
    """Row of a format: from the cache if it was made of the very same things before."""
    arrays = (data.images, data.labels, data.calibration)
    key = content_key(
        "row",
        SCHEMA,
        _code_digest(),
        json.dumps(tool_versions()),
        load(settings.library).digest,
        repr((settings.clock_ns, settings.options, settings.method, settings.seed)),
        name,
        # Never read back: only its hash is kept.
        pickle.dumps((network, arrays)),
    )
    row: Any = Cache().compute_json(key, lambda: _row(network, data, name, settings))
    return dict(row)


@functools.cache
def _code_digest() -> str:
    """Hash of the whole project's code and data, so that no cached row outlives a change."""
    root = Path(__file__).parents[1]
    folders = ("golden", "hdl", "synth", "narrowgauge")
    paths = [path for folder in folders for path in sorted((root / folder).glob("*.py"))]
    return content_key(*(path.read_bytes() for path in paths))


def _row(network: Network, data: Data, name: str, settings: Settings) -> dict[str, Any]:
    """Everything about one format."""
    form = parse(name)
    assert data.calibration is not None  # compare() has seen to it
    system = form.system(settings.method)
    quantised = quantise(network, system, data.calibration)
    evaluation = quantised.evaluate(data.images, data.labels)
    streams = list(quantised.streams(data.images[:: max(1, len(data.images) // STREAM_IMAGES)]))

    arrays = _arrays(form, streams, settings)
    array = arrays[form.stem]
    layers = _layers(arrays, form, streams, settings, network, evaluation)
    macs = sum(layer["macs"] for layer in layers)
    energy = _weighted(layers, macs)
    path_name, path = array.critical_paths()[0]
    mac = array.spec.mac
    return {
        "design": f"{form.stem}-array",
        "spec": name,
        "weight_bits": mac.code_bits("weight"),
        "activation_bits": mac.code_bits("activation"),
        "accumulator_bits": mac.accumulator_width,
        "length": mac.length,
        "macs_per_cycle": array.spec.rows * array.spec.cols,
        "utilisation": macs
        / sum(layer["macs"] / layer["products_per_cycle"] for layer in layers)
        / (array.spec.rows * array.spec.cols),
        "area_um2": array.area_um2,
        "area_per_mac_um2": array.area_um2 / (array.spec.rows * array.spec.cols),
        "cells": array.cells,
        "critical_path_ns": array.critical_path_ns,
        "slack_ns": settings.clock_ns - array.critical_path_ns,
        "critical_path_unit": path_name,
        "critical_path": [
            {
                "cell": step.cell or "input",
                "pin": step.pin,
                "delay_ns": step.delay_ns,
                "arrival_ns": step.arrival_ns,
            }
            for part in path
            for step in part.steps
        ],
        "energy_per_mac_pj": sum(energy.values()),
        "leakage_uw": array.leakage_uw,
        "storage_bits_per_weight": sum(layer.storage_bits for layer in quantised.layers.values())
        / sum(node.weight.size for node in network.mac_nodes),
        "sqnr_db": _decibels(evaluation.sqnr_db),
        "accuracy": 100 * (evaluation.accuracy or 0.0),
        "float_accuracy": 100 * (evaluation.float_accuracy or 0.0),
        "area_breakdown_um2": array.area_breakdown_um2(),
        "energy_breakdown_pj": energy,
        "nets_annotated": min(layer.pop("nets_annotated") for layer in layers),
        "units": [
            {
                "module": unit.name,
                "role": role,
                "count": unit.count,
                "area_um2": unit.mapped.area_um2,
                "cells": unit.mapped.cell_count,
                "critical_path_ns": unit.timing.critical_path_ns,
            }
            for role, unit in array.units.items()
        ],
        "layers": layers,
        "values": _values(quantised, network),
        "note": _note(arrays, form, streams, settings.clock_ns),
    }


def _values(quantised: QuantisedNetwork, network: Network) -> dict[str, Any]:
    """Values that the weights of the largest layer can take."""
    node = max(network.mac_nodes, key=lambda node: node.matrices().size)
    spec = quantised.layers[node.name].weight_spec  # type: ignore[attr-defined]
    values = np.unique(spec.decode(np.arange(1 << spec.bits)).astype(np.float64))
    return {"layer": node.name, "spec": str(spec), "values": values.tolist()}


def _arrays(
    form: Format, streams: Sequence[LayerStream], settings: Settings
) -> dict[str, MappedArray]:
    """Map the array of a format, and one for its layers that have fixed-point weights, by stem.

    The latter takes activations in two's complement: those without a sign get one bit more.
    """
    by_stem: dict[str, list[LayerStream]] = {form.stem: []}
    for stream in streams:
        by_stem.setdefault(stream.operands.weight_spec.stem, []).append(stream)
    arrays = {form.stem: _array(form, by_stem[form.stem], settings)}
    for stem in by_stem.keys() - arrays.keys():
        operands = [stream.operands for stream in by_stem[stem]]
        beside = FixedFormat(
            bits=max(layer.activation_spec.operand_bits for layer in operands),
            weight_bits=max(layer.weight_spec.bits for layer in operands),
        )
        arrays[stem] = _array(beside, by_stem[stem], settings)
    return arrays


def _note(
    arrays: Mapping[str, MappedArray],
    form: Format,
    streams: Sequence[LayerStream],
    clock_ns: float,
) -> str:
    """Say which layers another array runs, and whether the array is too slow for the clock."""
    notes = []
    path, _ = arrays[form.stem].critical_paths()[0]
    if arrays[form.stem].critical_path_ns > clock_ns:
        notes.append(f"{path} misses the clock of {clock_ns:g} ns, for which energy is stated")
    names = {
        stream.name: None for stream in streams if stream.operands.weight_spec.stem != form.stem
    }
    areas = [array.area_um2 for stem, array in arrays.items() if stem != form.stem]
    if names:
        notes.append(
            f"{', '.join(names)}: fixed-point weights, on an array of their own, whose energy "
            f"counts but whose area, {areas[0]:.0f} um2, does not"
        )
    return "; ".join(notes)


def _array(form: Format, streams: Sequence[LayerStream], settings: Settings) -> MappedArray:
    """Map the array of a format, with room for the longest dot product of the streams."""
    options = settings.options
    system = SYSTEMS[form.stem]
    datapath = system.datapath(form, options.length)
    needed = required_length(datapath.spec, [stream.operands for stream in streams])
    if needed > options.length:
        datapath = system.datapath(form, needed)
    spec = ArraySpec(
        mac=datapath.spec,
        rows=options.rows,
        cols=options.cols,
        decoders=options.decoders,
        zero_gating=options.zero_gating,
    )
    return MappedArray(datapath, spec, load(settings.library), clock_ns=settings.clock_ns)


def _layers(
    arrays: Mapping[str, MappedArray],
    form: Format,
    streams: Sequence[LayerStream],
    settings: Settings,
    network: Network,
    evaluation: Evaluation,
) -> list[dict[str, Any]]:
    """Energy of each layer, from tiles of its operands on the mapped netlists."""
    layers = []
    for name, group in groupby(streams, key=lambda stream: stream.name):
        parts = list(group)
        operands = parts[0].operands
        array = arrays[operands.weight_spec.stem]
        result_spec: Any
        if isinstance(parts[0].output_codec, ElementCodec):
            result_spec = parts[0].output_codec.spec
        else:  # the logits leave the array like any other result
            logits = operands.accumulators * operands.accumulator_unit
            result_spec = form.fit(logits, "activations", settings.method)
        if operands.weight_spec.stem != form.stem:
            bits = array.spec.mac.bits
            parts = [replace(part, operands=signed_operands(part.operands, bits)) for part in parts]
            result_spec = signed_spec(result_spec, bits)
        batch = cut_tiles(array.spec, parts, result_spec, settings.seed)
        run = array.run(batch)
        split, annotated = unit_energy(array, run, batch.products)
        cycles = run.cycles * len(batch.activations)
        layers.append(
            {
                "name": name,
                "macs": network.macs[name],
                "length": operands.weight_codes.shape[0],
                "weight_spec": str(operands.weight_spec),
                "activation_spec": str(operands.activation_spec),
                "sqnr_db": _decibels(evaluation.tensor_sqnr_db.get(name, evaluation.sqnr_db)),
                "products_per_cycle": batch.products / cycles,
                "energy_per_mac_pj": sum(split.values()),
                "energy_breakdown_pj": split,
                "nets_annotated": annotated,
            }
        )
    return layers


def _decibels(ratio: float) -> float | None:
    """``ratio``, or None where there is no error: JSON knows no infinity."""
    return ratio if math.isfinite(ratio) else None


def _weighted(layers: Sequence[Mapping[str, Any]], macs: int) -> dict[str, float]:
    """Split of the mean energy per multiply-accumulate of the network."""
    energy: dict[str, float] = {}
    for layer in layers:
        for kind, value in layer["energy_breakdown_pj"].items():
            energy[kind] = energy.get(kind, 0.0) + value * layer["macs"] / macs
    return energy
