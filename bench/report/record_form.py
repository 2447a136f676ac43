"""The form of a record: what every part of it is, so that a damaged or hostile one is refused where it is read."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=0.0, le=1e15, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]  # names files and pages: nothing else may stand in it
Name = Annotated[str, Field(min_length=1)]


class _Form(BaseModel):
    """A part of a record: known fields are checked, unknown ones are left alone."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Rate(_Form):
    value: Fraction | None = None
    hits: Count | None = None
    n: Count | None = None

    @model_validator(mode="after")
    def _counted(self) -> _Rate:
        if self.value is not None and not (self.n and self.hits is not None and self.hits <= self.n):
            raise ValueError("a rate has hits of n, at most n of them")
        return self


class _Metrics(_Form):
    cacc: _Rate | None = None
    asr: _Rate | None = None
    asr_floor: _Rate | None = None
    frr: _Rate | None = None
    far: _Rate | None = None
    auroc: Fraction | None = None


class _Part(_Form):
    name: Name
    options: dict[str, Any] = {}
    source: str = ""


class _Cell(_Form):
    dataset: _Part
    attack: _Part
    model: _Part
    defense: _Part
    poison_ratio: Fraction
    label_rule: str
    target_label: Count
    seed: Count
    recipe: str
    precision: str
    limit: Count | None
    analysis: _Part | None = None


class _Poison(_Form):
    rule: str | None = None
    rows: Count = 0
    positions: str | None = None
    dropped: Count = 0


class _Cleansed(_Form):
    removed: Count
    removed_poisoned: Count


class _Info(_Form):
    dataset: str = ""
    classes: Count = 2
    class_names: list[str] = []
    train: Count = 0
    dev: Count = 0
    test: Count = 0
    mean_words: Number = 0
    leaks: str | None = None
    files: dict[str, str] = {}


class _Cost(_Form):
    train_seconds: Number | None = None
    total_seconds: Number | None = None
    seconds: dict[str, Number] = {}
    trainable_parameters: Count | None = None
    peak_memory_mb: Number | None = None
    samples_per_second: Number | None = None
    selection_accuracies: list[Fraction] | None = None
    steps: Count | None = None


class _Error(_Form):
    type: str
    message: str
    remedy: str
    stage: str = ""
    traceback: str | None = None


class _Record(_Form):
    key: Key
    status: Literal["ok", "failed"]
    cell: _Cell
    oracle: bool = False
    stages: list[tuple[str, Key]] | dict[str, Key] | None = None
    metrics: _Metrics | None
    metrics_flip: _Metrics | None = None
    asr_floor_missing: str | None = None
    trained: bool | None = None
    poison: _Poison | None = None
    cleansed: _Cleansed | None = None
    decided: list[dict[str, Any]] | None = None
    dataset_info: _Info | None = None
    knowledge: dict[str, Count] | None = None
    cost: _Cost | None = None
    environment: dict[str, str | int | float | bool | None]
    error: _Error | None


def form_fault(record: dict[str, Any]) -> str:
    """Return the first part of a record that is not of its form, and the rule; "" for a good one."""
    try:
        # A pair of kind and key is a list in JSON, and strict mode wants a tuple.
        stages = record.get("stages")
        if isinstance(stages, list):
            record = {**record, "stages": [tuple(pair) if isinstance(pair, list) else pair for pair in stages]}
        _Record.model_validate(record)
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the record"
        return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    except UnicodeEncodeError:
        return "it holds half of a character (a lone surrogate)"
    if record["status"] == "failed" and record["error"] is None:
        return "it failed without an error"
    return ""
