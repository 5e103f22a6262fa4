"""The bench of the ABFP tile on its generated Verilog, and products that it draws."""

from dataclasses import asdict

import numpy as np
import pytest

from golden.abfp_tile import AbfpTileSpec
from hdl.abfp import AbfpTile
from narrowgauge.regression import default_seed, port_layouts
from sim.abfp import make_system
from sim.runner import BenchJob, find_simulator, workspace
from synth.verilog import to_verilog
from tests.simulators import needs_icarus

NAMES = {
    *(f"products/gaps={index}" for index in range(4)),
    "bad_inputs",
    "throughput",
    "offers_before_ready",
    "reset_in_the_middle",
}


def job(spec, sizes, edit=lambda text: text, tests=()):
    component = AbfpTile(spec, **sizes)
    ports = port_layouts(component)
    verilog = to_verilog(component)
    return BenchJob(
        verilog=edit(verilog.text),
        top=verilog.top,
        bench="sim.tb_abfp",
        parameters={
            "stem": "abfp",
            "mac": asdict(spec),
            "ports": ports,
            "attributes": sizes,
            "thorough": False,
        },
        seed=default_seed(),
        tests=tests,
    )


@needs_icarus
@pytest.mark.parametrize(
    ("parameters", "sizes"),
    [
        ({"tile": 8}, {"rows": 3, "lanes": 2, "max_tiles": 3}),
        ({"tile": 16, "exp_only": True}, {"rows": 2, "lanes": 2, "max_tiles": 2}),
        ({"tile": 8, "weight_bits": 6, "activation_bits": 6}, {"rows": 1, "lanes": 8,
                                                               "max_tiles": 1}),
    ],
)  # fmt: skip
def test_bench(parameters, sizes):
    with workspace() as folder:
        results = (
            find_simulator("icarus").run(job(AbfpTileSpec(**parameters), sizes), folder).results
        )
    failed = [f"{result.name}: {result.message}" for result in results if not result.passed]
    assert not failed, "\n".join(failed)
    assert {result.name for result in results} == NAMES


def test_products_drawn():
    """Products have the shapes and the bits that were asked for."""
    system = make_system({"tile": 8, "noise_bits": 4})
    rng = np.random.default_rng(1)
    product = system.random_product(rng, rows=2, vectors=3, length=12, gain=4, noise=True)
    assert product.results.shape == (3, 2)
    assert product.codes.shape == (2, 16)
    assert product.elements.shape == (3, 16)
    assert not product.elements[:, 12:].any()
    assert product.log2_gain == 2
