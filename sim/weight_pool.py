"""Weight pools for the bench of the look-up engine; :mod:`golden.weight_pool` is the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.fixed import FixedSpec
from golden.weight_pool import WeightPoolFormat, WeightPoolSpec
from golden.weight_pool_engine import EngineSpec
from sim.coverage import Coverage

__all__ = ["PoolBins", "PoolLayer", "PoolSystem", "make_system"]

Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolLayer:
    """What an engine is given for some pixels of a layer, and what must leave.

    Attributes
    ----------
    settings : dict of str to int
        Run-time settings by port.
    bias_q : ndarray of int64, [n]
        Start values of the accumulators.
    groups : ndarray of int, [m, blocks, group]
        Activations of each pixel.
    indices : ndarray of int, [blocks, n]
        Pool vectors, in the published order.
    sums : ndarray of int64, [m, n]
        Exact sums, of which codes are made.
    expected : ndarray of int, [m, n]
        Codes, of all the bits of the port.
    """

    settings: Mapping[str, int]
    bias_q: Integers
    groups: Integers
    indices: Integers
    sums: Integers
    expected: Integers

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.indices.shape[1]

    @property
    def addresses(self) -> Integers:
        """Address that each plane is, [m, blocks, planes], the lowest plane first."""
        bits = np.arange(self.settings["top_plane"] + 1)
        planes = self.groups[..., None, :].astype(np.int64) >> bits[:, None] & 1
        return planes @ (1 << np.arange(planes.shape[-1]))


@dataclass(frozen=True)
class PoolSystem:
    """Draws pools and layers for one engine."""

    mac: EngineSpec

    def random_pool(self, rng: np.random.Generator, **options: Any) -> WeightPoolSpec:
        """Pool of normally distributed weights; ``options`` are those of its format."""
        spec = self.mac
        form = WeightPoolFormat(
            entries=spec.entries,
            group=spec.group,
            lut_bits=spec.lut_bits,
            layout=spec.layout,
            **options,
        )
        return form.with_pool(rng.normal(0, 0.4, (spec.entries, spec.group)))

    def random_layer(
        self,
        rng: np.random.Generator,
        pool: WeightPoolSpec,
        *,
        outputs: int,
        channels: int,
        act_bits: int,
        has_sign: bool,
        kernel: tuple[int, int] = (1, 1),
        pixels: int = 3,
        large_bias: bool = False,
    ) -> PoolLayer:
        """Layer of random numbers whose codes leave with as many bits as they enter, if possible.

        Its results use most of their range, and clip a little; with ``large_bias``, its sums use
        most of the accumulators.
        """
        spec = self.mac
        half = 1 << act_bits - 1
        low = -half if has_sign else 0
        codes = rng.integers(low, low + 2 * half, (pixels, *kernel, channels)) & 2 * half - 1
        blocks = -(-channels // spec.group)
        indices = rng.integers(0, spec.entries, (*kernel, blocks, outputs))
        results = indices.size // outputs
        room = (1 << spec.accumulator_bits - 1) - (results << spec.result_bits - 1)
        limit = max(500, room) if large_bias else 500
        bias_q = rng.integers(-limit, limit, outputs)
        sums = pool.convolve(codes, indices, act_bits, signed=has_sign, bias_q=bias_q)[:, 0, 0]
        activations = FixedSpec(bits=act_bits, frac_bits=2, signed=has_sign)
        reach = max(int(np.abs(sums).max()), 1) * pool.accumulator_unit(activations)
        bits = min(act_bits, spec.bits)
        result = FixedSpec(
            bits=bits, frac_bits=bits - int(np.ceil(np.log2(reach))), signed=bool(rng.integers(2))
        )
        return self.layer(
            pool,
            activations,
            result,
            codes=codes.reshape(pixels, -1),
            channels=channels,
            indices=indices.reshape(-1, outputs),
            bias_q=bias_q,
            sums=sums,
            codes_out=result.rescale(
                sums,
                pool.accumulator_unit(activations),
                relu=(relu := bool(rng.integers(2))),
            ),
            relu=relu,
        )

    def layer(
        self,
        pool: WeightPoolSpec,
        activations: FixedSpec,
        result: FixedSpec,
        *,
        codes: Integers,
        channels: int,
        indices: Integers,
        bias_q: Integers,
        sums: Integers,
        codes_out: Integers,
        relu: bool,
    ) -> PoolLayer:
        """Layer of given codes [m, k], exact sums and results [m, n]."""
        settings = self.mac.settings(pool, activations, result, indices.shape[1])
        integers = np.asarray(codes_out, np.int64)
        if result.signed:
            half = 1 << result.bits - 1
            integers = (integers ^ half) - half
        return PoolLayer(
            settings=settings | {"relu": int(relu)},
            bias_q=bias_q,
            groups=self.mac.activation_words(codes, channels),
            indices=indices,
            sums=np.asarray(sums, np.int64),
            expected=integers & (1 << self.mac.bits) - 1,
        )


#: What can become of a sum.
RESULTS = (
    "below all values",
    "above all values",
    "zero",
    "tie, rounded up",
    "tie, rounded down",
    "cleared by ReLU",
)


class PoolBins:
    """Counts what a bench has compared.

    Parameters
    ----------
    coverage : Coverage
        Gets the groups.
    spec : EngineSpec
        The design.
    """

    def __init__(self, coverage: Coverage, spec: EngineSpec):
        self.coverage = coverage
        self.spec = spec
        for bank in range(spec.banks):
            coverage.declare(f"row of table {bank}", range(1 << spec.address_bits))
        coverage.declare("index", range(spec.entries))
        for bits in range(1, spec.max_act_bits + 1):
            coverage.declare("activations", [f"{bits} bits", f"{bits} bits, signed"])
        coverage.declare("first plane", ["added", "subtracted", "of zeros"])
        coverage.declare("bias", ["negative", "positive"])
        coverage.declare("outputs", ["one row", "several rows"])
        if spec.lanes > 1:
            coverage.declare("outputs", ["lanes left over"])
        coverage.declare("result", RESULTS)

    def count(self, layer: PoolLayer) -> None:
        """Count everything about a layer."""
        count, mark, spec = self.coverage.count, self.coverage.mark, self.spec
        settings, addresses = layer.settings, layer.addresses
        for bank in range(spec.banks):
            rows = addresses >> bank * spec.address_bits & (1 << spec.address_bits) - 1
            count(f"row of table {bank}", rows)
        count("index", layer.indices)
        kind = ", signed" if settings["has_sign"] else ""
        count("activations", f"{settings['top_plane'] + 1} bits{kind}")
        moves = addresses[..., -1] != 0
        mark(
            "first plane",
            {"subtracted" if settings["has_sign"] else "added": moves, "of zeros": ~moves},
        )
        mark("bias", {"negative": layer.bias_q < 0, "positive": layer.bias_q > 0})
        count("outputs", "one row" if layer.outputs <= spec.lanes else "several rows")
        if layer.outputs % spec.lanes:
            count("outputs", "lanes left over")
        mark("result", self._results(layer))

    def _results(self, layer: PoolLayer) -> dict[str, npt.NDArray[np.bool_]]:
        settings = layer.settings
        cleared = (layer.sums < 0) & bool(settings["relu"])
        product = np.where(cleared, 0, layer.sums) * settings["mult"]
        step = 1 << settings["shift"]
        whole, rest = np.divmod(product, step)
        largest = settings["largest"]
        lowest = -largest - 1 if settings["result_has_sign"] else 0
        # Half a step beyond the limits is where values are cut off.
        above = 2 * product > (2 * largest + 1) * step
        below = 2 * product < (2 * lowest - 1) * step
        tie = (2 * rest == step) & ~above & ~below
        masks = (below, above, layer.sums == 0, tie & (whole % 2 == 1), tie & (whole % 2 == 0))
        return dict(zip(RESULTS, (*masks, cleared), strict=True))


def make_system(fields: Mapping[str, Any]) -> PoolSystem:
    """System for the fields of an :class:`~golden.weight_pool_engine.EngineSpec`."""
    return PoolSystem(EngineSpec(**fields))
