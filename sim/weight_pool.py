"""Weight pools for the bench of the look-up engine; :mod:`golden.weight_pool` is the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.fixed import FixedSpec
from golden.weight_pool import WeightPoolFormat, WeightPoolSpec
from golden.weight_pool_engine import EngineSpec

__all__ = ["PoolLayer", "PoolSystem", "make_system"]

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
    expected : ndarray of int, [m, n]
        Codes, of all the bits of the port.
    """

    settings: Mapping[str, int]
    bias_q: Integers
    groups: Integers
    indices: Integers
    expected: Integers

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.indices.shape[1]


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
    ) -> PoolLayer:
        """Layer of random numbers whose codes leave with as many bits as they enter, if possible.

        Its results use most of their range, and clip a little.
        """
        spec = self.mac
        half = 1 << act_bits - 1
        low = -half if has_sign else 0
        codes = rng.integers(low, low + 2 * half, (pixels, *kernel, channels)) & 2 * half - 1
        blocks = -(-channels // spec.group)
        indices = rng.integers(0, spec.entries, (*kernel, blocks, outputs))
        bias_q = rng.integers(-500, 500, outputs)
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
        codes_out: Integers,
        relu: bool,
    ) -> PoolLayer:
        """Layer of given codes [m, k] and results [m, n]."""
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
            expected=integers & (1 << self.mac.bits) - 1,
        )


def make_system(fields: Mapping[str, Any]) -> PoolSystem:
    """System for the fields of an :class:`~golden.weight_pool_engine.EngineSpec`."""
    return PoolSystem(EngineSpec(**fields))
