"""Speed of quantising (code and decode) against other Python libraries that do the like.

Run as ``python bench/bench_peers.py``.  A library that is not installed is left out with a word:
apytypes comes with the extra ``dev``, qtorch-plus needs torch and a C++ compiler.  All figures are
of one thread, the fastest of several rounds; in each round every candidate runs once.
"""

import os
import time
from collections.abc import Callable

# NumPy and torch read it when they are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ml_dtypes
import numpy as np
import numpy.typing as npt

from golden.formats import parse
from golden.spec import Spec

COUNT = 1 << 21
ROUNDS = 7

Numbers = npt.NDArray[np.float32]

#: Ours beside the number system of the others that is nearest to it.
OURS = (
    "fixed8:frac_bits=6",
    "dybit8:scale=1.4",
    "tapered8",
    "elp_bsd6:set=E6-2,scale=0.1",
    "abfp8",
)


def others(x: Numbers) -> dict[str, Callable[[], object]]:
    """Candidates by name, of the libraries that are installed."""
    found: dict[str, Callable[[], object]] = {
        "ml_dtypes float8_e4m3": lambda: x.astype(ml_dtypes.float8_e4m3fn).astype(np.float32),
    }
    try:
        import apytypes
    except ImportError:
        print("apytypes is not installed")
    else:
        wide = x.astype(np.float64)
        found["apytypes fixed 2.6"] = lambda: apytypes.APyFixedArray.from_float(
            wide, 2, 6
        ).to_numpy()
        found["apytypes float e4m3"] = lambda: apytypes.APyFloatArray.from_float(
            wide, 4, 3
        ).to_numpy()
    try:
        import torch
        from qtorch_plus.quant import block_quantize, fixed_point_quantize, posit_quantize
    except ImportError:
        print("qtorch-plus or torch is not installed")
    else:
        torch.set_num_threads(1)
        tensor = torch.from_numpy(x)
        found["qtorch-plus fixed 8.6"] = lambda: fixed_point_quantize(
            tensor, wl=8, fl=6, rounding="nearest"
        )
        found["qtorch-plus posit8"] = lambda: posit_quantize(tensor, nsize=8, es=0)
        rows = tensor.reshape(-1, 128)
        found["qtorch-plus block 8"] = lambda: block_quantize(rows, wl=8, dim=0, rounding="nearest")
    return found


def main() -> None:
    """Run the benchmark."""
    x = np.random.default_rng(1).normal(size=COUNT).astype(np.float32)

    def quantise(spec: Spec) -> Callable[[], object]:
        return lambda: spec.quantise(x.reshape(-1, 128))

    peers = others(x)
    candidates = peers | {text: quantise(parse(text).spec()) for text in OURS}
    times = dict.fromkeys(candidates, float("inf"))
    for run in candidates.values():
        run()  # tables and extensions are built at first use
    for _ in range(ROUNDS):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name] = min(times[name], time.perf_counter() - start)
    best = min(times[name] for name in peers)
    print(f"quantising {COUNT} numbers, float32 -> code -> float32")
    print("                                M/s  over the fastest of the others")
    for name, seconds in times.items():
        print(f"{name:<30}{COUNT / seconds / 1e6:6.0f}{best / seconds:10.2f}")


if __name__ == "__main__":
    main()
