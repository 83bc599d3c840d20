"""Where questions come from: files of the user, and where their rows keep things."""

from pydantic import Field

from jobs.experiment.section import Section


class Fields(Section):
    """Where a row keeps things, as dotted paths (`model_a.solution`). None: the first of the usual names that
    is there; `method`, how a question's answers are checked, has no usual name, and neither has `cluster`:
    what questions have in common that are not independent, such as the passage that they are about.
    """

    id: str | None = None
    question: str | None = None
    reference: str | None = None
    answer: str | None = None
    system: str | None = None
    teacher: str | None = None
    method: str | None = None
    cluster: str | None = None


class QuestionSet(Section):
    """Questions to train from, and held-out ones to evaluate on: JSONL, JSON or Parquet files, directories
    that `datasets` saved, `hub:OWNER/NAME?name=CONFIG&split=SPLIT&revision=REVISION`, or `miniature:NAME`.

    `train_rows` and `evaluate_rows` take a slice `start:stop` of the questions that were read from the file,
    so that one file can serve both. Refused and repeated rows do not count.
    Questions that are nearly the same on both sides are refused unless `allow_overlap` is set; they are
    counted in the report then.
    """

    train: str
    evaluate: str
    train_rows: str | None = Field(None, pattern=r"^\d*:\d*$")
    evaluate_rows: str | None = Field(None, pattern=r"^\d*:\d*$")
    train_fields: Fields = Fields()
    evaluate_fields: Fields = Fields()
    system: str | None = None
    skip_broken_lines: bool = False
    allow_overlap: bool = False
