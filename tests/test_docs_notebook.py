"""The notebook in docs/, cell by cell, and the lines of Python in the README."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.runs import ROOT

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_notebooks_cells_run_and_it_holds_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(cells)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for cell in cells:
            exec("".join(cell["source"]), names)
    chosen, verdicts = names["chosen"], names["verdicts"]
    assert verdicts["verdict"].value_counts().to_dict() == {"correct": 22, "wrong": 1, "unparsed": 1}
    assert chosen["question_id"].tolist() == [str(k) for k in range(12)]
    assert chosen["teacher"].tolist()[3] == "wordy"
    assert chosen["teacher"].tolist()[7] == "brief"


def test_the_readmes_lines_of_python_run(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = re.search(r"^## Python\n.*?^```python\n(.*?)^```$", README, re.M | re.S)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small").symlink_to(tiny_model)
    names: dict[str, Any] = {}
    exec(found[1], names)
    assert names["chosen"]["answer"].tolist() == ["The answer is 12.", "A: 1/2"]
