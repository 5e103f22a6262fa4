"""Networks that come with Narrowgauge, with the images to calibrate and test them.

``digits`` classifies the handwritten digits of scikit-learn, 8x8 pixels of 0 to 16 that enter the
network as pixel / 16.  It has five 3x3 convolutions and a classifier (42 442 weights and biases,
673 408 multiply-accumulates for an image) and recognises 535 of its 540 test images in float32,
99.07 %.  The test images were never used in training, in the choice of the model, or as
calibration images.  :mod:`narrowgauge.networks.train_digits` made both files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.network import MacNode, Network
from golden.weight_pool import WeightPoolFormat
from golden.weight_pool_system import WeightPoolSystem
from narrowgauge.onnx_reader import Data, load_data, read

__all__ = [
    "POOL_SIZES",
    "EmbeddedNetwork",
    "digits",
    "retrained_digits",
    "with_weights",
]

#: Sizes of the weight pools that the embedded network was retrained with.
POOL_SIZES = (32, 64)


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedNetwork:
    """A trained network with its images.

    Parameters
    ----------
    name : str
        Name of the network.
    model_path : Path
        ONNX file, for :func:`narrowgauge.onnx_reader.read`.
    data_path : Path
        The file that ``data`` was read from.
    data : Data
        Test images [n, channels, height, width] with labels, and calibration images, none of them
        a test image.
    """

    name: str
    model_path: Path
    data_path: Path
    data: Data


def digits() -> EmbeddedNetwork:
    """Handwritten digits: 540 test images and 128 calibration images, [n, 1, 8, 8]."""
    folder = Path(__file__).parent
    data_path = folder / "digits.npz"
    return EmbeddedNetwork(
        name="digits",
        model_path=folder / "digits.onnx",
        data_path=data_path,
        data=load_data(data_path),
    )


def retrained_digits(
    network: Network, form: WeightPoolFormat
) -> tuple[Network, WeightPoolSystem] | None:
    """Embedded network as it was retrained with a weight pool, and the number system for it.

    Parameters
    ----------
    network : Network
        The embedded network, or any other.
    form : WeightPoolFormat
        Its pool must have 32 or 64 vectors of 8 weights, found without options that change them.

    Returns
    -------
    tuple of Network and WeightPoolSystem, or None
        The network has the pool's vectors for weights.  None if there was no such retraining, or
        the network is another one.
    """
    changed = {"group", "match", "seed"} & set(form.pinned)
    if form.entries not in POOL_SIZES or changed or not _is_digits(network):
        return None
    with np.load(Path(__file__).parent / f"digits_pool{form.entries}.npz") as arrays:
        pool = arrays["pool"]
        indices = {
            name.removesuffix(".indices"): arrays[name]
            for name in arrays.files
            if name.endswith(".indices")
        }
        nodes: Sequence[Any] = [
            node
            if not isinstance(node, MacNode)
            else with_weights(
                node,
                _from_pool(node, pool, indices[node.name])
                if node.name in indices
                else arrays[f"{node.name}.weight"],
                arrays[f"{node.name}.bias"],
            )
            for node in network.nodes
        ]
    retrained = Network(
        input_name=network.input_name, input_shape=network.input_shape, nodes=tuple(nodes)
    )
    return retrained, WeightPoolSystem(format=form, pool=pool, indices=indices)


def _is_digits(network: Network) -> bool:
    """Whether a network has the layers and weights of the embedded one."""
    embedded = read(digits().model_path)
    kinds, known = ([(type(node), node.name) for node in one.nodes] for one in (network, embedded))
    return kinds == known and all(
        np.array_equal(ours.weight, theirs.weight) and np.array_equal(ours.bias, theirs.bias)
        for ours, theirs in zip(network.mac_nodes, embedded.mac_nodes, strict=True)
    )


def with_weights(
    node: MacNode, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> MacNode:
    """Layer with other weights and biases of the same shapes."""
    return replace(node, weight=weight, bias=bias)


def _from_pool(
    node: MacNode, pool: npt.NDArray[np.float32], indices: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Weights of a convolution whose channels are a multiple of the length of a pool vector."""
    filters, channels, height, width = node.weight.shape
    vectors = pool[indices].reshape(height, width, channels // pool.shape[1], filters, -1)
    weights = vectors.transpose(3, 2, 4, 0, 1).reshape(filters, channels, height, width)
    return np.ascontiguousarray(weights)
