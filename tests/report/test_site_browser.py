"""The site in headless Chromium, from a file: sorting, filters, links, keyboard, dark mode, no request, no error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.report.markdown import DASH
from bench.report.render import render
from bench.report.site.build import site
from bench.report.site.command import reproduce
from bench.report.site.data import script_json, site_data
from tests.report.chromium import browser, missing
from tests.report.fixtures import ATTACKS, DEFENSES, board_records, record
from tests.report.test_site import DATA, HOSTILE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]
CELLS = 15_048
FILES = {"dataset": {"files": {"train": "datasets/train.tsv"}}}


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    hostile = record(dataset=HOSTILE, defense=HOSTILE, error=("Error", HOSTILE, HOSTILE))
    return [*board_records(), record(ratio=0.2, defense="vanilla", options=FILES), hostile]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def index(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site") / "index.html"
    path.write_text(site(records, render(records, every_table=True))["site/index.html"], encoding="utf-8")
    return path


@pytest.fixture()
def page(chromium: Any, index: Path) -> Iterator[Any]:
    """Yield a page of its own; what it logged and asked for must be nothing when the test ends."""
    context = chromium.new_context(color_scheme="light", viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    found, troubles = context.new_page(), []
    found.on("console", lambda message: troubles.append(f"console: {message.text}"))
    found.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    found.on("request", lambda request: troubles.append(request.url) if request.url.split("#")[0] != url else None)
    url = index.as_uri()
    found.goto(url)
    yield found
    assert troubles == []
    assert found.evaluate("window.hacked") is None
    context.close()


def visible(page: Any) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('main > section')].filter(s => !s.hidden).map(s => s.id)")


def column(page: Any, table: str, place: int) -> list[str]:
    script = "([t, n]) => [...document.querySelector(t).tBodies[0].rows].map(r => r.cells[n].textContent)"
    return page.evaluate(script, [table, place])


def wait(page: Any, script: str, argument: Any = None) -> None:
    """Wait for a script to be true; Playwright's own way evaluates texts in the page, which its policy forbids."""
    for _ in range(200):
        if page.evaluate(script, argument):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{script} was not true within 10 s")


def wait_for_sort(page: Any, table: str, place: int, direction: str) -> None:
    script = "([t, n, d]) => document.querySelector(t).tHead.rows[0].cells[n].ariaSort === d"
    wait(page, script, [table, place, direction])


def told(page: Any) -> str:
    """Return what the table of cells says of itself, to a screen reader too."""
    return page.get_by_role("status").text_content()


def choose(page: Any, name: str, value: str) -> None:
    page.locator(f"#filters select[name={name}]").select_option(value)


def test_every_link_of_the_menu_shows_its_own_page(page: Any) -> None:
    assert visible(page) == ["board"]
    for link in page.locator("header nav a").all():
        link.click()
        name = (link.get_attribute("href") or "").removeprefix("#")
        assert visible(page) == [name]
        assert link.get_attribute("aria-current") == "page"
        assert page.evaluate("document.activeElement.id") == f"{name}-title"  # a screen reader goes on from there
        assert page.evaluate("scrollY") == 0
    page.go_back()
    assert visible(page) == ["ratios"]


def test_a_board_sorts_by_number_with_the_missing_last(page: Any) -> None:
    button = page.get_by_role("button", name=re.compile("^ASR: ")).first
    for direction in ("ascending", "descending"):
        button.click()
        wait_for_sort(page, "table.board", 5, direction)
        texts = column(page, "table.board", 5)
        numbers = [float(text.rstrip("†")) for text in texts if text != DASH]
        assert numbers == sorted(numbers, reverse=direction == "descending") and len(numbers) == 10
        assert texts[len(numbers) :] == [DASH]


def test_a_board_is_filtered_by_words(page: Any) -> None:
    page.get_by_label("Filter").first.fill("lora")
    assert sorted(column(page, "table.board", 0)) == ["LoRA", "MuScleLoRA", "lora+ga"]
    page.get_by_label("Filter").first.fill("released")  # a word of the links' targets is none of the board
    wait(page, "document.querySelector('table.board').tBodies[0].innerText.includes('No matching')")


def test_a_number_of_a_board_leads_to_its_cell_and_a_mean_to_its_seeds(page: Any) -> None:
    page.locator("#board table.board").first.get_by_role("link", name="90.46 ± 0.55").click()
    wait(page, "document.getElementById('cells-table_info')?.textContent.includes('of 3 ')")
    assert set(column(page, "#cells-table", 4)) == {"LoRA"}, "and none of the smoke test that no table takes"
    assert set(column(page, "#cells-table", 3)) == {"Badnets"}
    page.go_back()
    wait(page, "!document.getElementById('board').hidden")
    page.locator("#board").get_by_role("link", name="34.21").first.click()
    wait(page, "!document.getElementById('cell').hidden")
    assert visible(page) == ["cell"]


def test_the_reader_s_own_choice_ends_the_filter_that_a_link_from_a_mean_set(page: Any) -> None:
    def after_a_mean() -> None:
        page.goto(page.url.split("#")[0] + "#board")
        page.locator("#board table.board").first.get_by_role("link", name="90.46 ± 0.55").click()
        wait(page, "document.getElementById('cells-table_info')?.textContent.includes('of 3 ')")

    after_a_mean()
    choose(page, "defense", "strip")  # beside the model, attack and ratio of the mean, which the menus show
    assert told(page).startswith("Rows 1 to 3 of 3 ")
    after_a_mean()
    page.get_by_role("link", name="Cells", exact=True).click()
    wait(page, "document.getElementById('cells-table_info').textContent.includes('of 4 ')")  # what the menus show
    after_a_mean()
    page.locator("#cells-table tbody a").first.click()
    page.go_back()
    wait(page, "!document.getElementById('cells').hidden")
    assert " of 3 " in told(page), "the way back leads to the link's own cells"


def test_a_narrow_window_scrolls_tables_and_not_the_page(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for name in visible(page) + ["table1", "table6", "scatter", "cells"]:
        page.goto(page.url.split("#")[0] + f"#{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
    smallest = """name => Math.min(...[...document.querySelectorAll(`#${name} .plot:not([hidden]) svg text`)].map(
        text => Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b) * parseFloat(getComputedStyle(text).fontSize)
    ))"""
    page.goto(page.url.split("#")[0] + "#board")
    place = """right => { const box = document.querySelector('#board .scroll'); box.scrollLeft = right;
        return [box.scrollLeft, box.querySelector('tbody th').getBoundingClientRect().left]; }"""
    (_, left), (moved, after) = page.evaluate(place, 0), page.evaluate(place, 300)
    assert (moved, after) == (300, left), "the name of a row stays in sight"
    for name in ("scatter", "ratios"):
        page.goto(page.url.split("#")[0] + f"#{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
        assert page.evaluate(smallest, name) >= 9, "the labels of a plot can be read"


def test_the_cells_are_filtered_by_menus_and_by_words(page: Any, records: list[dict[str, Any]]) -> None:
    page.get_by_role("link", name="Cells", exact=True).click()
    choose(page, "defense", "lora")
    choose(page, "model", "bert-base")
    names = [(one["cell"]["defense"]["name"], one["cell"]["model"]["name"]) for one in records]
    expected = names.count(("lora", "bert-base"))
    assert told(page) == f"Rows 1 to {expected} of {expected} ({len(records)} cells in all)"
    assert set(column(page, "#cells-table", 4)) == {"LoRA"}
    page.get_by_label("Search").fill("stylebkd")
    assert set(column(page, "#cells-table", 3)) == {"StyleBkd"}
    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="Clear").click()
    wait(page, "n => document.getElementById('cells-table_info').textContent.endsWith(n)", f" {len(records)}")
    page.get_by_role("button", name=re.compile("^CACC: ")).click()
    wait_for_sort(page, "#cells-table", 7, "ascending")
    assert (low := [float(text) for text in column(page, "#cells-table", 7)]) == sorted(low)


def test_a_cell_shows_its_spec_its_cost_and_its_command(page: Any, records: list[dict[str, Any]]) -> None:
    one = next(item for item in records if item["cell"]["defense"]["name"] == "musclelora")
    page.goto(page.url.split("#")[0] + "#cells?defense=musclelora")
    page.locator(f"a[href='#cell={one['key']}']").click()
    assert visible(page) == ["cell"]
    assert page.locator("#cell pre").text_content() == reproduce(one)
    body = page.locator("#cell-body").inner_text()
    metrics = one["metrics"]["asr"]
    assert f"{100 * metrics['value']:.2f} % (95 % interval" in body and f"{metrics['hits']} of 912" in body
    assert "313,344" in body and "0123abc" in body
    assert "add --data" not in body
    of_files = next(item for item in records if "files" in item["cell"]["dataset"]["options"])
    page.goto(page.url.split("#")[0] + f"#cell={of_files['key']}")
    wait(page, "document.getElementById('cell-body').innerText.includes('read from files: add --data')")
    failed = next(item for item in records if item["status"] == "failed" and item["error"]["message"] == HOSTILE)
    page.goto(page.url.split("#")[0] + f"#cell={failed['key']}")
    wait(page, "t => document.getElementById('cell-body').innerText.includes(t)", HOSTILE)
    page.goto(page.url.split("#")[0] + "#cell=%zz")
    wait(page, "document.getElementById('cell-title').textContent === 'No such cell'")


def test_a_point_leads_to_its_cells(page: Any, records: list[dict[str, Any]]) -> None:
    page.get_by_role("link", name="Scatter").click()
    assert page.locator("#scatter .plot:visible").count() == 1
    page.locator("#scatter-choice").select_option(label="SST-2, BERT-Base (released, fp32): Addsent")
    page.get_by_role("link", name=re.compile("^STRIP: CACC")).focus()
    page.keyboard.press("Enter")
    wait(page, "document.getElementById('cells-table_info')?.textContent.includes('of 3 ')")
    assert set(column(page, "#cells-table", 4)) == {"STRIP"} and set(column(page, "#cells-table", 3)) == {"Addsent"}


def test_a_point_of_a_mean_leads_to_the_cells_that_it_is_the_mean_of(page: Any) -> None:
    page.get_by_role("link", name="Scatter").click()
    page.locator("#scatter-choice").select_option(label="sst2-2k, minilm-l6 (released, fp32): mean over attacks")
    page.get_by_role("link", name=re.compile("^MuScleLoRA: CACC")).click()
    # Four attacks: neither the control at ratio 0 nor the cell of the equal budget, which have the same names.
    wait(page, "document.getElementById('cells-table_info')?.textContent.includes('of 4 ')")
    assert set(column(page, "#cells-table", 5)) == {"0.1"}


def test_the_keyboard_alone_reaches_and_sorts_a_board(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        page.keyboard.press("Tab")
        if (page.evaluate("document.activeElement.getAttribute('aria-label')") or "").startswith("CACC: "):
            break
    page.keyboard.press("Enter")
    wait_for_sort(page, "table.board", 3, "ascending")


def test_everything_that_takes_input_has_a_name(page: Any) -> None:
    for name in ("board", "cells", "scatter", "ratios"):
        page.goto(page.url.split("#")[0] + f"#{name}")
    script = """[...document.querySelectorAll('input, select, button, svg, [role=button], [role=region]')].filter(e =>
        !e.getAttribute('aria-label') && !e.labels?.length && !e.textContent.trim()).map(e => e.outerHTML)"""
    assert page.evaluate(script) == []
    assert page.evaluate("[...document.querySelectorAll('table.board th')].every(t => t.scope)")


def test_dark_follows_the_system_until_the_button_says_otherwise(page: Any) -> None:
    shade = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(shade) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    wait(page, f"{shade} === 'rgb(15, 20, 25)'")
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(shade) == "rgb(255, 255, 255)"
    page.reload()
    assert page.evaluate(shade) == "rgb(255, 255, 255)"


def test_fifteen_thousand_cells_are_filtered_in_under_200_ms(chromium: Any, index: Path, tmp_path: Path) -> None:
    models, seeds = [f"model-{number}" for number in range(38)], range(3)
    many = [
        record("sst2", attack, defense, model, seed, ratio, asr=(seed + 100, 912))
        for model in models
        for attack in ATTACKS
        for defense in DEFENSES
        for seed in seeds
        for ratio in (0.05, 0.1, 0.2)
    ][:CELLS]
    data = f'<script type="application/json" id="data">{script_json(site_data(many))}</script>'
    (tmp_path / "index.html").write_text(DATA.sub(lambda _: data, index.read_text(encoding="utf-8")), encoding="utf-8")
    page = chromium.new_page()
    page.goto((tmp_path / "index.html").as_uri() + "#cells")
    script = """([name, value]) => { const menu = document.querySelector(`#filters select[name=${name}]`);
        const start = performance.now(); menu.value = value; menu.dispatchEvent(new Event('change'));
        return performance.now() - start; }"""
    page.evaluate(script, ["seed", "2"])  # the first look fills the table's caches
    times = [page.evaluate(script, pair) for pair in (["defense", "lora"], ["ratio", "0.2"], ["defense", ""])]
    assert told(page) == f"Rows 1 to 25 of {CELLS // 9:,} ({CELLS:,} cells in all)"
    assert min(times) < 200, times  # the best of three: other processes may hold the machine
    page.close()
