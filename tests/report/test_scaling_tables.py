"""Tables 6 and 10: ours are read off the model files and the grid, beside the paper's."""

from __future__ import annotations

from bench.report.paper import settings
from bench.report.scaling_tables import table6, table10, vector
from bench.victim.spec import model_names
from tests.report.pages import tables

S6 = "S, the paper's Table 6"


def test_table_6_has_every_model_and_the_published_vectors() -> None:
    ((_, found),) = tables(table6())
    by_name = {row["Model"]: row for row in found}
    assert len(found) == len(set(model_names()) | set(settings()["table_6_scaling_factors"]))
    base = by_name["BERT-Base"]
    assert base["S, recipe released"] == r"\[1, 4, 8, 12, 16, 20, 24, 28\]"
    assert base["S, recipe paper"] == base[S6] == r"\[1, 4, 8, 12, 16, 20, 24, 28, 32\]"
    assert by_name["RoBERTa-Base"]["S, recipe released"] == by_name["RoBERTa-Base"][S6]
    assert by_name["Llama2-7B"][S6] == r"\[1, 2, 3, 4\]" and by_name["minilm-l6"][S6] == "—"


def test_the_recipe_paper_has_the_papers_vector_wherever_it_has_one() -> None:
    ((_, found),) = tables(table6())
    differing = [row["Model"] for row in found if "—" not in row.values() and row["S, recipe paper"] != row[S6]]
    assert differing == []


def test_table_10_is_what_the_grid_sweeps() -> None:
    ((_, found),) = tables(table10())
    published = settings()["table_10_scaling_notation"]
    assert [(row["Notation"], row["S, the paper's Table 10"]) for row in found] == [
        (rf"S\_{k}", vector(published[f"S_{k}"])) for k in (1, 2, 3, 4)
    ]
    assert all(row["S, ours"] == row["S, the paper's Table 10"] for row in found)


def test_a_vector_is_written_without_needless_zeros() -> None:
    assert vector([1.0, 1.5]) == r"\[1, 1.5\]"
