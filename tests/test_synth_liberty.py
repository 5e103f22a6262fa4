"""The Liberty reader: syntax, numbers, Boolean functions, and what it refuses."""

import gzip
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from synth.liberty import Function, Group, parse_liberty, read_liberty, read_text


def library(body):
    return parse_liberty(f"library (x) {{ {body} }}")


def test_every_kind_of_statement():
    """Groups, attributes of both kinds, strings, comments, missing semicolons, continuations."""
    root = parse_liberty(
        r"""/* a comment with { and " */
        library ("my lib") { // another } one
          date : "Mon, 1 Jan; {2024}";
          url : "http://example.org/*not a comment*/";
          voltage : 1.1
          slope : VDD * 0.5 + 2 ; unit (1, "ff");
          define (x, cell, string)
          values ("1, 2", \
                  "3,4" , \
                  "5.5e-1 -6");
          cell (A, "b c") { area : 2; pin (Y[0]) { function : "A \
+ B"; } };
          cell () { area : 3 }
        };"""
    )
    assert (root.kind, root.arguments) == ("library", ["my lib"])
    assert root.simple == {
        "date": "Mon, 1 Jan; {2024}",
        "url": "http://example.org/*not a comment*/",
        "voltage": "1.1",
        "slope": "VDD * 0.5 + 2",
    }
    assert root.list("unit") == ["1", "ff"]
    assert root.list("define") == ["x", "cell", "string"]
    np.testing.assert_array_equal(root.numbers("values"), [1, 2, 3, 4, 0.55, -6])
    first, second = root.all("cell")
    assert (first.arguments, first.name, second.name) == (["A", "b c"], "A", "")
    (pin,) = first.all("pin")
    assert (pin.name, pin.simple["function"]) == ("Y[0]", "A + B")
    assert list(root.all("pin")) == []


def test_repeated_attributes():
    """A list keeps every occurrence and shows the first; of a value the last counts."""
    root = library("a (1); a (2); b : 1; b : 2;")
    assert root.complex["a"] == ["(1)", "(2)"]
    assert root.list("a") == ["1"]
    assert root.simple == {"b": "2"}


def test_missing_lists():
    root = library("")
    assert root.list("values") is None
    assert root.numbers("values") is None


def test_line_numbers_are_those_of_the_file():
    root = parse_liberty('/* 1\n 2\n 3 */\nlibrary (x) {\n a : "p\\\n q";\n cell (c) { }\n}')
    assert (root.line, next(root.all("cell")).line) == (4, 7)


def test_numbers_must_be_numbers():
    message = r"values of the group in line 1 must be a list of numbers: .*'1\.2ns'"
    with pytest.raises(ValueError, match=message):
        library('values ("1.1, 1.2ns");').numbers("values")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a Liberty file, not 'a b.lib', which has no group"),
        ("just some words\n", "no Liberty in line 1 at 'some words'"),
        ("\nmodule m(input a);\nendmodule", "no Liberty in line 2 at 'm\\(input a\\);'"),
        ("library (x) { cell (c) {\n", "complete Liberty file, not 'a b.lib', at whose end 2 "),
        ('library (x) { values ("1, 2', "complete Liberty file, not 'a b.lib', at whose end 1 "),
        ("library (x) {\n}\n}", "no Liberty in line 3 at '}'"),
        ("library (x) { : 3 }", "no Liberty in line 1 at ': 3 }'"),
        ("library (x) { a : ; }", "no Liberty in line 1 at ': ; }'"),
        ("cell (x) { }", "with a library group, not 'a b.lib', which begins with 'cell'"),
    ],
    ids=str,
)
def test_refuses_what_is_not_liberty(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_liberty(text, "a b.lib")
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused():
    """No cut of a library reads as another library."""
    text = 'library (x) { a : "q"; cell (c) { area : 1.5; pin (p) { cap (1, "2"); } } }'
    for length in range(len(text)):
        with pytest.raises(ValueError, match="library must be a"):
            parse_liberty(text[:length])
    assert isinstance(parse_liberty(text), Group)


def limited(statements, gigabytes):
    """Run statements that raise ValueError in a limited address space; return the message.

    They must not take more than a third of it at any time: the interpreter and NumPy reserve some.
    """
    program = (
        "import resource\n"
        "from pathlib import Path\n"
        "from synth.liberty import parse_liberty, read_text\n"
        f"limit = int({gigabytes} * 2**30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n"
        f"    {statements}\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        # Not ru_maxrss, which begins with that of the process that started this one.
        "status = Path('/proc/self/status').read_text()\n"
        "used = int(status.partition('VmHWM:')[2].split()[0]) << 10\n"
        "assert used < limit / 3, used\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


class TestFiles:
    TEXT = "library (x) { }"

    def test_compression_is_seen_from_the_content(self, tmp_path):
        """Names with blanks and quotes, and names that lie about the compression."""
        for name, data in [
            ("plain 'q' \".lib.gz", self.TEXT.encode()),
            ("packed.lib", gzip.compress(self.TEXT.encode())),
        ]:
            path = tmp_path / name
            path.write_bytes(data)
            assert read_liberty(path).name == "x"

    def test_latin_1(self, tmp_path):
        path = tmp_path / "old.lib"
        path.write_bytes(b"/* \xb5m */ library (x) { }")
        assert read_liberty(path).name == "x"

    @pytest.mark.parametrize("keep", [3, 12, -9, -1])
    def test_cut_gzip(self, tmp_path, keep):
        path = tmp_path / "it's cut.lib.gz"
        path.write_bytes(gzip.compress(self.TEXT.encode() * 100)[:keep])
        with pytest.raises(ValueError, match=r'complete gzip file, not ".*it\'s cut\.lib\.gz"'):
            read_text(path)

    @pytest.mark.parametrize("text", [random.Random(1).randbytes(400), b"library (x) { }" * 100])
    def test_damaged_gzip(self, tmp_path, text):
        """Wrong bytes, found by the check sum or as nonsense in the compressed stream."""
        data = bytearray(gzip.compress(text))
        data[12] ^= 0xFF
        path = tmp_path / "x.lib.gz"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"complete gzip file, not '.*', which is cut off or"):
            read_text(path)

    def test_binary(self, tmp_path):
        path = tmp_path / "x.lib"
        path.write_bytes(b"\x7fELF\x00\xff")
        with pytest.raises(ValueError, match="library must be a text file, not"):
            read_text(path)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(ValueError, match=r"readable file, not '.*none\.lib': No such file"):
            read_liberty(tmp_path / "none.lib")

    def test_folder(self, tmp_path):
        with pytest.raises(ValueError, match=r"readable file, not '.*': Is a directory"):
            read_liberty(tmp_path)

    @pytest.mark.parametrize("name", ["big.lib", "bomb.lib.gz", "big.lib.gz"])
    def test_too_large(self, tmp_path, name):
        """8 GB of text; 4 GB in 4 MB of gzip; 8 GB that only look like gzip: in 1.5 GB."""
        path = tmp_path / name
        with path.open("wb") as file:
            if name == "bomb.lib.gz":
                member = gzip.compress(bytes(64 << 20), 1)
                for _ in range(64):
                    file.write(member)
            else:
                file.write(b"library" if name == "big.lib" else b"\x1f\x8b\x08")
                file.truncate(8 << 30)
        printed = limited(f"read_text(Path({str(path)!r}))", gigabytes=1.5)
        assert f"a file of at most 64 MiB of text, not '{path}', which has more" in printed

    def test_largest(self, tmp_path):
        path = tmp_path / "x.lib.gz"
        path.write_bytes(gzip.compress(b"library (x) { }".ljust(64 << 20), 1))
        assert len(read_text(path)) == 64 << 20

    def test_no_regular_file(self, tmp_path):
        """A pipe that nobody writes to, and a device that never ends."""
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path("/dev/zero")):
            with pytest.raises(ValueError, match=rf"must be a regular file, not '{path}'"):
                read_text(path)

    def test_impossible_name(self):
        with pytest.raises(
            ValueError, match=r"must be a readable file, not 'a\\x00b': embedded null"
        ):
            read_text(Path("a\0b"))


class TestHostile:
    """Texts that are made to take much time or memory, or to reach other files."""

    @pytest.mark.parametrize(
        "text",
        [
            'include_file ("/etc/passwd");',
            "a (b) { c () { include_file (/etc/passwd); } }",
        ],
    )
    def test_includes(self, text):
        message = r"hold all of its text, not 'a.lib', which includes '/etc/passwd'"
        with pytest.raises(ValueError, match=message):
            parse_liberty(f"library (x) {{ {text} }}", "a.lib")

    def test_include_in_a_string_is_none(self):
        assert library('a : "include_file (x)";').simple == {"a": "include_file (x)"}

    @pytest.mark.parametrize(
        ("text", "what", "count"),
        [("a:b;", "statements", 2_000_002), ('"" ', "strings", 2_000_001)],
    )
    def test_too_many(self, text, what, count):
        body = text * (count - 2 if what == "statements" else count)
        message = rf"at most 2000000 {what}, not 'a.lib', which has about {count}"
        with pytest.raises(ValueError, match=message):
            parse_liberty(f"library (x) {{ {body} }}", "a.lib")

    #: Texts, of a length for which anything but linear time or little memory would be noticed, and
    #: what is said about them.
    TEXTS = {
        "list": ("'library (x) { a (' + 'x' * N", "1 groups are open"),
        "string": ("'library (x) { a : \"' + 'x' * N", "1 groups are open"),
        "strings": ("'library (x) { a (' + '\"a\" ' * (N // 20) + '\"'", "1 groups are open"),
        "comments": ("'library (x) {' + '/*' * (N // 2)", "1 groups are open"),
        "comments and strings": ("'library (x) {' + '/* \"' * (N // 20)", "1 groups are open"),
        "values": ("'library (x) { a : ' + 'b ' * (N // 2) + '{'", "2 groups are open"),
        "blanks": ("' ' * N", "has no group"),
        "blank value": ("'library (x) { a : b' + ' \\n' * (N // 2) + '{'", "2 groups are open"),
        "backslashes": ("'library (x) {' + '\\\\' * N", "1 groups are open"),
        "words": ("'library (x) {' + 'b ' * (N // 2) + '}'", "no Liberty in line 1 at 'b b"),
        "zeros": ("'\\0' * N", "no Liberty in line 1 at '"),
        "depth": ("'library (x) {' + 'a(){' * 100_000", "100001 groups are open"),
        "closed depth": ("'library (x) {' + 'a(){' * 100_000 + '}' * 100_002", "line 1 at '}'"),
    }

    @pytest.mark.parametrize("case", TEXTS)
    def test_time_and_memory(self, case):
        text, message = self.TEXTS[case]
        printed = limited(f"N = 20_000_000; parse_liberty({text})", gigabytes=3)
        assert message in printed
        assert printed.count("\n") == 1

    def test_closed_depth(self):
        """Groups inside one another, however deep, are read and freed."""
        root = parse_liberty("library (x) {" + "a(){" * 100_000 + "}" * 100_001)
        assert [group.kind for group in root.groups] == ["a"]

    @pytest.mark.parametrize(
        "text",
        [
            "(" * 41 + "A" + ")'" * 41,
            "!" * 41 + "A",
            "A" + "'" * 41,
            "(A^(B|" * 21 + "A" + "))" * 21,
        ],
    )
    def test_deep_functions(self, text):
        with pytest.raises(ValueError, match="expression of at most 40 nested operations, not "):
            Function(text)

    def test_deepest_function(self):
        assert Function("!" * 39 + "A").truth_table() == 0b01
        assert Function("(" * 1999 + "A" + ")" * 1999).truth_table() == 0b10

    def test_long_functions(self):
        assert Function("A^" * 1999 + "A").truth_table() == 0b00
        message = r"of at most 4000 characters, not 'A\^A\^A\^A\^A\^A\^A\^A\^A\^A\^' and 3983 more"
        with pytest.raises(ValueError, match=message):
            Function("A^" * 2001 + "A")


#: Liberty text and the same function in Python, of a, b, c, d.
FUNCTIONS = [
    ("!(A & B)", lambda a, b, c, d: 1 - (a and b)),
    ("(A * B)'", lambda a, b, c, d: 1 - (a and b)),
    ("A B' + C", lambda a, b, c, d: (a and 1 - b) or c),
    ("A|B&C^D'", lambda a, b, c, d: a or (b and (c ^ (1 - d)))),
    ("!A ^ B", lambda a, b, c, d: (1 - a) ^ b),
    ("!(A ^ B) C", lambda a, b, c, d: (1 - (a ^ b)) and c),
    ("A + B + C D", lambda a, b, c, d: a or b or (c and d)),
    ("!!A''", lambda a, b, c, d: a),
    ("A & 1 | 0", lambda a, b, c, d: a),
    ("!A'", lambda a, b, c, d: a),
    ("A ^ B ^ C ^ D", lambda a, b, c, d: a ^ b ^ c ^ d),
    ("(A)(B)", lambda a, b, c, d: a and b),
]


@pytest.mark.parametrize(("text", "expected"), FUNCTIONS, ids=[text for text, _ in FUNCTIONS])
def test_functions(text, expected):
    """All rows of the truth table, by three ways to evaluate, and through the canonical text."""
    names = "ABCD"
    rows = [[row >> n & 1 for n in range(4)] for row in range(16)]
    wanted = [int(bool(expected(*row))) for row in rows]
    for function in (Function(text), Function(str(Function(text)))):
        table = function.truth_table(names)
        assert [table >> row & 1 for row in range(16)] == wanted
        assert table >> 16 == 0
        words = {
            name: np.array([sum(row[n] << i for i, row in enumerate(rows))], np.uint64)
            for n, name in enumerate(names)
        }
        packed = sum(bit << i for i, bit in enumerate(wanted))
        for result in (
            function.evaluate(words),
            function.compile()(*(words[name] for name in function.inputs)),
            function.compile(names)(*words.values()),
        ):
            assert int(result[0]) & 0xFFFF == packed


def test_inputs_in_order_of_the_text():
    assert Function("!(B & A | B[1] & C_2)").inputs == ("B", "A", "B[1]", "C_2")
    assert Function("!(B & A)").truth_table() == 0b0111
    assert Function("B & !A").truth_table() == 0b0001 << 1
    assert Function("B & !A").truth_table(("A", "B")) == 0b0100


def test_constants():
    assert (Function("0").truth_table(), Function("1").truth_table()) == (0, 1)
    assert int(Function("1").evaluate({})) == 2**64 - 1
    assert int(Function("!1").evaluate({})) == 0


def test_whole_words():
    """64 samples a word and any shape, with inputs that broadcast."""
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 2**64, (2, 5, 7), np.uint64)
    c = rng.integers(0, 2**64, 7, np.uint64)
    result = Function("A & !B | C").evaluate({"A": a, "B": b, "C": c, "unused": a})
    assert result.dtype == np.uint64
    np.testing.assert_array_equal(result, (a & ~b) | c)


def test_renamed():
    renamed = Function("!(D & EN | IQ & !EN)").renamed({"IQ": "(!QN)", "D": "X"})
    assert renamed.inputs == ("X", "EN", "QN")
    assert str(renamed) == "!((X&EN)|(!QN&!EN))"


def test_functions_are_values():
    """Equal texts are equal, hash alike and survive being sent to another process."""
    function = Function("A ^ B")
    function.evaluate({"A": np.uint64(1), "B": np.uint64(3)})
    copy = pickle.loads(pickle.dumps(function))
    assert copy == function
    assert hash(copy) == hash(function)
    assert copy.truth_table() == 0b0110


@pytest.mark.parametrize("text", ["", "A &", "(A", "A)", "2", "A $ B", "__import__('os')"])
def test_bad_functions(text):
    with pytest.raises(ValueError, match="function must be a Boolean expression, not"):
        Function(text)


def test_missing_inputs():
    function = Function("A & B")
    with pytest.raises(ValueError, match="inputs must hold every input of 'A & B', not lack 'B'"):
        function.evaluate({"A": np.uint64(0)})
    with pytest.raises(ValueError, match="order must name every input of 'A & B', not lack 'A'"):
        function.truth_table(["B"])
    with pytest.raises(ValueError, match="order must name every input of 'A & B', not lack 'A'"):
        function.compile(["B"])
