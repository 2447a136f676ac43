"""Running OpenBackdoor's own code so that nothing of it is left behind."""

from __future__ import annotations

import io
import logging
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bench.core.errors import CellError
from bench.openbackdoor.shims import side_effects_undone

NUMPY_SEEDS = 2**32


@contextmanager
def isolated(seed: int, device: Any = "cpu", links: Mapping[str, Path] | None = None) -> Iterator[Path]:
    """Give its code a folder of its own as the current one, its own random state, and no screen.

    It writes ./logs, ./models and ./poison_data into the current folder: that is an empty temporary one, removed
    afterwards, in which `links` are names it may read. Python's, numpy's and torch's global generators are seeded
    from `seed` and given back, as are the root logger, the level of the logger `transformers`, the environment,
    standard output and error, and the warning filters. The current folder belongs to the whole process: no other
    thread may rely on it meanwhile.

    Raises:
        CellError: its code asks the shell for something (its SynBkd poisoner downloads that way).
    """
    import torch

    from bench.victim.loading import quiet
    from bench.victim.training import seeded

    numpy_state, system = np.random.get_state(), os.system
    theirs = logging.getLogger("transformers")
    level, output = theirs.level, io.StringIO()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openbackdoor-")))
        for name, target in (links or {}).items():
            (folder / name).symlink_to(target.resolve(), target_is_directory=True)
        for context in (
            side_effects_undone(),
            quiet(),
            seeded(seed, torch.device(device)),
            chdir(folder),
            redirect_stdout(output),
            redirect_stderr(output),
        ):
            stack.enter_context(context)
        try:
            random.seed(seed)
            np.random.seed(seed % NUMPY_SEEDS)
            os.system = _refused
            yield folder
        finally:
            os.system = system
            np.random.set_state(numpy_state)
            theirs.setLevel(level)


def _refused(command: str) -> NoReturn:
    raise CellError(f"OpenBackdoor wants to run {command!r} here.", "Run it yourself beforehand; it downloads.")
