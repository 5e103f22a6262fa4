"""Designs of the catalogue: what each of them generates."""

import pytest

from golden.formats import parse
from narrowgauge.catalogue import DESIGNS
from narrowgauge.regression import cases
from synth.verilog import to_verilog
from tests.simulators import needs_verilator
from tests.verilog_tools import verilator_complaints


def test_three_presets_or_more():
    assert min(len(design.presets) for design in DESIGNS.values()) >= 3


@needs_verilator
@pytest.mark.parametrize("name", DESIGNS)
def test_lint(tmp_path, name):
    """Verilator has nothing to say of any preset and size, but for what is waived."""
    design = DESIGNS[name]
    texts = {}
    for case in cases([name]):
        verilog = to_verilog(design.build(parse(case.spec), case.options))
        texts[verilog.text] = case.name, verilog.top
    for text, (label, top) in texts.items():
        assert verilator_complaints(tmp_path, text, top) == "", label
