"""Train the embedded network on scikit-learn's handwritten digits and write its two files.

Run as ``python -m narrowgauge.networks.train_digits [FOLDER]``; needs the extra ``train``.  Every
random choice has a fixed seed and one thread does the work, so that a machine writes the same
bytes at every run; another processor or release of torch may differ in the last bits of a weight.

The network is small enough to be synthesised, simulated and quantised in seconds, and has what
separates number systems on hardware: five 3x3 convolutions with 16 to 64 channels and dot
products of 9 to 288 terms, a first layer with one channel, max pooling, a stride, a residual
addition, a global average and a classifier.  Batch norm is folded into the convolutions.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

__all__ = [
    "BATCH",
    "LABEL_SMOOTHING",
    "PIXEL_MAX",
    "TRAINING_SEED",
    "Split",
    "Weights",
    "main",
    "shifted",
    "split",
    "train",
    "write_data",
    "write_model",
]

Weights = dict[str, npt.NDArray[np.float32]]

#: Images of scikit-learn's set that are never seen in training, model choice or calibration.
TEST_IMAGES = 540

#: Images of the rest that choose the epoch; the others are trained on.
VALIDATION_IMAGES = 180

#: Images of the training part on which activation ranges are fitted.
CALIBRATION_IMAGES = 128

#: A pixel of 16, the largest, enters the network as 1.0.
PIXEL_MAX = 16

SPLIT_SEED = 2022
TRAINING_SEED = 7
EPOCHS = 60
BATCH = 64
PEAK_LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-2
LABEL_SMOOTHING = 0.05

#: Added to the variance by torch's batch norm.
NORM_EPSILON = 1e-5

#: Convolutions in order: name, input channels, output channels, stride; all 3x3 with a border of 1.
CONVOLUTIONS = (
    ("conv1", 1, 16, 1),
    ("conv2", 16, 32, 1),
    ("conv3", 32, 32, 1),
    ("conv4", 32, 32, 1),
    ("conv5", 32, 64, 2),
)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices into scikit-learn's 1 797 digits; the parts are disjoint, calibration is in train.

    Parameters
    ----------
    test, validation, train, calibration : ndarray of int64
        Ascending indices.
    """

    test: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    train: npt.NDArray[np.int64]
    calibration: npt.NDArray[np.int64]


def split(images: npt.NDArray[np.uint8]) -> Split:
    """Divide the images into test, validation and training parts by a fixed permutation.

    Parameters
    ----------
    images : ndarray of uint8, [n, 8, 8]
        All digits in scikit-learn's order.

    Returns
    -------
    Split
        Parts of the sizes stated above; the same at every call.
    """
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    test, rest = np.sort(order[:TEST_IMAGES]), order[TEST_IMAGES:]
    validation, train = rest[:VALIDATION_IMAGES], rest[VALIDATION_IMAGES:]
    return Split(
        test=test,
        validation=np.sort(validation),
        train=np.sort(train),
        calibration=np.sort(train[:CALIBRATION_IMAGES]),
    )


def train(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Weights:
    """Train the network; the epoch with the least validation loss wins.

    Parameters
    ----------
    images : ndarray of uint8, [n, 8, 8]
        All digits; the test part is never indexed.
    labels : ndarray of int64, [n]
        Their classes, 0 to 9.

    Returns
    -------
    dict of str to ndarray of float32
        ``conv1.weight`` [out, in, 3, 3] to ``conv5.bias`` [out] with batch norm folded in,
        ``classifier.weight`` [10, 64] and ``classifier.bias`` [10].
    """
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(TRAINING_SEED)
    random = torch.Generator().manual_seed(TRAINING_SEED)

    class Digits(nn.Module):
        """The network while it is trained, batch norm still apart."""

        def __init__(self) -> None:
            super().__init__()
            self.convolutions = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(channels, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters)
                )
                for _, channels, filters, stride in CONVOLUTIONS
            )
            self.classifier = nn.Linear(CONVOLUTIONS[-1][2], 10)

        def forward(self, x: Any) -> Any:
            conv1, conv2, conv3, conv4, conv5 = self.convolutions
            x = functional.relu(conv1(x))
            x = functional.max_pool2d(functional.relu(conv2(x)), 2)
            x = functional.relu(conv4(functional.relu(conv3(x))) + x)
            x = functional.relu(conv5(x))
            return self.classifier(x.mean((2, 3)))

    parts = split(images)
    x = torch.from_numpy(images[:, None].astype(np.float32) / PIXEL_MAX)
    y = torch.from_numpy(labels)
    chosen, unseen = torch.from_numpy(parts.train), torch.from_numpy(parts.validation)

    model = Digits()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(chosen) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, steps)
    best_loss, best = float("inf"), model.state_dict()
    for _ in range(EPOCHS):
        model.train()
        for batch in chosen[torch.randperm(len(chosen), generator=random)].split(BATCH):
            loss = functional.cross_entropy(
                model(shifted(x[batch], random)), y[batch], label_smoothing=LABEL_SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            validation_loss = functional.cross_entropy(model(x[unseen]), y[unseen]).item()
        if validation_loss < best_loss:
            best_loss = validation_loss
            best = {name: values.clone() for name, values in model.state_dict().items()}
    return _folded({name: values.numpy() for name, values in best.items()})


def shifted(batch: Any, random: Any) -> Any:
    """Move each image by -1, 0 or 1 pixel along both axes.

    Parameters
    ----------
    batch : Tensor of float32, [n, 1, 8, 8]
        Images.
    random : Generator
        Of torch.
    """
    import torch

    count, size = len(batch), batch.shape[-1]
    padded = torch.nn.functional.pad(batch, (1, 1, 1, 1))[:, 0]
    y, x = torch.randint(0, 3, (2, count, 1), generator=random) + torch.arange(size)
    return padded[torch.arange(count)[:, None, None], y[:, :, None], x[:, None, :]][:, None]


def _folded(state: Mapping[str, npt.NDArray[np.float32]]) -> Weights:
    """Weights with each batch norm multiplied into its convolution, computed in float64."""
    weights: dict[str, npt.NDArray[Any]] = {}
    for index, (name, _, _, _) in enumerate(CONVOLUTIONS):
        layer = f"convolutions.{index}"
        norm = {
            key: state[f"{layer}.1.{key}"].astype(np.float64)
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        gain = norm["weight"] / np.sqrt(norm["running_var"] + NORM_EPSILON)
        weights[f"{name}.weight"] = state[f"{layer}.0.weight"] * gain[:, None, None, None]
        weights[f"{name}.bias"] = norm["bias"] - norm["running_mean"] * gain
    for key in ("weight", "bias"):
        weights[f"classifier.{key}"] = state[f"classifier.{key}"]
    return {name: values.astype(np.float32) for name, values in weights.items()}


def write_model(path: Path, weights: Weights) -> None:
    """Write the network as ONNX, node by node, so that the bytes depend on nothing but weights.

    Parameters
    ----------
    path : Path
        File to write.
    weights : dict of str to ndarray of float32
        As returned by :func:`train`.
    """

    def convolution(name: str, source: str, stride: int) -> onnx.NodeProto:
        return helper.make_node(
            "Conv",
            [source, f"{name}.weight", f"{name}.bias"],
            [f"{name}.out"],
            name=name,
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
            strides=[stride, stride],
        )

    def relu(name: str, source: str) -> onnx.NodeProto:
        return helper.make_node("Relu", [source], [f"{name}.out"], name=name)

    strides = {name: stride for name, _, _, stride in CONVOLUTIONS}
    nodes = [
        convolution("conv1", "image", strides["conv1"]),
        relu("relu1", "conv1.out"),
        convolution("conv2", "relu1.out", strides["conv2"]),
        relu("relu2", "conv2.out"),
        helper.make_node(
            "MaxPool",
            ["relu2.out"],
            ["pool.out"],
            name="pool",
            kernel_shape=[2, 2],
            strides=[2, 2],
        ),
        convolution("conv3", "pool.out", strides["conv3"]),
        relu("relu3", "conv3.out"),
        convolution("conv4", "relu3.out", strides["conv4"]),
        helper.make_node("Add", ["conv4.out", "pool.out"], ["add.out"], name="add"),
        relu("relu4", "add.out"),
        convolution("conv5", "relu4.out", strides["conv5"]),
        relu("relu5", "conv5.out"),
        helper.make_node("GlobalAveragePool", ["relu5.out"], ["average.out"], name="average"),
        helper.make_node("Flatten", ["average.out"], ["flatten.out"], name="flatten", axis=1),
        helper.make_node(
            "Gemm",
            ["flatten.out", "classifier.weight", "classifier.bias"],
            ["logits"],
            name="classifier",
            transB=1,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="narrowgauge",
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 13)],
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_data(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    """Write the test and calibration images in the layout that users' own data files have.

    Parameters
    ----------
    path : Path
        File to write, ``.npz``; without pickled objects.
    images : ndarray of uint8, [n, 8, 8]
        All digits.
    labels : ndarray of int64, [n]
        Their classes.
    """
    parts = split(images)
    np.savez_compressed(
        path,
        x=images[parts.test, None],
        y=labels[parts.test].astype(np.uint8),
        calibration=images[parts.calibration, None],
        mean=np.float32(0),
        std=np.float32(PIXEL_MAX),
        x_index=parts.test.astype(np.uint16),
        calibration_index=parts.calibration.astype(np.uint16),
    )


def main(arguments: Sequence[str]) -> None:
    """Train and write ``digits.onnx`` and ``digits.npz`` to the folder named, or to this one.

    Parameters
    ----------
    arguments : sequence of str
        At most one folder.
    """
    from sklearn.datasets import load_digits

    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    write_model(folder / "digits.onnx", train(images, labels))
    write_data(folder / "digits.npz", images, labels)


if __name__ == "__main__":
    main(sys.argv[1:])
