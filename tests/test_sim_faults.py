"""The benches bite: faults planted in the generated Verilog are found, by the right test."""

import re
from dataclasses import replace
from typing import NamedTuple

import pytest

from narrowgauge.catalogue import Options
from narrowgauge.regression import Case, bench_job
from sim.runner import find_simulator
from tests.simulators import needs_icarus
from tests.test_sim_benches import TESTS


class Fault(NamedTuple):
    """A change of the Verilog, and the test that must fail because of it.

    ``pattern`` must match once in the module whose name starts with ``module``; a space in it
    stands for any number of spaces and line ends.
    """

    test: str
    module: str
    pattern: str
    replacement: str


RUNS = "tapered8:runs=4-7"

#: Faults by design; each design is an entry of the catalogue, a format and options.
FAULTS = {
    ("tapered-decoder", RUNS): {
        "most negative code is one too large": Fault(
            "every_code", "tapered_decoder", r"limit \+ 3'd1", "limit"
        ),
        "longest run keeps its terminator": Fault(
            "every_code", "tapered_decoder", r"limit == 3'd4", "1'b0"
        ),
        "run limit is not limited above": Fault(
            "every_code", "tapered_decoder", r"\(run_limit > 3'd6\)", "1'b0"
        ),
        "run limit is not limited below": Fault(
            "every_code", "tapered_decoder", r"\(run_limit < 3'd3\)", "1'b0"
        ),
        "sign is lost": Fault("every_code", "tapered_decoder", r"{negative, shift", "{1'b0, shift"),
        "zero has a sign": Fault(
            "every_code", "tapered_decoder", r"{negative, shift", "{negative | ~|code, shift"
        ),
    },
    ("fixed-encoder", "fixed8"): {
        "sticky bit is lost": Fault(
            "ties", "fixed_encoder", r"sticky = \|shifted\[\d+:0\]", "sticky = 1'b0"
        ),
        "ties go up": Fault("ties", "fixed_encoder", r"sticky \| integer_\[0\]", "1'b1"),
        "ties go down": Fault("ties", "fixed_encoder", r"sticky \| integer_\[0\]", "sticky"),
        "the sum above the largest code wraps": Fault(
            "ties", "fixed_encoder", r"rounded > (\d+)'sd127", r"rounded > \1'sd128"
        ),
        "large sums wrap": Fault("limits", "fixed_encoder", r"\(rounded > \d+'sd127\)", "1'b0"),
        "shift loses its top bit": Fault(
            "random_sums", "fixed_encoder", r">>> shift", ">>> shift[3:0]"
        ),
    },
    ("tapered-encoder", RUNS): {
        "terminator is left in the longest run": Fault(
            "ties", "tapered_encoder", r"run == {\d+'d0, run_limit}", "1'b0"
        ),
        "sticky bit misses one bit of the quire": Fault(
            "ties", "tapered_encoder", r"\|aligned\[(\d+):0\]", r"|aligned[\1:1]"
        ),
        "rounding up wraps": Fault(
            "ties", "tapered_encoder", r"too_large \| rounded\[8\]", "too_large"
        ),
        "integer part is cut before it saturates": Fault(
            "limits", "tapered_encoder", r"run > {\d+'d0, run_limit}", "run[2:0] > run_limit"
        ),
    },
    ("fixed-mac", "fixed8"): {
        "one product is off by one": Fault(
            "every_pair", "fixed_product", r"activation \* weight",
            "activation * weight + $signed({1'b0, (activation == 8'sd37) & (weight == -8'sd91)})",
        ),
        "operands are unsigned": Fault(
            "every_pair", "fixed_product", r"activation \* weight", "{1'b0, activation} * weight"
        ),
        "accumulator is a bit short": Fault(
            "longest_sums", "fixed_mac", r"accumulator \+ bias",
            "($signed({accumulator << 1}) >>> 1) + bias",
        ),
    },
    ("tapered-mac", "tapered5"): {
        "negation is not completed": Fault(
            "every_pair", "tapered_mac", r"\+ {\d+'d0, product_carry}", ""
        ),
        "sums are not cleared": Fault(
            "dot_products/gaps=0", "tapered_mac", r"first \? \d+'d0 : accumulator", "accumulator"
        ),
        "ReLU does nothing": Fault(
            "dot_products/gaps=0", "tapered_mac", r"relu & biased_sum", "1'b0 & biased_sum"
        ),
        "bias is lost": Fault("dot_products/gaps=0", "tapered_mac", r" \+ bias", ""),
        "pauses count as pairs": Fault(
            "dot_products/gaps=1", "tapered_mac", r"pair_valid <= i__valid", "pair_valid <= 1'b1"
        ),
        "a waiting result is overwritten": Fault(
            "dot_products/gaps=2", "tapered_mac", r"i__ready = o__ready \| ~o__valid",
            "i__ready = 1'b1",
        ),
        "a result is offered only where it is wanted": Fault(
            "offers_before_ready", "tapered_mac", r"i__ready = o__ready \| ~o__valid",
            "i__ready = o__ready",
        ),
        # What a register holds before the first reset is not left.
        "reset leaves the end of a sum": Fault(
            "reset_in_the_middle", "tapered_mac", r"summed <= 1'b0", "summed <= summed === 1'b1"
        ),
        "reset leaves a result": Fault(
            "reset_in_the_middle", "tapered_mac", r"total_valid <= 1'b0",
            "total_valid <= total_valid === 1'b1",
        ),
        "the end of a sum is lost before a pause": Fault(
            "dot_products/gaps=3", "tapered_mac", r"summed <= pair_valid",
            "summed <= pair_valid & i__valid",
        ),
        "results come a cycle late": Fault(
            "latency_and_throughput", "tapered_mac", r"pair_valid <= i__valid",
            "{pair_valid, summed} <= {summed, i__valid}",
        ),
    },
    ("fixed-array", "fixed4", ("rows", 3), ("cols", 2)): {
        "flush is a cycle short": Fault(
            "matrix_products/gaps=0", "array_control", r"waiting <= 3'd5", "waiting <= 3'd4"
        ),
        "flush is a cycle long": Fault(
            "cycle_count", "array_control", r"waiting <= 3'd5", "waiting <= 3'd6"
        ),
        "a row too few is drained": Fault(
            "matrix_products/gaps=0", "array_control", r"rows_left <= 2'd3", "rows_left <= 2'd2"
        ),
        "last comes a row early": Fault(
            "cycle_count", "array_control", r"rows_left == 2'd1", "rows_left == 2'd2"
        ),
        "a waiting row is overwritten": Fault(
            "matrix_products/gaps=2", "array_control", r"give = taken & move", "give = taken"
        ),
        "the next tile comes before the last row has left": Fault(
            "cycle_count", "array_control", r"& ~taken & move\)", ")"
        ),
        "the next tile comes while rows leave": Fault(
            "tiles_back_to_back", "array_control", r"i_ready = \(phase_state == PHASE_PRODUCTS\)",
            "i_ready = (phase_state != PHASE_FLUSH)",
        ),
        "rows are offered only where they are wanted": Fault(
            "offers_before_ready", "array_control", r"move = o_ready \| ~o_valid", "move = o_ready"
        ),
        "a vector is lost where it has to wait": Fault(
            "matrix_products/gaps=3", "array_control", r"if \(i_valid & i_last\)", "if (i_last)"
        ),
        "pauses enter the array": Fault(
            "matrix_products/gaps=1", "array_control", r"enter = i_valid &", "enter ="
        ),
        "a lane is not skewed": Fault(
            "matrix_products/gaps=0", "skew_w4_n2", r"o = {o_1", "o = {lane_1_stage_0_o"
        ),
        "reset leaves codes on their way": Fault(
            "reset_in_the_middle", "array_control", r"keep = ~rst", "keep = 1'b1"
        ),
        "codes enter during reset": Fault(
            "reset_in_the_middle", "array_control", r"enter = i_valid & i_ready & keep",
            "enter = i_valid & i_ready",
        ),
        "reset leaves accumulators": Fault(
            "reset_in_the_middle", "fixed_pe", r"load = drain \| rst",
            "load = drain | (rst & (^accumulator === 1'bx))",
        ),
        "reset leaves the phase": Fault(
            "reset_in_the_middle", "array_control",
            r"(rst\) begin[^;]*;[^;]*;[^;]*;[^;]*; )phase_state <= PHASE_PRODUCTS",
            r"\1phase_state <= (^phase_state === 1'bx) ? PHASE_PRODUCTS : phase_state",
        ),
    },
    ("tapered-array", "tapered5", ("rows", 2), ("cols", 3)): {
        "columns share a bias": Fault(
            "matrix_products/gaps=0", "tapered_array",
            r"(?s)(drain_0 .*?)(\(bias[^)]*\))(.*?drain_1 .*?)\(bias[^)]*\)", r"\1\2\3\2",
        ),
        "activations and weights are decoded alike": Fault(
            "tiles_with_other_settings", "tapered_array",
            r"activation_decoder_0 \( \.code (\([^)]*\)), \.run_limit \(activation_run_limit",
            r"activation_decoder_0 (.code\1, .run_limit(weight_run_limit",
        ),
        "results have the runs of weights": Fault(
            "tiles_with_other_settings", "tapered_drain", r"\(result_run_limit\)", "(3'd3)"
        ),
    },
    ("fixed-array", "fixed4", ("rows", 2), ("cols", 2), ("zero_gating", True)): {
        "a gated element adds its old product again": Fault(
            "matrix_products/gaps=0", "fixed_pe", r"accumulate <= nonzero", "accumulate <= 1'b1"
        ),
        "a gated element takes small operands for zero": Fault(
            "network_layers", "fixed_pe", r"\|activation_out", "|activation_out[3:1]"
        ),
    },
    ("dybit-activation_decoder", "dybit4"): {
        "an unsigned code has a sign": Fault(
            "every_code", "dybit_activation_decoder", r"code\[3\] & has_sign", "code[3]"
        ),
        "minus zero is not zero": Fault(
            "every_code", "dybit_activation_decoder", r"negative & \(\|code\[2:0\]\)", "negative"
        ),
        "a signed code is not doubled": Fault(
            "every_code", "dybit_activation_decoder", r"{code\[2:0\], 1'b0}", "code"
        ),
    },
    (
        "abfp-tile", "abfp8:tile=8,noise_bits=4", ("rows", 3), ("lanes", 2), ("length", 24),
    ): {
        "sums of a tile are not cleared": Fault(
            "products/gaps=0", "abfp_dot", r"first \? 18'd0 : total", "total"
        ),
        "words are quantised during pauses": Fault(
            "products/gaps=1", "abfp_vectors", r"abs_max_first = \(fill_beat == 2'd0\)",
            "abs_max_first = 1'b0",
        ),
        "a dot product is overwritten while others are converted": Fault(
            "products/gaps=2", "abfp_turns", r"done & \(~full \| is_last\)", "done"
        ),
        "biases are of the row after": Fault(
            "products/gaps=3", "abfp_tags", r"bias_row <= sum_row_2_ago",
            "bias_row <= sum_row_1_ago",
        ),
        "a result that is too large wraps": Fault(
            "limits", "abfp_rescaler", r"\w+ > 11'sd254", "1'b0"
        ),
        "ReLU does nothing": Fault("limits", "abfp_result", r"relu & total\[31\]", "1'b0"),
        "infinities count": Fault(
            "bad_inputs", "abfp_abs_max",
            r"\(\(magnitudes\[14:7\] == 8'd0\) \| \(&magnitudes\[14:7\]\)\)",
            "(magnitudes[14:7] == 8'd0)",
        ),
        "the flag of bad inputs misses a lane": Fault(
            "bad_inputs", "abfp_abs_max", r"&magnitudes\[14:7\]}", "1'b0}"
        ),
        "noise does not turn with the sign": Fault(
            "noise", "abfp_converter", r"total_noise \^ {4{total_total\[17\]}}", "total_noise"
        ),
        "a noise word is used twice": Fault(
            "noise", "abfp_turns", r"step = convert & valid",
            "step = convert & valid & (slot != 3'd1)",
        ),
        "scales of weights are of the first tile": Fault(
            "network_layers", "abfp_tags", r"scale_tile <= tile_1_ago", "scale_tile <= 2'd0"
        ),
        "a vector takes a cycle more": Fault(
            "throughput", "abfp_turns", r"slot == 3'd4", "slot == 3'd5"
        ),
        "a result is offered only where it is wanted": Fault(
            "offers_before_ready", "abfp_result", r"move = o_ready \| ~o_valid", "move = o_ready"
        ),
        # What a register holds before the first reset is not left.
        "reset leaves a vector": Fault(
            "reset_in_the_middle", "abfp_vectors", r"known <= 2'd0",
            "known <= (^known === 1'bx) ? 2'd0 : known",
        ),
    },
    ("abfp-converter", "abfp8:tile=8,noise_bits=8"): {
        "one quotient is off by one": Fault(
            "every_sum", "abfp_converter", r"\* 7'd65;", "* 7'd64;"
        ),
        "ties go up": Fault("ties", "abfp_converter", r"quotient\[0\] & ~is_tie", "quotient[0]"),
        "noise is never off": Fault("ties", "abfp_converter", r"noise_enable \?", "1'b1 ?"),
        "noise has no half step": Fault(
            "noise", "abfp_converter", r"\^ {8{total\[17\]}}, 1'b1}", "^ {8{total[17]}}, 1'b0}"
        ),
    },
    ("abfp-bfloat16_mac", "abfp8"): {
        "sums are not cleared": Fault(
            "dot_products/gaps=0", "bfloat16_mac", r"\? ~last_0 :", "? 1'b1 :"
        ),
        "a pair is taken out of its turn": Fault(
            "dot_products/gaps=1", "bfloat16_mac", r"move & \(turn == wanted\)", "move"
        ),
        "a waiting result is overwritten": Fault(
            "dot_products/gaps=2", "bfloat16_mac", r"move = o__ready \| ~o__valid", "move = 1'b1"
        ),
        "a pause counts as a pair": Fault(
            "dot_products/gaps=3", "bfloat16_mac", r"pair_valid <= take", "pair_valid <= 1'b1"
        ),
        "the lowest bit of a product is lost": Fault(
            "every_significand", "bfloat16_product",
            r"\? significand\[14:0\] :", "? {significand[14:1], 1'b0} :",
        ),
        "NaN is a number": Fault(
            "limits", "bfloat16_product", r"\(a\[14:7\] == 8'd0\) \| \(&a\[14:7\]\)",
            "(a[14:7] == 8'd0)",
        ),
        "results come a cycle late": Fault(
            "latency_and_throughput", "bfloat16_mac", r"done_1 <= done_0; done_2 <= done_1",
            "{done_1, done_2} <= {done_0 & ~last_0, done_1}",
        ),
        "results are offered only where they are wanted": Fault(
            "offers_before_ready", "bfloat16_mac", r"move = o__ready \| ~o__valid",
            "move = o__ready",
        ),
        "reset leaves the ends of sums": Fault(
            "reset_in_the_middle", "bfloat16_mac", r"started <= 3'd0",
            "started <= (^started === 1'bx) ? 3'd0 : started",
        ),
    },
    ("weight_pool-engine", "weight_pool32:act_bits=4"): {
        "the lowest plane is subtracted": Fault(
            "layers/gaps=0", "weight_pool_control", r"first & has_sign", "entry_final & has_sign"
        ),
        "a group begins with the sum of the last": Fault(
            "layers/gaps=1", "weight_pool_result", r"partial & {\d+{~first}}", "partial"
        ),
        "a complement is not a negative": Fault(
            "layers/gaps=2", "weight_pool_result", r"{~first}}, negative}", "{~first}}, 1'b0}"
        ),
        "results are overwritten while they are gathered": Fault(
            "layers/gaps=3", "weight_pool_control", r"entry_final & bank_free;", "entry_final;"
        ),
        "only the first pixel has a bias": Fault(
            "layers/gaps=4", "weight_pool_control", r"is_start <= bank_last;", "is_start <= 1'b0;"
        ),
        "an index is taken for another": Fault(
            "every_row_and_index", "weight_pool_lane", r"index == 5'd30", "index == 5'd29"
        ),
        "two channels change places": Fault(
            "network_layers",
            "weight_pool_transposer",
            r"(\w+_7\[\w+ \+: 1\]), (\w+_8\[\w+ \+: 1\])",
            r"\2, \1",
        ),
        "a group of the layer begins with what the last one left": Fault(
            "whole_layer", "weight_pool_result", r"partial & {\d+{~first}}", "partial"
        ),
        "a code does not wait": Fault(
            "offers_before_ready", "weight_pool_finisher", r"~o_valid \| o_ready", "1'b1"
        ),
        "reset leaves results to gather": Fault(
            "reset_in_the_middle",
            "weight_pool_control",
            r"entry_last <= 1'b0; bank_valid <= 1'b0;",
            "entry_last <= 1'b0;",
        ),
        "results are held a cycle too long": Fault(
            "cycle_count", "weight_pool_control", r"~bank_valid \| bank_done", "~bank_valid"
        ),
    },
}  # fmt: skip


def planted(text, fault):
    """``text`` with the fault in it."""
    module = re.search(rf"^module {fault.module}.*?^endmodule", text, re.M | re.S)
    assert module is not None, f"no module {fault.module}"
    pattern = fault.pattern.replace(" ", r"\s*")
    changed, count = re.subn(pattern, fault.replacement, module[0])
    assert count == 1, f"{count} places match {fault.pattern} in\n{module[0]}"
    return text[: module.start()] + changed + text[module.end() :]


@needs_icarus
@pytest.mark.parametrize(
    ("design", "fault"),
    [
        pytest.param(design, fault, id=f"{design[0]}: {name}")
        for design, faults in FAULTS.items()
        for name, fault in faults.items()
    ],
)
def test_found(shared, design, fault):
    name, spec, *options = design
    case = Case(
        design=name,
        spec=spec,
        options=Options(**dict(options)),
        thorough=False,
        tests=(fault.test,),
    )
    job = bench_job(case)
    job = replace(job, verilog=planted(job.verilog, fault))
    (result,) = find_simulator("icarus").run(job, shared).results
    assert (result.name, result.passed) == (fault.test, False), result.message
    # It is a comparison that failed, not something around it.
    assert re.search(
        r"expected|must have defined|waits, but|nothing moved|extra|offered|were accepted",
        result.message,
    )


def test_every_test_finds_a_fault():
    found = {
        (name.split("-")[1], fault.test)
        for (name, *_), faults in FAULTS.items()
        for fault in faults.values()
    }
    assert found == {(unit, test) for unit, tests in TESTS.items() for test in tests}
