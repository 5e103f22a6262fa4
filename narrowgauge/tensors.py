"""Real tensors for the benches: operands and stored results of the embedded network's layers.

Each function is the ``arrays`` of units in :mod:`narrowgauge.catalogue`.
"""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.abfp import AbfpFormat
from golden.formats import parse
from golden.inference import quantise
from golden.weight_pool import WeightPoolFormat
from golden.weight_pool_system import PoolOperands
from narrowgauge.networks import digits, retrained_digits
from narrowgauge.onnx_reader import read

__all__ = ["Arrays", "layer_tensors", "pool_tensors", "vector_tensors"]

Arrays = dict[str, npt.NDArray[Any]]

#: Images whose layers are run on an array, and the most rows of activations of each layer.
IMAGES = 2
LAYER_ROWS = 5
LAYER_COLS = 5


@functools.cache
def layer_tensors(spec: str) -> Arrays:
    """Operands and stored results of the layers of the embedded network, a few rows of each.

    Parameters
    ----------
    spec : str
        Format that the network runs in.

    Returns
    -------
    dict of str to ndarray
        By layer and name, such as ``conv1/activations``.

    Raises
    ------
    ValueError
        If the embedded network comes without images for calibration.
    """
    embedded = digits()
    if embedded.data.calibration is None:
        raise ValueError("calibration of the embedded network must be there, not None")
    form = parse(spec)
    network = quantise(read(embedded.model_path), form.system(), embedded.data.calibration)
    arrays: Arrays = {}
    for stream in network.streams(embedded.data.images[:IMAGES]):
        operands = stream.operands
        # The logits are not rounded; a layer with weights of another number system runs elsewhere.
        if stream.output_codes is None or operands.weight_spec.stem != form.stem:
            continue
        # From all over the layer: neighbouring pixels and channels are much alike.
        rows = np.linspace(0, len(operands.activation_codes) - 1, LAYER_ROWS).astype(int)
        cols = np.linspace(0, len(operands.bias_q) - 1, LAYER_COLS).astype(int)
        arrays |= {
            f"{stream.name}/activations": operands.activation_codes[rows],
            f"{stream.name}/weights": operands.weight_codes[:, cols],
            f"{stream.name}/bias_q": operands.bias_q[cols],
            f"{stream.name}/results": stream.output_codes[np.ix_(rows, cols)],
            f"{stream.name}/relu": np.array(stream.relu),
            f"{stream.name}/weights_format": np.array(str(operands.weight_spec)),
            f"{stream.name}/activations_format": np.array(str(operands.activation_spec)),
            f"{stream.name}/result_format": np.array(str(stream.output_codec)),
        }
    return arrays


@functools.cache
def pool_tensors(spec: str) -> Arrays:
    """Operands and stored results of the pooled layers of the embedded network as retrained.

    All output pixels of one image are there.

    Parameters
    ----------
    spec : str
        Format of a pool; nothing is returned for one that the network was not retrained for.

    Returns
    -------
    dict of str to ndarray
        By layer and name; those of the pool have names alone.
    """
    embedded = digits()
    form = parse(spec)
    assert isinstance(form, WeightPoolFormat)
    retrained = retrained_digits(read(embedded.model_path), form)
    if retrained is None or embedded.data.calibration is None:
        return {}
    network = quantise(*retrained, embedded.data.calibration)
    arrays: Arrays = {}
    for stream in network.streams(embedded.data.images[:1]):
        operands = stream.operands
        if not isinstance(operands, PoolOperands) or stream.output_codes is None:
            continue
        arrays |= {
            "pool": operands.spec.pool,
            "lut_range_exp": np.array(operands.spec.lut_range_exp),
            "exact": np.array(operands.spec.exact),
            f"{stream.name}/activations": operands.activation_codes,
            f"{stream.name}/channels": np.array(operands.channels),
            f"{stream.name}/indices": operands.indices,
            f"{stream.name}/bias_q": operands.bias_q,
            f"{stream.name}/accumulators": operands.accumulators,
            f"{stream.name}/results": stream.output_codes,
            f"{stream.name}/relu": np.array(stream.relu),
            f"{stream.name}/activations_format": np.array(str(operands.activation_spec)),
            f"{stream.name}/result_format": np.array(str(stream.output_codec)),
        }
    return arrays


@functools.cache
def vector_tensors(spec: str) -> Arrays:
    """Operands and stored results of the embedded network's layers in a format of vectors.

    Parameters
    ----------
    spec : str
        ABFP format; where it has noise, the converters are quiet.

    Returns
    -------
    dict of str to ndarray
        By layer and name, such as ``conv1/inputs``.
    """
    embedded = digits()
    if embedded.data.calibration is None:
        raise ValueError("calibration of the embedded network must be there, not None")
    form = parse(spec)
    assert isinstance(form, AbfpFormat)
    form = replace(form, noise_bits=None)
    network = quantise(read(embedded.model_path), form.system(), embedded.data.calibration)
    arrays: Arrays = {}
    for stream in network.streams(embedded.data.images[:1]):
        operands = stream.operands
        if stream.output_codes is None:
            continue
        rows = np.linspace(0, len(operands.inputs) - 1, LAYER_ROWS).astype(int)
        arrays |= {
            f"{stream.name}/inputs": operands.inputs[rows],
            f"{stream.name}/codes": operands.weights.codes,
            f"{stream.name}/scales": operands.weights.scales,
            f"{stream.name}/bias": operands.bias,
            f"{stream.name}/gain": np.array(operands.tile.gain),
            f"{stream.name}/relu": np.array(stream.relu),
            f"{stream.name}/results": stream.output_codes[rows],
        }
    return arrays
