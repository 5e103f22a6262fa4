"""Products that the bench of the ABFP tile draws."""

import numpy as np

from sim.abfp import AbfpProduct, make_system, noise_words


def test_products_drawn():
    """Products have the shapes and the bits that were asked for."""
    system = make_system({"tile": 8, "noise_bits": 4})
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 16, (2, 3, 2))
    product = system.random_product(rng, rows=2, vectors=3, length=12, gain=4, noise=noise)
    assert product.results.shape == (3, 2)
    assert product.codes.shape == (2, 16)
    assert product.elements.shape == (3, 16)
    assert not product.elements[:, 12:].any()
    assert product.log2_gain == 2
    assert product.length == 12


def test_product_by_hand():
    """E1 of the specification: results, saturations, and what a ReLU leaves of negated weights."""
    weights = np.array([[1, -0.5, 0.25, 0.75, -1, 0.125, 0.5, -0.25]], np.float32)
    vectors = np.array([[2, 1, -1, 0.5, -2, 0.25, 1.5, -0.75]], np.float32)
    spec = make_system({"tile": 8, "gain": 4}).mac
    assert AbfpProduct(spec, weights, vectors).results.tolist() == [[0x4080]]
    assert AbfpProduct(spec, weights, vectors).saturations == 1
    assert AbfpProduct(spec, -weights, vectors).results.tolist() == [[0xC080]]
    assert AbfpProduct(spec, -weights, vectors, relu=True).results.tolist() == [[0]]


def test_noise_words():
    """By hand: 1, 80200003, C0300002, 60180001, B02C0003; and zero, from which nothing follows."""
    assert noise_words(1, 1, 5).tolist() == [1, 1, 0, 1, 1]
    assert noise_words(1, 2, 3).tolist() == [1, 2, 3]
    assert noise_words(0, 4, 9).tolist() == noise_words(1, 4, 9).tolist()
