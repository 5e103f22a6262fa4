"""Speed of ABFP: matrix products against float32 BLAS, coding, and bfloat16 against ml_dtypes.

Run as ``python bench/bench_abfp.py``.  All figures are of one thread, the fastest of several
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

from golden.abfp import AbfpCodes, AbfpFormat, AbfpSpec
from golden.abfp_tile import TileProduct
from golden.bfloat16 import from_bits, rounded, to_bits

#: Most time of a product in times of the float32 product and the coding of its inputs together,
#: most memory as a multiple of inputs and outputs, and most seconds to fit 10 million weights.
PRODUCT_TARGET, MEMORY_TARGET, FIT_TARGET_S = 5.0, 3.0, 2.0

TILES = (128, 32, 8)


def fastest(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least time of each candidate in seconds, over rounds in which each runs once."""
    for run in candidates.values():
        run()
    times = dict.fromkeys(candidates, float("inf"))
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def peak_bytes(run: Callable[[], Any]) -> int:
    """Most memory that a call has allocated at a time, its result included."""
    tracemalloc.start()
    _result = run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def sizes(*tensors: AbfpCodes) -> int:
    """Bytes of coded tensors."""
    return sum(tensor.codes.nbytes + tensor.scales.nbytes for tensor in tensors)


def bench_products(size: int, rounds: int) -> None:
    """Print times of a product of two square matrices, and where the time goes."""
    rng = np.random.default_rng(0)
    weights = rng.laplace(size=(size, size)).astype(np.float32)
    inputs = rng.normal(size=(size, size)).astype(np.float32)
    bias = rng.normal(size=size).astype(np.float32)
    print(f"product of {size} x {size} matrices, {rounds} rounds; times in ms")
    print(
        f"targets: product at most {PRODUCT_TARGET} x (float32 + coding), "
        f"memory at most {MEMORY_TARGET} x inputs and outputs"
    )
    print("coding: of both inputs; copies: weights as float32, once per layer; dots: of tiles")
    titles = ("float32", "coding", "product", "ratio", "copies", "dots", "rest", "memory")
    print(f"{'format':32}", *(f"{title:>8}" for title in titles))
    for tile in TILES:
        for spec in (AbfpSpec(tile=tile), AbfpSpec(tile=tile, exp_only=True)):
            w, x = spec.encode(weights), spec.encode(inputs)
            product = TileProduct(spec.tile_spec(spec), w.codes, w.scales)
            candidates: dict[str, Callable[[], object]] = {
                "float32": lambda: inputs @ weights.T + bias,
                "weights": partial(spec.encode, weights),
                "inputs": partial(spec.encode, inputs),
                "product": partial(spec.matmul, w, spec, x, bias),
                "copies": partial(TileProduct, spec.tile_spec(spec), w.codes, w.scales),
                "dots": partial(product.count_at_least, x.codes, []),
            }
            times = fastest(candidates, rounds)
            coding = times["weights"] + times["inputs"]
            rest = times["product"] - times["copies"] - times["dots"]
            memory = peak_bytes(partial(spec.matmul, w, spec, x, bias)) + sizes(w, x)
            figures = [
                *(f"{1e3 * seconds:8.1f}" for seconds in (times["float32"], coding)),
                f"{1e3 * times['product']:8.1f}",
                f"{times['product'] / (times['float32'] + coding):8.2f}",
                *(f"{1e3 * seconds:8.1f}" for seconds in (times["copies"], times["dots"], rest)),
                f"{memory / (sizes(w, x) + 4 * size * size):8.2f}",
            ]
            print(f"{spec!s:32}", *figures)


def bench_ways(size: int, rounds: int) -> None:
    """Print times of the ways other than the fast one."""
    rng = np.random.default_rng(1)
    spec = AbfpSpec(tile=128, noise_bits=8)
    weights, inputs = rng.laplace(size=(size, size)), rng.normal(size=(size, size))
    w, x = spec.encode(weights), spec.encode(inputs)
    far = spec.encode(weights * 2.0**60)
    words = rng.integers(0, 256, (-(-size // 128), size, size), np.uint8)
    times = fastest(
        {
            "quiet": partial(spec.matmul, w, spec, x),
            "noise words of 8 bits": partial(spec.matmul, w, spec, x, noise=words),
            "scales far from 1": partial(spec.matmul, far, spec, x),
            "trace, all intermediates": partial(spec.trace, w, spec, x),
        },
        rounds,
    )
    print(f"product of {size} x {size} matrices, tile 128, ms")
    for name, seconds in times.items():
        print(f"{name:32} {1e3 * seconds:8.1f}")


def bench_coding(size: int, rounds: int) -> None:
    """Print numbers per second of coding, and of bfloat16."""
    x = np.random.default_rng(2).normal(size=(size // 1024, 1024)).astype(np.float32)
    bits = to_bits(x)
    candidates: dict[str, Callable[[], object]] = {
        "ml_dtypes bfloat16 from float32": partial(x.astype, ml_dtypes.bfloat16),
        "bfloat16 from float32": partial(to_bits, x),
        "ml_dtypes bfloat16 to float32": partial(bits.view(ml_dtypes.bfloat16).astype, np.float32),
        "bfloat16 to float32": partial(from_bits, bits),
    }
    short = rounded(x)
    for tile in TILES:
        spec = AbfpSpec(tile=tile)
        candidates[f"encode, tile {tile}"] = partial(spec.encode, x)
        candidates[f"encode bfloat16, tile {tile}"] = partial(spec.encode, short)
        candidates[f"decode, tile {tile}"] = partial(spec.decode, spec.encode(x))
    print(f"coding of {x.size} numbers, M/s")
    for name, seconds in fastest(candidates, rounds).items():
        print(f"{name:32} {x.size / seconds / 1e6:8.0f}")
    weights = np.random.default_rng(3).normal(size=10_000_000).astype(np.float32)
    seconds = fastest({"fit": partial(AbfpFormat().fit, weights)}, 3)["fit"]
    print(f"fit to {weights.size} weights: {seconds:.3f} s; target {FIT_TARGET_S} s")


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description="Benchmark of ABFP.")
    parser.add_argument("--size", type=int, default=1024, help="rows and columns of matrices")
    parser.add_argument("--numbers", type=int, default=1 << 22, help="numbers to code")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of which the best counts")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"NumPy {np.__version__}, ml_dtypes {ml_dtypes.__version__}")
    bench_products(options.size, options.rounds)
    bench_ways(options.size, min(options.rounds, 3))
    bench_coding(options.numbers, options.rounds)


if __name__ == "__main__":
    main()
