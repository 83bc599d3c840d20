"""GSM8K's worked answers in three renderings, as references that students can be judged by:

    python -m benchmarks.renderings ../shared/data/gsm8k/example_model_solutions.jsonl gsm8k_renderings.jsonl

`as written` holds the calculator's marks (`16 - 3 = <<16-3=13>>13`), `plain` is without them, `equations` is
what stands in them, one a line. Each ends with the result's line. Rows keep everything else.
"""

import argparse
import json
import re
from pathlib import Path

MARK = re.compile(r"<<([^<>]*)>>")
RESULT = re.compile(r"(?:####|A:)\s*\S.*")


def renderings(worked: str) -> dict[str, str]:
    """A worked answer in three renderings.

    >>> renderings("She has 16 - 3 = <<16-3=13>>13 eggs.\\nA: 13")["plain"]
    'She has 16 - 3 = 13 eggs.\\nA: 13'
    >>> renderings("She has 16 - 3 = <<16-3=13>>13 eggs.\\nA: 13")["equations"]
    '16-3=13\\nA: 13'
    """
    result = RESULT.search(worked)
    lines = [mark.replace(" ", "") for mark in MARK.findall(worked)]
    return {
        "as written": worked,
        "plain": MARK.sub("", worked),
        "equations": "\n".join([*lines, *([result[0]] if result else [])]),
    }


def main() -> None:
    """Write a copy of a file with three more fields in each row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.file.read_text().splitlines() if line.strip()]
    for row in rows:
        row |= renderings(row.get("ground_truth") or row["answer"])
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{options.out}: {len(rows):,} rows")


if __name__ == "__main__":
    main()
