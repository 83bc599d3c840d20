"""Rows of a JSON text in any arrangement: one object a line, a list, objects one after another over several
lines, or a list under one name. The encoding is UTF-8, UTF-16 or UTF-32, with a byte-order mark or without.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from jobs.files.agents import MAY_DIFFER
from jobs.files.columns import ANSWER_NAMES, ID_NAMES, QUESTION_NAMES
from jobs.files.values import whole

OnBroken = Callable[[str], None] | None
Row = dict[str, Any]
ODD = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000|[fF][eE][fF][fF])|\xef\xbb\xbf")  # what `whole` repairs
BETWEEN = re.compile("[\\s\ufeff\x1e]*")  # stands between two JSON texts; 1E begins a record of RFC 7464
NEXT_ROW = re.compile(r"\n[{\[]")  # where a text goes on behind a broken row: at the beginning of a line
IN_A_ROW = frozenset(
    {"messages", "conversations", "conversation", "prompt", "completion", "tools", *MAY_DIFFER}
)
USUAL = IN_A_ROW | {*QUESTION_NAMES, *ANSWER_NAMES, *ID_NAMES}
UNREADABLE = (ValueError, RecursionError)  # RecursionError comes from deeply nested lists


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name.replace("Infinity", "inf"))


DECODER = json.JSONDecoder(parse_constant=_constant)


def rows_of_json(file: Any, path: Path, on_broken: OnBroken) -> Iterator[tuple[str, Row]]:
    """Yield (line or row number, row) from a stream with `peek`.

    Raises:
        BadInput: a line or row is no JSON or no object. Names its number. If `on_broken` is given, it is
            called for each such row, which is left out.
    """
    lines = lines_of(file)
    head, said = [], list[bytes]()
    for line in lines:
        head.append(line)
        said += [line] if line.strip() else []
        if len(said) == 2:
            break
    if said and is_one_text(said):
        yield from _rows_of_text(b"".join(chain(head, lines)), path, on_broken)
    else:
        yield from _rows_of_lines(chain(head, lines), path, on_broken)


def lines_of(file: Any) -> Iterator[bytes]:
    """The lines of a stream, converted to UTF-8."""
    encoding = json.detect_encoding(file.peek(4)[:4])
    if encoding in ("utf-8", "utf-8-sig"):
        return iter(file)
    wrapped = io.TextIOWrapper(file, encoding, errors="surrogatepass", newline="\n")
    return (line.encode("utf-8", "surrogatepass") for line in wrapped)


def is_one_text(said: Sequence[bytes]) -> bool:
    """Whether a file has to be read as a whole. Its first lines that are not empty decide: there is only one,
    it begins with a list, or the first line continues in the next.
    """
    if len(said) == 1 or said[0].lstrip(b"\xef\xbb\xbf\x1e \t\r").startswith(b"["):
        return True
    try:
        rows_of_line(said[0])
    except json.JSONDecodeError as error:
        return error.pos >= len(error.doc.rstrip())
    except UNREADABLE:
        return False
    return False


def rows_of_line(line: bytes) -> list[Row]:
    """The rows of one line. It is usually one; two objects may stand on one line.

    Raises:
        ValueError, RecursionError: the line is broken, or holds something other than an object.
    """
    is_odd = is_to_repair(line)
    try:
        found = [DECODER.decode(line.decode())]
    except UNREADABLE:
        is_odd = True
        text = line.decode("utf-8", "surrogatepass").replace("\x00", "")
        found, error, _ = values_in(text)
        if error is not None:
            raise error from None
    for row in found:
        if not isinstance(row, dict):
            raise ValueError(f"a {type(row).__name__}, not an object")
    return [whole(row) for row in found] if is_odd else found


def is_to_repair(content: bytes) -> bool:
    """Whether a JSON text may hold something to repair. Most texts hold no escape at all."""
    return (b"\\u" in content or b"\xef\xbb\xbf" in content) and ODD.search(content) is not None


def values_in(text: str, at: int = 0) -> tuple[list[Any], Exception | None, int]:
    """The JSON values that follow one another in a text from a place on, up to a broken one, the error of
    that one, and the place where it begins.
    """
    found = list[Any]()
    try:
        while (at := BETWEEN.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            value, at = DECODER.raw_decode(text, at)
            found.append(value)
    except UNREADABLE as error:
        return found, error, at
    return found, None, at


def _rows_of_lines(lines: Iterable[bytes], path: Path, on_broken: OnBroken) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows = rows_of_line(line)
        except UNREADABLE as error:
            _tell(f"{path} line {number}", error, on_broken)
            continue
        for row in rows:
            yield f"line {number}", row


def _rows_of_text(content: bytes, path: Path, on_broken: OnBroken) -> Iterator[tuple[str, Row]]:
    """Rows of a file that is read as a whole."""
    try:
        text = content.decode("utf-8", "surrogatepass").replace("\x00", "")
    except ValueError:
        yield from _rows_of_lines(content.splitlines(keepends=True), path, on_broken)
        return
    values, error, at = values_in(text)
    broken, line, counted = list[tuple[int, Exception]](), 1, 0
    while error is not None and values and on_broken is not None:
        line, counted = line + text.count("\n", counted, at), at
        broken.append((line, error))
        following = NEXT_ROW.search(text, at + 1)  # the rows behind a broken one are kept
        if following is None:
            break
        more, error, at = values_in(text, following.end() - 1)
        values += more
    if error is not None and not values:
        if BETWEEN.sub("", text[:8]).startswith("["):
            raise BadInput(f"{path} is not JSON", str(error)[:120], "a list of rows", "") from error
        yield from _rows_of_lines(content.splitlines(keepends=True), path, on_broken)
        return
    values = rows_of_values(values, path) if error is None and not broken else values
    first = content[: len(content) - len(content.lstrip())].count(b"\n") + 1
    word, first = ("line", first) if len(values) == 1 and isinstance(values[0], dict) else ("row", 1)
    each = chain.from_iterable(value if isinstance(value, list) else [value] for value in values)
    is_odd = is_to_repair(content) or b"\xed" in content
    for number, row in enumerate(each, first):
        if isinstance(row, dict):
            yield f"{word} {number}", whole(row) if is_odd else row
        else:
            wrong = ValueError(f"a {type(row).__name__}, not an object")
            _tell(f"{path} row {number}", wrong, on_broken)
    if error is not None and not broken:
        _tell(f"{path} line {getattr(error, 'lineno', 1)}", error, on_broken)
    for number, why in broken:
        _tell(f"{path} line {number}", why, on_broken)


def rows_of_values(values: list[Any], path: Path) -> list[Any]:
    """The rows of a whole file. A list under one name is its rows; a single object is one row.

    Raises:
        BadInput: a .json file holds one object that is no row.
    """
    if len(values) != 1 or not isinstance(values[0], dict):
        return values
    (row,) = values
    inner = next(iter(row.values()), None)
    if len(row) == 1 and isinstance(inner, list) and IN_A_ROW.isdisjoint(row):
        return inner  # {"data": [...]}
    is_columns = all(isinstance(value, Mapping) for value in row.values())
    if ".json" in [suffix.lower() for suffix in path.suffixes] and (is_columns or USUAL.isdisjoint(row)):
        remedy = "write it with to_json(orient='records')" if is_columns else ""
        remedy = remedy or "move it out of the folder if it holds no answers"
        raise BadInput(f"{path} holds no list", type(row).__name__, "a list of rows", remedy)
    return values


def _tell(where: str, error: Exception, on_broken: OnBroken) -> None:
    """Report a broken row to `on_broken`, or refuse the file.

    Raises:
        BadInput: `on_broken` is None.
    """
    why = " ".join(str(error).split())[:120]
    if on_broken is None:
        raise BadInput(
            f"{where} is broken",
            why,
            "one JSON object a line, in UTF-8",
            "mend the line, or set skip_broken_lines to keep the rest",
        ) from error
    on_broken(f"left out {where}: {why}")
