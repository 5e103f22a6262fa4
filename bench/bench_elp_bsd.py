"""Speed of coding signed digits, of fitting them, and of compensating their errors.

Run as ``python bench/bench_elp_bsd.py``.  Coding is compared with the float8 cast of ml_dtypes in
the same run, compensation with a loop over groups in plain Python.  All figures are of one thread,
the fastest of several rounds; in each round every candidate runs once, so that all see the same
machine.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

# NumPy reads it when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ml_dtypes
import numpy as np

from golden.compensation import Grouping, assign, bracket, to_units
from golden.elp_bsd import DIGIT_SETS, ElpBsdFormat, ElpBsdSpec

BASELINE = "ml_dtypes float8_e4m3fn"

#: Least ratio to the baseline that codes must reach, and most seconds for a fit.
ENCODE_TARGET, DECODE_TARGET, FIT_TARGET_S = 1.5, 2.0, 2.0

#: Largest level over standard deviation at which Gaussian weights have least error.
TOPS = {"E3-1": 2.2, "E3-1nz": 2.2, "E4-1": 4.2, "E4-2": 2.6, "E5-2": 3.1, "E6-2": 3.3, "E7-2": 5.1}

#: Weights in a group: a kernel of 3x3.
WINDOW = 9


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


def spec_of(name: str) -> ElpBsdSpec:
    """Digit set with the best scale for Gaussian weights of variance 1."""
    digits = DIGIT_SETS[name]
    return ElpBsdSpec(set=digits, scale=TOPS[name] / digits.largest)


def bench_coding(size: int, rounds: int) -> None:
    """Print values per second of encoding and decoding."""
    x = np.random.default_rng(0).normal(size=size).astype(np.float32)
    float8 = x.astype(ml_dtypes.float8_e4m3fn)
    encoders: dict[str, Callable[[], Any]] = {BASELINE: partial(x.astype, float8.dtype)}
    decoders: dict[str, Callable[[], Any]] = {BASELINE: partial(float8.astype, np.float32)}
    for name in DIGIT_SETS:
        spec = spec_of(name)
        encoders[name] = partial(spec.encode, x)
        decoders[name] = partial(spec.decode, spec.encode(x))
    encode_s, decode_s = fastest(encoders, rounds), fastest(decoders, rounds)

    print(f"coding {size} numbers, float32 -> code -> float32, {rounds} rounds")
    print(f"targets: encode {ENCODE_TARGET}x, decode {DECODE_TARGET}x of {BASELINE}")
    print(f"{'':24} {'encode':>14} {'decode':>14}")
    print(f"{'digit set':24} {'M/s':>7} {'ratio':>6} {'M/s':>7} {'ratio':>6}")
    for name in encoders:
        row = [
            f"{size / seconds[name] / 1e6:7.0f} {seconds[BASELINE] / seconds[name]:6.2f}"
            for seconds in (encode_s, decode_s)
        ]
        print(f"{name:24}", *row)


def bench_fit(size: int) -> None:
    """Print the time of the search for digit set and scale, against coding with every candidate."""
    weights = (0.2 * np.random.default_rng(1).normal(size=size)).astype(np.float32)
    print(f"fit of {size} weights; target {FIT_TARGET_S} s for 10 000 000")
    candidates = ElpBsdFormat(bits=4).candidates(float(np.abs(weights).max()))

    def brute_force() -> ElpBsdSpec:
        errors = [
            np.mean((weights - spec.quantise(weights).astype(float)) ** 2) for spec in candidates
        ]
        return candidates[int(np.argmin(errors))]

    start = time.perf_counter()
    expected = brute_force()
    brute_s = time.perf_counter() - start
    print(f"{'elp_bsd4, brute force':24} {brute_s:9.2f} s  {expected}")
    for bits in (3, 4, 5, 6, 7):
        fmt = ElpBsdFormat(bits=bits)
        seconds = fastest({"fit": partial(fmt.fit, weights)}, 3)["fit"]
        ratio = f", {brute_s / seconds:.0f}x brute force" if bits == 4 else ""
        print(f"{fmt!s:24} {seconds:9.2f} s  {fmt.fit(weights)}{ratio}")


def plain_python(groups: list[list[int]], levels: Sequence[int]) -> list[list[int]]:
    """Levels after compensation, group by group; the baseline."""
    units = np.array(groups)
    nearest, other = (np.take(levels, index).tolist() for index in bracket(units, levels))
    for own, chosen, others in zip(groups, nearest, other, strict=True):
        errors = [(q << 12) - unit for q, unit in zip(chosen, own, strict=True)]
        total = sum(errors)
        steps = [(b - a) << 12 for a, b in zip(chosen, others, strict=True)]
        while True:
            best = None
            for i, step in enumerate(steps):
                gain = abs(total) - abs(total + step)
                if step * total < 0 < gain:
                    cost = (errors[i] + step) ** 2 - errors[i] ** 2
                    if best is None or cost * best[1] < best[0] * gain:
                        best = cost, gain, i
            if best is None:
                break
            i = best[2]
            chosen[i] = others[i]
            total += steps[i]
            steps[i] = 0
    return nearest


def bench_compensation(size: int, rounds: int) -> None:
    """Print weights per second of compensation."""
    filters, channels = 64, size // (64 * WINDOW)
    weights = np.random.default_rng(2).normal(size=(1, WINDOW * channels, filters))
    grouping = Grouping(window=WINDOW)
    few = 2000
    print(f"compensating {weights.size} weights in kernels of 3x3; plain Python: {few} kernels")
    print(f"{'digit set':24} {'moved':>7} {'M/s':>7} {'Python':>7} {'ratio':>6}")
    for name, digits in DIGIT_SETS.items():
        units = to_units(weights, spec_of(name).scale)
        run = partial(assign, units, digits.levels, grouping, compensated=True)
        result = run()
        (part,) = grouping.parts(units)
        (indices,) = grouping.parts(result.indices)
        groups = part.reshape(WINDOW, -1).T[:few]
        seconds = fastest({"arrays": run}, rounds)["arrays"] / weights.size
        start = time.perf_counter()
        expected = plain_python(groups.tolist(), digits.levels)
        python_s = (time.perf_counter() - start) / groups.size
        if np.take(digits.levels, indices.reshape(WINDOW, -1).T[:few]).tolist() != expected:
            raise ValueError(f"levels of {name} must be those of the plain loop")
        print(
            f"{name:24} {result.moved.mean():7.1%} {1e-6 / seconds:7.1f} "
            f"{1e-6 / python_s:7.3f} {python_s / seconds:6.0f}"
        )


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description="Benchmark of signed digits.")
    parser.add_argument("--size", type=int, default=1 << 22, help="numbers to code")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of which the best counts")
    parser.add_argument("--weights", type=int, default=10_000_000, help="weights to fit")
    parser.add_argument("--compensated", type=int, default=1 << 20, help="weights to compensate")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"NumPy {np.__version__}, ml_dtypes {ml_dtypes.__version__}")
    bench_coding(options.size, options.rounds)
    bench_fit(options.weights)
    bench_compensation(options.compensated, 3)


if __name__ == "__main__":
    main()
