"""Systolic arrays on the embedded network: time to measure one, and what its options cost.

Run as ``python bench/bench_array.py``.  The baseline is an N x N array mapped flattened, the way
that needs no notion of units; ``--flat N`` chooses N, 16 takes minutes, and 0 leaves it out.
``--part speed`` leaves the options out.  Times are by the clock, and of the processor (this process
and its children), which a busy machine changes little; memory is the most that this process and
any one child ever held.
"""

import argparse
import os
import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from golden.formats import parse
from golden.inference import QuantisedNetwork, quantise
from golden.mac import ArraySpec
from golden.tapered_mac import TaperedMacSpec
from hdl.datapath import Datapath
from hdl.fixed import FixedDatapath, FixedMacSpec
from hdl.tapered import TaperedDatapath
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import read
from narrowgauge.tiles import cut_tiles
from synth.array import MappedArray
from synth.cache import Cache
from synth.energy import unit_energy
from synth.library import load
from synth.yosys import map_netlist

#: Layer whose operands are run, one of the two that do most of the work.
LAYER = "conv3"
CLOCK_NS = 2.0
LENGTH = 2048


def network(name: str) -> QuantisedNetwork:
    """Embedded network in a format."""
    embedded = digits()
    assert embedded.data.calibration is not None
    system = parse(name).system()
    return quantise(read(embedded.model_path), system, embedded.data.calibration)


def measure(
    datapath: Datapath,
    quantised: QuantisedNetwork,
    cache: Cache | None = None,
    *,
    clock_ns: float = CLOCK_NS,
    **options: Any,
) -> tuple[float, float, float, dict[str, float]]:
    """Area per element, critical path, energy per product, and its split."""
    spec = ArraySpec(mac=datapath.spec, **({"rows": 16, "cols": 16} | options))
    array = MappedArray(datapath, spec, load("nangate45"), clock_ns=clock_ns, cache=cache)
    images = digits().data.images[::17]
    streams = [stream for stream in quantised.streams(images) if stream.name == LAYER]
    batch = cut_tiles(spec, streams, streams[0].output_codec.spec, seed=1)
    split, _ = unit_energy(array, array.run(batch), batch.products)
    area = array.area_um2 / (spec.rows * spec.cols)
    return area, array.critical_path_ns, sum(split.values()), split


def table() -> None:
    """Options of the tapered array against fixed8, same layer, library, clock and length."""
    fixed = FixedDatapath(FixedMacSpec(bits=8, length=LENGTH))

    def tapered(low: int, high: int, form: str) -> TaperedDatapath:
        spec = TaperedMacSpec(bits=8, length=LENGTH, min_run=low, max_run=high, form=form)
        return TaperedDatapath(spec)

    cases: list[tuple[str, Datapath, str, dict[str, object]]] = [
        ("fixed8", fixed, "fixed8", {}),
        ("fixed8, zero gating", fixed, "fixed8", {"zero_gating": True}),
    ]
    for low, high, name in ((4, 7, "tapered8:runs=4-7"), (1, 8, "tapered8")):
        for form in ("significand", "integer"):
            cases.append((f"{name} {form}", tapered(low, high, form), name, {}))
    edge = tapered(4, 7, "significand")
    cases += [
        ("tapered8:runs=4-7, decoders in PE", edge, "tapered8:runs=4-7", {"decoders": "pe"}),
        ("tapered8:runs=4-7, zero gating", edge, "tapered8:runs=4-7", {"zero_gating": True}),
    ]
    networks = {name: network(name) for name in dict.fromkeys(case[2] for case in cases)}

    print(f"16x16 array, NanGate 45 nm, {CLOCK_NS} ns, length {LENGTH}, digits {LAYER}")
    print(f"{'':36} {'um2/PE':>8} {'ratio':>6} {'ns':>6} {'pJ/MAC':>7} {'ratio':>6}")
    baseline = None
    for title, datapath, name, options in cases:
        area, delay, energy, split = measure(datapath, networks[name], **options)
        baseline = baseline or (area, energy)
        print(
            f"{title:36} {area:8.1f} {area / baseline[0]:6.3f} {delay:6.3f} {energy:7.4f} "
            f"{energy / baseline[1]:6.3f}"
        )
        print("    " + "  ".join(f"{kind} {value:.3f}" for kind, value in split.items()))


def used() -> tuple[float, float]:
    """Time by the clock, and of the processor, of this process and its children, in s."""
    times = os.times()
    return time.perf_counter(), sum(times[:4])


def memory() -> str:
    """Most memory that this process and any of its children has held."""
    own, child = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return f"at most {own:.0f} MiB here and {child:.0f} MiB in a child"


def speed(flat: int) -> None:
    """Cold time from nothing to area, delay and energy, against mapping the array flattened."""
    mac = TaperedMacSpec(bits=8, length=LENGTH, min_run=4, max_run=7)
    datapath = TaperedDatapath(mac)
    quantised = network("tapered8:runs=4-7")
    for size in (16, 64):
        with tempfile.TemporaryDirectory() as folder:
            cache = Cache(Path(folder))
            marks = [used()]
            for _ in ("cold", "warm"):
                measure(datapath, quantised, cache, rows=size, cols=size)
                marks.append(used())
        (cold, cold_cpu), (warm, warm_cpu) = (
            (after[0] - before[0], after[1] - before[1]) for before, after in pairwise(marks)
        )
        print(
            f"{size}x{size} array, Verilog to energy: {cold:.2f} s cold, {warm:.2f} s warm "
            f"(processor {cold_cpu:.1f} and {warm_cpu:.1f} s); {memory()}",
            flush=True,
        )
        if size == 16:
            ours = cold
    if not flat:
        return
    spec = ArraySpec(mac=mac, rows=flat, cols=flat)
    with tempfile.TemporaryDirectory() as folder:
        library = load("nangate45")
        array = MappedArray(datapath, spec, library, clock_ns=CLOCK_NS, cache=Cache(Path(folder)))
        start = time.perf_counter()
        mapped = map_netlist(
            array.verilog.modules,
            array.verilog.top,
            library,
            clock_ns=CLOCK_NS,
            timeout_s=3600,
            cache=Cache(Path(folder)),
        )
        took = time.perf_counter() - start
    print(
        f"{flat}x{flat} array flattened, mapping alone: {took:.0f} s, {took / ours:.1f} x the time "
        f"of 16x16 by units; area {mapped.area_um2:.0f} against {array.area_um2:.0f} um2"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flat", type=int, default=4, help="size of the array mapped flattened")
    parser.add_argument("--part", choices=("options", "speed"), help="both by default")
    arguments = parser.parse_args()
    if arguments.part != "speed":
        table()
    if arguments.part != "options":
        speed(arguments.flat)
