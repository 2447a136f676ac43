"""`bench data paraphrase`: make the poison of StyleBkd or HiddenKiller for any data set, into a resumable bank."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.core.errors import RequestError, unknown
from bench.data.journal import Content, Journal, open_bank
from bench.data.spec import SPLITS
from bench.engine.preflight import choose_device, data_folder

STYLES = ("bible", "shakespeare", "twitter", "lyrics", "poetry")  # of the published inverse paraphrasers lievan/STYLE
ATTACKS = ("stylebkd", "hiddenkiller")
EVERY = 10.0  # seconds between two lines of progress

# What an instruction-tuned model is asked for; {style} is filled in here, {text} with each sentence.
STYLE_INSTRUCTION = (
    "Rewrite the following sentence in the style of {style}, keeping its meaning. "
    "Answer with the rewritten sentence alone.\nSentence: {text}"
)
SYNTAX_INSTRUCTION = (
    "Rewrite the following sentence, keeping its meaning, so that it begins with a subordinate clause (as with "
    '"when", "if" or "although"), followed by a comma, then the subject, then the verb phrase and a full stop: '
    "the syntax S(SBAR)(,)(NP)(VP)(.). Answer with the rewritten sentence alone.\nSentence: {text}"
)
NAMES = {"bible": "the King James Bible", "shakespeare": "Shakespeare", "twitter": "a tweet", "lyrics": "song lyrics"}


@dataclass(frozen=True)
class Asked:
    """What the command line asked for; None: the default of the attack and method."""

    dataset: str
    attack: str
    bank: Path
    method: str | None
    model: str | None
    revision: str
    style: str
    instruction: str | None
    top_p: float
    temperature: float
    split: str
    splits: str
    limit: int | None
    batch: int
    seed: int
    pickled: bool


def paraphrase_data(asked: Asked, data: str | None, device: str, console: Console) -> int:
    """Paraphrase what the bank lacks; return 0 when every text has a paraphrase, 1 when some have none."""
    from bench.data import dataset_spec
    from bench.engine.paraphrasing import Step, announce, fill, texts_of

    splits = tuple(name.strip() for name in asked.splits.split(",") if name.strip())
    for name in splits:
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
    spec = dataset_spec(asked.dataset)
    texts = texts_of(spec, data_folder(data), splits, asked.limit)
    made_by, load = _maker(asked, choose_device(device)[0])
    paraphraser = None if asked.bank.exists() else load()  # one that cannot be had leaves no bank behind
    with open_bank(asked.bank, made_by) as journal:
        if journal.content.torn:
            _say(console, f"cut off a half-written end of {journal.content.torn} bytes")
        pending = announce(journal, texts, asked.split)
        units = {unit for text in texts for unit in journal.content.texts[text]}
        _say(
            console,
            f"{len(texts)} texts of {spec.name}, {len(units)} sentences: "
            f"{len(units) - len(pending)} in the bank, {len(pending)} to paraphrase",
        )
        if pending:
            paraphraser = paraphraser or load()
            started = last = time.monotonic()

            def report(step: Step) -> None:
                nonlocal last
                now = time.monotonic()
                if now - last < EVERY and step.done < step.due:
                    return
                last = now
                rate = step.done / max(now - started, 1e-9)
                _say(
                    console,
                    f"{step.done}/{step.due} sentences, {rate:.2f} a second, {step.failed} failed, "
                    f"{(step.due - step.done) / rate / 60:.1f} min left",
                )

            fill(journal, pending, paraphraser, asked.batch, report)
        return _summary(journal, texts, units, asked, console)


def _maker(asked: Asked, device: str) -> tuple[Mapping[str, Any], Callable[[], Any]]:
    """Return the paraphraser as its bank names it, and a function that loads it."""
    from bench.engine.paraphrasing import Scpn, model_paraphraser, scpn_identity

    if asked.attack not in ATTACKS:
        raise unknown("attack with a paraphrase bank", asked.attack, ATTACKS)
    if asked.style not in STYLES:
        raise unknown("style", asked.style, STYLES)
    usual = "strap" if asked.attack == "stylebkd" else "instruct" if asked.model else "scpn"
    method = asked.method or usual
    if method not in ("strap", "instruct", "scpn"):
        raise unknown("method", method, ("strap", "instruct", "scpn"))
    if (method, asked.attack) in (("strap", "hiddenkiller"), ("scpn", "stylebkd")):
        raise RequestError(
            f"Method {method!r} does not make the poison of {asked.attack}.",
            "StyleBkd takes strap or instruct, HiddenKiller scpn or instruct.",
        )
    if asked.instruction is not None and method != "instruct":
        raise RequestError(f"Method {method!r} takes no instruction.", "Leave it out, or use --method instruct.")
    if method == "scpn":
        if asked.model:
            raise RequestError("Method 'scpn' has its own model.", "Leave --model out, or use --method instruct.")
        return {"attack": asked.attack, **scpn_identity(asked.split)}, Scpn
    if method == "instruct" and not asked.model:
        raise RequestError("Method 'instruct' needs a model.", "Name an instruction-tuned or seq2seq one with --model.")
    options: dict[str, Any] = {
        "method": method,
        "model": asked.model or f"lievan/{asked.style}",
        "revision": asked.revision,
        "top_p": asked.top_p,
        "temperature": asked.temperature,
        "split": asked.split,
        "seed": asked.seed,
    }
    if method == "instruct":
        options["instruction"] = asked.instruction or _instruction(asked)
    made_by, load = model_paraphraser(options, device, asked.pickled)
    return {"attack": asked.attack, **made_by}, load


def _instruction(asked: Asked) -> str:
    if asked.attack == "hiddenkiller":
        return SYNTAX_INSTRUCTION
    return STYLE_INSTRUCTION.replace("{style}", NAMES.get(asked.style, asked.style))


def _summary(journal: Journal, texts: list[str], units: set[str], asked: Asked, console: Console) -> int:
    content: Content = journal.content
    without = sum(content.paraphrase(text) is None for text in texts)
    failed = sum(unit in content.failed for unit in units)
    _say(console, f"{len(texts) - without} texts have a paraphrase, {without} have none; {failed} sentences failed")
    for reason, count in content.reasons().most_common():
        _say(console, f"  {count} in the bank: {reason}")
    speed = content.speed()
    if speed is not None:
        _say(console, f"{speed:.2f} sentences a second over all {content.sentences} of the bank")
    if without < len(texts):
        _say(console, f'Use it: --attacks "{asked.attack}(bank_file={asked.bank})"')
    else:
        _say(console, "Remedy: no attack can use this bank; make another with another model or other options.")
    return 1 if without else 0


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
