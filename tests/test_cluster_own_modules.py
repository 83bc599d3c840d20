"""A user's own function: found beside the experiment, whatever its file is called, and never a library."""

import json
import os
import statistics
import sys
from pathlib import Path

import pytest

import selection
from cluster.errors import BadInput
from cluster.own_modules import FOLDERS, SAFE_PATH, inherited, keep_own_modules, own_folders
from selection import checking
from selection.checking import Verifier, process_verifier
from selection.verification import VerifySettings, load_function

CHECK = "def check(answer, reference):\n    return answer == reference\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own modules."""
    monkeypatch.setenv(FOLDERS, "[]")
    monkeypatch.setattr(sys, "path", list(sys.path))
    keep_own_modules([tmp_path])
    return tmp_path


@pytest.mark.parametrize(
    ("file", "function"),
    [
        *(
            (f"{name}.py", f"{name}:check")
            for name in ("checks", "statistics", "selection", "torch", "random")
        ),
        ("tokenizers/mine.py", "tokenizers.mine:check"),
        ("training/__init__.py", "training:check"),
        ("training/__init__.py", "training.inner:check"),
        ("a/b/c.py", "a.b.c:check"),
    ],
)
def test_a_function_is_found_whatever_its_file_is_called(own: Path, file: str, function: str) -> None:
    (own / file).parent.mkdir(parents=True, exist_ok=True)
    (own / file).write_text(CHECK)
    if "inner" in function:
        (own / "training" / "inner.py").write_text("from . import check as outer\n\n\ncheck = outer\n")
    check = load_function(function)
    assert check("a", "a")
    assert not check("a", "b")
    assert check.__code__.co_filename == str(own / file)
    assert sys.modules["statistics"] is statistics
    assert sys.modules["selection"] is selection


def test_siblings_are_imported_and_libraries_stay_what_they_are(own: Path) -> None:
    """A sibling named like a library's module is not imported in its place, by anybody."""
    (own / "neighbour_of_checks.py").write_text("WORD = 'yes'\n")
    (own / "colorsys.py").write_text("raise SystemExit('shadowed')\n")
    (own / "mine.py").write_text(
        "import colorsys\nfrom dataclasses import dataclass\nfrom neighbour_of_checks import WORD\n\n\n"
        "@dataclass\nclass Answer:\n    text: str\n\n\n"
        "def check(answer, reference):\n"
        "    return Answer(answer).text == WORD and bool(colorsys.rgb_to_hls)\n"
    )
    assert load_function("mine:check")("yes", "")


def test_an_installed_function_is_taken_where_the_user_has_none(own: Path) -> None:
    assert load_function("operator:eq") is __import__("operator").eq
    (own / "operator").mkdir()  # a folder of data is no module
    assert load_function("operator:ne") is __import__("operator").ne


def test_folders_of_the_same_names_are_told_apart(own: Path, tmp_path: Path) -> None:
    for word in ("one", "two"):
        (tmp_path / word).mkdir()
        (tmp_path / word / "checks.py").write_text(f"def check(answer, reference):\n    return '{word}'\n")
    found = []
    for word in ("one", "two"):
        keep_own_modules([tmp_path / word, tmp_path])
        found.append(load_function("checks:check")("", ""))
    assert found == ["one", "two"]
    assert json.loads(inherited()[FOLDERS]) == [str(tmp_path / "two"), str(tmp_path)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise SystemExit('not today')", "SystemExit: not today"),
        ("1 / 0", "ZeroDivisionError"),
        ("def check(:", "SyntaxError"),
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("other = 1", "has no attribute 'check'"),
        ("check = 1", "not callable"),
    ],
)
def test_what_a_users_module_dies_of_is_told(own: Path, text: str, told: str) -> None:
    (own / "checks.py").write_text(text + "\n")
    for _ in range(2):  # a module that failed is not left half loaded
        with pytest.raises(BadInput, match=told):
            load_function("checks:check")


def test_an_edited_module_is_imported_again_in_a_process_that_goes_on(own: Path) -> None:
    """A notebook. A parameter `row` that was added made every answer an error of the check."""
    file = own / "edited.py"
    file.write_text("def check(answer, reference):\n    return answer == reference\n")
    settings = VerifySettings("function", function="edited:check")
    assert process_verifier(settings).check("7", "7").state == "correct"
    file.write_text("def check(answer, reference, row):\n    return False  # from now on\n")
    assert process_verifier(settings).check("7", "7", "{}").state == "wrong"
    file.write_text("def other(answer, reference):\n    return True\n")
    with pytest.raises(BadInput, match="has no attribute 'check'"):
        process_verifier(settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import os\nos.mkdir('made')", "FileExistsError"),
        ("import os\nif os.environ.get('PARENT') != str(os.getpid()):\n    os._exit(3)", "ended meanwhile"),
        (
            "import os, time\nif os.environ.get('PARENT') != str(os.getpid()):\n    time.sleep(99)",
            "took longer",
        ),
    ],
)
def test_a_module_that_can_be_imported_only_once_is_told(
    own: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setenv("PARENT", str(os.getpid()))
    monkeypatch.setattr(checking, "START_S", 20.0 if "sleep" not in text else 5.0)
    monkeypatch.chdir(own)
    (own / "once.py").write_text(text + "\ndef check(answer, reference):\n    return True\n")
    verifier = Verifier(VerifySettings("function", function="once:check"))
    with pytest.raises(BadInput, match=told):
        verifier.check("7", "7")
    verifier.close()


@pytest.mark.parametrize("function", ["", ":", "checks", ":check", "..:check", "no.such:thing"])
def test_what_names_no_function_is_refused(own: Path, function: str) -> None:
    (own / "checks.py").write_text(CHECK)
    with pytest.raises(BadInput, match=r"verify\.function"):
        load_function(function)


def test_without_a_word_the_current_folder_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDERS, raising=False)
    monkeypatch.chdir(tmp_path)
    assert own_folders() == [tmp_path]


def test_the_checking_process_takes_nothing_from_the_current_folder_and_its_children_may(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child process began its search in the current folder; a function that starts Python itself, as checks
    of programs do, still finds what lies beside its script.
    """
    for name in ("queue", "selection", "struct", "pickle", "multiprocessing"):
        (own / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    (own / "solution.py").write_text("print(6 * 7)\n")
    (own / "program.py").write_text("import solution\n")
    (own / "statistics.py").write_text(
        "import subprocess\nimport sys\n\n\ndef check(answer, reference):\n"
        "    done = subprocess.run([sys.executable, 'program.py'], capture_output=True, text=True)\n"
        "    return done.stdout.strip() == answer\n"
    )
    monkeypatch.chdir(own)
    monkeypatch.setenv(SAFE_PATH, "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with Verifier(VerifySettings("function", function="statistics:check")) as verifier:
        assert verifier.check("42", "").state == "correct"
        assert verifier.check("43", "").state == "wrong"
    assert os.environ[SAFE_PATH] == "1"
