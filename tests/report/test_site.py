"""The site without a browser: the front, the curves, what is embedded and how, the same bytes again."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import random
import re
import shlex
from importlib.resources import files
from typing import Any

import click
import pytest
import typer

from bench.cli import _narrow, app
from bench.engine.expand import expand
from bench.engine.grid import Grid, load_grid, narrowed
from bench.report.render import render
from bench.report.selection import select
from bench.report.site.build import site
from bench.report.site.command import reproduce
from bench.report.site.curves import curves
from bench.report.site.data import script_json, site_data
from bench.report.site.scatter import Point, front, scatters
from bench.report.site.svg import Axes, spread, ticks
from tests.report.fixtures import board_records, record

FIXED = {"clean_budget": 96}
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=hacked=1>@@DATA@@"
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def built(records: list[dict[str, Any]]) -> str:
    return site(records, render(records, every_table=True))["site/index.html"]


@pytest.fixture(scope="module")
def index() -> str:
    return built(board_records())


def test_the_front_holds_what_nothing_beats() -> None:
    # b beats c in both; d equals b; e did not learn; a and f trade CACC for ASR.
    points = [Point("a", 90, 50, True), Point("b", 85, 20, True), Point("c", 84, 30, True), Point("d", 85, 20, True)]
    points += [Point("e", 50, 0, False), Point("f", 80, 10, True), Point("g", 90, 60, True)]
    assert [point.defense for point in front(points)] == ["f", "b", "d", "a"]
    assert front([Point("e", 50, 0, False)]) == []


def test_an_oracle_stands_in_the_plot_by_its_name_and_not_on_the_front() -> None:
    rates = ((18, 1821), (0, 912), 1.0)
    told = record(defense="strip", cacc=(1700, 1821), asr=(0, 912), oracle=True, detection=rates)
    records = [record(defense="lora", asr=(456, 912)), record(defense="bki", cacc=(1500, 1821), asr=(400, 912)), told]
    ((_, figure),) = scatters(select(records))
    assert "STRIP (oracle): CACC 93.36, ASR 0.00" in figure and figure.count("class=best") == 2
    assert "Pareto front: BKI (CACC 82.37, ASR 43.86), LoRA (CACC 87.86, ASR 50.00)." in figure
    assert "An oracle was given the true poison flags: not on the front." in figure
    assert "oracle" not in scatters(select(records[:2]))[0][1]
    assert f'href="#cell={told["key"]}">0.00</a>' in built(records), "the rows of an oracle still lead to its cells"


def test_axes_put_the_ends_of_a_range_at_the_ends_of_the_plot() -> None:
    axes = Axes(10, 20, 100, 50, (0.0, 1.0), (0.0, 100.0))
    assert (axes.x(0.0), axes.x(1.0), axes.y(100.0), axes.y(0.0)) == (10, 110, 20, 70)
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(0, 0.2) == [0, 0.05, 0.1, 0.15, 0.2]


def test_labels_keep_their_order_and_their_distance() -> None:
    found = spread([50.0, 51.0, 52.0, 5.0], 10, 0, 60)
    assert found == [40.0, 50.0, 60.0, 5.0]
    crowded = spread([30.0] * 8, 10, 0, 60)
    assert crowded == sorted(crowded) and crowded[0] >= 0 and crowded[-1] <= 60


def test_curves_need_two_ratios_of_one_defense_and_start_at_the_clean_control() -> None:
    hits = {0.0: 91, 0.1: 456, 0.2: 912}
    records = [record(ratio=ratio, asr=(count, 912)) for ratio, count in hits.items()]
    ((title, figure),) = curves(records)
    assert title == "SST-2, BERT-Base (released, fp32): Badnets"
    numbers = re.findall(r"<td class=number>(.*?)</td>", figure)
    assert numbers[3:] == ["9.98", "50.00", "100.00"]
    assert curves(records[1:2]) == []
    assert curves([records[0], record(ratio=0.1, defense="vanilla")]) == []


def test_a_curve_starts_at_the_control_that_was_trained_as_its_points_were() -> None:
    # At ratio 0.01 nothing but vanilla was run, so that there LoRA's two controls are alone with each other.
    other = {"model": {"epochs": 10}}
    records = [record(ratio=ratio, defense="vanilla") for ratio in (0.0, 0.01, 0.1)]
    records += [record(ratio=0.1), record(ratio=0.0, asr=(91, 912)), record(ratio=0.0, asr=(456, 912), options=other)]
    ((_, figure),) = curves(records)
    assert "9.98" in figure and "50.00" not in figure


def test_the_embedded_cells_are_the_records() -> None:
    records = [record(asr=(456, 912)), record(attack="stylebkd", error=("CellError", "No bank.", "Make one."))]
    content = site_data(records)
    place = {name: number for number, name in enumerate(content["columns"])}
    rows = {row[place["key"]]: row for row in content["rows"]}
    good, failed = (rows[one["key"]] for one in records)
    assert (good[place["asr"]], good[place["defense"]], good[place["ratio"]]) == (50.0, "lora", 0.1)
    assert good[place["metrics"]][1] == [50.0, 46.76, 53.24, 456, 912]  # Wilson's interval of 456 of 912
    assert content["shared"][failed[place["error"]]]["message"] == "No bank."
    assert failed[place["asr"]] is None


def test_a_watched_cell_is_told_from_the_same_one_unwatched() -> None:
    plain, watched = record(), record()
    watched["cell"]["analysis"] = {"name": "fourier", "options": {"rows": 400}}
    content = site_data([plain, watched])
    place = {name: number for number, name in enumerate(content["columns"])}
    assert [row[place["analysis"]] for row in content["rows"]] == [None, "fourier"]
    assert [content["shared"][row[place["analysis_options"]]] for row in content["rows"]] == [{}, {"rows": 400}]


def test_script_json_cannot_end_its_element_and_reads_back() -> None:
    value = {"a": HOSTILE + "\u2028\u2029&", "b": [1.5, None, True]}
    text = script_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


class Tags(html.parser.HTMLParser):
    """Collects the start tags of a page with their attributes, and which elements stay open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_hostile_names_are_text() -> None:
    records = [record(dataset=HOSTILE, model=HOSTILE, defense=HOSTILE, attack=HOSTILE)]
    records.append(record(defense="lora", error=("E", HOSTILE, HOSTILE)))
    tags, expected = Tags(), Tags()
    tags.feed(built(records))
    expected.feed(built([record(), record(defense="lora", error=("E", "m", "r"))]))
    assert [tag for tag, _ in tags.found].count("script") == [tag for tag, _ in expected.found].count("script") == 3
    assert not [tag for tag, _ in tags.found if tag == "img"]
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]


def test_nothing_is_loaded_and_the_policy_names_every_script(index: str) -> None:
    tags = Tags()
    tags.feed(index)
    assert not [tag for tag, _ in tags.found if tag in ("link", "img", "iframe", "base", "object")]
    assert not [attributes for _, attributes in tags.found if "src" in attributes or "style" in attributes]
    policy = next(a["content"] for tag, a in tags.found if tag == "meta" and "http-equiv" in a) or ""
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    texts = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", index, re.DOTALL)
    assert len(texts) == 3
    for text in texts:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


def test_every_link_inside_the_page_leads_to_a_section(index: str) -> None:
    tags = Tags()
    tags.feed(index)
    sections = {attributes["id"] for tag, attributes in tags.found if tag == "section"}
    links = [str(attributes["href"]) for tag, attributes in tags.found if tag == "a"]
    assert {re.split("[=?]", link[1:])[0] for link in links if link.startswith("#")} - {"main"} <= sections
    assert {link for link in links if not link.startswith("#")} == {"https://doi.org/10.18653/v1/2024.acl-long.441"}
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_order_of_the_records_changes_no_byte(index: str) -> None:
    records = board_records()
    random.Random(3).shuffle(records)
    assert built([*records, records[0]]) == index


def test_the_library_keeps_its_licence(index: str) -> None:
    written = site(board_records(), {"README.md": "# Board\n"})
    assert "The MIT License" in written["site/datatables-3.1.5.LICENSE.txt"]
    assert "DataTables 3.1.5" in index and "SpryMedia" in index
    folder = files("bench.report.site") / "assets" / "vendor"
    rows = re.findall(r"^\| `([\w.-]+)` .*`([0-9a-f]{64})`", (folder / "README.md").read_text(encoding="utf-8"), re.M)
    assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name, _ in rows} == dict(rows)
    assert {name for name, _ in rows} == {path.name for path in folder.iterdir() if path.name.endswith(".js")}


def _cells() -> list[Any]:
    usual = {"datasets": ("demo",), "attacks": ("badnets",), "models": ("minilm-l6",)}
    options = {"model.epochs": 2, "model.learning_rate": 5e-4, "dataset.subset": 40, "dataset.subset_seed": 3}
    grids = [
        Grid(**{**usual, "attacks": ("all",)}, defenders=("all",), recipes=("released", "paper")),
        Grid(**usual, defenders=("strip(repeat=7, frr=0.1)", "e-pur>fine-mixing(rho=0.5)"), seeds=(4,), limit=32),
        Grid(**usual, defenders=("lora(targets=[query], rank=3)",), poison_ratios=(0.0, 0.25), precisions=("bf16",)),
        Grid(**usual, defenders=("vanilla",), label_rules=("mix", "dirty"), target_labels=(0,), set=options),
        Grid(**{**usual, "models": ("bert-large", "roberta-base")}, defenders=("musclelora", "onion(lm=local)")),
    ]
    watched = {"datasets": ("demo", "sst2"), "defenders": ("vanilla", "musclelora"), "analysis": "fourier"}
    grids += [Grid(**{**usual, **watched}), Grid(**{**usual, **watched}, set={"analysis.rows": 20})]
    return [cell for cell in expand(grids).cells.values()]


def test_the_command_of_a_cell_makes_that_cell_and_no_other() -> None:
    command = typer.main.get_command(app)
    for cell in _cells():
        words = shlex.split(reproduce({"cell": json.loads(json.dumps(cell.json()))}))
        assert words[:4] == ["python", "-m", "bench", "run"]
        context = click.Context(command, info_name="bench")
        parameters = command.commands["run"].make_context("run", words[4:], parent=context).params
        given = {**parameters, "set_": parameters["set_"]}
        cells = expand(narrowed(load_grid(given["grid"]).blocks(), _narrow(given))).cells
        assert list(cells) == [cell.key], " ".join(words)


def test_a_plain_cell_has_a_short_command() -> None:
    (cell,) = expand(
        [Grid(datasets=("sst2",), attacks=("badnets",), models=("bert-base",), defenders=("musclelora",))]
    ).cells.values()
    found = reproduce({"cell": cell.json()})
    assert "--defenders musclelora --label-rules clean" in found and "--set" not in found and "(" not in found


def test_a_row_and_a_number_of_a_board_lead_to_their_cells() -> None:
    def one(seed: int, defense: str = "lora+ga", attack: str = "badnets", **more: Any) -> dict[str, Any]:
        return record(dataset="sst2-2k", model="minilm-l6", defense=defense, attack=attack, seed=seed, **more)

    single = one(0, attack="addsent", asr=(456, 912))
    elsewhere = [one(0, ratio=0.2, asr=(1, 912)), one(0, defense="lora", asr=(2, 912), options={"defense": FIXED})]
    two = [one(0, asr=(228, 912)), one(1, asr=(684, 912))]
    page = built([*two, single, *elsewhere])
    sections = dict(re.findall(r'<section id="([\w-]+)"(.*?)</section>', page, re.DOTALL))
    where = "dataset=sst2-2k&amp;model=minilm-l6&amp;{}ratio=0.1&amp;recipe=released&amp;precision=fp32"
    row = where.format("defense=lora%2Bga&amp;")
    seeds = where.format("attack=badnets&amp;defense=lora%2Bga&amp;")
    seeds += f"&amp;keys={two[0]['key'][:8]}.{two[1]['key'][:8]}"
    assert f'<th scope="row"><a class=cell href="#cells?{row}">lora+ga</a>' in sections["board"]
    assert f'<td><a class=cell href="#cells?{row}">w/o MS</a>' in sections["table3"]
    assert f'<a class=cell href="#cells?{seeds}">50.00 ± 35.36</a>' in sections["board"]
    assert f'<a class=cell href="#cell={single["key"]}">50.00</a>' in sections["board"]
    assert f'<a class=cell href="#cell={single["key"]}">50.00</a>' in sections["table3"]
    assert "<a class=cell" not in sections["equal-budget"], "its cells are not those of the other pages"


def test_a_name_that_two_defenses_print_leads_nowhere() -> None:
    page = built([record(defense="MuScleLoRA"), record(defense="musclelora"), record(defense="lora")])
    board = page.partition('<section id="table1"')[0]
    assert re.findall(r'<th scope="row">(?:<a class=cell[^>]*>)?([^<]+)', board).count("MuScleLoRA") == 2
    assert re.findall(r'<th scope="row"><a class=cell[^>]*>([^<]+)', board) == ["LoRA"]
