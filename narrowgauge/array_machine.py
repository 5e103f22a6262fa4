"""A systolic array as a machine of the comparison: formats in which each element has a code."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from golden.element_layers import ElementCodec, ElementLayer, ElementOperands
from golden.fixed import FixedFormat
from golden.inference import LayerStream, PreparedLayer
from golden.spec import Format
from narrowgauge.catalogue import SYSTEMS, array_spec
from narrowgauge.machine import LayerRun, Memory, Settings, added_by_glitches
from narrowgauge.tiles import cut_tiles, required_length, signed_operands, signed_spec
from synth.array import MappedArray
from synth.energy import unit_energy
from synth.library import load

__all__ = ["ArrayMachine", "code_values"]


class ArrayMachine:
    """Systolic array with room for the longest dot product of some layers.

    Parameters
    ----------
    form : Format
        Number system of the array.
    streams : sequence of LayerStream
        Operands of its layers; those of other number systems do not matter.
    settings : Settings
        Library, clock and size.
    network_form : Format, optional
        Format of a network of which this array runs the layers that have fixed-point weights: all
        its activations have a sign, and results of the last layer are coded in this format.

    Attributes
    ----------
    hardware : MappedArray
        The array.
    """

    note = ""

    def __init__(
        self,
        form: Format,
        streams: Sequence[LayerStream],
        settings: Settings,
        *,
        network_form: Format | None = None,
    ) -> None:
        self.form = form
        self._network_form = network_form
        self._settings = settings
        self._counting = settings.counting()
        self.design = f"{form.stem}-array"
        own = [stream for stream in streams if self.runs(stream)]
        self.hardware = _mapped(form, [stream.operands for stream in own], settings)
        spec = self.hardware.spec
        self.weight_bits = spec.mac.code_bits("weight")
        self.activation_bits = spec.mac.code_bits("activation")
        self.accumulator_bits = spec.mac.accumulator_width
        self.length = spec.mac.length
        self.products_per_cycle = spec.rows * spec.cols
        self.memories: Sequence[Memory] = (
            Memory(
                name="activations",
                row_bits=spec.rows * self.activation_bits,
                holds="inputs",
                row_values=spec.rows,
            ),
            Memory(
                name="weights",
                row_bits=spec.cols * self.weight_bits,
                rows=_most_rows(own, spec.cols, each=lambda layer: layer.weight_codes.shape[0]),
            ),
            Memory(
                name="biases",
                row_bits=spec.cols * spec.mac.sum_width,
                rows=_most_rows(own, spec.cols, each=lambda layer: 1),
            ),
            Memory(
                name="results",
                row_bits=spec.cols * self.activation_bits,
                holds="outputs",
                row_values=spec.cols,
            ),
        )

    @classmethod
    def beside(cls, form: Format, streams: Sequence[LayerStream], settings: Settings) -> Self:
        """Fixed-point array for layers of fixed-point weights in a network of another format.

        It takes activations in two's complement: those without a sign get one bit more.

        Parameters
        ----------
        form : Format
            Format of the network, in which results of its last layer are coded.
        streams : sequence of LayerStream
            Operands of those layers.
        settings : Settings
            Library, clock and size.
        """
        operands = [stream.operands for stream in streams]
        fixed = FixedFormat(
            bits=max(layer.activation_spec.operand_bits for layer in operands),
            weight_bits=max(layer.weight_spec.bits for layer in operands),
        )
        return cls(fixed, streams, settings, network_form=form)

    def runs(self, stream: LayerStream) -> bool:
        """Whether the weights of a layer are of this number system."""
        operands = stream.operands
        return isinstance(operands, ElementOperands) and (
            operands.weight_spec.stem == self.form.stem
        )

    def run(self, streams: Sequence[LayerStream]) -> LayerRun:
        """Run tiles of a layer; see :meth:`narrowgauge.machine.Machine.run`."""
        parts = list(streams)
        operands: ElementOperands = parts[0].operands
        array = self.hardware
        result_spec: Any
        if isinstance(parts[0].output_codec, ElementCodec):
            result_spec = parts[0].output_codec.spec
        else:  # the logits leave the array like any other result
            logits = operands.accumulators * operands.accumulator_unit
            form = self._network_form or self.form
            result_spec = form.fit(logits, "activations", self._settings.method)
        if self._network_form is not None:
            bits = array.spec.mac.bits
            parts = [replace(part, operands=signed_operands(part.operands, bits)) for part in parts]
            result_spec = signed_spec(result_spec, bits)
        batch = cut_tiles(array.spec, parts, result_spec, self._settings.seed)
        run = array.run(batch, **self._counting)
        split, annotated = unit_energy(array, run, batch.products)
        tiles, length = len(batch.activations), operands.weight_codes.shape[0]
        # Each product step enters a row of codes on either side; a row of the array leaves at once.
        results = tiles * array.spec.rows / batch.products
        return LayerRun(
            weight_spec=str(operands.weight_spec),
            activation_spec=str(operands.activation_spec),
            length=length,
            products=batch.products,
            cycles=run.cycles * len(batch.activations),
            energy_pj=split,
            nets_annotated=annotated,
            accesses={
                "activations": tiles * length / batch.products,
                "weights": tiles * length / batch.products,
                "biases": tiles / batch.products,
                "results": results,
            },
            writes={"results": results},
            glitch_energy_pj=added_by_glitches(array, run, batch.products),
        )

    def values(self, layer: PreparedLayer) -> tuple[str, npt.NDArray[np.float64]]:
        """Format of a layer's weights, and the values of its codes."""
        return code_values(layer)


def code_values(layer: PreparedLayer) -> tuple[str, npt.NDArray[np.float64]]:
    """Format of the weights of a layer in which each has a code, and the values of its codes."""
    assert isinstance(layer, ElementLayer)
    spec = layer.weight_spec
    return str(spec), np.unique(spec.decode(np.arange(1 << spec.bits)).astype(np.float64))


def _most_rows(
    streams: Sequence[LayerStream], cols: int, *, each: Callable[[ElementOperands], int]
) -> int:
    """Rows that the layer needs that needs most: ``each`` for the columns of every tile."""
    rows: dict[str, int] = {}
    for stream in streams:
        tiles = -(-stream.operands.weight_codes.shape[1] // cols)
        rows[stream.name] = rows.get(stream.name, 0) + tiles * each(stream.operands)
    return max(rows.values(), default=1)


def _mapped(form: Format, operands: Sequence[ElementOperands], settings: Settings) -> MappedArray:
    """Map the array of a format."""
    options = settings.options
    system = SYSTEMS[form.stem]
    datapath = system.datapath(form, options.length)
    needed = required_length(datapath.spec, operands)
    if needed > options.length:
        datapath = system.datapath(form, needed)
    spec = array_spec(datapath.spec, options)
    return MappedArray(datapath, spec, load(settings.library), **settings.mapping)
