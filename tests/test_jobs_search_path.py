"""Start-up: nobody's files shadow ours, Python's or a library's, and a package from elsewhere is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.search_path import OURS, PACKAGES
from tests.conftest import write_jsonl

HOSTILE = (
    *PACKAGES,
    *("random", "queue", "statistics", "types", "logging", "typing", "struct", "pickle", "multiprocessing"),
    *("numpy", "torch", "yaml", "pandas", "typer", "rich", "math_verify", "tokenizers/__init__"),
)
CONSOLE = "import sys; sys.argv[0] = sys.executable; from jobs.__main__ import main; main()"
SHOWN = "import json; from jobs.search_path import protect_search_path; protect_search_path(); " + (
    "import os, sys; print(json.dumps([sys.path, os.environ.get('PYTHONPATH')]))"
)


def python(*arguments: str, cwd: Path, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Python as a user starts it, with PYTHONPATH as given."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    environment |= {} if path is None else {"PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=200, cwd=cwd, env=environment, check=False
    )


def test_hostile_names_in_the_current_folder_change_nothing(tmp_path: Path) -> None:
    """A script's folder comes first in the search, as it does for the console command: here it is the
    current one too, full of such files.
    """
    rows = [{"id": str(n), "question": "?", "answer": f"A: {n}", "reference": "1"} for n in range(3)]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    begin = "import os, sys; here = os.getcwd(); sys.path.remove(''); import jobs.__main__ as m; "
    begin += "sys.path.insert(0, here); sys.argv[0] = os.path.join(here, 'tutelage'); m.main()"
    for name in HOSTILE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('shadowed by {name}')\n")
    done = python("-c", begin, "verify", "--answers", "answers.jsonl", "--out", "checked.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checked = [json.loads(line) for line in (tmp_path / "checked.jsonl").read_text().splitlines()]
    assert [row["verdict"] for row in checked] == ["wrong", "correct", "wrong"]


@pytest.mark.parametrize("given", [None, "", ":", "{other}", "{other}:", ":{other}", ".", "{here}:{other}"])
def test_the_current_folder_is_nowhere_before_the_library(tmp_path: Path, given: str | None) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    here.mkdir()
    other.mkdir()
    path = None if given is None else given.format(here=here, other=other)
    done = python("-c", SHOWN, cwd=here, path=path)
    assert done.returncode == 0, done.stderr
    search, left = json.loads(done.stdout)
    assert not {str(here), ""} & set(search)
    assert (str(other) in search) == ("other" in (given or ""))
    assert left == (str(other) if "other" in (given or "") else None)


def test_a_clone_that_is_not_installed_finds_its_own_packages(tmp_path: Path) -> None:
    """Started in it with -m, its packages are found through the current folder alone."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("")
    (tmp_path / "jobs" / "search_path.py").write_text((OURS / "jobs" / "search_path.py").read_text())
    (tmp_path / "jobs" / "__main__.py").write_text(SHOWN)
    done = python("-m", "jobs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0][-1] == str(tmp_path)
    assert json.loads(done.stdout)[0][0] != str(tmp_path)


@pytest.mark.parametrize("package", ["cluster", "selection", "training"])
def test_the_users_own_modules_do_no_harm_where_the_path_names_the_current_folder(
    tmp_path: Path, package: str
) -> None:
    (tmp_path / f"{package}.py").write_text("raise SystemExit('imported')\n")
    for given in (".", f"{tmp_path}", f":{tmp_path}:"):
        done = python("-c", CONSOLE, "--version", cwd=tmp_path, path=given)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["cluster", "selection", "training"])
def test_a_package_that_comes_from_elsewhere_is_named(tmp_path: Path, package: str) -> None:
    """One line with both paths and what to do, before anything of it is imported."""
    (tmp_path / f"{package}.py").write_text("raise SystemExit('imported')\n")
    done = python("-c", CONSOLE, "--version", cwd=OURS, path=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert f"`{package}` from {tmp_path / package}.py" in line
    assert f"expected tutelage's own, {OURS / package}; take that folder out of PYTHONPATH" in line


def test_a_signal_ends_in_one_line_with_130_and_later_ones_do_not_disturb_the_end(tmp_path: Path) -> None:
    """Any of the three, at any command, also one that keeps nothing: it comes while a door is at work, and
    all come again while that cleans up.
    """
    (tmp_path / "program.py").write_text(
        "import os, signal, sys, time\n"
        "from jobs import commands\n\n\n"
        "@commands.app.command()\n"
        "@commands.told_when_interrupted\n"
        "def work(number: int) -> None:\n"
        "    try:\n"
        "        os.kill(os.getpid(), number)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        for again in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):\n"
        "            os.kill(os.getpid(), again)\n"
        "        print('cleaned up', flush=True)\n\n\n"
        "from jobs.__main__ import main\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        "    signal.signal(number, signal.SIG_DFL)\n"  # whoever starts the tests may ignore it, as nohup does
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        sys.argv = ['tutelage', 'work', str(int(number))]\n"
        "        main()\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n"
    )
    done = python("program.py", cwd=tmp_path)
    assert done.stdout.split("\n") == [*["cleaned up", "130"] * 3, ""], done.stderr
    assert done.stderr == "tutelage: interrupted; run the same command again\n" * 3
