"""Models at one point of their life."""

import threading
from pathlib import Path

from jobs.experiment.students import Student
from jobs.stages.states import first_state

HELP = "<help>"


def test_a_renderer_is_loaded_once_for_each_rendering_and_thread(tiny_model: Path) -> None:
    state = first_state(Student(name="kid", path=str(tiny_model)))
    again = first_state(Student(name="lad", path=str(tiny_model)))
    assert state.renderer() is again.renderer()
    with_help = state.with_tokens([HELP])
    assert with_help.renderer() is not state.renderer()
    assert with_help.renderer().tokenizer.convert_tokens_to_ids(HELP) == len(state.renderer().tokenizer)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(state.renderer()))
    thread.start()
    thread.join()
    assert found[0] is not state.renderer()
