"""Filling a paraphrase bank: the sentences that it lacks, batch by batch, each batch on the disk before the next."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.core.errors import CellError, RequestError
from bench.core.options import plain
from bench.data.dataset import load_dataset
from bench.data.journal import Journal, entries_of
from bench.data.sentences import units_of
from bench.data.spec import DatasetSpec
from bench.victim.spec import ModelSpec

ANNOUNCED = 1000  # texts whose sentences are written down at a time


class Paraphrases(Protocol):
    """Turns sentences into (paraphrase, reason of failure) pairs; a paraphrase is None where there is none."""

    def paraphrase(self, units: Sequence[str]) -> Sequence[tuple[str | None, str]]:
        """Return one pair for each sentence."""


@dataclass(frozen=True)
class Step:
    """What was done when a batch was on the disk: sentences done and due in this run, and those failed among them."""

    done: int
    due: int
    failed: int
    seconds: float


def texts_of(spec: DatasetSpec, data_dir: Path | None, splits: Iterable[str], limit: int | None) -> list[str]:
    """Return the texts of some splits of a data set, each once, in order; `limit` of each split at most."""
    data = load_dataset(spec, data_dir)
    return list(dict.fromkeys(example.text for split in splits for example in data.split(split)[:limit]))


def announce(journal: Journal, texts: Sequence[str], split: str) -> list[str]:
    """Write down into which sentences the new texts are cut; return the sentences of `texts` without an entry.

    A text that is in the bank keeps the sentences it was cut into.
    """
    new = [text for text in texts if text not in journal.content.texts]
    for begin in range(0, len(new), ANNOUNCED):
        cut = [(text, units_of(text, split)) for text in new[begin : begin + ANNOUNCED]]
        journal.append(entries_of(cut))
    asked = {unit for text in texts for unit in journal.content.texts[text]}
    return [unit for unit in journal.content.pending() if unit in asked]


def fill(
    journal: Journal, pending: Sequence[str], paraphraser: Paraphrases, size: int, report: Callable[[Step], None]
) -> None:
    """Paraphrase the sentences in batches of `size`, and append each batch when it is done.

    Raises:
        DataError: the bank cannot be written; all batches before are kept.
        CellError: the paraphraser has no memory for a batch.
    """
    done = failed = 0
    for begin in range(0, len(pending), size):
        units = pending[begin : begin + size]
        started = time.perf_counter()
        said = _said(paraphraser, units)
        seconds = time.perf_counter() - started
        lines: list[Mapping[str, Any]] = []
        for unit, (text, reason) in zip(units, said, strict=True):
            lines.append({"unit": unit, "failed": reason} if text is None else {"unit": unit, "said": text})
        journal.append([*lines, {"batch": len(units), "seconds": round(seconds, 6)}])
        done += len(units)
        failed += sum(text is None for text, _ in said)
        report(Step(done, len(pending), failed, seconds))


def _said(paraphraser: Paraphrases, units: Sequence[str]) -> Sequence[tuple[str | None, str]]:
    try:
        return paraphraser.paraphrase(units)
    except RuntimeError as error:  # torch reports exhausted memory so
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        raise CellError(f"There is no memory for a batch of {len(units)} sentences.", "Lower --batch.") from error


class Scpn:
    """HiddenKiller's paraphraser: SCPN (Iyyer et al. 2018) as OpenBackdoor's own poisoner calls it, one by one.

    That poisoner gives the sentence back unchanged where its parser fails: counted here as a failure.

    Raises:
        RequestError: OpenBackdoor or OpenAttack, which holds SCPN, is not installed.
    """

    def __init__(self, template: int = -1) -> None:
        from bench.openbackdoor import load

        load()
        module = importlib.import_module("openbackdoor.attackers.poisoners.synbkd_poisoner")
        try:
            self._poisoner = module.SynBkdPoisoner(template_id=template)
        except CellError as error:
            raise RequestError(error.problem, error.remedy) from error
        except Exception as error:  # a package of others: it downloads a model, and anything can go wrong
            raise RequestError(
                f"OpenBackdoor's SCPN cannot be had: {error}.",
                "It downloads its model once: let this machine reach the network, or use --method instruct.",
            ) from error

    def paraphrase(self, units: Sequence[str]) -> list[tuple[str | None, str]]:
        """Return the paraphrase of each sentence in the template, or None and the reason."""
        said = []
        for unit in units:
            text = " ".join(self._poisoner.transform(unit).split())
            unchanged = text == " ".join(unit.split())
            reason = "empty paraphrase" if not text else "unchanged: SCPN's parser failed" if unchanged else ""
            said.append((None if reason else text, reason))
        return said


def scpn_identity(split: str, template: int = -1) -> dict[str, Any]:
    """Return what a bank of SCPN says of its maker."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("OpenAttack")
    except PackageNotFoundError:
        found = "absent"
    return {"method": "scpn", "template": template, "split": split, "openattack": found}


def model_paraphraser(
    options: Mapping[str, Any], device: str, pickled: bool
) -> tuple[dict[str, Any], Callable[[], Paraphrases]]:
    """Return what a bank says of a model as its maker, and a function that loads it.

    Raises:
        RequestError: a wrong option, or a model that is neither a folder nor a hub id with a commit that can be found.
    """
    from bench.core.options import build
    from bench.victim.paraphraser import ParaphraserSpec, load_paraphraser

    spec = build(ParaphraserSpec, options, "paraphraser", str(options.get("method")))
    folder, revision = _model_folder(spec.model, spec.revision, pickled)
    spec = build(ParaphraserSpec, {**options, "revision": revision}, "paraphraser", spec.method)
    made_by = plain(spec.identity())
    if Path(spec.model).is_dir():
        made_by["model"] = Path(spec.model).resolve().name  # its files are named by the revision
    return made_by, lambda: load_paraphraser(spec, folder, device=device, pickled=pickled)


def _model_folder(model: str, revision: str, pickled: bool) -> tuple[Path, str]:
    """Return the folder of a model and its commit or the digest of its files."""
    from bench.victim.loading import checked_folder, weights_identity
    from bench.victim.pickled import pickled_folder, pickled_identity

    try:
        if Path(model).is_dir():
            spec = ModelSpec(name=model, path=model)
        else:
            spec = ModelSpec(name=model, hub=model, revision=revision or _newest(model))
        if pickled:
            return pickled_folder(spec), pickled_identity(spec)
        return checked_folder(spec), weights_identity(spec).rpartition("@")[2]
    except CellError as error:
        remedy = "Name a folder with --model, or let this machine reach the hub."
        if "safetensors" in error.problem:
            remedy = "Convert the weights, or read them by torch's loader that runs no code: --pickled-weights."
        raise RequestError(error.problem, remedy) from error


def _newest(model: str) -> str:
    """Return the commit that a hub id stands for now; a bank keeps it."""
    import huggingface_hub

    try:
        return str(huggingface_hub.HfApi().model_info(model).sha)
    except Exception as error:  # whatever the hub's library for the network raises, and it changes between versions
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RequestError(
            f"Model {model!r} is no folder here, and the hub does not tell its commit: {lines[0].rstrip('.')}.",
            "Name a folder with --model, or the commit with --revision.",
        ) from error
