"""ResNet-20 on CIFAR-10 images in narrow formats, bit-exact, against its float32 run.

Run as ``python bench/bench_inference.py [SHARED [FORMAT ...]]``, where SHARED is a folder with
``models/resnet20_cifar10.onnx`` and ``data/cifar10_{train,test}_jpeg.npz``.  Prints the seconds of
each run, processor seconds and their ratio to the float32 run of the same process (processor time
is what other work on the machine disturbs least), and the accuracies.
"""

import io
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from golden.formats import parse
from golden.inference import accuracy, quantise
from narrowgauge.onnx_reader import read

#: Where the model and the images are unless a folder is given.
SHARED = Path(__file__).parents[2] / "shared"

IMAGES = 1000
CALIBRATION_IMAGES = 128
SEED = 2022
REPEATS = 3
FORMATS = ("tapered8", "fixed8", "tapered6", "fixed6", "tapered5", "fixed5")

#: What the network was trained with: (pixel - MEAN) / STD for each of red, green, blue.
MEAN = 255 * np.array([0.485, 0.456, 0.406])
STD = 255 * np.array([0.229, 0.224, 0.225])


def cifar(path: Path, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Images drawn by seed from a file that is sorted by class, [count, 3, 32, 32], and labels."""
    with np.load(path) as file:
        stored = {name: file[name] for name in file}
    chosen = np.random.default_rng(SEED).permutation(len(stored["y"]))[:count]
    images = []
    for index in chosen:
        start, stop = stored["off"][index : index + 2]
        with Image.open(io.BytesIO(stored["data"][start:stop].tobytes())) as picture:
            images.append(np.asarray(picture.convert("RGB")))
    scaled = (np.stack(images) - MEAN) / STD
    return scaled.transpose(0, 3, 1, 2).astype(np.float32), stored["y"][chosen].astype(np.int64)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Least wall-clock and least processor time of several runs."""
    wall, processor = [], []
    for _ in range(REPEATS):
        start = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return min(wall), min(processor)


def main(arguments: list[str]) -> None:
    """Run the benchmark; the first argument is the folder with the model and the images."""
    shared = Path(arguments[0]) if arguments else SHARED
    formats = arguments[1:] or FORMATS
    if not shared.is_dir():
        print(f"skipped: there is no folder {shared} with the model and the images")
        return
    network = read(shared / "models" / "resnet20_cifar10.onnx")
    images, labels = cifar(shared / "data" / "cifar10_test_jpeg.npz", IMAGES)
    calibration, _ = cifar(shared / "data" / "cifar10_train_jpeg.npz", CALIBRATION_IMAGES)

    wall, baseline = seconds(partial(network.run, images))
    reached = accuracy(network.run(images), labels)
    print(f"ResNet-20, {IMAGES} CIFAR-10 images, {sum(network.macs.values())} MACs per image")
    print("format        fit s   run s   cpu s  cpu / float32  accuracy  SQNR dB")
    print(f"{'float32':<12}{'':7}{wall:8.2f}{baseline:8.2f}{1:15.2f}{reached:10.1%}")
    for text in formats:
        start = time.perf_counter()
        quantised = quantise(network, parse(text).system(), calibration)
        fitted = time.perf_counter() - start
        wall, processor = seconds(partial(quantised.run, images))
        result = quantised.evaluate(images, labels)
        print(
            f"{text:<12}{fitted:7.2f}{wall:8.2f}{processor:8.2f}{processor / baseline:15.2f}"
            f"{result.accuracy:10.1%}{result.sqnr_db:9.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
