"""Data from folders and archives: hostile archives are refused, the AG News recipe is the published one."""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.core.errors import DataError, RequestError
from bench.data import agnews_mini
from bench.data.fetch import ABSENT, FETCHED, Wanted, fetch, wanted_files
from bench.data.files import git_blob, sha256
from bench.data.sources import COMMIT, LARGEST, PUBLISHED, Archive, made_here, source_of

FILES = {"datasets/a.tsv": b"text\t0\n" * 2000, "poison_data/b.csv": b"poison\n"}
WANTED = [Wanted(path, sha256(content), None) for path, content in FILES.items()]


def packed(path: Path, members: dict[str, bytes]) -> Path:
    """Write an archive by its suffix."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    packing = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}.get(path.suffix, "w")
    with tarfile.open(path, packing) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def taken(archive: Path, folder: Path) -> list[str]:
    source = source_of(str(archive), [item.path for item in WANTED], 1.0)
    return [outcome.state for outcome in fetch(folder, WANTED, source)]


@pytest.mark.parametrize("name", ["data.zip", "data.tar", "data.tar.gz", "data.tgz", "data.tar.xz", "data.tar.bz2"])
@pytest.mark.parametrize("top", ["", "MuScleLoRA-6b116ee/", "./"])
def test_an_archive_gives_its_files_with_or_without_a_folder_above(tmp_path: Path, name: str, top: str) -> None:
    archive = packed(tmp_path / name, {top + path: content for path, content in FILES.items()})
    assert taken(archive, tmp_path / "out") == [FETCHED, FETCHED]
    assert {path: (tmp_path / "out" / path).read_bytes() for path in FILES} == FILES


@pytest.mark.parametrize("name", ["data.zip", "data.tar"])
@pytest.mark.parametrize("path", ["../evil.tsv", "/tmp/evil.tsv", "a/../../evil.tsv", "..\\evil.tsv", "C:\\evil.tsv"])
def test_a_path_that_leads_out_of_an_archive_is_refused(tmp_path: Path, name: str, path: str) -> None:
    archive = packed(tmp_path / name, {**FILES, path: b"evil"})
    with pytest.raises(DataError, match="which leads out of it"):
        taken(archive, tmp_path / "out")
    assert not (tmp_path / "evil.tsv").exists() and not (tmp_path / "out").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    archive = packed(tmp_path / "data.zip", {"datasets/a.tsv": b"\0" * 2**24})
    with pytest.raises(DataError, match=r"of 16777216 bytes packed into \d+: no data file is like that"):
        taken(archive, tmp_path / "out")


def test_a_bomb_that_lies_about_its_size_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.data.sources.LARGEST", 1000)  # below what the small member unpacks to
    folder = tmp_path / "given" / "datasets"
    folder.mkdir(parents=True)
    (folder / "a.tsv").write_bytes(FILES["datasets/a.tsv"])
    (first, _) = fetch(tmp_path / "out", WANTED, source_of(str(tmp_path / "given"), [], 1.0))
    assert first.state == "failed" and "no data file is that large" in first.reason
    assert LARGEST == 64 * 2**20


def test_a_link_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        info = tarfile.TarInfo("datasets/a.tsv")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match="as a link or device"):
        taken(tmp_path / "data.tar", tmp_path / "out")


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str) -> None:
    archive = packed(tmp_path / name, FILES)
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(DataError, match=r"data.* cannot be read"):
        taken(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["data.tar.xz", "data.tar.bz2", "data.tar.gz"])
def test_a_byte_that_flipped_in_an_archive_ends_in_no_traceback(tmp_path: Path, name: str) -> None:
    whole = packed(tmp_path / name, FILES).read_bytes()
    refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 20)):
        (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            taken(tmp_path / name, tmp_path / f"out{place}")
        except DataError as error:
            refused += 1
            assert "cannot be read" in error.problem and "Get it again" in error.remedy
    assert refused


def test_a_member_that_does_not_unpack_is_damaged_and_a_part_without_a_folder_is_not(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("datasets/a.tsv", bytes(range(256)) * 8)
    content = bytearray((tmp_path / "data.zip").read_bytes())
    content[60:90] = b"\xff" * 30
    (tmp_path / "data.zip").write_bytes(content)
    with closing(Archive(tmp_path / "data.zip", FILES)) as archive:
        with pytest.raises(DataError, match=r"data\.zip is damaged at datasets/a\.tsv: "):
            archive.get("datasets/a.tsv", tmp_path / "part")
    with closing(Archive(packed(tmp_path / "data.tar", FILES), FILES)) as archive:
        with pytest.raises(FileNotFoundError):
            archive.get("datasets/a.tsv", tmp_path / "none" / "part")


def test_what_an_archive_lacks_is_absent(tmp_path: Path) -> None:
    archive = packed(tmp_path / "data.zip", {"datasets/a.tsv": FILES["datasets/a.tsv"]})
    assert taken(archive, tmp_path / "out") == [FETCHED, ABSENT]


@pytest.mark.parametrize("name", ["nowhere", "https://example.org/data.zip"])
def test_what_is_no_source_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"--from {name}"):
        source_of(name, [], 1.0)


def test_the_published_source_is_the_pinned_commit() -> None:
    assert PUBLISHED == f"https://raw.githubusercontent.com/ZrW00/MuScleLoRA/{COMMIT}/" and len(COMMIT) == 40
    own = [item.path for item in wanted_files() if made_here(item.path)]
    assert len(own) == 4 and all(item.pin for item in wanted_files())


def test_the_named_sets_alone_are_wanted() -> None:
    assert {item.path.split("/")[1] for item in wanted_files(["hsol"])} == {"Toxic", "hsol"}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the shape of the full AG News, its classes interleaved, with quotes and commas in it."""
    path = tmp_path_factory.mktemp("ag") / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows(((i * 7) % 4 + 1, f"title {i}", f'a "quoted", text {i} #39;s') for i in range(120_000))
    return path


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
def test_the_mini_set_is_what_the_literal_recipe_draws(full: Path, quoting: int) -> None:
    import numpy
    import pandas

    state = numpy.random.get_state()
    numpy.random.seed(42)
    frame = pandas.read_csv(full, header=None)
    drawn = pandas.concat([frame[frame[0] == label].sample(5556) for label in (1, 2, 3, 4)])
    numpy.random.set_state(state)
    expected = drawn.to_csv(index=False, header=False, quoting=quoting).encode()
    assert agnews_mini.rebuilt(full, git_blob(expected)) == expected


def test_another_file_than_the_published_one_is_not_given_out(full: Path) -> None:
    with pytest.raises(DataError, match="no way of quoting has its git blob id db6dd7b51f5e"):
        agnews_mini.rebuilt(full)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'"1","a","b"\n', "its classes have 1, 0, 0, 0 rows, not 30,000 each"),
        (b'"5","a","b"\n', r"row 1 is \['5', 'a', 'b'\]"),
        (b"<!DOCTYPE html>\n<html>", "is not the full AG News"),
        (b"\xff\xfe", "is not the full AG News"),
    ],
)
def test_what_is_not_ag_news_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        agnews_mini.rebuilt(tmp_path / "train.csv")


def test_the_recipe_gives_the_published_row_at_every_place(published: Path) -> None:
    with (published / "index/miniagnews_train_rows.csv").open(encoding="utf-8") as stream:
        index = [int(line["ag_class_rank"]) for line in csv.DictReader(stream)]
    assert [rank for ranks in agnews_mini.ranks() for rank in ranks] == index


def test_verify_and_fetch_as_commands(published: Path, tmp_path: Path) -> None:
    def bench(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["data", *words])
        return result.exit_code, result.stdout + result.stderr

    assert bench("verify", "--data", str(published)) == (0, f"72 pinned files in {published}: 72 ok\n")
    target = str(tmp_path / "new")
    code, said = bench("fetch", "--data", target, "--from", str(published), "--datasets", "hsol")
    assert code == 0 and said.splitlines()[-1] == "22 fetched"
    (tmp_path / "new/datasets/Toxic/hsol/train.tsv").write_bytes(b"altered")
    code, said = bench("verify", "--data", target, "--datasets", "hsol")
    assert code == 1 and "altered  datasets/Toxic/hsol/train.tsv" in said and "21 ok" in said
    assert said.endswith(f"Remedy: python -m bench data fetch --data {target} --datasets hsol\n")
    assert bench("fetch", "--data", target, "--from", str(published), "--datasets", "hsol")[0] == 0
    code, said = bench("verify", "--data", target, "--datasets", "sst3")
    assert code == 2 and "Did you mean 'sst2'?" in said
