"""The embedded network: what it reaches, where its images come from, and how it is made."""

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import narrowgauge.networks
from golden.formats import parse
from golden.inference import accuracy, quantise
from narrowgauge.networks import digits, retrained_digits, train_digits
from narrowgauge.onnx_reader import read


@pytest.fixture(scope="module")
def source():
    """All digits of scikit-learn as uint8 pixels and int64 classes."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    loaded = datasets.load_digits()
    images = loaded.images.astype(np.uint8)
    np.testing.assert_array_equal(images, loaded.images)
    return images, loaded.target.astype(np.int64)


def stored():
    with np.load(digits().data_path, allow_pickle=False) as file:
        return dict(file)


def test_accuracy_is_the_one_stated():
    embedded = digits()
    logits = read(embedded.model_path).run(embedded.data.images)
    right = np.sum(np.argmax(logits, axis=1) == embedded.data.labels)
    stated = re.search(
        r"recognises (\d+) of its (\d+) test images in float32,\s+([\d.]+) %",
        narrowgauge.networks.__doc__,
    )
    assert (right, len(logits)) == (int(stated[1]), int(stated[2]))
    reached = accuracy(logits, embedded.data.labels)
    assert f"{100 * reached:.2f}" == stated[3]
    assert reached >= 0.985


def test_size_and_layers():
    embedded = digits()
    assert embedded.model_path.stat().st_size <= 300_000
    assert embedded.data_path.stat().st_size <= 30_000
    net = read(embedded.model_path)
    assert net.input_shape == (1, 8, 8)
    assert [node.length for node in net.mac_nodes] == [9, 144, 288, 288, 288, 64]
    stated = re.search(
        r"\((\d+) (\d+) weights and biases,\s+(\d+) (\d+) multiply", narrowgauge.networks.__doc__
    )
    sizes = sum(node.weight.size + node.bias.size for node in net.mac_nodes)
    assert (sizes, sum(net.macs.values())) == (
        int(stated[1] + stated[2]),
        int(stated[3] + stated[4]),
    )
    assert {type(node).__name__ for node in net.nodes} == {
        "Add", "Conv", "Flatten", "GlobalAveragePool", "Linear", "MaxPool", "Relu",
    }  # fmt: skip


def test_images_are_plain_and_scaled_as_documented():
    arrays = stored()
    assert arrays["x"].dtype == arrays["calibration"].dtype == np.uint8
    embedded = digits()
    assert embedded.name == "digits"
    np.testing.assert_array_equal(embedded.data.images, arrays["x"] / np.float32(16))
    np.testing.assert_array_equal(embedded.data.calibration, arrays["calibration"] / np.float32(16))
    assert embedded.data.images.shape == (540, 1, 8, 8)
    assert embedded.data.calibration.shape == (128, 1, 8, 8)
    assert embedded.data.images.max() == 1
    assert np.bincount(embedded.data.labels).min() >= 40


def test_images_are_those_of_scikit_learn(source):
    images, labels = source
    arrays = stored()
    np.testing.assert_array_equal(arrays["x"][:, 0], images[arrays["x_index"]])
    np.testing.assert_array_equal(arrays["y"], labels[arrays["x_index"]])
    np.testing.assert_array_equal(arrays["calibration"][:, 0], images[arrays["calibration_index"]])


def test_parts_are_disjoint(source):
    images, _ = source
    parts = train_digits.split(images)
    arrays = stored()
    np.testing.assert_array_equal(arrays["x_index"], parts.test)
    np.testing.assert_array_equal(arrays["calibration_index"], parts.calibration)
    together = np.concatenate([parts.test, parts.validation, parts.train])
    np.testing.assert_array_equal(np.sort(together), np.arange(1797))
    assert len(parts.test) >= 500
    assert set(parts.calibration.tolist()) <= set(parts.train.tolist())
    assert len(set(parts.calibration.tolist())) == 128
    # Not a single image occurs twice in the set, under whatever index.
    test = {image.tobytes() for image in images[parts.test]}
    others = {image.tobytes() for image in np.delete(images, parts.test, axis=0)}
    assert not test & others


def test_calibration_is_no_test_image():
    arrays = stored()
    test = {image.tobytes() for image in arrays["x"]}
    assert not test & {image.tobytes() for image in arrays["calibration"]}


def test_model_is_written_byte_for_byte(tmp_path):
    path = digits().model_path
    model = onnx.load(path)
    weights = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    for name in ("first.onnx", "second.onnx"):
        train_digits.write_model(tmp_path / name, weights)
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    assert onnx.load(tmp_path / "first.onnx").graph == model.graph
    # Nothing of the machine or of the exporter that made it.
    assert (model.producer_name, model.producer_version, model.doc_string) == (
        "narrowgauge",
        "",
        "",
    )
    assert not model.metadata_props
    assert not model.graph.doc_string
    assert not any(node.doc_string for node in model.graph.node)


def test_training_is_repeatable_and_never_sees_the_test_images(source, monkeypatch, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(train_digits, "EPOCHS", 1)
    try:
        images, labels = source
        expected = train_digits.train(images, labels)
        parts = train_digits.split(images)
        images, labels = images.copy(), labels.copy()
        images[parts.test] = 16 - images[parts.test]
        labels[parts.test] = (labels[parts.test] + 1) % 10
        with monkeypatch.context() as patch:
            nowhere = replace(parts, test=np.array([len(images)]))
            patch.setattr(train_digits, "split", lambda images: nowhere)
            blind = train_digits.train(images, labels)
        train_digits.main([str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    for name, weights in expected.items():
        np.testing.assert_array_equal(weights, blind[name])
    net = read(tmp_path / "digits.onnx")
    np.testing.assert_array_equal(net.mac_nodes[4].weight, expected["conv5.weight"])
    with np.load(tmp_path / "digits.npz", allow_pickle=False) as written:
        for name, array in stored().items():
            np.testing.assert_array_equal(written[name], array)
    # One epoch is enough to be better than chance, with batch norm folded as it was trained.
    data = digits().data
    assert accuracy(net.run(data.images), data.labels) > 0.3


def test_batch_norm_is_folded():
    random = np.random.default_rng(6)
    state = {"classifier.weight": np.ones((10, 64)), "classifier.bias": np.ones(10)}
    for index, (_, channels, filters, _) in enumerate(train_digits.CONVOLUTIONS):
        layer = f"convolutions.{index}"
        state[f"{layer}.0.weight"] = random.standard_normal((filters, channels, 3, 3))
        for key in ("weight", "bias", "running_mean"):
            state[f"{layer}.1.{key}"] = random.standard_normal(filters)
        state[f"{layer}.1.running_var"] = random.uniform(0.5, 2, filters)
    weights = train_digits._folded({k: v.astype(np.float32) for k, v in state.items()})
    for index, (name, channels, _, _) in enumerate(train_digits.CONVOLUTIONS):
        patch = random.standard_normal((channels, 3, 3))
        plain = np.einsum("fcyx,cyx->f", state[f"convolutions.{index}.0.weight"], patch)
        norm = {
            key: state[f"convolutions.{index}.1.{key}"]
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        expected = (plain - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5)
        expected = expected * norm["weight"] + norm["bias"]
        folded = np.einsum("fcyx,cyx->f", weights[f"{name}.weight"], patch)
        np.testing.assert_allclose(folded + weights[f"{name}.bias"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("entries", [32, 64])
def test_retrained_pools(entries):
    embedded = digits()
    original = read(embedded.model_path)
    retrained, system = retrained_digits(original, parse(f"weight_pool{entries}"))
    assert set(system.indices) == {"conv2", "conv3", "conv4", "conv5"}
    pool = np.asarray(system.pool)
    assert pool.shape == (entries, 8)
    nodes = {node.name: node for node in retrained.mac_nodes}
    for name, indices in system.indices.items():
        # The published order of blocks: kernel row, kernel column, group of channels.
        weight = nodes[name].weight
        _, channels, height, width = weight.shape
        block = 0
        for row in range(height):
            for column in range(width):
                for first in range(0, channels, 8):
                    vectors = weight[:, first : first + 8, row, column]
                    np.testing.assert_array_equal(vectors, pool[indices[block]])
                    block += 1
        assert block == len(indices)
    quantised = quantise(retrained, system, embedded.data.calibration)
    evaluation = quantised.evaluate(embedded.data.images, embedded.data.labels)
    assert evaluation.accuracy >= 0.97


@pytest.mark.parametrize("text", ["weight_pool48", "weight_pool64:seed=1", "weight_pool64:group=4"])
def test_other_pools_were_not_retrained(text):
    network = read(digits().model_path)
    assert retrained_digits(network, parse(text)) is None
