"""How a teacher writes questions and worked answers, how a student's preference among them is found, and how
the teacher is aligned to it, for arms of kind `arte`."""

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cluster.errors import BadInput
from jobs.experiment.section import Name, Section
from training.preference_settings import PreferenceSettings, check_preference
from training.settings import LoraSettings, TrainSettings

PROMPT = """{description}

Here are examples.
{examples}

Write {count} new, of the same kind and different from these. Use the same form."""
EXAMPLE = "<question>{question}</question>\n<answer>{reference}</answer>"
PATTERN = r"(?s)<question>(?P<question>.*?)</question>(?:\s*<answer>(?P<answer>.*?)</answer>)?"
DEMONSTRATION = "{question}\n{rationale}\n\n{item}"
MAJORITY = "majority"
TAGGED = "tagged"


class Align(Section):
    """How the teacher is aligned: DPO on pairs, with adapters, and how texts become pairs.

    `question_pairs`: the most for each task. `apart`: how many standard errors the two scores of a pair of
    rationales must be apart. `best`: which of several equally good rationales is taken. `per_prompt: all`
    takes every helpful rationale with every unhelpful one instead, for signal `influence`. `held_out`: the
    share of pairs that is not learned from, to see whether the preference generalises. `least_reliability`: a
    teacher is not aligned to scores that repeat worse than this, unless `force` is set.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    per_token: bool = False
    likelihood: float = 0.0
    learning_rate: float = Field(5e-6, gt=0)
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(16, ge=1)
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    micro_batch_tokens: int = Field(4096, ge=1)
    lora: LoraSettings | None = LoraSettings()
    zero_stage: Literal[0, 1, 2, 3] = 1
    question_pairs: int = Field(50, ge=0)
    pairing: Literal["random", "rank"] = "random"
    best: Literal["random", "shortest"] = "random"
    per_prompt: Literal["one", "all"] = "one"
    apart: float = Field(0.0, ge=0)
    held_out: float = Field(0.1, ge=0, lt=1)
    least_reliability: float = 0.3
    force: bool = False

    @model_validator(mode="after")
    def _in_range(self) -> "Align":
        try:
            check_preference(self.objective)
        except BadInput as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def objective(self) -> PreferenceSettings:
        """What the teacher's training minimises."""
        return PreferenceSettings(self.beta, self.label_smoothing, self.per_token, self.likelihood)

    def train(self, base: TrainSettings) -> TrainSettings:
        """The teacher's training.

        Args:
            base: the student's: precision and DeepSpeed's own settings are taken from it.
        """
        return TrainSettings(
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch_tokens=self.micro_batch_tokens,
            warmup_ratio=self.warmup_ratio,
            schedule="cosine",
            lora=self.lora,
            zero_stage=self.zero_stage,
            precision=base.precision,
            gradient_checkpointing=base.gradient_checkpointing,
            checkpoint_every=base.checkpoint_every,
            deepspeed=base.deepspeed,
        )


class Influence(Section):
    """The signal `influence` (Montessori-Instruct, arXiv 2410.14208): a student takes one optimizer step on
    one draft, and the fall of its mean loss on reference answers is the draft's score.

    `warm_steps`: steps on drafts drawn by the seed, from which every probe begins. `references`: the most
    reference answers. `form: first_order` ranks without a step, by how the draft's loss changes along the
    gradient of the reference answers.
    """

    warm_steps: int = Field(8, ge=0)
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    references: int = Field(64, ge=2)
    form: Literal["exact", "first_order"] = "exact"


class Elicit(Section):
    """`teacher` writes questions and worked answers. A task is a family of the questions in
    `questions.train`, with its description. Of each task's questions, `seeds` are shown to the teacher, and
    `validation` others say what a student prefers: of these `items` are used. None of them is trained on.

    The teacher is asked with `prompt`, in which `{description}`, `{examples}` (`shown` seeds, each written as
    `example`) and `{count}` are filled in, until a task has `questions` new ones. `pattern` finds them in its
    text by the groups `question` and `answer`. `most_calls`: how many calls a wanted question may cost.

    Each question is answered under every one of `styles`, which are system texts by name, and under `plain`,
    the system text of the naive prompt. `truth` says what the right result of a question is: `tagged` (what
    the teacher wrote), `majority` (of its rationales), or a function `module:name` of the question's text,
    with the majority where it returns None. `drafts: verified` uses only rationales with that result,
    `parsed` all whose result can be read.

    `examples`: the most that a student learns from under an arm. All arms of a student learn from as many as
    the arm that has fewest.
    """

    teacher: Name
    tasks: dict[str, str] = Field(min_length=1)
    styles: dict[Name, str] = Field(min_length=2)
    plain: str | None = None
    prompt: str = PROMPT
    example: str = EXAMPLE
    pattern: str = PATTERN
    demonstration: str = DEMONSTRATION
    shown: int = Field(3, ge=0)
    count: int = Field(1, ge=1)
    questions: int = Field(60, ge=4)
    most_calls: float = Field(3.0, ge=1)
    seeds: int = Field(20, ge=0)
    validation: int = Field(60, ge=2)
    items: int = Field(20, ge=2)
    truth: str = TAGGED
    drafts: Literal["parsed", "verified"] = "parsed"
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)
    examples: int | None = Field(None, ge=1)
    align: Align = Align()
    influence: Influence = Influence()

    @field_validator("prompt", "example", "demonstration")
    @classmethod
    def _has_known_slots(cls, value: str, info: Any) -> str:
        known, needed = SLOTS[info.field_name]
        found = slots_of(value)
        if not needed <= found <= known:
            raise ValueError(f"needs {told(needed)} and knows {told(known)}; got {told(found) or 'none'}")
        if "item" in needed and value.index("{item}") < max(map(value.index, ("{question}", "{rationale}"))):
            raise ValueError("the item comes after the demonstration")
        return value

    @field_validator("pattern")
    @classmethod
    def _finds_questions(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        if "question" not in groups:
            raise ValueError("needs a group (?P<question>...)")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "Elicit":
        if self.items > self.validation:
            raise ValueError("items are some of validation: set validation to at least items")
        written = self.example.replace("{question}", "6 x 7?").replace("{reference}", "42")
        found = re.search(self.pattern, written)
        if found is None or (found["question"] or "").strip() != "6 x 7?":
            raise ValueError(
                "pattern must find the question in example: the teacher is shown and taught to write it so"
            )
        if self.truth == TAGGED and "answer" not in re.compile(self.pattern).groupindex:
            raise ValueError("truth tagged needs a group (?P<answer>...) in pattern")
        if self.truth not in (TAGGED, MAJORITY) and ":" not in self.truth:
            raise ValueError("truth is tagged, majority, or a function module:name")
        if PLAIN in self.styles:
            raise ValueError(f"{PLAIN} is the naive prompt; name the style otherwise")
        if self.shown > self.seeds:
            raise ValueError("shown are some of seeds: set seeds to at least shown")
        if self.temperature == 0 and self.shown == 0:
            raise ValueError("one prompt at temperature 0 gives one text; set temperature or shown above 0")
        return self


PLAIN = "plain"  # the name of the naive prompt, beside those of the styles
# The slots that each template may have, and those that it needs.
SLOTS: dict[str, tuple[set[str], set[str]]] = {
    "prompt": ({"description", "examples", "count"}, {"description"}),
    "example": ({"question", "reference"}, {"question"}),
    "demonstration": ({"question", "rationale", "item"}, {"question", "rationale", "item"}),
}


def slots_of(template: str) -> set[str]:
    """The names in braces of a template."""
    return set(re.findall(r"\{([a-z_]+)\}", template))


def told(names: Iterable[str]) -> str:
    return ", ".join("{" + name + "}" for name in sorted(names))
