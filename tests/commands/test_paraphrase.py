"""`bench data paraphrase` from end to end: killed and gone on with, then used by an attack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.data import dataset_spec, load_dataset
from bench.data.journal import _entry, read_bank
from bench.engine.artifacts import read_examples
from bench.engine.paraphrasing import Scpn
from bench.engine.store import Store
from tests.engine.conftest import Tiny, tiny  # noqa: F401
from tests.strap import write_gpt2

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def strap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("strap") / "model")


def paraphrase(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", "paraphrase", "--device", "cpu", *words])
    return result.exit_code, result.stdout + result.stderr


def done(bank: Path) -> int:
    try:
        return bank.read_bytes().count(b'{"unit":')
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_a_killed_run_loses_a_batch_at_most_and_does_nothing_twice(strap: Path, tmp_path: Path) -> None:
    bank, other = tmp_path / "killed.bank", tmp_path / "whole.bank"
    words = ["--dataset", "demo", "--splits", "train", "--limit", "200", "--model", str(strap), "--batch", "8"]
    command = [sys.executable, "-m", "bench", "data", "paraphrase", "--device", "cpu", *words, "--bank", str(bank)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while done(bank) < 16 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        said = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, said
    kept = read_bank(bank)
    assert 16 <= len(kept.said) + len(kept.failed) < 200
    before = bank.read_bytes()[: kept.size]

    code, said = paraphrase(*words, "--bank", str(bank))
    assert code == 0, said
    there = len(kept.said) + len(kept.failed)
    assert f"200 texts of demo, 200 sentences: {there} in the bank, {200 - there} to paraphrase" in said
    assert bank.read_bytes().startswith(before)  # not a byte of what was kept has been done again
    entries = [_entry(line) for line in bank.read_bytes().splitlines(keepends=True)]
    counts = Counter(entry["unit"] for entry in entries if entry and "unit" in entry)
    train = load_dataset(dataset_spec("demo")).train
    assert counts == dict.fromkeys((example.text for example in train[:200]), 1)

    assert paraphrase(*words, "--bank", str(other))[0] == 0  # in one go
    assert read_bank(other).said == read_bank(bank).said
    code, said = paraphrase(*words, "--bank", str(bank))
    assert code == 0 and "200 in the bank, 0 to paraphrase" in said and "sentences a second" in said


def write_rows(path: Path) -> Path:
    rows = [
        f'"The film is {word} number {i}. We saw it.",{i % 2}' for i in range(60) for word in [("bad", "good")[i % 2]]
    ]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_bank_serves_an_attack_on_the_users_own_data(strap: Path, tmp_path: Path, tiny: Tiny) -> None:  # noqa: F811
    data, bank = str(write_rows(tmp_path / "mine.csv")), tmp_path / "mine.bank"
    code, said = paraphrase("--dataset", data, "--bank", str(bank), "--model", str(strap))
    # 60 texts of two sentences, of which one is the same in all.
    assert code == 0 and "60 texts" in said and "61 sentences: 0 in the bank, 61 to paraphrase" in said
    attack = f"stylebkd(bank_file={bank})"
    axes = {"datasets": [data], "defenders": ["vanilla"], "poison_ratios": [0.25], "limit": None}
    plan = tiny.plan(attacks=[attack], target_labels=[0], **axes)
    assert tiny.run(plan).done == 1, "a target label that no published bank serves"
    (cell,) = plan.cells.values()
    assert str(tmp_path) not in str(cell.json()) and len(cell.attack.options["bank_made_by"]) == 64
    content = read_bank(bank)
    stages = {stage.kind: Store(tiny.out / "store").open(stage.key) for stage in plan.unique()}
    poisoned = [e.text for e in read_examples(stages["poison"] / "train.jsonl").examples if e.poisoned]
    made = {content.paraphrase(text) for text in content.texts}
    assert len(poisoned) == 12 and set(poisoned) <= made  # a quarter of 48 training rows
    tested = read_examples(stages["trigger"] / "test.jsonl").examples
    assert len(tested) == 3 and {e.text for e in tested} <= made  # of 6 test rows, those of label 1
    again = tiny.plan(attacks=[attack], target_labels=[0], **axes)
    assert [stage.key for stage in again.unique()] == [stage.key for stage in plan.unique()]
    moved = bank.rename(tmp_path / "moved.bank")
    elsewhere = tiny.plan(attacks=[f"stylebkd(bank_file={moved})"], target_labels=[0], **axes)
    assert [stage.key for stage in elsewhere.unique()] == [stage.key for stage in plan.unique()]


def test_a_bank_in_which_everything_failed_is_not_offered(tmp_path: Path) -> None:
    short = write_gpt2(tmp_path / "short", marks=False, positions=8)
    words = ["--dataset", "demo", "--splits", "train", "--limit", "4", "--method", "instruct", "--model", str(short)]
    code, said = paraphrase(*words, "--bank", str(tmp_path / "b"))
    assert code == 1 and "0 texts have a paraphrase, 4 have none" in said and "longer than the 8 tokens" in said
    assert "Use it" not in said and "no attack can use this bank" in said


def test_a_bank_that_is_not_there_fails_its_cells_alone(tmp_path: Path, tiny: Tiny) -> None:  # noqa: F811
    plan = tiny.plan(attacks=[f"stylebkd(bank_file={tmp_path}/no.bank)", "badnets"], defenders=["vanilla"])
    report = tiny.run(plan)
    (reason,) = report.failed.values()
    assert report.done == 1 and "no.bank does not exist. Make it: python -m bench data paraphrase" in reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--attack", "badnets"], "There is no attack with a paraphrase bank named 'badnets'"),
        (["--style", "bibel"], "Did you mean 'bible'?"),
        (["--splits", "train,tset"], "Did you mean 'test'?"),
        (["--method", "scpn"], "Method 'scpn' does not make the poison of stylebkd."),
        (["--method", "instruct"], "Method 'instruct' needs a model."),
        (["--instruction", "Do {text}"], "Method 'strap' takes no instruction."),
        (["--top-p", "1.5"], "top_p is 1.5"),
        (["--dataset", "demmo"], "Did you mean 'demo'?"),
        (
            ["--model", "nobody/nothing"],
            "Model 'nobody/nothing' is no folder here, and the hub does not tell its commit",
        ),
    ],
)
def test_a_wrong_request_is_refused_and_makes_no_bank(tmp_path: Path, words: list[str], reason: str) -> None:
    code, said = paraphrase("--dataset", "demo", "--bank", str(tmp_path / "b"), *words)
    assert code == 2 and reason in said and not (tmp_path / "b").exists()


def test_other_options_leave_a_bank_as_it_is(strap: Path, tmp_path: Path) -> None:
    bank = tmp_path / "b"
    words = ["--dataset", "demo", "--bank", str(bank), "--model", str(strap), "--splits", "train", "--limit", "2"]
    assert paraphrase(*words)[0] == 0
    before = bank.read_bytes()
    code, said = paraphrase(*words, "--top-p", "0.9")
    assert code == 2 and "was made with top_p 0.6, not 0.9" in said and bank.read_bytes() == before


def test_scpn_without_openbackdoor_is_refused_with_the_way_to_get_it(tmp_path: Path) -> None:
    from bench.core.packages import installed

    code, said = paraphrase("--dataset", "demo", "--bank", str(tmp_path / "b"), "--attack", "hiddenkiller")
    wanted = "OpenAttack" if installed("openbackdoor") else "The package openbackdoor is not installed."
    assert code == 2 and wanted in said and "pip install" in said and not (tmp_path / "b").exists()


def test_a_model_that_is_not_generative_makes_no_bank(tmp_path: Path, tiny: Tiny) -> None:  # noqa: F811
    bank = tmp_path / "b"
    code, said = paraphrase("--dataset", "demo", "--bank", str(bank), "--method", "instruct", "--model", tiny.model)
    assert code == 2 and "is not generative: its weights lack" in said and not bank.exists()


def test_a_sentence_that_scpn_gives_back_is_a_failure_whatever_its_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    class SynBkdPoisoner:
        """Stands where OpenBackdoor's poisoner does: where its parser fails, the text comes back."""

        def __init__(self, template_id: int) -> None:
            pass

        def transform(self, text: str) -> str:
            return "when it  rains , we stay ." if text == "it rains" else text

    module = ModuleType("openbackdoor.attackers.poisoners.synbkd_poisoner")
    module.SynBkdPoisoner = SynBkdPoisoner
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("bench.openbackdoor.load", lambda: None)
    failed = (None, "unchanged: SCPN's parser failed")
    said = Scpn().paraphrase(["it rains", "a b", "a  b", "a\n b ", " "])
    assert said == [("when it rains , we stay .", ""), failed, failed, failed, (None, "empty paraphrase")]
