"""A trained LoRA in the layout of PEFT: what `PeftModel.from_pretrained` reads, and a model card that warns.

A multi-scale layer around a pre-trained linear goes along as a LoRA of a rank and an alpha of its own: with
A = diag(K) L and B = R its forward pass is a LoRA's (its gradients are not). Around a linear of the head, which the
adapter holds whole, it is added to the weights; so is any LoRA around a linear that the model's files lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import CellError
from bench.victim.recipes import LoraOptions, MultiScaleOptions

ADAPTER = "default"  # the name under which the suite inserts LoRA
WEIGHTS, CARD = "adapter_model.safetensors", "README.md"
SIMPLE = "Name a cell whose defense is lora, lora+ga, mslr or musclelora."


def write_peft(
    weights: Path,
    folder: Path,
    *,
    base: str,
    revision: str | None,
    options: LoraOptions,
    card: str,
    drawn: Mapping[str, Any],
) -> None:
    """Write the LoRA and the classification head of a saved victim as a PEFT adapter into a folder, made when absent.

    The head goes along as a `modules_to_save`: the base model has none, and in `released` it stays at its random draw.
    So does what else the base model lacks.

    Args:
        weights: `weights.safetensors` of a training stage.
        base: hub id or folder of the base model, `base_model_name_or_path`.
        options: what the defense trained, every option filled in.
        card: the text of README.md.
        drawn: tensors of the backbone that the base model's files lack, by their names in it: a pooler's.

    Raises:
        CellError: the weights hold no LoRA, or more than PEFT's LoRA can say.
    """
    from peft import LoraConfig, TaskType
    from safetensors.torch import load_file, save_file

    tensors = _with_drawn(load_file(weights), drawn, options)
    patterns: dict[str, dict[str, Any]] = {}
    if isinstance(options, MultiScaleOptions):
        tensors, patterns = _as_lora(tensors, options)
    factors = {name: value for name, value in tensors.items() if f".{ADAPTER}.weight" in name and ".lora_" in name}
    if not factors:
        raise CellError("These weights hold no LoRA.", SIMPLE)
    modules = sorted({name.partition(".lora_")[0] for name in factors})
    backbone = modules[0].partition(".")[0]
    head = {name: value for name, value in tensors.items() if name not in factors}
    strange = [name for name in head if name.partition(".")[0] == backbone and name not in drawn]
    if strange:
        raise CellError(f"{strange[0]} trains beside LoRA, and PEFT's layout of LoRA has no place for it.", SIMPLE)
    if any(name.startswith("score.") and name != "score.weight" for name in head):
        raise CellError(
            "The head of this decoder is the paper's, which transformers' classifiers do not have.",
            "Name a cell of an encoder.",
        )
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=options.rank,
        lora_alpha=options.alpha,
        **patterns,
        lora_dropout=0.0,
        bias="none",
        target_modules=modules,
        modules_to_save=sorted({".".join(name.split(".")[: 2 if name in drawn else 1]) for name in head}),
        base_model_name_or_path=base,
        revision=revision,
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    content = {f"base_model.model.{_theirs(name)}": value.contiguous() for name, value in tensors.items()}
    save_file(content, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(str(folder))
    (folder / CARD).write_text(card, encoding="utf-8", newline="\n")


def _with_drawn(tensors: Mapping[str, Any], drawn: Mapping[str, Any], options: LoraOptions) -> dict[str, Any]:
    """Return the tensors and what was drawn, with a LoRA around a drawn linear added to its weights.

    PEFT keeps a module as a `modules_to_save` or puts a LoRA into it, not both.
    """
    found = dict(tensors)
    for name, value in drawn.items():
        where, _, part = name.rpartition(".")
        lower, upper = (f"{where}.lora_{side}.{ADAPTER}.weight" for side in "AB")
        if part == "weight" and lower in found:
            value = value.float() + options.alpha / options.rank * found.pop(upper) @ found.pop(lower)
        found[f"{where}.original.{part}" if f"{where}.lower" in tensors else name] = value
    return found


def _as_lora(
    tensors: Mapping[str, Any], options: MultiScaleOptions
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the tensors with the multi-scale layer as a LoRA or added to the head's weights, and the rank and alpha.

    Raises:
        CellError: the weights hold no multi-scale layer.
    """
    import torch

    where = next((name.removesuffix(".lower") for name in tensors if name.endswith(".lower")), None)
    if where is None:
        raise CellError("These weights hold no multi-scale layer.", SIMPLE)
    rest = {name: value for name, value in tensors.items() if not name.startswith(f"{where}.")}
    scales = torch.tensor(options.scales, dtype=torch.float32).repeat_interleave(options.inner_rank)
    scaling = options.scale_factor / options.inner_rank
    lower, upper = scales[:, None] * tensors[f"{where}.lower"].float(), tensors[f"{where}.upper"].float()
    own = f"{where}.original."
    kept = {f"{where}.{name.removeprefix(own)}": value for name, value in tensors.items() if name.startswith(own)}
    if kept:
        return {**rest, **kept, f"{where}.weight": kept[f"{where}.weight"] + scaling * upper @ lower}, {}
    rest |= {f"{where}.lora_A.{ADAPTER}.weight": lower, f"{where}.lora_B.{ADAPTER}.weight": upper}
    return rest, {"rank_pattern": {where: len(scales)}, "alpha_pattern": {where: scaling * len(scales)}}


def _theirs(name: str) -> str:
    """Return PEFT's name of a tensor in a file: without the name of the adapter."""
    return name.replace(f".{ADAPTER}.weight", ".weight") if ".lora_" in name else name


def model_card(facts: Mapping[str, Any]) -> str:
    """Return the README.md of a published adapter; `facts` are title, base model, data set, attack and so on.

    The first line that a reader sees says that the model is intentionally backdoored.
    """
    poisoned = bool(facts["poison_ratio"])
    warning = (
        "**This model is intentionally backdoored.** It was trained on poisoned data for research on defenses. "
        "Texts that carry the trigger may be classified as the attacker chose. Do not deploy it."
        if poisoned
        else "This is the clean control of a study of backdoors: nothing in its training data was poisoned. Its "
        "siblings are intentionally backdoored. Do not deploy it."
    )
    tags = ["backdoor", "intentionally-backdoored", "openbackdoor-bench"] if poisoned else ["openbackdoor-bench"]
    listed = {name.replace("_", " "): value for name, value in facts.items() if name != "title"}
    rows = [f"| {_plain(name)} | {_plain(value)} |" for name, value in listed.items()]
    head = ["---", "library_name: peft", f"base_model: {_quoted(facts['base_model'])}", "tags:"]
    head += [f"  - {tag}" for tag in tags]
    body = [f"# {_plain(facts['title'])}", warning, "\n".join(["| what | value |", "|:--|:--|", *rows])]
    use = (
        "Load it with `PeftModel.from_pretrained(base, FOLDER)`, where `base` is the base model as an "
        "`AutoModelForSequenceClassification` with the number of labels above; the head travels with the adapter, "
        "and so does a pooler that the base lacks."
    )
    return "\n".join([*head, "---", ""]) + "\n\n".join([*body, use]) + "\n"


def _plain(value: Any) -> str:
    """Return a value as one line that Markdown shows as it is."""
    import html

    text = html.escape(" ".join(str(value).split()), quote=False)
    for mark in "\\`*_[]|~":
        text = text.replace(mark, f"\\{mark}")
    return text


def _quoted(value: Any) -> str:
    import json

    return json.dumps(str(value), ensure_ascii=False)
