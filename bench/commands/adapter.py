"""`bench adapter RUN#KEY --to FOLDER`: the trained LoRA of a cell in the layout of PEFT, with a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from bench.core.errors import BenchError, CellError, RequestError
from bench.engine import plugins
from bench.engine.store import WEIGHTS_FILE, Store
from bench.report.compare import title
from bench.report.records import Record, metric
from bench.report.references import one
from bench.victim.peft_layout import SIMPLE
from bench.victim.recipes import LoraOptions


def export_adapter(reference: str, to: Path, console: Console) -> int:
    """Write the adapter of a cell and name the folder."""
    save_adapter(reference, to)
    console.print(f"written: {to} (adapter_config.json, adapter_model.safetensors, README.md)", markup=False)
    return 0


def save_adapter(reference: str, to: str | Path) -> Path:
    """Write the LoRA that a cell trained into a new folder, loadable by `PeftModel.from_pretrained`; return the folder.

    Args:
        reference: `RUN#KEY`, a cell of a run made with `--keep-weights`.

    Raises:
        BenchError: no such cell, its defense is more than a LoRA, its weights were not kept, its model is not on this
            machine as it was, or the folder is there.
    """
    from bench.engine.victims import drawn
    from bench.victim.peft_layout import model_card, write_peft

    record, found = one(reference)
    folder = Path(to)
    if folder.exists():
        raise RequestError(f"{folder} is already there.", "Name a new folder.")
    if record["status"] != "ok" or found.store is None:
        raise RequestError(f"{reference!r} has no trained victim here.", "Name a finished cell of a run's own folder.")
    store, key = Store(found.store, read_only=True), _training(record)
    manifest = store.manifest(key)
    if manifest is None or WEIGHTS_FILE not in manifest["files"]:
        raise RequestError(
            f"The weights of {reference!r} were not kept.", "Run that cell with --keep-weights into another --out."
        )
    content = manifest["content"]
    options = _lora(content.get("defense"))
    model = content["model"]["options"]
    place = content["model"].get("place", {}).get("path")  # of a local folder; its name is what others can know
    base = model.get("hub") or (Path(place).name if place else model["name"])
    facts = _facts(record, base)
    try:
        beside = drawn(store, key)
    except BenchError as error:
        raise RequestError(
            f"What was drawn for {reference!r} cannot be drawn again: {error.problem}",
            "Put the model and the run's folder back as they were, or run the cell with --keep-weights elsewhere.",
        ) from error
    try:
        write_peft(
            store.open(key) / WEIGHTS_FILE,
            folder,
            base=base,
            revision=model.get("revision"),
            options=options,
            card=model_card(facts),
            drawn=beside,
        )
    except OSError as error:
        raise RequestError(f"{folder} cannot be written: {error.strerror}.", "Name another folder.") from None
    return folder


def _training(record: Record) -> str:
    """Return the key of the training stage whose weights the cell evaluated.

    Raises:
        CellError: the weights were repaired after training.
    """
    stages = record.get("stages") or []
    pairs = list(stages.items()) if isinstance(stages, dict) else [tuple(pair) for pair in stages]
    if any(kind == "repair" for kind, _ in pairs):
        raise CellError("The victim of this cell was repaired after training, so it is no adapter.", SIMPLE)
    return next(key for kind, key in reversed(pairs) if kind == "train")


def _lora(part: Any) -> Any:
    """Return the options of the LoRA that a defense trained.

    Raises:
        CellError: it trained something else, or more.
    """
    if not part:
        raise CellError("The defense of this cell leaves training alone, so there is no LoRA.", SIMPLE)
    defense = plugins.defender(part)
    if not isinstance(defense, LoraOptions):
        raise CellError(f"What {part['name']} trains is no LoRA.", SIMPLE)
    return defense


def _facts(record: Record, base: str) -> dict[str, Any]:
    cell = record["cell"]
    rates = {"CACC": metric(record, "cacc"), "ASR": metric(record, "asr"), "ASR floor": metric(record, "asr_floor")}
    return {
        "title": title(record),
        "base_model": base,
        "base revision": cell["model"]["options"].get("revision") or "none",
        "dataset": cell["dataset"]["name"],
        "labels": (record.get("dataset_info") or {}).get("classes", "?"),
        "attack": cell["attack"]["name"],
        "defense": cell["defense"]["name"],
        "poison_ratio": cell["poison_ratio"],
        "target_label": cell["target_label"],
        "label_rule": cell["label_rule"],
        "seed": cell["seed"],
        **{name: "not measured" if value is None else f"{value:.4f}" for name, value in rates.items()},
        "record": record["key"],
    }
