"""`bench new model`: a folder with a model of real size and random weights, to measure with."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from bench.core.errors import RequestError


def write_model(name: str, console: Console) -> int:
    """Write `NAME-random/` into the working folder.

    Raises:
        RequestError: no such model, no shape in its file, the folder is there, or it cannot be written.
    """
    from safetensors import SafetensorError

    from bench.data import dataset_spec, load_dataset
    from bench.victim.random_model import write_random_model
    from bench.victim.spec import model_spec

    spec, folder = model_spec(name), Path(f"{name.replace('/', '-')}-random")
    if folder.exists():
        raise RequestError(f"{folder} is already there.", "Move or delete it.")
    texts = [example.text for example in load_dataset(dataset_spec("demo"), None).train]
    try:
        weights = write_random_model(spec, texts, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise RequestError(f"{folder} cannot be written: {reason}.", "Work in another folder.") from None

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    say(f"written: {folder}, {weights:,} random weights in bf16: it knows nothing, and is for measuring")
    checked = " --set model.sha256=null" if spec.sha256 else ""
    say(f"speed:   python -m bench speed --model ./{folder} --dataset demo")
    say(f"memory:  python -m bench run --grid demo --models {name} --set model.path={folder}{checked}")
    return 0
