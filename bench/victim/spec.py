"""What a victim is: where its weights are, how it is trained, and where a defense may attach.

No torch here: planning reads these and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from bench.core.errors import CellError, RequestError, unknown
from bench.core.options import Count, Fraction, Index, NonNegative, Options, Positive, Text, added, build
from bench.core.paths import is_file, is_folder, json_object

Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

DECODER_PENULTIMATE = "score.dense"  # the first linear of the paper's head
HEAD_WIDTH = 16  # between its two

# What the files of configs/models say of every decoder: the settings of the published code and of the paper.
DECODER: dict[str, Any] = {
    "family": "decoder",
    "learning_rate": 1e-5,
    "learning_rate_pet": 1e-5,
    "epochs": 5,
    "batch_size": 16,
    "max_length": 4096,
    "lora_rank": 2,
    "lora_alpha": 8,
    "adapter_dim": 2,
    "prefix_tokens": 2,
    "scales": (1, 2, 3, 4),
    "scales_paper": (1, 2, 3, 4),
    "scale_factor": 4,
    "clean_samples": 128,
    "mu_max": 0,
    "ga_epoch": 0,
    "min_reference_loss": 0,
}

# For models named by a folder: what the files of configs/models say of their own. Suffixes of module names
# inside the backbone, and the linear before the classifier as a dotted name in the whole model.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {
        "family": "encoder",
        "lora_targets": ("query", "value"),
        "adapter_sites": ("attention.output.dense", "output.dense"),
        "penultimate": "bert.pooler.dense",
    },
    "roberta": {
        "family": "encoder",
        "lora_targets": ("query", "value"),
        "adapter_sites": ("attention.output.dense", "output.dense"),
        "penultimate": "classifier.dense",
    },
    "electra": {
        "family": "encoder",
        "lora_targets": ("query", "value"),
        "adapter_sites": ("attention.output.dense", "output.dense"),
        "penultimate": "classifier.dense",
    },
    "distilbert": {
        "family": "encoder",
        "lora_targets": ("q_lin", "v_lin"),
        "adapter_sites": ("attention.out_lin", "ffn.lin2"),
        "penultimate": "pre_classifier",
    },
    "modernbert": {
        "family": "encoder",
        "lora_targets": ("Wqkv",),
        "adapter_sites": ("attn.Wo", "mlp.Wo"),
        "penultimate": "head.dense",
    },
    "gpt2": {**DECODER, "lora_targets": ("c_attn",), "adapter_sites": ("attn.c_proj", "mlp.c_proj")},
    "llama": {
        **DECODER,
        "lora_targets": ("q_proj", "v_proj"),
        "adapter_sites": ("self_attn.o_proj", "mlp.down_proj"),
    },
    "qwen2": {
        **DECODER,
        "lora_targets": ("q_proj", "v_proj"),
        "adapter_sites": ("self_attn.o_proj", "mlp.down_proj"),
    },
    "qwen3": {
        **DECODER,
        "lora_targets": ("q_proj", "v_proj"),
        "adapter_sites": ("self_attn.o_proj", "mlp.down_proj"),
    },
}


@dataclass(frozen=True)
class ModelSpec(Options):
    """One victim model; the defaults are those of the paper's BERT-base.

    The weights are looked for in `path`, then in `package`, then on the hub.

    Raises:
        RequestError: a value out of range, no place to take the weights from, or a hub id without its commit.
    """

    name: Text
    hub: Text | None = None
    revision: Commit | None = None  # commit of the hub repository
    path: Text | None = None  # a local folder in the hub's layout
    package: Text | None = None  # importable package, and the folder in it that holds the model: `package/folder`
    sha256: Sha256 | None = None  # of model.safetensors, wherever it comes from
    extra: Text | None = None  # extra of this distribution that brings the package
    family: Literal["encoder", "decoder"] = "encoder"
    learning_rate: Positive = 2e-5  # when the whole model trains
    learning_rate_pet: Positive = 2e-5  # when only inserted modules do
    epochs: Count = 10
    batch_size: Count = 32
    max_length: Count = 512  # tokens
    warmup_epochs: NonNegative = 0.0
    evaluations: Count | None = None  # evenly spread looks at the selection rows; None: one after each epoch
    max_steps: Count | None = None  # optimizer steps at which training stops, whatever `epochs` says
    lora_targets: tuple[Text, ...] = ()  # suffixes of module names; none: PEFT's own for the architecture
    lora_rank: Count = 8
    lora_alpha: Positive = 32.0
    adapter_sites: tuple[Text, ...] = ()  # suffixes of module names whose output goes through an adapter
    adapter_dim: Count = 8
    prefix_tokens: Count = 8
    penultimate: Text | None = None  # dotted name of the linear before the classifier
    scales: tuple[Positive, ...] = (1, 4, 8, 12, 16, 20, 24, 28)  # S as the published code has it for BERT-base
    scales_paper: tuple[Positive, ...] = (1, 4, 8, 12, 16, 20, 24, 28, 32)  # S of Table 6
    scale_factor: Positive = 6.0  # constant of the multi-scale module, over its inner rank
    clean_samples: Count = 96  # clean auxiliary rows of gradient alignment
    mu_max: Fraction = 0.1
    ga_epoch: Index = 1  # first epoch, from 0, in which the raw gradient may be mixed in
    min_reference_loss: NonNegative = 0.4
    head: Literal["plain", "paper"] = added("plain")  # transformers' own, or (decoders) two linear maps, 16 wide
    weights: Literal["fp32", "bf16"] = added("fp32")  # of what is frozen; what trains is fp32
    checkpointing: bool = added(False)  # activations of a layer are computed again in the backward pass
    stand_in_rank: Count | None = added(None)  # of the LoRA that trains where the whole model would; None: it does
    shards: Count = added(1)  # devices of one machine over which a training of the whole model is spread

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.path or self.package or self.hub):
            raise RequestError(f"Model {self.name!r} says nowhere where its weights are.", "Set hub, path or package.")
        if self.hub and not self.revision:
            raise RequestError(
                f"Model {self.name!r} names the hub repository {self.hub!r} without a commit.",
                "Set model.revision to the 40 hexadecimal digits of the commit.",
            )


def read_config(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    """Return what the config.json of a model's folder holds; CellError where it holds no JSON object."""
    config = json_object(folder / "config.json")
    if config is None:
        reason = f"Model {spec.name!r} has no readable config.json in {str(folder)!r}."
        raise CellError(reason, "Name a folder in the hub's layout.")
    return config


def _folder() -> Any:
    return files("configs") / "models"


def model_names() -> list[str]:
    """Return the names of the models that have a file in configs/models, sorted."""
    return sorted(item.name.removesuffix(".yaml") for item in _folder().iterdir() if item.name.endswith(".yaml"))


def model_spec(name: str, options: Mapping[str, Any] | None = None) -> ModelSpec:
    """Return the spec of a named model, of a local folder, or of `hub:ID@COMMIT`, with options on top.

    Raises:
        RequestError: no such model (with the nearest name), unknown option, value out of range, broken file, or the
            paper's decoder head on an encoder.
    """
    options = dict(options or {})
    if name in model_names():
        content: dict[str, Any] = {"name": name, **_read(name)}
    elif name.startswith("hub:"):
        content = _from_hub(name, options)
    elif is_folder(name):
        content = {"name": Path(name).resolve().name, "path": name, **_architecture(Path(name))}
    else:
        error = unknown("model", name, model_names())
        if "/" in name or is_file(name):
            remedy = (
                "Give a folder with config.json, weights and tokenizer, hub:ID@COMMIT, or one of `bench list models`."
            )
            raise RequestError(f"There is no model folder {name!r}.", remedy)
        raise error
    if "name" in options:
        raise RequestError(f"Model {name!r} cannot be renamed.", "Leave the option `name` out.")
    return build(ModelSpec, _headed(content | options), "model", name)


def _headed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content with the paper's head for a decoder that names no other, and its penultimate linear."""
    if content.get("family") != "decoder":
        if content.get("head") == "paper":
            raise RequestError(
                f"Model {content['name']!r} is an encoder, and head='paper' is a head for decoders.",
                "Leave model.head out.",
            )
        return content
    content = {"head": "paper", **content}
    return {"penultimate": DECODER_PENULTIMATE, **content} if content["head"] == "paper" else content


def _from_hub(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    hub, _, commit = name.removeprefix("hub:").partition("@")
    content: dict[str, Any] = {"name": hub or name, "hub": hub, "revision": commit or options.get("revision")}
    if content["revision"] is None:
        raise RequestError(f"Model {name!r} has no pinned commit.", f"Write hub:{hub}@ and the commit, 40 hex digits.")
    return content


def shape_of_file(name: str) -> dict[str, Any] | None:
    """Return the numbers of a named model's config.json that its file holds, None for a model without a file."""
    return _content(name).get("shape") if name in model_names() else None


def _read(name: str) -> dict[str, Any]:
    """Return the options that a model's file states: without `shape`, which decides no result."""
    return {option: value for option, value in _content(name).items() if option != "shape"}


def _content(name: str) -> dict[str, Any]:
    where = _folder() / f"{name}.yaml"
    try:
        content = yaml.safe_load(where.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RequestError(f"configs/models/{name}.yaml is not valid YAML: {error}.", "Correct the file.") from error
    if not isinstance(content, dict):
        raise RequestError(f"configs/models/{name}.yaml holds no mapping.", "Write `option: value` lines.")
    return content


def _architecture(folder: Path) -> dict[str, Any]:
    """Return what is known of the architecture that a folder's config.json names; nothing when it is unknown."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        known = ARCHITECTURES.get(kind, {})
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        raise RequestError(
            f"Folder {str(folder)!r} has no readable config.json, so it is no model.",
            "Name a folder in the hub's layout.",
        ) from None
    return dict(known)
