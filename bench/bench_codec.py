"""Speed of coding against the float8 cast of ml_dtypes, and of the sweep against brute force.

Run as ``python bench/bench_codec.py``.  All figures are of one thread, the fastest of several
rounds; in each round every candidate runs once, so that all see the same machine.
"""

import argparse
import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

# NumPy reads it when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ml_dtypes
import numpy as np

from golden.element import DyadicSpec, ElementSpec
from golden.formats import parse
from golden.tapered import TaperedSpec

FORMATS = (
    "fixed8:frac_bits=7",
    "tapered8:max_run=1",
    "tapered8:max_run=3",
    "tapered8:max_run=4",
    "tapered8:max_run=8",
    "tapered5:max_run=3",
    "dybit8:scale=1.4",
    "dybit4:scale=1.1",
    "elp_bsd6:set=E6-2,scale=0.1",
    "elp_bsd4:set=E4-2,scale=0.2",
    "tapered12:max_run=4",
    "fixed16:frac_bits=15",
)
SWEPT = ("tapered8", "tapered5", "fixed8", "fixed16", "dybit8", "dybit4", "elp_bsd4", "elp_bsd6")
BASELINE = "ml_dtypes float8_e4m3fn"

#: Least ratio to the baseline that 8-bit codes must reach, and most seconds for the sweep.
ENCODE_TARGET, DECODE_TARGET, SWEEP_TARGET_S = 1.5, 2.0, 2.0


def fastest(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least time of each candidate in seconds, over rounds in which each runs once."""
    for run in candidates.values():
        run()  # tables are built at first use
    times = dict.fromkeys(candidates, float("inf"))
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def extra_bytes(run: Callable[[], Any]) -> int:
    """Most memory that a call has allocated at a time beside its result."""
    tracemalloc.start()
    result = run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - result.nbytes


def bench_coding(size: int, rounds: int) -> None:
    """Print values per second of encoding and decoding."""
    x = np.random.default_rng(0).normal(size=size).astype(np.float32)
    float8 = x.astype(ml_dtypes.float8_e4m3fn)
    encoders: dict[str, Callable[[], Any]] = {BASELINE: partial(x.astype, float8.dtype)}
    decoders: dict[str, Callable[[], Any]] = {BASELINE: partial(float8.astype, np.float32)}
    for text in FORMATS:
        spec = parse(text).spec()
        encoders[text] = partial(spec.encode, x)
        decoders[text] = partial(spec.decode, spec.encode(x))
    encode_s, decode_s = fastest(encoders, rounds), fastest(decoders, rounds)

    print(f"coding {size} numbers, float32 -> code -> float32, {rounds} rounds")
    print(f"targets for 8 bits: encode {ENCODE_TARGET}x, decode {DECODE_TARGET}x of {BASELINE}")
    print(f"{'':28} {'encode':>7} {'':>6} {'kB beside':>9} {'decode':>7} {'':>6} {'kB beside':>9}")
    titles = f"{'M/s':>7} {'ratio':>6} {'result':>9}"
    print(f"{'format':28} {titles} {titles}")
    for name in encoders:
        row = [
            f"{size / seconds[name] / 1e6:7.0f} {seconds[BASELINE] / seconds[name]:6.2f} "
            f"{extra_bytes(runs[name]) / 1e3:9.0f}"
            for runs, seconds in ((encoders, encode_s), (decoders, decode_s))
        ]
        print(f"{name:28}", *row)


def bench_requantise(size: int, rounds: int) -> None:
    """Print accumulators per second of rounding to codes."""
    accumulators = np.random.default_rng(1).integers(-(1 << 17), 1 << 17, size)
    specs = [parse(text).spec() for text in FORMATS]
    runs: dict[str, Callable[[], Any]] = {}
    for text, spec in zip(FORMATS, specs, strict=True):
        if isinstance(spec, DyadicSpec):
            runs[text] = partial(spec.requantise, accumulators, -14)
        elif spec.stem == "dybit":  # results are never signed digits
            runs[f"{text}, multiplied"] = partial(spec.rescale, accumulators, 2.0**-14 / 3)
    times = fastest(runs, rounds)
    print(f"requantising {size} accumulators of 18 bits")
    for name, seconds in times.items():
        print(f"{name:30} {size / seconds / 1e6:7.0f} M/s")


def bench_sweep(size: int) -> None:
    """Print the time of the search for parameters, against quantising with every candidate."""
    weights = (0.2 * np.random.default_rng(2).normal(size=size)).astype(np.float32)
    specs: list[ElementSpec] = [
        TaperedSpec(bits=8, max_run=max_run, scale_exp=scale_exp)
        for max_run in range(1, 9)
        for scale_exp in (0, -1, -2, -3)
    ]

    def brute_force() -> ElementSpec:
        errors = [np.mean((weights - spec.quantise(weights).astype(float)) ** 2) for spec in specs]
        return specs[int(np.argmin(errors))]

    start = time.perf_counter()
    expected = brute_force()
    brute_s = time.perf_counter() - start
    print(f"sweep over {size} weights; target {SWEEP_TARGET_S} s for 10 000 000")
    print(f"{'tapered8, brute force':24} {brute_s:9.2f} s  {expected}")
    for text in SWEPT:
        fmt = parse(text)
        seconds = fastest({text: partial(fmt.fit, weights)}, 3)[text]
        ratio = f", {brute_s / seconds:.0f}x brute force" if text == "tapered8" else ""
        print(f"{text:24} {seconds:9.2f} s  {fmt.fit(weights)}{ratio}")


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description="Benchmark of the codecs.")
    parser.add_argument("--size", type=int, default=1 << 22, help="numbers to code")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of which the best counts")
    parser.add_argument("--weights", type=int, default=10_000_000, help="weights of the sweep")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"NumPy {np.__version__}, ml_dtypes {ml_dtypes.__version__}")
    bench_coding(options.size, options.rounds)
    bench_requantise(options.size, options.rounds)
    bench_sweep(options.weights)


if __name__ == "__main__":
    main()
