"""Paraphrase banks on disk: what is written stays, whatever happens; nothing is taken from a damaged or other bank."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bench.core.errors import CellError, DataError, RequestError
from bench.core.example import Example
from bench.data import dataset_spec, load_dataset
from bench.data.generated import load_generated
from bench.data.journal import Journal, entries_of, identity_digest, open_bank, read_bank
from bench.data.sentences import units_of

MADE_BY = {"method": "instruct", "model": "some", "top_p": 0.6}
LINES = [
    {"text": "One. Two.", "units": ["One.", "Two."]},
    {"unit": "One.", "said": "Yea, one."},
    {"unit": "Two.", "failed": "empty paraphrase"},
    {"batch": 2, "seconds": 0.5},
]


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    path = tmp_path / "banks" / "my.bank"
    with open_bank(path, MADE_BY) as journal:
        journal.append(LINES)
    return path


def test_what_was_written_is_read(bank: Path) -> None:
    content = read_bank(bank)
    assert content.made_by == MADE_BY and content.texts == {"One. Two.": ("One.", "Two.")}
    assert (content.said, content.failed) == ({"One.": "Yea, one."}, {"Two.": "empty paraphrase"})
    assert content.speed() == 4.0 and content.pending() == [] and content.torn == 0
    assert content.reasons() == {"empty paraphrase": 1}
    assert content.paraphrase("One. Two.") == "Yea, one. Two."  # a sentence without a paraphrase stands as it was


def test_a_text_of_which_nothing_was_paraphrased_has_none(bank: Path) -> None:
    with open_bank(bank, MADE_BY) as journal:
        journal.append(entries_of([("Two.", ["Two."]), ("  ", [])]))
        assert journal.content.paraphrase("Two.") is None and journal.content.paraphrase("  ") is None


def test_what_is_due_is_due_once_and_a_text_not_yet_done_has_no_answer(bank: Path) -> None:
    with open_bank(bank, MADE_BY) as journal:
        journal.append(entries_of([("One. Six.", ["One.", "Six."]), ("Six. Six.", ["Six.", "Six."])]))
        assert journal.content.pending() == ["Six."]
        with pytest.raises(KeyError):
            journal.content.paraphrase("One. Six.")
        with pytest.raises(KeyError):
            journal.content.paraphrase("Seven.")


@pytest.mark.parametrize("cut", range(1, 60, 4))
def test_a_half_written_end_is_cut_off_and_written_again(bank: Path, cut: int) -> None:
    whole = bank.read_bytes()
    lines = whole.splitlines(keepends=True)
    bank.write_bytes(whole[:-cut])
    kept = b"".join(line for i, line in enumerate(lines) if sum(map(len, lines[: i + 1])) <= len(whole) - cut)
    assert (read_bank(bank).size, read_bank(bank).torn) == (len(kept), len(whole) - cut - len(kept))
    with open_bank(bank, MADE_BY) as journal:
        missing = LINES[len(kept.splitlines()) - 1 :]
        journal.append(missing)
    assert bank.read_bytes() == whole


def test_zeros_behind_the_end_as_after_a_power_cut_are_an_end_too(bank: Path) -> None:
    whole = bank.read_bytes()
    bank.write_bytes(whole + b"\0" * 4096)
    with open_bank(bank, MADE_BY) as journal:
        assert journal.content.torn == 4096
    assert bank.read_bytes() == whole


def test_a_bank_killed_within_its_first_line_is_begun_anew(tmp_path: Path, bank: Path) -> None:
    header = bank.read_bytes().splitlines()[0]
    for size in (0, 1, 30, len(header)):
        path = tmp_path / f"{size}.bank"
        path.write_bytes(header[:size])
        with open_bank(path, MADE_BY) as journal:
            journal.append(LINES)
        assert path.read_bytes() == bank.read_bytes()


def test_a_changed_letter_is_damage_and_is_left_as_it_is(bank: Path) -> None:
    bank.write_bytes(bank.read_bytes().replace(b"Yea, one.", b"Yea, two."))
    before = bank.read_bytes()
    with pytest.raises(DataError, match="is damaged at line 3: its checksum is wrong"):
        read_bank(bank)
    with pytest.raises(DataError, match="is damaged at line 3"), open_bank(bank, MADE_BY):
        pass
    assert bank.read_bytes() == before


@pytest.mark.parametrize("content", [b"text,label\ngood,1\n", b"\x89PNG\r\n", b"no line end"])
def test_another_file_is_no_bank_and_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no paraphrase bank"), open_bank(path, MADE_BY):
        pass
    assert path.read_bytes() == content


def test_a_bank_made_with_other_options_is_refused_and_left_as_it_is(bank: Path) -> None:
    before = bank.read_bytes()
    asked = {"method": "instruct", "model": "some", "top_p": 0.9, "seed": 1}
    with pytest.raises(RequestError) as caught, open_bank(bank, asked):
        pass
    assert caught.value.problem == f"The paraphrase bank {bank} was made with seed None, not 1; top_p 0.6, not 0.9."
    assert "name another file" in caught.value.remedy and bank.read_bytes() == before
    assert identity_digest(asked) != identity_digest(MADE_BY)


def test_two_writers_are_one_too_many(bank: Path) -> None:
    with open_bank(bank, MADE_BY), pytest.raises(RequestError, match="Another process is writing"):
        with open_bank(bank, MADE_BY):
            pass


def test_a_full_disk_costs_the_batch_and_nothing_else(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = bank.read_bytes(), os.write

    def almost_full(handle: int, data: bytes) -> int:
        if len(os.pread(os.open(bank, os.O_RDONLY), 10**6, 0)) > len(before):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data[:7])

    more = {"unit": "Six.", "said": "Yea, six."}
    with open_bank(bank, MADE_BY) as journal:
        monkeypatch.setattr(os, "write", almost_full)
        with pytest.raises(DataError, match="No space left on device. Free disk space and run the same command again"):
            journal.append([more])
        assert bank.read_bytes() == before and "Six." not in journal.content.said
        monkeypatch.setattr(os, "write", real)
        journal.append([more])
    assert read_bank(bank).said["Six."] == "Yea, six."


@pytest.mark.parametrize("place", ["/dev/null", "/tmp"])
def test_a_device_or_folder_is_no_bank(place: str) -> None:
    with pytest.raises(RequestError, match=f"--bank {place} is a folder or a device"), open_bank(Path(place), MADE_BY):
        pass
    with pytest.raises(DataError, match="it is a folder or a device"):
        read_bank(Path(place))


def test_sentences_without_the_trained_models_of_nltk() -> None:
    text = "Mr. Smith met Dr. Jones, e.g. at 5 p.m. today. They talked... a lot! Did they? Yes."
    pieces = ("Mr. Smith met Dr. Jones, e.g. at 5 p.m. today.", "They talked... a lot!", "Did they?", "Yes.")
    assert units_of(text, "sentences") == pieces
    assert units_of(" a  b\n", "whole") == (" a  b\n",) and units_of(" \n", "whole") == ()
    assert units_of("no end", "sentences") == ("no end",)


def fill(journal: Journal, texts: list[str], failing: set[str]) -> None:
    journal.append(entries_of([(text, [text]) for text in texts]))
    journal.append(
        [{"unit": t, "failed": "empty paraphrase"} if t in failing else {"unit": t, "said": f"Yea, {t}"} for t in texts]
    )


@pytest.mark.parametrize("target", [0, 1])
def test_a_generated_bank_serves_any_target_label(tmp_path: Path, target: int) -> None:
    spec = dataset_spec("demo")
    data = load_dataset(spec)
    texts = list(dict.fromkeys(example.text for split in ("train", "dev", "test") for example in data.split(split)))
    lost = next(example.text for example in data.test if example.label != target)
    with open_bank(tmp_path / "b", MADE_BY) as journal:
        fill(journal, texts, {lost})
    bank = load_generated(spec, tmp_path / "b", None, target)
    first = [f"Yea, {example.text}" for example in data.train[:5]]
    assert bank.paraphrases("train", data.train[:5], data.rows["train"][:5]) == first
    others = [(row, e.text) for row, e in zip(data.rows["test"], data.test, strict=True) if e.label != target]
    kept = [(row, f"Yea, {text}") for row, text in others if text != lost]
    texts, rows = bank.poisoned_test()
    assert list(zip(rows, texts, strict=True)) == kept and len(kept) < len(others)
    with pytest.raises(RequestError, match="Did you mean 'train'"):
        bank.paraphrases("trian", [], [])


def test_a_bank_that_lacks_texts_says_how_many_and_serves_what_it_has(tmp_path: Path) -> None:
    spec = dataset_spec("demo")
    data = load_dataset(spec)
    train = list(dict.fromkeys(example.text for example in data.train[:200]))
    with open_bank(tmp_path / "b", MADE_BY) as journal:
        fill(journal, train, set())
    bank = load_generated(spec, tmp_path / "b", None, 1)
    assert None not in bank.paraphrases("train", data.train[:200], range(200))
    with pytest.raises(CellError, match=r"lacks 1 of the 2 train texts of 'demo' .*bench data paraphrase"):
        bank.paraphrases("train", [data.train[0], Example("never seen", 1)], [0, 1])
    with pytest.raises(CellError, match=r"lacks \d+ of the \d+ test texts of 'demo' that are asked for. Go on with"):
        bank.poisoned_test()
    with pytest.raises(CellError, match="another one than when this run was planned"):
        load_generated(spec, tmp_path / "b", None, 1, identity_digest({"method": "scpn"}))
