"""One file, however it is packed, encoded and laid out, is the same rows."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import BadInput
from jobs.files.json_rows import rows_of_line
from jobs.files.rows import content_of, guess_rows, read_rows
from jobs.files.values import whole

ROWS = [{"id": str(n), "question": f"{n} + 1?", "answer": f"A: {n + 1} \U0001f600"} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
PRETTY = "\n".join(json.dumps(row, indent=2, ensure_ascii=False) for row in ROWS)
LAYOUTS = {
    "lines": LINES,
    "Windows lines": LINES.replace("\n", "\r\n"),
    "Mac lines": LINES.replace("\n", "\r"),
    "without a last break": LINES.rstrip(),
    "with empty lines": "\n\n" + LINES.replace("\n", "\n\n"),
    "list": json.dumps(ROWS),
    "list over lines": json.dumps(ROWS, indent=1),
    "one after another": PRETTY,
    "in one line": "".join(json.dumps(row) for row in ROWS),
    "under a name": json.dumps({"data": ROWS}, indent=1),
    "records": LINES.replace("{", "\x1e{"),
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


def of_arrow(kind: str) -> Callable[[bytes], bytes]:
    return lambda data: pa.compress(data, codec=kind, asbytes=True)


def lz4(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as packed:
        packed.write(data)
    return bytes(sink.getvalue().to_pybytes())


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": of_arrow("zstd"),
    "lz4": lz4,
    "twice": lambda data: gzip.compress(bz2.compress(data)),
}


def read(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "A.NDJSON", "a.JSONL.gz", "a"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_encoding_is_read_whatever_the_files_name(
    tmp_path: Path, name: str, layout: str
) -> None:
    for encoding in ENCODINGS:
        (tmp_path / name).write_bytes(LAYOUTS[layout].encode(encoding))
        assert read(tmp_path / name) == ROWS, encoding


@pytest.mark.parametrize("packer", PACKERS)
def test_a_packed_file_is_known_by_its_bytes(tmp_path: Path, packer: str) -> None:
    for text in (LINES, PRETTY):
        packed = PACKERS[packer](text.encode())
        (tmp_path / "a.jsonl").write_bytes(packed)
        assert read(tmp_path / "a.jsonl") == ROWS
    if packer == "plain":
        return
    (tmp_path / "a.jsonl").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(BadInput, match=r"a\.jsonl cannot be read.*fetch it again"):
        read(tmp_path / "a.jsonl")


def test_columnar_files_are_known_by_their_bytes_too(tmp_path: Path) -> None:
    table = pd.DataFrame(ROWS).rename(columns={"id": "\ufeffid"})
    table.to_parquet(tmp_path / "a.parquet")
    table.to_feather(tmp_path / "b.feather")
    packed = gzip.compress((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "c.PARQUET.GZ").write_bytes(packed)
    (tmp_path / "d.jsonl").write_bytes((tmp_path / "a.parquet").read_bytes())
    for name in ("a.parquet", "b.feather", "c.PARQUET.GZ", "d.jsonl"):
        assert read(tmp_path / name) == ROWS, name
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(BadInput, match="cannot be read"):
        read(tmp_path / "a.parquet")


def test_pandas_columns_of_whole_numbers_with_a_gap_and_of_bytes(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": [1, None], "n": [float("nan"), 0.5], "text": [b"x", None]})
    table.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [
        {"id": 1.0, "n": None, "text": "x"},
        {"id": None, "n": 0.5, "text": None},
    ]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04..", "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><p>Sign in", "a web page"),
        (b"\x80\x04\x95", "a pickle"),
        (gzip.compress(bytes(257) + b"ustar" + bytes(300), mtime=0), "a tar archive"),
    ],
)
def test_what_is_something_else_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(BadInput, match=what):
        read(tmp_path / "a.jsonl")
    (tmp_path / "a.CSV").write_bytes(b"id,question\n")
    with pytest.raises(BadInput, match=r"a \.csv file.*JSONL, JSON or Parquet"):
        read(tmp_path / "a.CSV")


@pytest.mark.parametrize(
    "broken",
    ['{"id": "3", "x', "[1]", "5", '{"a": ' + "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"],
)
def test_a_broken_line_is_named_and_the_others_are_kept_on_request(tmp_path: Path, broken: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"{LINES}{broken}\n{LINES}")
    with pytest.raises(BadInput, match=r"a\.jsonl line 4 is broken.*skip_broken_lines"):
        read(tmp_path / "a.jsonl")
    said: list[str] = []
    assert [row for _, row in read_rows(tmp_path / "a.jsonl", said.append)] == ROWS * 2
    assert len(said) == 1
    (tmp_path / "a.jsonl").write_text(f"{PRETTY}\n{broken}\n")
    with pytest.raises(BadInput, match=r"a\.jsonl (?:line|row) \d+ is broken"):
        read(tmp_path / "a.jsonl")


def test_columns_of_pandas_are_no_rows(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_json(tmp_path / "a.json")
    with pytest.raises(BadInput, match=r"holds no list.*orient='records'"):
        read(tmp_path / "a.json")
    pd.DataFrame(ROWS).to_json(tmp_path / "a.json", orient="records")
    assert read(tmp_path / "a.json") == ROWS


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(st.characters()), inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.text(st.characters()), values, max_size=3), st.booleans())
def test_a_line_is_read_as_its_whole_row(row: dict[str, Any], is_ascii: bool) -> None:
    """Halves of characters, NULs, marks and what is not a number, wherever they stand and however they are
    written.
    """
    line = json.dumps(row, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    assert rows_of_line(line) == [whole(row)]
    json.dumps(whole(row), ensure_ascii=False, allow_nan=False).encode()


def test_a_source_is_known_by_its_content_and_guessed_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "part-0.jsonl").write_text(LINES * 50)
    first = content_of(str(tmp_path / "f"))
    (tmp_path / "f" / ".DS_Store").write_text("x")
    assert content_of(str(tmp_path / "f")) == first
    (tmp_path / "f" / "part-1.jsonl.gz").write_bytes(gzip.compress(LINES.encode() * 50))
    assert content_of(str(tmp_path / "f")) != first
    assert guess_rows(str(tmp_path / "f")) > 10
