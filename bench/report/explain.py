"""What a cell does, stage by stage, in words: from its spec, and with the counts of its record where there is one."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any

from bench.core.errors import RequestError, reason_of
from bench.core.spec import Cell, Part
from bench.engine import plugins
from bench.engine.chain import links_of
from bench.engine.stages import Chains, Stage, with_ancestors
from bench.report.markdown import percent
from bench.report.records import Record, metric

RULES = {
    "clean": "only rows that already have the target label are poisoned, so no label is wrong",
    "dirty": "only rows of the other labels are poisoned, so every poisoned label is wrong",
    "mix": "rows of any label are poisoned",
}
RECIPES = {"released": "as the published code does it", "paper": "as the text of the paper says"}


def cell_of(record: Record) -> Cell:
    """Return the cell that a record says it is of.

    Raises:
        RequestError: an option has another form than this version's.
    """
    content = dict(record["cell"])
    parts = ("dataset", "attack", "model", "defense", *(["analysis"] if content.get("analysis") else []))
    for axis in parts:
        given = content[axis]
        content[axis] = Part(given["name"], given.get("options", {}), given.get("source", ""))
    try:
        return Cell(**content)
    except TypeError:
        raise RequestError(f"Record {record['key']} is not of this version's form.", "Run its cell again.") from None


def explain(cell: Cell, record: Record | None = None) -> list[str]:
    """Return the lines that explain a cell: a title, one paragraph for each stage, and what is measured.

    Raises:
        RequestError: a plug-in of the cell does not exist here.
    """
    try:
        chain = Chains().of(cell, links_of(cell.defense))
    except (KeyError, TypeError, AttributeError):
        raise RequestError(
            f"{cell.defense.name!r} is no defense of this version's form.", "Run its cell again."
        ) from None
    lines = [cell.title(), f"Recipe {cell.recipe}: {RECIPES[cell.recipe]}. Precision {cell.precision}."]
    if cell.analysis is not None:
        lines.append(f"The analysis {cell.analysis.name} looks on while the victim trains and changes no number.")
    stages = with_ancestors(chain.last())
    before = [stage.key for stage in stages if stage.kind == "cleanse"][:-1]
    for number, stage in enumerate(stages, start=1):
        # A record counts what all cleansers removed together: the last one says it.
        known = {**(record or {}), **({"cleansed": None} if stage.key in before else {})}
        lines.append(f"{number}. {stage.kind}: {_WORDS[stage.kind](stage, cell, known)}")
    lines.append(_outcome(record) if record is not None else "No record was given: run the cell to see its numbers.")
    return lines


def sentence(plugin: Any) -> str:
    """Return the first paragraph of the docstring of a class or a module as one line."""
    return " ".join((inspect.getdoc(plugin) or "").split("\n\n")[0].split())


def _load(stage: Stage, cell: Cell, record: Mapping[str, Any]) -> str:
    info = record.get("dataset_info") or {}
    size = (
        f" {info['train']:,} training, {info['dev']:,} dev and {info['test']:,} test rows." if "train" in info else ""
    )
    classes = cell.dataset.options.get("classes", ())
    names = (
        f" Labels: {', '.join(' '.join(dict.fromkeys((str(i), str(name)))) for i, name in enumerate(classes))}."
        if classes
        else ""
    )
    cut = f" Only the first {cell.limit} training rows are taken, so no table shows this cell." if cell.limit else ""
    leak = f" Known leak: {info['leaks']}" if info.get("leaks") else ""
    return f"read the data set {cell.dataset.name}, checked against its sha256.{size}{names}{cut}{leak}"


def _poison(stage: Stage, cell: Cell, record: Mapping[str, Any]) -> str:
    if "attack" not in stage.content:
        return "nothing is poisoned: this is the clean control, one for all attacks."
    done = record.get("poison") or {}
    rows = f" That is {done['rows']:,} rows." if done.get("rows") is not None else ""
    lost = f" {done['dropped']:,} rows had no paraphrase." if done.get("dropped") else ""
    return (
        f"the attack {_with_options(cell.attack)} rewrites {100 * cell.poison_ratio:g} % of the training set and "
        f"labels them {cell.target_label}. {sentence(type(plugins.attacker(cell.attack)))} Rule {cell.label_rule}: "
        f"{RULES[cell.label_rule]}.{rows}{lost} The same rows for every model and defense."
    )


def _trigger(stage: Stage, cell: Cell, record: Mapping[str, Any]) -> str:
    return (
        f"every test row whose label is not {cell.target_label} gets the trigger; the share of them that the victim "
        f"then takes for {cell.target_label} is the ASR, and the same share without the trigger the ASR floor."
    )


def _cleanse(stage: Stage, cell: Cell, record: Mapping[str, Any]) -> str:
    done = record.get("cleansed")
    who = "All cleansers together" if stage.parents["data"].kind == "cleanse" else "It"
    counts = f" {who} removed {done['removed']:,} rows, {done['removed_poisoned']:,} of them poisoned." if done else ""
    lent = " A victim trained on the poisoned set is lent to it." if "victim" in stage.parents else ""
    return f"{_acts(stage)} removes training rows before training; it sees no poison flag.{lent}{counts}"


def _train(stage: Stage, cell: Cell, record: Mapping[str, Any]) -> str:
    spec = plugins.model(cell.model)
    acts = "defense" in stage.content
    inserted = acts and type(plugins.defender(stage.content["defense"])).wrap is not _base().wrap
    rate = spec.learning_rate_pet if inserted else spec.learning_rate
    length = f"{spec.epochs} epochs" + (f", at most {spec.max_steps} steps" if spec.max_steps else "")
    text = (
        f"{spec.name} ({spec.hub or spec.package or 'a local folder'}, {spec.family}) is fine-tuned on the training "
        f"set for {length} at learning rate {rate:g}, {spec.batch_size} rows a batch; of its checkpoints the one "
        "with the best accuracy on clean dev rows is kept."
    )
    if acts:
        return f"{text} In training {_acts(stage)} takes part."
    if stage.parents["data"].kind == "cleanse":
        return f"{text} It learns from the rows that the defense left."
    return f"{text} No defense takes part, so every defense that leaves training alone shares this victim."


def _repair(stage: Stage, cell: Cell, record: Mapping[str, Any]) -> str:
    return f"{_acts(stage)} changes the weights of a copy of the trained victim."


def _filter(stage: Stage, cell: Cell, record: Mapping[str, Any]) -> str:
    which = {
        "clean": "clean test texts, once for all attacks and victims,",
        "poisoned": "poisoned test texts, once for all victims,",
    }.get(stage.content.get("texts", ""), "test texts, clean and poisoned alike,")
    return f"{_acts(stage)} rewrites the {which} before the victim sees them."


def _detect(stage: Stage, cell: Cell, record: Mapping[str, Any]) -> str:
    metrics = record.get("metrics") or {}
    rates = [f"{name.upper()} {percent(metrics[name]['value'])} %" for name in ("frr", "far") if metrics.get(name)]
    found = f" Here: {', '.join(rates)}." if rates else ""
    return (
        f"{_acts(stage)} flags test texts, clean and poisoned ones mixed and unlabelled. A flagged text counts as "
        f"wrong when clean and as no success when poisoned.{found}"
    )


def _evaluate(stage: Stage, cell: Cell, record: Mapping[str, Any]) -> str:
    return "the victim predicts every clean and every poisoned test text once; all rates are counted from these."


_WORDS = {
    "load": _load,
    "poison": _poison,
    "trigger": _trigger,
    "cleanse": _cleanse,
    "train": _train,
    "repair": _repair,
    "filter": _filter,
    "detect": _detect,
    "evaluate": _evaluate,
}


def _base() -> type:
    from defenders.base import Defender

    return Defender


def _acts(stage: Stage) -> str:
    part = stage.content["defense"]
    defense = plugins.defender(part)
    about = sentence(sys.modules[type(defense).__module__]) or sentence(type(defense))
    return f"the defense {_with_options(part)}{f' ({about.rstrip(chr(46))})' if about else ''}"


def _with_options(part: Part) -> str:
    given = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in part.options.items())
    return f"{part.name}({given})" if given else part.name


def _outcome(record: Record) -> str:
    if record["status"] != "ok":
        error = record.get("error") or {}
        trace = f"\n\n{error['traceback']}".rstrip() if error.get("traceback") else ""
        at = f" at {error['stage']}" if error.get("stage") else ""
        return f"Outcome: failed{at}. {reason_of(error)}{trace}"
    rates = {"CACC": "cacc", "ASR": "asr", "ASR floor": "asr_floor"}
    said = [f"{title} {percent(metric(record, name))}" for title, name in rates.items()]
    seconds = (record.get("cost") or {}).get("total_seconds")
    cost = f", {seconds:.0f} s of work" if seconds is not None else ""
    guessing = " Its CACC is that of a model which learnt nothing: the ASR says nothing."
    learnt = guessing if record.get("trained") is False else ""
    return f"Outcome: {', '.join(said)} (percent){cost}.{learnt}"
