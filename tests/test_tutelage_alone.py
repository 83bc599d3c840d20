"""`import tutelage` in a process of its own: among files that are called like our packages, in a script
without a guard, and without what the extras bring.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import own_packages
from cluster.extras import EXTRAS
from jobs import search_path
from jobs.miniature.tasks import draw_episodes, work_out
from tests.conftest import write_jsonl
from tests.runs import ROOT

BLOCKED = f"""
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):  # as if nothing that an extra brings were installed
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(set(EXTRAS) - {"httpx2"})!r}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""
IN_MEMORY = """
import json, warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import tutelage
questions, answers, references, student = json.load(open("given.json"))
costs = tutelage.score(student, questions, answers)
verdicts = tutelage.verify(answers, references, method="exact")
chosen = tutelage.choose(costs.merge(verdicts[["answer_id", "verdict"]]))
try:
    tutelage.run("mine.yaml")
except tutelage.BadInput as error:
    said = str(error)
with open("ran", "a") as file:  # a script that is run again by a child writes here twice
    file.write("x")
print(json.dumps([len(chosen), [str(w.message) for w in told], said, sorted(sys.modules)]))
"""


def python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.long
def test_score_choose_and_verify_in_a_folder_of_hostile_names_without_any_extra(
    tmp_path: Path, tiny_model: Path, small_world: dict[str, Any]
) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(small_world))
    episodes = draw_episodes(3, seed=4)
    answers = {d: [work_out(e, d) for e in episodes] for d in ("equations", "wordy")}
    given = [[e.question for e in episodes], answers, [e.result for e in episodes], str(tiny_model)]
    (tmp_path / "given.json").write_text(json.dumps(given))
    (tmp_path / "training").mkdir()
    for name in ("selection.py", "jobs.py", "training/__init__.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "cluster").mkdir()  # a folder of data hides nothing
    (tmp_path / "script.py").write_text(BLOCKED + IN_MEMORY)
    done = python(tmp_path, "script.py")
    assert done.returncode == 0, done.stderr
    count, told, said, modules = json.loads(done.stdout.splitlines()[-1])
    assert count == 3
    assert (tmp_path / "ran").read_text() == "x"
    hidden = [line.split("`")[1].removeprefix("import ") for line in told if "now gives tutelage's" in line]
    assert sorted(hidden) == ["jobs", "selection", "training"]
    assert not {"ray", "deepspeed", "peft", "datasets", "matplotlib"} & set(modules)
    assert "pip install 'tutelage[cluster,train]'" in said


@pytest.mark.parametrize("package", own_packages.PACKAGES)
def test_a_module_of_such_a_name_that_was_imported_before_is_named(tmp_path: Path, package: str) -> None:
    (tmp_path / f"{package}.py").write_text("")
    done = python(tmp_path, "-c", f"import {package}, tutelage")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"a module `{package}` was imported before tutelage, from {tmp_path / package}.py" in last
    assert f"expected tutelage's own, {ROOT / package}" in last


def test_both_lists_of_our_packages_are_one() -> None:
    assert (search_path.PACKAGES, search_path.OURS) == (own_packages.PACKAGES, own_packages.OURS)


def test_a_directory_without_code_hides_no_package(tmp_path: Path) -> None:
    for package in own_packages.PACKAGES:
        (tmp_path / package).mkdir()
    done = python(tmp_path, "-W", "error", "-c", "import tutelage, selection; print(selection.__file__)")
    assert done.stdout.strip() == str(ROOT / "selection" / "__init__.py"), done.stderr


NEEDS: list[tuple[list[str], str]] = [
    (["quickstart"], "[cluster,train]"),
    (["run", "mine.yaml", "ray.address=auto"], "[cluster]"),
    (["sweep", "mine.yaml", "sweep.parameters={train.epochs: [1, 2]}"], "[cluster"),
    (["miniature", "--out", "w"], "[cluster,train]"),
    (["submit", "mine.yaml", "--address", "http://127.0.0.1:1"], "[cluster]"),
    (["status", "job", "--address", "http://127.0.0.1:1"], "[cluster]"),
    (["verify", "--answers", "a.jsonl", "--out", "b.jsonl"], ""),
]


@pytest.mark.long
def test_every_command_names_the_extra_that_it_lacks(tmp_path: Path, small_world: dict[str, Any]) -> None:
    """All of them in one child that forks, since what they import takes seconds."""
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(small_world))
    write_jsonl(tmp_path / "a.jsonl", [{"answer": "A: 3", "reference": "3"}])
    program = BLOCKED + (
        "import json, os\n"
        "from jobs.commands import main\n"
        "for number, command in enumerate(json.load(open('commands.json'))):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        sys.argv = ['tutelage', *command]\n"
        "        for target, name in ((1, 'out'), (2, 'err')):\n"
        "            os.dup2(os.open(f'{number}.{name}', os.O_CREAT | os.O_WRONLY), target)\n"
        "        main()\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    (tmp_path / "commands.json").write_text(json.dumps([command for command, _ in NEEDS]))
    (tmp_path / "program.py").write_text(program)
    assert python(tmp_path, "program.py").returncode == 0
    for number, (command, extra) in enumerate(NEEDS):
        said = (tmp_path / f"{number}.err").read_text().splitlines()
        if extra:
            assert len(said) == 1, (command, said)
            assert "not installed" in said[0], command
            assert f"pip install 'tutelage{extra}" in said[0], command
        else:
            assert said == [], (command, said)
    assert json.loads((tmp_path / "b.jsonl").read_text())["verdict"] == "correct"


def test_the_types_are_of_the_names_that_there_are() -> None:
    import tutelage

    typed = {line.split(" as ")[1] for line in (ROOT / "tutelage.pyi").read_text().splitlines()}
    assert typed == {*tutelage.__all__, "__version__"}
    assert all(getattr(tutelage, name) is not None for name in typed)


@pytest.mark.slow
def test_a_script_runs_an_experiment_on_a_ray_of_its_own(small_world: dict[str, Any], tmp_path: Path) -> None:
    """As a notebook does: no command line, no guard around the script, a Ray that starts and ends with it."""
    tree = small_world | {"train": {"steps": 1, "batch_size": 8, "learning_rate": 1e-3}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "script.py").write_text(
        "import tutelage\n"
        "results = tutelage.run('mine.yaml', verbose=False)\n"
        "import ray\n"
        "assert not ray.is_initialized()\n"
        "print(results.arms[['arm', 'value']].to_json())\n"
    )
    done = python(tmp_path, "script.py")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert sorted(told["arm"].values()) == ["scas", "strongest"]
    assert all(0 <= value <= 1 for value in told["value"].values())
    read = python(tmp_path, "-c", "import tutelage; print(len(tutelage.read_results('small').questions))")
    assert int(read.stdout) > 0, read.stderr
