"""Networks that come with Narrowgauge, with the images to calibrate and test them.

``digits`` classifies the handwritten digits of scikit-learn, 8x8 pixels of 0 to 16 that enter the
network as pixel / 16.  It has five 3x3 convolutions and a classifier (42 442 weights and biases,
673 408 multiply-accumulates for an image) and recognises 535 of its 540 test images in float32,
99.07 %.  The test images were never used in training, in the choice of the model, or as
calibration images.  :mod:`narrowgauge.networks.train_digits` made both files.
"""

from dataclasses import dataclass
from pathlib import Path

from narrowgauge.onnx_reader import Data, load_data

__all__ = ["EmbeddedNetwork", "digits"]


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
