"""A worker whose parent is killed ends too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from bench.core.processes import ENVIRONMENT, _kept_pages, _libc

PARENT = """
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from bench.core.processes import settle

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), settle)
    print(pool.submit(os.getpid).result(), pool.submit(os.getenv, "OMP_WAIT_POLICY").result(), flush=True)
    import time
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_worker_ends_with_its_parent(tmp_path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        worker, policy = parent.stdout.readline().split()
        assert policy == "PASSIVE" and alive(int(worker))
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while alive(int(worker)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(int(worker))


def alive(process: int) -> bool:
    """Tell whether a process runs; one that nobody has buried yet does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{process}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("libc", "kept"),
    [("glibc 2.36", True), ("glibc 2.35", True), ("glibc 3.0", True), ("glibc 2.34", False), ("", False), ("x", False)],
)
def test_pages_are_kept_where_glibc_takes_the_threshold(libc: str, kept: bool) -> None:
    assert bool(_kept_pages(libc)) is kept


@pytest.mark.skipif(not _kept_pages(_libc()), reason="the variables are those of glibc from 2.35 on")
def test_a_worker_keeps_the_pages_of_large_blocks() -> None:
    code = (
        "import resource\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "made = lambda number: len(bytes([number]) * 2**26)\n"
        "made(0), made(1)\n"
        "before = faults()\n"
        "for number in range(2, 6): made(number)\n"
        "print(faults() - before)"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    found = [
        int(subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, check=True).stdout)
        for given in (clean, {**clean, **ENVIRONMENT})
    ]
    assert found[1] < 100 < found[0]  # 64 MiB, four times, are 65,536 pages of 4 KiB, or 128 of 2 MiB
