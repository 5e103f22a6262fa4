"""The ABFP tile as a machine of the comparison."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from golden.abfp import AbfpFormat
from golden.abfp_layers import AbfpLayer, AbfpOperands
from golden.abfp_tile import TileProduct
from golden.bfloat16 import to_bits
from golden.inference import LayerStream, PreparedLayer
from hdl.abfp import AbfpDatapath
from narrowgauge.machine import LayerRun, Memory, Settings, added_by_glitches
from synth.abfp_tile import MappedTile, VectorBatch
from synth.activity import LANES_PER_WORD
from synth.energy import unit_energy
from synth.library import load

__all__ = ["AbfpMachine", "draw_vectors"]

#: Vectors of n elements that each of the streams side by side runs, one after the other: so many
#: that filling and emptying the tile does not matter much.
VECTORS = 12


class AbfpMachine:
    """Tile with room for the longest dot product of some layers.

    Parameters
    ----------
    form : AbfpFormat
        Number format, without noise.
    streams : sequence of LayerStream
        Operands of all layers.
    settings : Settings
        Library, clock, rows and lanes.

    Attributes
    ----------
    hardware : MappedTile
        The tile.

    Raises
    ------
    ValueError
        If the format has noise.
    """

    design = "abfp-tile"
    note = ""
    accumulator_bits = 32

    def __init__(
        self, form: AbfpFormat, streams: Sequence[LayerStream], settings: Settings
    ) -> None:
        if form.noise_bits:
            raise ValueError(f"noise_bits must not be given to compare hardware, not {form}")
        options = settings.options
        lengths = [stream.operands.inputs.shape[1] for stream in streams]
        self.length = max(options.length, *lengths)
        tile = AbfpDatapath(form.tile_spec(), self.length).tile(
            options.rows, options.lanes, options.pipelined
        )
        self.hardware = MappedTile(tile, load(settings.library), **settings.mapping)
        self._seed = settings.seed
        self._counting = settings.counting()
        self.weight_bits = tile.spec.weight_bits
        self.activation_bits = tile.spec.activation_bits
        self.products_per_cycle = tile.rows * tile.lanes
        self.memories: Sequence[Memory] = (
            Memory(name="store", rows=tile.places * tile.beats, row_bits=16 * tile.lanes),
            Memory(
                name="weights",
                rows=tile.rows * tile.max_tiles * tile.beats,
                row_bits=tile.spec.weight_bits * tile.lanes,
                banks=tile.rows,
            ),
            Memory(
                name="weight_scales",
                rows=tile.rows * tile.max_tiles,
                row_bits=len(tile.load_scale),
            ),
            Memory(name="biases", rows=tile.rows, row_bits=32),
            # Numbers of bfloat16 come and go; a scale is made of them in the tile.
            *(
                Memory(name=name, row_bits=16 * tile.lanes, holds=tensor, row_values=tile.lanes)
                for name, tensor in (("activations", "inputs"), ("results", "outputs"))
            ),
        )

    def runs(self, stream: LayerStream) -> bool:
        """All layers run here."""
        return isinstance(stream.operands, AbfpOperands)

    def run(self, streams: Sequence[LayerStream]) -> LayerRun:
        """Run vectors of one group of a layer; see :meth:`narrowgauge.machine.Machine.run`."""
        stream = streams[self._seed % len(streams)]
        operands: AbfpOperands = stream.operands
        length = operands.inputs.shape[1]
        batch, products = draw_vectors(self.hardware, stream, self._seed)
        run = self.hardware.run(batch, **self._counting)
        split, annotated = unit_energy(self.hardware, run, products)
        lanes = self.hardware.tile.lanes
        results = 1 / (length * lanes)
        return LayerRun(
            weight_spec=f"{operands.tile.weight_bits} bits, gain {operands.tile.gain}",
            activation_spec=f"{operands.tile.activation_bits} bits",
            length=length,
            products=products,
            cycles=run.cycles * len(batch.elements),
            energy_pj=split,
            nets_annotated=annotated,
            glitch_energy_pj=added_by_glitches(self.hardware, run, products),
            accesses={
                **{
                    name: count * len(batch.elements) / products
                    for name, count in run.accesses.items()
                },
                "activations": batch.elements.size / lanes / products,
                "results": results,
            },
            writes={
                **{
                    name: count * len(batch.elements) / products
                    for name, count in run.writes.items()
                },
                "results": results,
            },
        )

    def values(self, layer: PreparedLayer) -> tuple[str, npt.NDArray[np.float64]]:
        """Format of a layer's weights, and the codes in units of the scale of their vector."""
        assert isinstance(layer, AbfpLayer)
        spec = layer.weight_spec
        return str(spec), np.unique(np.array(spec.code_table()["value"]))


def draw_vectors(
    hardware: MappedTile, stream: LayerStream, seed: int, length: int | None = None
) -> tuple[VectorBatch, int]:
    """Draw pixels and channels from all places of a layer, for each of 64 streams.

    A tile with more rows than there are channels left has weights of zero in the others, and zeros
    fill up the last vector of a pixel; both cost energy and do no work.

    Parameters
    ----------
    hardware : MappedTile
        The tile.
    stream : LayerStream
        Layer with :class:`~golden.abfp_layers.AbfpOperands`.
    seed : int
        Of the generator that draws.
    length : int, optional
        Elements of the dot products to run if not all of them: a multiple of the tile width.

    Returns
    -------
    batch : VectorBatch
    products : int
        Products that the layer needs.
    """
    operands: AbfpOperands = stream.operands
    spec, rows = hardware.tile.spec, hardware.tile.rows
    length = operands.inputs.shape[1] if length is None else length
    tiles = spec.tiles(length)
    count = max(VECTORS // tiles, 1)
    channels = len(operands.bias)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(operands.inputs), LANES_PER_WORD)
    pixels = (starts[:, None] + np.arange(count)) % len(operands.inputs)
    tops = np.resize(np.arange(0, channels, rows), LANES_PER_WORD)
    padding = (0, -length % spec.tile)

    inputs = np.pad(operands.inputs[:, :length], ((0, 0), padding))
    below = (0, rows)
    codes = np.pad(operands.weights.codes[:, :length], (below, padding))
    scales = np.pad(operands.weights.scales[:, :tiles], (below, (0, 0)))
    bias = np.pad(operands.bias, below)
    totals = operands.accumulators
    if length < operands.inputs.shape[1]:
        product = TileProduct(
            operands.tile, operands.weights.codes[:, :length], operands.weights.scales[:, :tiles]
        )
        activations = operands.activations
        totals = product(
            activations.codes[:, :length], activations.scales[:, :tiles], operands.bias
        )
    results = np.pad(to_bits(np.maximum(totals, 0) if stream.relu else totals), ((0, 0), below))
    chosen = tops[:, None] + np.arange(rows)
    elements = inputs.astype(np.float32).view(np.uint32) >> 16
    batch = VectorBatch(
        elements=elements.astype(np.int64)[pixels],
        codes=codes[chosen],
        scales=scales[chosen],
        bias=bias.view(np.uint32)[chosen],
        settings={
            "gain": operands.tile.gain.bit_length() - 1,
            "relu": int(stream.relu),
        },
        results=results[pixels[:, :, None], chosen[:, None, :]].astype(np.int64),
    )
    products = int(np.count_nonzero(chosen < channels)) * count * length
    return batch, products
