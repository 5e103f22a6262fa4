"""The look-up engine of weight pools as a machine of the comparison."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from golden.element_layers import ElementCodec
from golden.inference import LayerStream, PreparedLayer
from golden.weight_pool import WeightPoolFormat, checked_activations
from golden.weight_pool_engine import EngineSpec
from golden.weight_pool_system import PoolOperands, WeightPoolLayer
from narrowgauge.array_machine import code_values
from narrowgauge.catalogue import engine_spec
from narrowgauge.machine import LayerRun, Memory, Settings, added_by_glitches
from synth.activity import LANES_PER_WORD
from synth.energy import unit_energy
from synth.library import load
from synth.weight_pool import MappedEngine, PixelBatch

__all__ = ["PIXELS", "PoolMachine", "draw_pixels", "required_length"]

#: Pixels of each of the streams side by side, one after the other.
PIXELS = 2


class PoolMachine:
    """Look-up engine with room for the longest dot product and the most outputs of some layers.

    Parameters
    ----------
    form : WeightPoolFormat
        Size of the pool and its table.
    streams : sequence of LayerStream
        Operands of all layers; those without a pool do not matter.
    settings : Settings
        Library and clock.

    Attributes
    ----------
    hardware : MappedEngine
        The engine.
    """

    design = "weight_pool-engine"
    note = ""

    def __init__(
        self, form: WeightPoolFormat, streams: Sequence[LayerStream], settings: Settings
    ) -> None:
        operands = [stream.operands for stream in streams if self.runs(stream)]
        options = settings.options
        # Exact for the same length as the accumulators of all other formats.
        spec = engine_spec(form, options)
        needed = required_length(spec, operands)
        if needed > options.length:
            spec = engine_spec(form, replace(options, length=needed))
        self.hardware = MappedEngine(spec, load(settings.library), **settings.mapping)
        self._seed = settings.seed
        self._counting = settings.counting()
        self.weight_bits = spec.lut_bits
        self.activation_bits = spec.max_act_bits
        self.accumulator_bits = spec.accumulator_bits
        self.length = spec.length * spec.group
        self.products_per_cycle = spec.lanes * spec.group
        rows, words = 1 << spec.row_bits, spec.lanes * spec.accumulator_bits
        self.memories: Sequence[Memory] = (
            Memory(
                name="table",
                rows=spec.banks << spec.address_bits,
                row_bits=spec.entries * spec.lut_bits,
                banks=spec.banks,
            ),
            Memory(name="accumulators", rows=rows, row_bits=words),
            Memory(name="biases", rows=rows, row_bits=words),
            Memory(name="sums", rows=rows, row_bits=words),
            Memory(
                name="activations",
                row_bits=spec.group * spec.max_act_bits,
                holds="inputs",
                row_values=spec.group,
            ),
            Memory(
                name="indices",
                row_bits=spec.lanes * spec.index_bits,
                rows=_index_rows(spec, [stream for stream in streams if self.runs(stream)]),
            ),
            Memory(
                name="results",
                row_bits=spec.lanes * spec.bits,
                holds="outputs",
                row_values=spec.lanes,
            ),
        )

    def runs(self, stream: LayerStream) -> bool:
        """Whether a layer has indices of the pool."""
        return isinstance(stream.operands, PoolOperands)

    def run(self, streams: Sequence[LayerStream]) -> LayerRun:
        """Run pixels of one group of a layer; see :meth:`narrowgauge.machine.Machine.run`."""
        stream = streams[self._seed % len(streams)]
        operands: PoolOperands = stream.operands
        batch = draw_pixels(self.hardware.spec, stream, PIXELS, self._seed)
        run = self.hardware.run(batch, **self._counting)
        products = batch.results.size * operands.activation_codes.shape[1]
        split, annotated = unit_energy(self.hardware, run, products)
        streams_count, pixels, blocks, _ = batch.groups.shape
        rows = len(self.hardware.spec.lane_words(operands.bias_q))
        entering = streams_count * pixels * blocks / products
        results = streams_count * pixels * rows / products
        return LayerRun(
            weight_spec=str(operands.spec),
            activation_spec=str(operands.activation_spec),
            length=operands.activation_codes.shape[1],
            products=products,
            cycles=run.cycles * len(batch.groups),
            energy_pj=split,
            nets_annotated=annotated,
            glitch_energy_pj=added_by_glitches(self.hardware, run, products),
            accesses={
                **{name: count * streams_count / products for name, count in run.accesses.items()},
                "activations": entering,
                "indices": entering * rows,
                "results": results,
            },
            writes={
                **{name: count * streams_count / products for name, count in run.writes.items()},
                "results": results,
            },
        )

    def values(self, layer: PreparedLayer) -> tuple[str, npt.NDArray[np.float64]]:
        """Name for a layer's weights, and the weights of the pool if it has one."""
        if isinstance(layer, WeightPoolLayer):
            name = f"{layer.spec.stem}{layer.spec.entries}, weights of its pool"
            return name, np.unique(layer.spec.pool.astype(np.float64))
        return code_values(layer)


def _index_rows(spec: EngineSpec, streams: Sequence[LayerStream]) -> int:
    """Rows of indices of the layer that has most."""
    rows: dict[str, int] = {}
    for stream in streams:
        blocks, outputs = stream.operands.indices.shape
        rows[stream.name] = rows.get(stream.name, 0) + blocks * -(-outputs // spec.lanes)
    return max(rows.values(), default=1)


def required_length(spec: EngineSpec, operands: Sequence[PoolOperands]) -> int:
    """Products that an accumulator must have room for, biases counted as products.

    Parameters
    ----------
    spec : EngineSpec
        Engine; its ``length`` does not matter.
    operands : sequence of PoolOperands
        Matrix products of all layers.
    """
    largest_result = 1 << spec.result_bits - 1
    lengths = [1]
    for layer in operands:
        bias = int(np.abs(layer.bias_q).max(initial=0))
        # The engine grants room for one result more.
        results = len(layer.indices) + max(0, -(-bias // largest_result) - 1)
        lengths.append(results * spec.group)
    return max(lengths)


def draw_pixels(spec: EngineSpec, stream: LayerStream, pixels: int, seed: int) -> PixelBatch:
    """Draw pixels from all places of a layer, ``pixels`` of them for each of 64 streams.

    Parameters
    ----------
    spec : EngineSpec
        Engine.
    stream : LayerStream
        Layer with :class:`~golden.weight_pool_system.PoolOperands`.
    pixels : int
        Pixels of a stream, which follow one another.
    seed : int
        Of the generator that draws.

    Raises
    ------
    ValueError
        If the results of the layer are the logits, which this engine does not code.
    """
    operands: PoolOperands = stream.operands
    codec = stream.output_codec
    if not isinstance(codec, ElementCodec) or stream.output_codes is None:
        raise ValueError(f"layer {stream.name!r} must have results that are coded, not logits")
    order = np.random.default_rng(seed).permutation(len(operands.activation_codes))
    chosen = np.resize(order, (LANES_PER_WORD, pixels))
    groups = spec.activation_words(operands.activation_codes[chosen.ravel()], operands.channels)
    settings = spec.settings(
        operands.spec,
        operands.activation_spec,
        checked_activations(codec.spec),
        operands.indices.shape[1],
    )
    return PixelBatch(
        groups=groups.reshape(*chosen.shape, *groups.shape[1:]),
        indices=operands.indices,
        bias=operands.bias_q,
        table=spec.stored(operands.spec),
        settings=settings | {"relu": int(stream.relu)},
        results=stream.output_codes[chosen],
    )
