"""Speed of weight pools: convolution against float32 BLAS, clustering against scikit-learn.

Run as ``python bench/bench_weight_pool.py``.  All figures are of one thread, the fastest of several
rounds; in each round every candidate runs once, so that all see the same machine.
"""

import argparse
import os
import platform
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

# NumPy reads it when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import sklearn
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from golden.fixed import FixedSpec
from golden.network import Conv
from golden.requantiser import Multiplier, TwoStepMultiplier
from golden.weight_pool import WeightPoolFormat
from golden.weight_pool_kmeans import SAMPLE, cluster, match
from golden.weight_pool_system import WeightPoolLayer, weight_vectors

#: Most times the float convolution's time that a convolution with 64 entries may take, most
#: seconds to fit 10 million weights, and most memory as a multiple of inputs and outputs.
CONVOLUTION_TARGET, FIT_TARGET_S, MEMORY_TARGET = 20.0, 2.0, 3.0


class Case(NamedTuple):
    """One convolution of 3 x 3 with a border of one pixel."""

    size: int
    channels: int
    filters: int
    stride: int = 1
    entries: int = 64
    group: int = 8
    act_bits: int = 8
    images: int = 1


CASES = (
    Case(32, 64, 64),
    Case(56, 64, 64),
    Case(32, 16, 16, images=8),
    Case(16, 128, 128, images=4),
    Case(8, 256, 256, images=4),
    Case(32, 64, 128, stride=2),
    Case(32, 64, 64, act_bits=4),
    Case(32, 64, 64, act_bits=1),
    Case(32, 64, 64, entries=32),
    Case(32, 64, 64, entries=128),
    Case(32, 64, 64, group=4),
)


def fastest(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least time of each candidate in seconds, over rounds in which each runs once."""
    times = dict.fromkeys(candidates, float("inf"))
    for _ in range(rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def peak_bytes(run: Callable[[], Any]) -> int:
    """Most memory that a call has allocated at a time, with its result."""
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def bench_convolution(case: Case, rounds: int) -> None:
    """Print the time of a layer from im2col to accumulators, and of the same in float32."""
    random = np.random.default_rng(0)
    weights = (0.1 * random.standard_normal((case.filters, case.channels, 3, 3))).astype(np.float32)
    node = Conv(
        name="conv",
        inputs=("x",),
        weight=weights,
        bias=np.zeros(case.filters, np.float32),
        strides=(case.stride, case.stride),
        pads=(1, 1, 1, 1),
    )
    fmt = WeightPoolFormat(entries=case.entries, group=case.group)
    vectors = weight_vectors(node, case.group)
    # One iteration makes a pool that is as good as another for its speed.
    pool = cluster(vectors.reshape(-1, case.group), case.entries, tolerance=float("inf"))
    spec = fmt.with_pool(pool)
    indices = match(vectors.reshape(-1, case.group), pool, "l2").reshape(vectors.shape[:2])
    activations = FixedSpec(bits=case.act_bits, frac_bits=case.act_bits, signed=False)
    shape = (case.images, case.size, case.size, case.channels)
    x = activations.decode(random.integers(0, 1 << case.act_bits, shape))
    rows, columns, _ = node.output_shape(shape[1:])
    layer = WeightPoolLayer(spec, activations, node, indices, (rows, columns))
    (matrix,) = node.matrices()

    plain = partial(node.products, x, lambda group, columns: columns @ matrix)
    pooled = partial(node.products, x, layer.forward)
    times = fastest({"float32": plain, "pool": pooled}, rounds)
    (inputs,) = node.columns(x)
    peak = peak_bytes(lambda: layer.forward(0, inputs)) + inputs.nbytes
    memory = peak / (inputs.nbytes + layer.forward(0, inputs).nbytes)
    text = f"{case.images}x{case.size}x{case.size}x{case.channels}->{case.filters}/{case.stride}"
    print(
        f"{text:22} {case.entries:4} {case.group:5} {case.act_bits:4} {1e3 * times['float32']:9.2f}"
        f"{1e3 * times['pool']:9.2f} {times['pool'] / times['float32']:6.1f} {memory:7.2f}"
    )


def bench_fit(count: int, rounds: int) -> None:
    """Print the times of clustering, matching and decoding a large tensor."""
    weights = (0.05 * np.random.default_rng(2).standard_normal(count)).astype(np.float32)
    rows = weights[: count // 512 * 512].reshape(-1, 512)
    energy = float(np.mean(rows**2))
    print(f"fitting {rows.size} weights; target {FIT_TARGET_S} s for 10 000 000")
    print(f"{'format':16} {'fit s':>6} {'encode s':>8} {'decode s':>8} {'error / energy':>14}")
    for entries in (32, 64, 128):
        fmt = WeightPoolFormat(entries=entries)
        spec = fmt.fit(rows)
        codes = spec.encode(rows)
        times = fastest(
            {
                "fit": partial(fmt.fit, rows),
                "encode": partial(spec.encode, rows),
                "decode": partial(spec.decode, codes),
            },
            rounds,
        )
        error = float(np.mean((spec.decode(codes) - rows) ** 2))
        print(
            f"{fmt!s:16} {times['fit']:6.2f} {times['encode']:8.2f} {times['decode']:8.2f} "
            f"{error / energy:14.4f}"
        )


def bench_clustering(rounds: int) -> None:
    """Print the time of k-means against that of scikit-learn on the same vectors."""
    vectors = np.random.default_rng(3).standard_normal((SAMPLE, 8)).astype(np.float32)
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def foreign() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            KMeans(64, init="random", n_init=1, max_iter=100, tol=0, random_state=0).fit(directions)

    ours = partial(cluster, vectors, 64, tolerance=0.0)
    times = fastest({"golden": ours, "scikit-learn": foreign}, rounds)
    print(f"k-means of {SAMPLE} vectors, 64 clusters, up to 100 iterations")
    for name, seconds in times.items():
        print(f"{name:14} {seconds:6.2f} s")


def bench_requantisers(size: int, rounds: int) -> None:
    """Print accumulators per second of the requantisers."""
    accumulators = np.random.default_rng(1).integers(-(1 << 24), 1 << 24, size)
    candidates: dict[str, Callable[[], object]] = {
        "once": partial(Multiplier.of(1e-5).apply, accumulators, -128, 127),
        "in two steps": partial(TwoStepMultiplier.of(1e-5).apply, accumulators, -128, 127),
    }
    print(f"requantising {size} accumulators of 25 bits")
    for name, seconds in fastest(candidates, rounds).items():
        print(f"{name:14} {size / seconds / 1e6:6.0f} M/s")


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description="Benchmark of weight pools.")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of which the best counts")
    parser.add_argument("--weights", type=int, default=10_000_000, help="weights to fit")
    parser.add_argument("--size", type=int, default=1 << 20, help="accumulators to requantise")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"NumPy {np.__version__}, scikit-learn {sklearn.__version__}")
    print(f"targets: {CONVOLUTION_TARGET:g}x float32 for 64 entries, memory {MEMORY_TARGET:g}x")
    print(f"{'3 x 3 convolution':22} pool group bits   float ms  pool ms  ratio  memory")
    for case in CASES:
        bench_convolution(case, options.rounds)
    bench_fit(options.weights, 3)
    bench_clustering(3)
    bench_requantisers(options.size, options.rounds)


if __name__ == "__main__":
    main()
