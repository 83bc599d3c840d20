"""How a student's own rollouts are drawn and shown to its teacher, for arms of kind `ogls_sd`."""

from pydantic import Field, field_validator

from jobs.experiment.section import Section

QUESTION_SLOT, SLOT = "{question}", "{solution}"
SHOWN = r"""{question}

Here is a reference solution to this problem:
=== Reference Solution Begin ===
{solution}
=== Reference Solution End ===
After understanding the reference solution, solve the problem anew in your own words, without copying it.
Reason step by step, and put the final answer in \boxed{}."""
WRONG = r"""{question}

Here is an attempt at this problem that ended in a wrong answer:
=== Attempt Begin ===
{solution}
=== Attempt End ===
Solve the problem anew. Reason step by step, and put the final answer in \boxed{}."""


class Rollouts(Section):
    """Each round draws `questions` questions by the seed, the same for all arms, and asks the student each
    `group` times; arms that still have the same student share rollouts and verdicts.

    A round trains for `steps_per_round` steps of `train.batch_size` rollouts, all rounds on one optimizer.
    `scored_tokens`: of a rollout, only so many are read by the teacher and trained on; its whole text still
    serves as a context. `max_length`: of a context with a rollout. `template` shows a solution in the
    teacher's prompt, `wrong_template` an attempt that is said to be wrong. `solution_field`: where a row of
    the questions' file keeps a worked solution.

    `check_questions`: before anything is trained, so many questions tell whether the student can read
    solutions at all; 0 skips the check. It must be right more often with a solution in its prompt, and its
    distributions must move by `least_kl` nats a token.
    """

    group: int = Field(8, ge=2)
    questions: int = Field(64, ge=1)
    steps_per_round: int = Field(8, ge=1)
    temperature: float = Field(1.1, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)
    scored_tokens: int = Field(1024, ge=1)
    max_length: int | None = Field(None, ge=8)
    shard_size: int = Field(64, ge=1)
    template: str = SHOWN
    wrong_template: str = WRONG
    solution_field: str | None = None
    check_questions: int = Field(64, ge=0)
    least_kl: float = Field(0.01, ge=0)

    @field_validator("template", "wrong_template")
    @classmethod
    def _shows_both(cls, value: str) -> str:
        if SLOT not in value or QUESTION_SLOT not in value:
            raise ValueError(f"a template needs {QUESTION_SLOT} and {SLOT}")
        return value
