"""Engines whose table is made of a file, up to what a simulator reads from it."""

import shutil
import subprocess

import numpy as np
import pytest

from narrowgauge.arrays import load_arrays
from narrowgauge.cli import main
from tests.simulators import needs_icarus

#: Weights in units of 1/127: of the range of 1, which the sum of all of the first vector fills.
POOL = np.array([[100, 20, 6, 1], [-64, 32, -16, 8], [3, -5, 7, -90]])
#: Bits of an address that each bank of a layout has, in the order of the names of their files.
LAYOUTS = {"full": [[0, 1, 2, 3]], "nibble": [[2, 3], [0, 1]]}
BENCH = """\
module bench;
  reg clk = 0, read_en = 1;
  reg [{top}:0] address = 0;
  wire [23:0] entries;
  {module} table_under_test(.clk(clk), .read_en(read_en), .address(address), .load_en(1'b0),
    .load_row({bits}'d0), .load_entries(24'd0), .entries(entries));
  integer row;
  initial begin
    for (row = 0; row < {rows}; row = row + 1) begin
      address = row;
      #1 clk = 1;
      #1 clk = 0;
      $display("%h", entries);
    end
  end
endmodule
"""


def generate(folder, pool, layout="full", suffix=".npz"):
    """Generate an engine with a pool in a file with an odd name."""
    path = folder / f"it's a pool{suffix}"
    if suffix == ".npz":
        np.savez(path, pool=pool, indices=np.zeros(3))
    else:
        np.save(path, pool)
    spec = f"weight_pool3:group=4,layout={layout}"
    arguments = ["weight_pool-engine", spec, "-o", str(folder / "out"), "--lanes", "2"]
    return main(["generate", *arguments, "--pool", str(path)])


def entries_of(words):
    """Entries [row, vector] of words in hexadecimal digits."""
    table = np.array([[int(word[i : i + 2], 16) for i in (4, 2, 0)] for word in words])
    return table - 256 * (table > 127)


def subset_sums(columns):
    """Entry of each row: the weights of the bits that its number has."""
    rows = np.arange(1 << len(columns))
    bits = rows[:, None] >> np.arange(len(columns)) & 1
    return bits @ POOL.T[columns]


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_table_of_a_file(tmp_path, suffix):
    assert generate(tmp_path, POOL / 127, suffix=suffix) == 0
    (image,) = (tmp_path / "out").glob("*.hex")
    np.testing.assert_array_equal(entries_of(image.read_text().split()), subset_sums([0, 1, 2, 3]))


@needs_icarus
@pytest.mark.parametrize("layout", LAYOUTS)
def test_simulator_reads_it(tmp_path, layout):
    assert generate(tmp_path, POOL / 127, layout) == 0
    out = tmp_path / "out"
    images = sorted(out.glob("*.hex"))
    (design,) = out.glob("*.v")
    for image, columns in zip(images, LAYOUTS[layout], strict=True):
        module = image.name.removesuffix("_rows.hex")
        assert f"module {module} (" in design.read_text()
        bits = len(columns)
        text = BENCH.format(module=module, top=bits - 1, bits=bits, rows=1 << bits)
        (out / "bench.v").write_text(text)
        tool = shutil.which("iverilog")
        subprocess.run([tool, "-g2005", "-o", "b", "bench.v", design.name], cwd=out, check=True)
        done = subprocess.run(["vvp", "b"], cwd=out, check=True, capture_output=True, text=True)
        words = [line for line in done.stdout.split() if len(line) == 6]
        np.testing.assert_array_equal(entries_of(words), subset_sums(columns))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (POOL[:2] / 127, "pool must be [3, 4], not [2, 4]"),
        (POOL, "pool must be float16, float32 or float64, not int64"),
        (
            np.where(POOL == 7, np.nan, 0.5),
            "pool must be finite in binary32, not nan at index (2, 2)",
        ),
    ],
)
def test_bad_pool(tmp_path, capsys, pool, message):
    assert generate(tmp_path, pool) == 2
    error = capsys.readouterr().err
    assert error.startswith("narrowgauge: error: pool must be")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_bad_file(tmp_path, content):
    path = tmp_path / "a\nb.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^x must be a whole .npz file without pickled objects"):
        load_arrays("x", path)
    with pytest.raises(ValueError, match=r"x must be a readable file, not .*No such file"):
        load_arrays("x", tmp_path / "none.npz")


def test_what_files_hold(tmp_path):
    """Pickles are refused, a single array has the name it is given, and archives have a limit."""
    path = tmp_path / "x.npy"
    np.save(path, np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"whole .npy or .npz file without pickled objects"):
        load_arrays("x", path, single="x")
    np.save(path, np.arange(3))
    assert load_arrays("x", path, single="y")["y"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"x must be a whole .npz file"):
        load_arrays("x", path)
    np.savez_compressed(tmp_path / "large.npz", a=np.zeros(1 << 18))
    assert load_arrays("x", tmp_path / "large.npz")["a"].size == 1 << 18
    with pytest.raises(ValueError, match=r"larger than 1 MB"):
        load_arrays("x", tmp_path / "large.npz", max_bytes=1 << 20)


def test_file_without_a_pool(tmp_path, capsys):
    np.savez(tmp_path / "other.npz", weights=POOL / 127)
    arguments = ["weight_pool-engine", "-o", str(tmp_path / "out")]
    assert main(["generate", *arguments, "--pool", str(tmp_path / "other.npz")]) == 2
    assert "pool must be a file with the array pool, not '" in capsys.readouterr().err
