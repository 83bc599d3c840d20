"""How a student practises to call for help, for arms of kind `training_wheels`."""

from pydantic import Field, field_validator, model_validator

from jobs.experiment.section import Section

SLOT = "{budget}"


class Wheels(Section):
    """Round 1 clones a teacher's own answers, in which calls stand for some tokens. Each later round rolls
    the student out under every budget, and trains it by path consistency.

    `budgets` are calls per 100 written tokens. Each stands as a sentence before the question: `sentence`,
    or `no_help` for 0. `help` is the token that calls. Round 1 asks `cloning_questions` questions, drawn by
    the seed, each later round the next `questions` of them. `samples`: answers of the teacher to each
    question. A later round trains for `steps_per_round` steps, with `learning_rate` if it is not that of
    `train`, on the student's own rollouts and on as many of the teacher's answers (times `samples`).

    Each budget has a price per call. It begins at ln((1 - b) / b), which is right for a student that could
    be the teacher itself. After each round it changes by `price_rate` times how far calls were from the
    budget. `floor`: the least reward of a token, in nats.

    `controls`: after the last round students also answer under a hard limit on calls; and with calls at a
    share of the tokens that is the budget: where their help token is likeliest, at random, where they are
    unsure, and where they are farthest from the teacher.
    """

    budgets: tuple[int, ...] = (0, 5, 10, 20, 40)
    sentence: str = "You may ask for help on at most {budget} in 100 tokens."
    no_help: str = "You may not ask for help."
    help: str = "<help>"
    questions: int = Field(64, ge=1)
    samples: int = Field(1, ge=1)
    cloning_questions: int = Field(400, ge=1)
    steps_per_round: int = Field(16, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    price_rate: float = Field(2.0, ge=0)
    floor: float = Field(-10.0, lt=0)
    max_new_tokens: int = Field(240, ge=1)
    shard_size: int = Field(64, ge=1)
    controls: bool = True

    @field_validator("budgets")
    @classmethod
    def _are_budgets(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)) or len(value) < 2 or value[0] != 0:
            raise ValueError(
                "budgets are numbers of calls per 100 tokens, ascending: 0, with which students are "
                "compared, and at least one more"
            )
        if value[-1] >= 50:
            raise ValueError(
                f"a budget of {value[-1]} in 100 would need a price below 0: a student that could be the "
                "teacher calls for half of its tokens when calls are free; choose budgets below 50"
            )
        return value

    @field_validator("sentence")
    @classmethod
    def _shows_the_budget(cls, value: str) -> str:
        if SLOT not in value:
            raise ValueError(f"the sentence needs {SLOT}")
        return value

    @model_validator(mode="after")
    def _tells_apart(self) -> "Wheels":
        told = [self.told(b) for b in self.budgets]
        if len(set(told)) < len(told):
            raise ValueError("two budgets have the same sentence")
        if not self.help.strip():
            raise ValueError("help is the text of a token, such as <help>")
        return self

    def told(self, budget: int) -> str:
        """The sentence of a budget."""
        return self.no_help if budget == 0 else self.sentence.replace(SLOT, str(budget))
