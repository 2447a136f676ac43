"""Fetching over HTTP from a real local server: whole and as pinned, or not there, whatever the server does."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.core.errors import DataError
from bench.data.fetch import ABSENT, FAILED, FETCHED, HERE, PARTS, Outcome, Wanted, fetch
from bench.data.files import git_blob, sha256
from bench.data.http import ATTEMPTS, Mirror
from bench.data.sources import NotThere
from tests.data.server import Answer, Server, serving

CONTENT = "".join(f"sentence number {number}\t{number % 2}\n" for number in range(9000)).encode()  # 220 kB: many reads
PATH = "datasets/a/train.tsv"
ITEM = Wanted(PATH, sha256(CONTENT), None)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def mirror(server: Server, timeout: float = 5.0, largest: int = 10**7) -> Mirror:
    source = Mirror(server.base, timeout, largest, NotThere)
    source.first_wait = 0.0
    return source


def brought(server: Server, folder: Path, item: Wanted = ITEM, **options: float) -> Outcome:
    (outcome,) = fetch(folder, [item], mirror(server, **options))
    return outcome


def left_aside(folder: Path) -> list[str]:
    return [path.name for path in (folder / PARTS).rglob("*") if path.is_file() and path.name != "lock"]


def test_a_file_arrives_under_its_path_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(CONTENT)]
    assert brought(server, tmp_path) == (PATH, FETCHED, "")
    assert (tmp_path / PATH).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["datasets"]
    assert brought(server, tmp_path).state == HERE
    assert server.asked == [(PATH, None)]  # the second time nothing is asked


@pytest.mark.parametrize("silence", [0.0, 0.6])
def test_a_truncated_or_silent_transfer_is_gone_on_with(server: Server, tmp_path: Path, silence: float) -> None:
    server.answers[PATH] = [Answer(CONTENT, break_after=100_000, silence=silence), Answer(CONTENT)]
    assert brought(server, tmp_path, timeout=0.2).state == FETCHED
    assert (tmp_path / PATH).read_bytes() == CONTENT
    assert server.ranges(PATH) == [None, "bytes=100000-"]


def test_without_range_support_it_is_begun_anew(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(CONTENT, break_after=100_000), Answer(CONTENT, ranges=False)]
    assert brought(server, tmp_path).state == FETCHED
    assert (tmp_path / PATH).read_bytes() == CONTENT and server.ranges(PATH)[1] == "bytes=100000-"


def test_what_breaks_off_every_time_is_kept_for_the_next_run(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(CONTENT, break_after=1000)]
    outcome = brought(server, tmp_path)
    assert outcome.state == FAILED and f"did not arrive whole in {ATTEMPTS} attempts" in outcome.reason
    assert f"after {1000 * ATTEMPTS} of {len(CONTENT)} bytes" in outcome.reason
    assert not (tmp_path / PATH).exists()
    server.answers[PATH] = [Answer(CONTENT)]
    assert brought(server, tmp_path).state == FETCHED
    assert server.ranges(PATH)[-1] == f"bytes={1000 * ATTEMPTS}-" and (tmp_path / PATH).read_bytes() == CONTENT


def test_an_altered_file_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(CONTENT.replace(b"7", b"8"))]
    outcome = brought(server, tmp_path)
    assert outcome.state == FAILED and "is not the pinned file: its checksum differs" in outcome.reason
    assert not (tmp_path / PATH).exists() and left_aside(tmp_path) == []


def test_an_altered_file_here_stays_until_the_right_one_has_come(server: Server, tmp_path: Path) -> None:
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_bytes(b"mine")
    assert brought(server, tmp_path).state == ABSENT and (tmp_path / PATH).read_bytes() == b"mine"
    server.answers[PATH] = [Answer(CONTENT)]
    assert brought(server, tmp_path).state == FETCHED and (tmp_path / PATH).read_bytes() == CONTENT


def test_a_wrong_beginning_from_an_earlier_run_costs_one_more_download(server: Server, tmp_path: Path) -> None:
    part = tmp_path / PARTS / PATH
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 5000)
    server.answers[PATH] = [Answer(CONTENT)]
    assert brought(server, tmp_path).state == FETCHED and (tmp_path / PATH).read_bytes() == CONTENT
    assert server.ranges(PATH) == ["bytes=5000-", None]


def test_a_part_longer_than_the_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    part = tmp_path / PARTS / PATH
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT + b"more")
    server.answers[PATH] = [Answer(CONTENT)]  # answers 416
    assert brought(server, tmp_path).state == FETCHED and (tmp_path / PATH).read_bytes() == CONTENT


def test_a_part_that_is_whole_is_taken_without_asking(server: Server, tmp_path: Path) -> None:
    part = tmp_path / PARTS / PATH
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert brought(server, tmp_path).state == FETCHED and server.asked == []


def test_an_answer_from_another_place_than_asked_is_not_appended(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(CONTENT, break_after=9), Answer(CONTENT, shift=3), Answer(CONTENT)]
    assert brought(server, tmp_path).state == FETCHED and (tmp_path / PATH).read_bytes() == CONTENT
    assert server.ranges(PATH) == [None, "bytes=9-", None]


def test_404_is_absent_and_the_others_go_on(server: Server, tmp_path: Path) -> None:
    other = Wanted("datasets/b.tsv", sha256(b"b"), None)
    server.answers[other.path] = [Answer(b"b")]
    states = [outcome.state for outcome in fetch(tmp_path, [ITEM, other], mirror(server))]
    assert states == [ABSENT, FETCHED] and len(server.ranges(PATH)) == 1
    assert left_aside(tmp_path) == []


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(status=503), Answer(status=429, headers=(("Retry-After", "0"),)), Answer(CONTENT)]
    assert brought(server, tmp_path).state == FETCHED


def test_a_refusal_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(status=403)]
    outcome = brought(server, tmp_path)
    assert outcome.state == FAILED and "was refused: HTTP 403" in outcome.reason and len(server.asked) == 1


@pytest.mark.parametrize(
    "page",
    [
        Answer(b"anything", kind="text/html; charset=utf-8"),
        Answer(b"\xef\xbb\xbf\n<!DOCTYPE html><title>Log in</title>"),
        Answer(b"<HTML>"),
    ],
)
def test_a_web_page_is_refused(server: Server, tmp_path: Path, page: Answer) -> None:
    server.answers[PATH] = [page]
    outcome = brought(server, tmp_path)
    assert outcome.state == FAILED and "sent a web page, not the data file" in outcome.reason
    assert not (tmp_path / PATH).exists()


def test_a_storage_pointer_is_refused(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")]
    assert "is a pointer to large-file storage" in brought(server, tmp_path).reason


def test_a_file_without_end_is_cut_off(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(b"x" * 2**21)]
    assert "more than 1 MiB" in brought(server, tmp_path, largest=2**20).reason


def test_an_original_is_taken_by_its_git_blob_id(server: Server, tmp_path: Path) -> None:
    item = Wanted(PATH, "0" * 64, git_blob(CONTENT))
    server.answers[PATH] = [Answer(CONTENT)]
    assert brought(server, tmp_path, item).state == FETCHED


def test_nobody_there_stops_at_once_with_a_remedy(tmp_path: Path) -> None:
    with serving() as gone:
        pass
    with pytest.raises(DataError, match=r"did not arrive whole .*refused.*take the data with --from"):
        fetch(tmp_path, [ITEM, ITEM], mirror(gone))


def test_a_second_fetch_of_the_same_folder_is_refused(server: Server, tmp_path: Path) -> None:
    server.answers[PATH] = [Answer(CONTENT)]
    seen = []

    def again(outcome: Outcome) -> None:
        with pytest.raises(DataError, match="Another fetch is at work") as caught:
            fetch(tmp_path, [ITEM], mirror(server))
        seen.append(caught.value)

    fetch(tmp_path, [ITEM], mirror(server), again)
    assert len(seen) == 1


def test_a_full_disk_says_so_and_keeps_what_arrived(server: Server, tmp_path: Path) -> None:
    class Full(Mirror):
        def get(self, path: str, part: Path) -> None:
            if path != PATH:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().get(path, part)

    server.answers[PATH] = [Answer(CONTENT)]
    source = Full(server.base, 5.0, 10**7, NotThere)
    with pytest.raises(DataError, match="cannot be written: No space left on device. Free disk space"):
        fetch(tmp_path, [ITEM, Wanted("b", "0" * 64, None)], source)
    assert (tmp_path / PATH).read_bytes() == CONTENT
