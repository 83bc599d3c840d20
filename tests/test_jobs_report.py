"""The report: hostile text stays text, no network, and a real browser shows it."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from cluster.storage import Place
from jobs.doors.results import make_results
from jobs.experiment.parsing import parse_experiment
from jobs.report.claims import claim_lines
from jobs.report.lineage import in_pages
from jobs.report.run import render_report, write_report
from jobs.results.summary import Results, summarise, write_results
from jobs.study.published import compared_again
from tests.conftest import make_small_world
from tests.patience import wait_until
from tests.runs import open_here, run

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> $5_$6"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def world(tiny_model: Path, folder: Path) -> dict[str, Any]:
    """A run whose teacher, answers and families carry markup."""
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
    return world


@pytest.fixture(scope="module")
def results(world: dict[str, Any], folder: Path) -> Results:
    """What came of it."""
    return summarise(*run(world, folder))


@pytest.fixture(scope="module")
def page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report."""
    return write_report(results, Place(str(tmp_path_factory.mktemp("page")))).path


def test_untrusted_text_is_escaped_and_nothing_is_loaded_from_elsewhere(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    # the page's own: its data, and one script, which its policy knows by its hash
    assert [part.partition(">")[0] for part in html.split("<script")[1:]] == [
        ' type="application/json" id="lineage-data"',
        "",
    ]
    code = html.rpartition("<script>")[2].partition("</script>")[0]
    known = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{known}'" in html
    )
    assert "innerHTML" not in code
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    for word in ("http://", "https://", "src=", "@import", "url("):
        outside = [
            m
            for m in html.split(word)[1:]
            if not m.startswith(("www.w3.org", "purl.org", "creativecommons.org", "matplotlib.org", "#"))
        ]
        assert not [m for m in outside if word not in ("src=",) or "onerror" not in m], (word, outside[:1])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser, driven as a user would."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its driver here (Debian packages chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


def test_a_browser_shows_every_section_from_the_disk_and_runs_nothing_of_others(
    page: Path, browser: Any
) -> None:
    browser.get(page.as_uri())
    assert browser.title == "tutelage · small"  # no script of the hostile text has run
    shown = {section.get_attribute("id") for section in browser.find_elements("css selector", "section")}
    wanted = {"verdict", "arms", "lineage", "chosen", "agreement", "costs", "teachers", "ledger", "timings"}
    assert shown >= {*wanted, "experiment"}
    assert len(browser.find_elements("css selector", "svg")) >= 3
    assert browser.get_log("browser") == []
    for link in browser.find_elements("css selector", "nav a"):
        assert link.get_attribute("href").partition("#")[2] in shown


def test_a_click_on_a_trained_row_tells_where_it_comes_from(
    page: Path, results: Results, browser: Any
) -> None:
    browser.get(page.as_uri())
    wait_until(lambda: len(browser.find_elements("css selector", "#l-list li button")) == 24, 30)
    rows = browser.find_elements("css selector", "#l-list li button")
    rows[0].send_keys(Keys.ENTER)  # by keyboard
    wait_until(lambda: browser.find_elements("css selector", "#l-list li .detail"), 30)
    detail = browser.find_element("css selector", "#l-list li .detail")
    traced = next(q for q in results.lineage.questions if q.turns[0]["content"] in detail.text)
    which = next(k for k, p in enumerate(results.lineage.paths) if p.arm == "scas")
    (taken,) = traced.chosen[which]
    answer = next(a for a in traced.answers if a.id == taken[0])
    why = detail.find_element("css selector", ".why").text
    assert why.startswith(f"scas took the answer of {answer.teacher}: drawn from group 1 of 2 by scas")
    assert "scored by kid, before training" in why
    assert f"train/{results.lineage.paths[which].trained}" in why
    table = detail.find_element("css selector", "table")
    cells = [
        [td.text for td in tr.find_elements("css selector", "td")]
        for tr in table.find_elements("css selector", "tr")
    ]
    assert cells[1][0] == answer.teacher  # the one that was taken is first
    assert float(cells[1][2]) == pytest.approx(answer.costs[0], rel=1e-3)
    assert len(cells) == 1 + len(traced.answers)
    assert {row[1].partition(":")[0] for row in cells[1:]} == {a.state for a in traced.answers}
    rows[0].click()
    wait_until(lambda: browser.find_elements("css selector", "#l-list li .detail") == [], 30)


def test_filters_show_the_questions_that_they_say(page: Path, results: Results, browser: Any) -> None:
    def count() -> int:
        return len(browser.find_elements("css selector", "#l-list li"))

    browser.get(page.as_uri())
    lineage = results.lineage
    which = next(k for k, p in enumerate(lineage.paths) if p.arm == "scas")
    own = {q.id: next(a for a in q.answers if a.id == q.chosen[which][0][0]) for q in lineage.questions}
    teacher = Select(browser.find_element("id", "l-teacher"))
    for name in ("ann", "cat"):
        teacher.select_by_visible_text(name)
        assert count() == sum(a.teacher == name for a in own.values())
    teacher.select_by_index(0)
    family = Select(browser.find_element("id", "l-family"))
    family.select_by_visible_text("dial")
    assert count() == sum(q.family == "dial" for q in lineage.questions) > 0
    family.select_by_index(0)
    browser.find_element("id", "l-words").send_keys("owned")  # hostile text is found, and stays text
    assert count() == 1
    browser.find_element("css selector", "#l-list li button").click()
    assert HOSTILE in browser.find_element("css selector", ".detail").text
    assert browser.title == "tutelage · small"
    arm = Select(browser.find_element("id", "l-arm"))
    arm.select_by_visible_text("strongest")
    assert count() == 1
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, True)])
def test_it_fits_a_phone_and_a_dark_room(page: Path, browser: Any, width: int, dark: bool) -> None:
    about = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", about)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    ink, paper = (
        browser.execute_script(f"return getComputedStyle(document.querySelector('{where}')).{what}")
        for where, what in (("svg text, svg use, svg path", "color"), ("section", "backgroundColor"))
    )
    bright = [sum(int(x) for x in re.findall(r"\d+", colour)[:3]) for colour in (ink, paper)]
    assert (bright[0] > bright[1]) == dark
    assert abs(bright[0] - bright[1]) > 300
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_lineage_too_large_for_one_page_lies_in_pages_beside_it(
    results: Results, tmp_path: Path, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.report.run.in_pages", lambda lineage: in_pages(lineage, 9_000))
    (tmp_path / "lineage-077.html").write_text("of an earlier report")
    page = write_report(results, Place(str(tmp_path))).path
    beside = sorted(tmp_path.glob("lineage-*.html"))
    assert 1 < len(beside) < 30
    browser.get(page.as_uri())
    seen = len(browser.find_elements("css selector", "#l-list li"))
    for number, other in enumerate(beside):
        browser.find_element("css selector", f".pages a[href='{other.name}']").click()
        wait_until(lambda: browser.title.startswith("tutelage · small, lineage"), 30)
        wait_until(lambda: browser.execute_script("return document.readyState") == "complete", 30)
        assert browser.title == f"tutelage · small, lineage {number + 1}"
        rows = browser.find_elements("css selector", "#l-list li button")
        rows[0].click()
        wait_until(lambda: browser.find_elements("css selector", ".detail"), 30)
        assert "took the answer of" in browser.find_element("css selector", ".detail").text
        seen += len(rows)
    assert seen == 24
    browser.find_element("css selector", "a[href^='report.html']").click()
    assert browser.title == "tutelage · small"
    assert browser.get_log("browser") == []


def test_ten_thousand_long_answers_stay_within_ten_megabytes_a_page(results: Results, tmp_path: Path) -> None:
    first = results.lineage.questions[0]
    answers = [replace(a, text="x" * 1500) for a in first.answers]
    many = [replace(first, id=f"q{k}", answers=(answers * 4)[:10]) for k in range(1000)]
    whole = replace(results, lineage=replace(results.lineage, questions=many))
    page = write_report(whole, Place(str(tmp_path))).path
    sizes = [file.stat().st_size for file in [page, *tmp_path.glob("lineage-*.html")]]
    assert len(sizes) > 1
    assert max(sizes) < 10_000_000


def test_teachers_are_ranked_by_what_right_answers_of_shared_questions_cost(
    results: Results, page: Path, tmp_path: Path
) -> None:
    (student,) = results.rankings
    ranking = results.rankings[student]
    assert 0 < ranking.questions < 24
    costs = results.costs.assign(question=results.costs["answer_id"].str.split("/").str[1])
    answered = costs.groupby("question")["teacher"].nunique()
    shared = costs[costs["question"].isin(answered.index[answered == costs["teacher"].nunique()])]
    assert shared["question"].nunique() == ranking.questions
    means = shared.groupby("teacher")["scas"].mean().sort_values()
    assert ranking.primary["teacher"].tolist() == means.index.tolist()
    assert ranking.primary["mean"].tolist() == pytest.approx(means.tolist())
    text = page.read_text()
    assert '<section id="ranking">' in text
    assert f"by scas, {ranking.questions} questions" in text
    write_results(results, Place(str(tmp_path)))
    kept = json.loads((tmp_path / "results.json").read_text())["ranking"][student]
    assert [row["teacher"] for row in kept if row["cost"] == "scas"] == means.index.tolist()


def test_the_report_is_the_same_page_when_written_again(results: Results) -> None:
    assert render_report(results) == render_report(results)


def test_a_run_ends_with_its_claims_and_a_file_that_gives_its_comparisons_again(
    world: dict[str, Any], results: Results, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_here(world, folder) as again:  # finds everything
        make_results(again, parse_experiment(world))
    said = capsys.readouterr().out
    for text in (said, unescape((folder / "run" / "report.html").read_text())):
        assert text.count("one training seed: this compares these trained models") == 1
    found = compared_again(folder / "run" / "questions.parquet")["comparisons"]
    assert found["verdict"].tolist() == [c.verdict for _, _, c in results.comparisons]
    assert found["verdict"][0] in said


def test_the_page_says_once_what_one_seed_and_many_comparisons_cannot_claim(results: Results) -> None:
    (one,) = results.comparisons
    some = [("kid", f"arm {k}", replace(one[2], p_value=p)) for k, p in enumerate((0.004, 0.03, 0.04))]
    html = unescape(render_report(replace(results, comparisons=some)))
    for line in claim_lines(replace(results, comparisons=some)):
        assert html.count(line) == 1
    assert html.count("not the ways of choosing") == 1
    assert "(p = 0.004, corrected p = 0.012, " in html
    assert "(p = 0.040, corrected p = 0.060, " in html
    assert "corrected p" not in unescape(render_report(results))  # of one comparison
