"""Retrain the embedded network with a frozen weight pool and write what the retraining changed.

Run as ``python -m narrowgauge.networks.train_digits_pool [FOLDER]``; needs the extra ``train``.
Seeded like :mod:`narrowgauge.networks.train_digits`.

The recipe is that of the paper (spec/weight_pool.md, sections 1 and 3): vectors of all pooled
layers together are clustered, the pool is frozen, and every forward pass matches the latent
weights with it by cosine anew; gradients pass straight through.  Adam with a rate that halves
five times, as published for CIFAR-10.  Other than in the artifact, the epoch is chosen by
validation images, and there is no batch norm that could absorb a magnitude.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from golden.network import Network
from golden.weight_pool import WeightPoolFormat
from golden.weight_pool_kmeans import match
from golden.weight_pool_system import WeightPoolSystem, weight_vectors
from narrowgauge import networks
from narrowgauge.networks.train_digits import (
    BATCH,
    LABEL_SMOOTHING,
    PIXEL_MAX,
    TRAINING_SEED,
    shifted,
    split,
)
from narrowgauge.onnx_reader import read

__all__ = ["main", "retrain"]

EPOCHS = 100
LEARNING_RATE = 1e-3
HALVINGS = 5


def retrain(
    network: Network,
    entries: int,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
) -> dict[str, npt.NDArray[np.generic]]:
    """Retrain with a pool; the epoch with the least validation loss wins.

    Parameters
    ----------
    network : Network
        The trained network.
    entries : int
        Pool vectors.
    images : ndarray of uint8, [n, 8, 8]
        All digits; the test part is never indexed.
    labels : ndarray of int64, [n]
        Their classes, 0 to 9.

    Returns
    -------
    dict of str to ndarray
        ``pool`` [entries, 8]; ``NAME.indices`` [blocks, outputs] of pooled layers, ``NAME.weight``
        of the others, and ``NAME.bias`` of all.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(TRAINING_SEED)
    random = torch.Generator().manual_seed(TRAINING_SEED)

    system = WeightPoolSystem(format=WeightPoolFormat(entries=entries, match="cosine"))
    system = system.fit_network(network)
    assert system.spec is not None
    pool = torch.tensor(np.asarray(system.spec.pool), dtype=torch.float32)
    directions = pool / pool.norm(dim=1, keepdim=True).clamp_min(1e-12)
    group = pool.shape[1]
    weights = {node.name: nn.Parameter(torch.tensor(node.weight)) for node in network.mac_nodes}
    biases = {node.name: nn.Parameter(torch.tensor(node.bias)) for node in network.mac_nodes}

    def convolution(name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight: torch.Tensor = weights[name]
        if name in system.outputs:
            filters, channels, height, width = weight.shape
            vectors = weight.permute(0, 2, 3, 1).reshape(-1, group)
            nearest = pool[(vectors @ directions.T).argmax(1)]
            nearest = nearest.reshape(filters, height, width, channels).permute(0, 3, 1, 2)
            weight = weight + (nearest - weight).detach()
        return functional.conv2d(x, weight, biases[name], stride, 1)

    def logits(x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(convolution("conv1", x))
        x = functional.max_pool2d(functional.relu(convolution("conv2", x)), 2)
        x = functional.relu(convolution("conv4", functional.relu(convolution("conv3", x))) + x)
        x = functional.relu(convolution("conv5", x, stride=2))
        return x.mean((2, 3)) @ weights["classifier"] + biases["classifier"]

    parts = split(images)
    x = torch.from_numpy(images[:, None].astype(np.float32) / PIXEL_MAX)
    y = torch.from_numpy(labels)
    chosen, unseen = torch.from_numpy(parts.train), torch.from_numpy(parts.validation)
    parameters = [*weights.values(), *biases.values()]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, EPOCHS // HALVINGS, 0.5)
    best_loss, best = float("inf"), [values.detach().clone() for values in parameters]
    for _ in range(EPOCHS):
        for batch in chosen[torch.randperm(len(chosen), generator=random)].split(BATCH):
            loss = functional.cross_entropy(
                logits(shifted(x[batch], random)), y[batch], label_smoothing=LABEL_SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            validation_loss = functional.cross_entropy(logits(x[unseen]), y[unseen]).item()
        if validation_loss < best_loss:
            best_loss = validation_loss
            best = [values.detach().clone() for values in parameters]

    result: dict[str, npt.NDArray[np.generic]] = {"pool": pool.numpy()}
    for node, weight, bias in zip(
        network.mac_nodes, best[: len(weights)], best[len(weights) :], strict=True
    ):
        result[f"{node.name}.bias"] = bias.numpy()
        if node.name in system.outputs:
            vectors = weight_vectors(
                networks.with_weights(node, weight.numpy(), bias.numpy()), group
            )
            indices = match(vectors.reshape(-1, group), np.asarray(system.spec.pool), "cosine")
            result[f"{node.name}.indices"] = indices.reshape(vectors.shape[:2]).astype(np.uint8)
        else:
            result[f"{node.name}.weight"] = weight.numpy()
    return result


def main(arguments: Sequence[str]) -> None:
    """Retrain for each pool size and write ``digits_poolN.npz`` to the folder, or to this one.

    Parameters
    ----------
    arguments : sequence of str
        At most one folder.
    """
    from sklearn.datasets import load_digits

    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    network = read(networks.digits().model_path)
    for entries in networks.POOL_SIZES:
        arrays = retrain(network, entries, images, labels)
        np.savez_compressed(folder / f"digits_pool{entries}.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    main(sys.argv[1:])
