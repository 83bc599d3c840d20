"""Where questions come from: files of the user, and where their rows keep things."""

from pydantic import Field

from jobs.experiment.section import Section


class Fields(Section):
    """Where a row keeps things, as dotted paths (`model_a.solution`). None: the first of the usual names that
    is there.
    """

    id: str | None = None
    question: str | None = None
    reference: str | None = None
    answer: str | None = None
    system: str | None = None


class QuestionSet(Section):
    """Questions to train from, and held-out ones to evaluate on: JSONL, JSON or Parquet files, or
    `miniature:NAME`.

    `train_rows` and `evaluate_rows` take a slice `start:stop` of the file, so that one file can serve both.
    """

    train: str
    evaluate: str
    train_rows: str | None = Field(None, pattern=r"^\d*:\d*$")
    evaluate_rows: str | None = Field(None, pattern=r"^\d*:\d*$")
    train_fields: Fields = Fields()
    evaluate_fields: Fields = Fields()
    system: str | None = None
    skip_broken_lines: bool = False
