"""docs/settings.md is what the classes that check an experiment's file say."""

from pathlib import Path

from jobs.experiment.reference import page


def test_the_page_of_settings_is_up_to_date() -> None:
    """`python -m jobs.experiment.reference > docs/settings.md` writes it anew."""
    assert Path("docs/settings.md").read_text(encoding="utf-8") == page()


def test_the_page_has_keys_of_every_kind_and_no_path_of_a_machine() -> None:
    text = page()
    for key in ("`lambda`", "`evaluate_fields`", "`target_modules`", "`requests_per_minute`", "`loguniform`"):
        assert key in text
    for kind in ("select", "ogls_sd", "arte", "training_wheels", "route", "file", "endpoint", "server"):
        assert f"`kind: {kind}`" in text
    assert "/bin/python" not in text
