"""The report: hostile text stays text, no network, and a real browser shows it."""

import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Place
from jobs.report.run import render_report, write_report
from jobs.results.summary import Results, summarise
from tests.conftest import make_small_world
from tests.runs import run

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def results(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What came of a run whose teacher, answers and families carry markup."""
    folder = tmp_path_factory.mktemp("report")
    world = make_small_world(folder, tiny_model)
    train = Path(world["questions"]["evaluate"])
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    train.write_text("".join(json.dumps(r | {"family": HOSTILE}) + "\n" for r in rows))
    answers = Path(world["teachers"][1]["path"])
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    rows[0]["teacher_output"] = HOSTILE + rows[0]["teacher_output"]
    answers.write_text("".join(json.dumps(r) + "\n" for r in rows))
    world["teachers"][1]["name"] = HOSTILE.replace("/", "")  # a name cannot hold a slash
    world["teachers"][1]["family"] = HOSTILE
    return summarise(*run(world, folder))


@pytest.fixture(scope="module")
def page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report."""
    return write_report(results, Place(str(tmp_path_factory.mktemp("page")))).path


def test_untrusted_text_is_escaped_and_nothing_is_loaded_from_elsewhere(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    for word in ("http://", "https://", "src=", "@import", "url("):
        outside = [
            m
            for m in html.split(word)[1:]
            if not m.startswith(("www.w3.org", "purl.org", "creativecommons.org", "matplotlib.org", "#"))
        ]
        assert not [m for m in outside if word not in ("src=",) or "onerror" not in m], (word, outside[:1])
    assert "Content-Security-Policy" in html


def test_a_browser_shows_every_section_and_runs_nothing(page: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium here (Debian package chromium)")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(page.parent), **kwargs)

        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    try:
        url = f"http://127.0.0.1:{server.server_port}/report.html"
        done = subprocess.run(
            [chromium, *flags, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True
        )
    finally:
        server.shutdown()
        server.server_close()
    dom = done.stdout
    assert "<title>tutelage · small</title>" in dom  # no script of the hostile text has run
    for section in ("verdict", "arms", "chosen", "costs", "teachers", "ledger", "timings", "experiment"):
        assert f'<section id="{section}">' in dom
    assert dom.count("<svg") >= 3
    assert {p.split("?")[0] for p in asked} <= {"/report.html", "/favicon.ico"}


def test_the_report_is_the_same_page_when_written_again(results: Results) -> None:
    assert render_report(results) == render_report(results)
