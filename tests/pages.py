"""What tests of the pages share."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def words(path: str) -> str:
    """A page on one line, with plain minus signs."""
    return re.sub(r"\s+", " ", (ROOT / path).read_text().replace("−", "-"))
