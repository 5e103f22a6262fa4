"""The paper's accuracy claim for tapered fixed point, with its own and with a fair baseline.

Accuracy of the embedded network, and of ResNet-20 where its files are there, at 5 to 8 bits:
tapered by Algorithm 1 and by search, against fixed point with one split of all bits for the whole
network (the paper's baseline; the best of all splits on the test images, as favourable to it as can
be) and with a power-of-two scale for each tensor.

Run as ``python bench/bench_claim.py [SHARED]``; see bench_inference.py for SHARED.
"""

import sys
from pathlib import Path

from bench_inference import CALIBRATION_IMAGES, IMAGES, SHARED, cifar

from golden.fixed import single_splits
from golden.formats import parse
from golden.inference import accuracy, quantise
from golden.network import Network
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import Data, read

COLUMNS = ("TFX paper", "TFX search", "fixed one split", "fixed per tensor")


def accuracies(network: Network, data: Data, bits: int) -> list[float]:
    """Accuracy in the columns of the table."""
    assert data.calibration is not None
    assert data.labels is not None

    def run(text: str, method: str) -> float:
        system = parse(text).system(method)
        quantised = quantise(network, system, data.calibration)
        return accuracy(quantised.run(data.images), data.labels)

    splits = [str(spec) for spec in single_splits(bits)]
    return [
        run(f"tapered{bits}", "paper"),
        run(f"tapered{bits}", "sweep"),
        max(run(f"fixed{bits}:frac_bits={_frac_bits(text, bits)}", "sweep") for text in splits),
        run(f"fixed{bits}", "sweep"),
    ]


def _frac_bits(text: str, bits: int) -> str:
    """Parameter of a spec string, which leaves out the default."""
    return text.partition("=")[2] or str(bits - 1)


def report(title: str, network: Network, data: Data) -> None:
    """Print the table of one network."""
    reached = accuracy(network.run(data.images), data.labels)
    print(f"{title}: {len(data.images)} test images, float32 {reached:.2%}")
    print(f"{'bits':>6}" + "".join(f"{name:>18}" for name in COLUMNS) + f"{'gain':>9}{'fair':>9}")
    for bits in (8, 7, 6, 5):
        row = accuracies(network, data, bits)
        weak, fair = row[0] - row[2], row[1] - row[3]
        cells = "".join(f"{value:18.2%}" for value in row)
        print(f"{bits:>6}{cells}{100 * weak:+9.2f}{100 * fair:+9.2f}")
    print("gain: TFX paper - fixed one split; fair: TFX search - fixed per tensor (points)")


def main(arguments: list[str]) -> None:
    """Run on the embedded network, and on ResNet-20 if its folder is given."""
    embedded = digits()
    report("digits", read(embedded.model_path), embedded.data)
    shared = Path(arguments[0]) if arguments else SHARED
    if shared.is_dir():
        images, labels = cifar(shared / "data" / "cifar10_test_jpeg.npz", IMAGES)
        calibration, _ = cifar(shared / "data" / "cifar10_train_jpeg.npz", CALIBRATION_IMAGES)
        data = Data(images=images, labels=labels, calibration=calibration)
        report("ResNet-20", read(shared / "models" / "resnet20_cifar10.onnx"), data)


if __name__ == "__main__":
    main(sys.argv[1:])
