"""Networks that come with Narrowgauge, with the images to calibrate and test them.

``digits`` classifies the handwritten digits of scikit-learn, 8x8 pixels of 0 to 16 that enter the
network as pixel / 16.  It has five 3x3 convolutions and a classifier (42 442 weights and biases,
673 408 multiply-accumulates for an image) and recognises 535 of its 540 test images in float32,
99.07 %.  The test images were never used in training, in the choice of the model, or as
calibration images.  :mod:`narrowgauge.networks.train_digits` made both files.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from narrowgauge.onnx_reader import load_data

__all__ = ["EmbeddedNetwork", "digits"]


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedNetwork:
    """A trained network with its images.

    Parameters
    ----------
    name : str
        Name of the network.
    model : Path
        ONNX file.
    data : Path
        File of the images, for :func:`narrowgauge.onnx_reader.load_data`.
    images : ndarray of float32, [n, channels, height, width]
        Test images.
    labels : ndarray of int64, [n]
        Their classes.
    calibration : ndarray of float32, [m, channels, height, width]
        Calibration images, none of them a test image.
    """

    name: str
    model: Path
    data: Path
    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    calibration: npt.NDArray[np.float32]


def digits() -> EmbeddedNetwork:
    """Handwritten digits: 540 test images and 128 calibration images, [n, 1, 8, 8]."""
    folder = Path(__file__).parent
    path = folder / "digits.npz"
    data = load_data(path)
    if data.labels is None or data.calibration is None:
        raise ValueError(f"{path} must have labels and calibration images")
    return EmbeddedNetwork(
        name="digits",
        model=folder / "digits.onnx",
        data=path,
        images=data.images,
        labels=data.labels,
        calibration=data.calibration,
    )
