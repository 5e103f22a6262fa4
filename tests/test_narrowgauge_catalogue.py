"""Designs of the catalogue: what each of them generates."""

import pytest

from golden.formats import parse
from narrowgauge.catalogue import DESIGNS, Options, choose
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


def test_choices_come_before_defaults():
    choices = {"rows": 3, "cols": None, "pipelined": False, "zero_gating": True}
    design, form, options = choose("fixed-array", None, choices, rows=2, cols=2, lanes=5)
    assert (design.name, str(form)) == ("fixed-array", "fixed8")
    # An array has no lanes.
    assert options == Options(rows=3, cols=2, zero_gating=True)
