"""The packaged published numbers and the layouts read off them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.report.aggregate import marks
from bench.report.layouts import layout
from bench.report.paper import order, printed_name, published, published_table, settings
from bench.report.selection import published_rule


@pytest.mark.parametrize(("table", "size"), [(1, 80), (2, 21), (3, 48), (4, 18), (7, 120), (8, 72), (9, 21)])
def test_every_published_cell_is_there(table: int, size: int) -> None:
    assert len(published_table(table)) == size


def test_lookups_give_the_printed_numbers() -> None:
    assert published(1, "sst2", "bert-base", "badnets", "musclelora") == (86.54, 12.94)
    assert published(8, "sst2", "bert-large", "addsent", "musclelora") == (90.72, 27.30)
    assert published(7, "sst2", "bert-large", "addsent", "musclelora") == (90.71, 27.30)
    assert published(1, "sst2", "minilm-l6", "badnets", "musclelora") is None
    assert published(6, "sst2", "bert-base", "badnets", "musclelora") is None


def test_layouts_keep_the_order_of_the_paper() -> None:
    assert layout(1).datasets == ("sst2", "hsol", "lingspam", "agnews")
    assert layout(1).defenses == ("vanilla", "lora", "adapter", "prefix", "musclelora")
    assert layout(2).defenses == ("vanilla", "onion", "bki", "cube", "strip", "rap", "musclelora")
    assert layout(3).defenses == ("vanilla", "musclelora", "lora", "ga", "mslr", "lora+ga")
    assert layout(4).defenses == ("vanilla", "lora", "prefix", "onion", "strip", "musclelora")
    assert layout(7).models == layout(8).models == ("bert-large", "roberta-base", "roberta-large")
    assert layout(9).attacks == ("addsent", "hiddenkiller", "stylebkd")


def test_check_marks_of_the_ablation() -> None:
    assert layout(3).checks == layout(8).checks
    assert layout(3).checks["mslr"] == (True, True, False)
    assert layout(1).checks == {}


def test_the_second_lowest_of_the_paper_are_those_it_underlines() -> None:
    """`lora+ga` in 16 of 20 columns, but `mslr` and `musclelora` in the columns that the paper's page names."""
    exceptions = {}
    for table in (3, 8):
        shape = layout(table)
        for dataset in shape.datasets:
            for model in shape.models:
                for attack in shape.attacks:
                    asr = [published(table, dataset, model, attack, name)[1] / 100 for name in shape.defenses]
                    found = marks(asr, len(asr), underline=True)
                    second = shape.defenses[found.index("underline")]
                    if second != "lora+ga":
                        exceptions[dataset, model, attack] = second
    assert exceptions == {
        ("sst2", "bert-base", "hiddenkiller"): "mslr",
        ("agnews", "bert-base", "hiddenkiller"): "musclelora",
        ("sst2", "bert-large", "badnets"): "mslr",
        ("sst2", "roberta-base", "badnets"): "mslr",
    }


def test_names_are_those_of_the_paper_and_unknown_ones_stay() -> None:
    assert printed_name("defenses", "lora") == "LoRA"
    assert printed_name("defenses", "lora", ablation=True) == "w/o MS, GA"
    assert printed_name("defenses", "vanilla", ablation=True) == "Vanilla"
    assert printed_name("models", "minilm-l6") == "minilm-l6"
    assert order("datasets", {"zoo", "agnews", "sst2", "demo"}) == ["sst2", "agnews", "demo", "zoo"]


def test_label_rules_are_those_of_the_attackers() -> None:
    attackers = {}
    for attack in settings()["attacks"]:
        module = pytest.importorskip(f"attackers.{attack}")
        (attackers[attack],) = [one for one in vars(module).values() if getattr(one, "name", None) == attack]
    for attack, attacker in attackers.items():
        for dataset in ("sst2", "lingspam", "lingspam-disjoint", "demo"):
            for recipe in ("released", "paper"):
                assert published_rule(recipe, dataset, attack) == attacker.default_rule(dataset, recipe)


def test_the_report_needs_no_torch_and_no_pandas() -> None:
    code = "import sys, bench.report.render; print(sorted({'torch', 'pandas', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
