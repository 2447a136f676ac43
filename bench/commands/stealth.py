"""`bench stealth`: a table of how well the poison of each attack hides on a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.analysis.stealth import Stealth, measure
from bench.core.errors import BenchError, CellError, RequestError
from bench.core.registry import ATTACKERS, names
from bench.core.seeding import derived_seed, python_rng
from bench.engine import plugins
from bench.engine.preflight import choose_device, data_folder
from bench.report.markdown import DASH, escape, table
from bench.report.paper import printed_name
from bench.victim.spec import ModelSpec, model_spec

LOCAL = "local"
HEADERS = (
    "Attack", "Pairs", "Dropped", "Perplexity clean", "Perplexity change", "median", "Errors clean", "Errors change",
    "Similarity", "Added words", "Kept words %",
)  # fmt: skip


def show_stealth(
    dataset: str,
    attacks: str | None,
    rows: int,
    lm: str,
    seed: int,
    target: int,
    data: str | None,
    device: str,
    out: Path | None,
    console: Console,
) -> int:
    """Print the table, and write it to `out`; return 1 when some attack could not be measured, else 0."""
    from bench.data import dataset_spec, load_dataset

    spec, folder, place = dataset_spec(dataset), data_folder(data), choose_device(device)[0]
    if target not in range(len(spec.classes)):
        raise RequestError(
            f"The target label is {target}, and {dataset!r} has the labels 0 to {len(spec.classes) - 1}.",
            "Give one of these.",
        )
    if attacks is not None and not plugins.split_list(attacks):
        raise RequestError("--attacks names none.", "Give it at least one entry, or leave it out for all of them.")
    wanted = [plugins.parse(text) for text in (plugins.split_list(attacks) if attacks else names(ATTACKERS))]
    chosen = [(name, options, plugins.construct(ATTACKERS, name, options)) for name, options in wanted]
    loaded = load_dataset(spec, folder)
    gauges, missing = _gauges(lm, [example.text for example in loaded.train], seed, place)
    lines, failures = [], []
    for _, options, attack in chosen:
        title = printed_name("attacks", attack.name) + (
            f" ({', '.join(map(_option, options.items()))})" if options else ""
        )
        try:
            pairs, dropped = _pairs(attack, spec, loaded, folder, target, seed, rows)
        except CellError as error:
            failures.append(f"{title}: {error}")
            continue
        lines.append(_line(title, dropped, measure(pairs, *gauges)))
        if console.is_terminal:
            console.print(f"measured {title}", markup=False, highlight=False)
    page = _page(dataset, lm, target, seed, lines, failures, missing)
    console.print(page, markup=False, highlight=False)
    if out is not None:
        _write(out, page)
    return 1 if failures else 0


def _option(item: tuple[str, Any]) -> str:
    name, value = item
    return f"{name}={Path(value).name if name == 'bank_file' else value}"


def _pairs(
    attack: Any, spec: Any, loaded: Any, folder: Path | None, target: int, seed: int, rows: int
) -> tuple[list[tuple[str, str]], int]:
    """Return (clean, poisoned) pairs of at most `rows` test rows, and how many rows the attack had no text for."""
    from bench.data import load_bank
    from bench.data.generated import load_generated

    bank = None
    if attack.bank is not None:
        place = attack.place().get("bank_file")
        if place is None:
            bank = load_bank(spec, attack.bank, folder, target)
        else:
            bank = load_generated(spec, Path(place), folder, target)
    bound = attack.for_recipe("released").bound(
        target_label=target, ratio=0.1, rule="mix", seed=derived_seed(seed, "stealth"), bank=bank
    )
    bound = bound.learned(loaded.train) if attack.learns else bound
    poisoned = bound.poison_heldout("test", loaded.test, loaded.rows["test"])
    known = [
        (loaded.test[place].text, example.text)
        for place, example in zip(poisoned.rows, poisoned.examples, strict=True)
        if place is not None
    ]
    # Which rows are measured depends on the seed and their number alone: the same for every attack that drops none.
    chosen = sorted(python_rng(seed, "stealth rows").sample(range(len(known)), min(rows, len(known))))
    return [known[i] for i in chosen], poisoned.dropped


def _gauges(lm: str, training: list[str], seed: int, device: str) -> tuple[list[Callable | None], list[str]]:
    """Return perplexities, error counts and similarities, None for what this machine cannot measure, and why."""
    from bench.analysis import grammar
    from bench.analysis.similarity import SentenceEncoder
    from bench.victim.loading import checked_folder

    missing: list[str] = []
    judge = _language_model(lm, training, seed, device)
    errors = grammar.error_counts if grammar.available() else None
    if errors is None:
        missing.append(f"Errors: the grammar checker harper-py is not installed. {grammar.REMEDY}")
    similarities = None
    try:
        similarities = SentenceEncoder(checked_folder(model_spec("minilm-l6")), device).similarities
    except CellError as error:
        missing.append(f"Similarity: {error}")
    return [judge.perplexities, errors, similarities], missing


def _language_model(lm: str, training: list[str], seed: int, device: str) -> Any:
    """Return the language model that `--lm` names: local, a folder, or ID@COMMIT of the hub."""
    from bench.victim.loading import checked_folder
    from bench.victim.local_lm import local_language_model
    from bench.victim.perplexity import language_model

    if lm == LOCAL:
        return local_language_model(training, seed=seed, device=device)
    try:
        if Path(lm).is_dir():
            return language_model(checked_folder(ModelSpec(name=lm, path=lm)), lm, device=device)
        hub, _, commit = lm.partition("@")
        if not commit:
            raise RequestError(
                f"--lm {lm} is no folder, and as a hub id it has no pinned commit.",
                "Write ID@ and the commit, 40 hexadecimal digits, name a folder, or take local.",
            )
        return language_model(checked_folder(ModelSpec(name=hub, hub=hub, revision=commit)), hub, device=device)
    except CellError as error:
        remedy = "Name a folder with a generative model and tokenizer, let this machine reach the hub, or take local."
        raise RequestError(error.problem, remedy) from error


def _line(title: str, dropped: int, found: Stealth) -> list[str]:
    numbers = [
        _number(found.perplexity_clean, 1),
        _number(found.perplexity_change, 1, sign=True),
        _number(found.perplexity_change_median, 1, sign=True),
        _number(found.errors_clean, 2),
        _number(found.errors_change, 2, sign=True),
        _number(found.similarity, 3),
        _number(found.added_words, 1),
        _number(None if found.kept_words is None else 100 * found.kept_words, 1),
    ]
    return [escape(title), str(found.pairs), str(dropped), *numbers]


def _number(value: float | None, decimals: int, sign: bool = False) -> str:
    if value is None:
        return DASH
    return f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"


def _page(
    dataset: str, lm: str, target: int, seed: int, lines: list[list[str]], failures: list[str], missing: list[str]
) -> str:
    judge = "a small GPT-2 trained on the clean training texts" if lm == LOCAL else escape(lm)
    notes = [
        "Means over pairs of a clean test text and its poisoned version; a change is poisoned minus clean.",
        f"Perplexity by {judge}; its mean is ruled by few texts, so the median stands beside it.",
        "Errors: those that Harper finds, without formatting, capitals, punctuation and style; no Java.",
        "Similarity: cosine of all-MiniLM-L6-v2 sentence embeddings. Added words: words that are not the clean text's.",
        f"Target label {target}, seed {seed}. Dropped: test rows that the attack had no text for.",
        *missing,
        *(f"Not measured: {escape(failure)}" for failure in failures),
    ]
    body = table(HEADERS, lines, 1) if lines else "No attack could be measured."
    return f"# Stealth of the poison: {escape(dataset)}\n\n{body}\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def _write(out: Path, page: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"--out {out} cannot be written: {error.strerror}.", "Name another file.") from error
