"""Options that the repairing defenses share, each with its reason; no torch here.

None of these values is in what is known of the Fine-mixing paper (EMNLP Findings 2022), so all are choices of ours.
None was chosen by looking at an attack.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from bench.core.options import Count, Fraction, Options, Positive
from bench.victim.spec import ModelSpec

Grid = Annotated[tuple[Fraction, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class CleanTuning(Options):
    """Fine-tuning on a small clean set.

    `clean_samples`: 64, the size that is remembered as the paper's. `learning_rate`: the model file's, the rate at
    which this model is known to train on such texts. `batch_size`: 8, so that 64 rows are 8 steps an epoch; batches
    of 32 would be 2, too few for an optimizer that moves a weight by about one learning rate a step. `epochs`: 10, as
    many as BERT's own training has. The last weights stay: rows held out to choose a checkpoint would cost more clean
    labels than the method is said to need.
    """

    clean_samples: Count = 64
    learning_rate: Positive | None = None  # None: the model file's
    epochs: Count = 10
    batch_size: Count = 8

    def samples(self) -> int:
        """Return how many labelled clean rows the defense fine-tunes on."""
        return self.clean_samples

    def for_model(self, model: ModelSpec, recipe: str) -> Any:
        """Return a copy with the learning rate taken from the model file where it was left open."""
        if self.learning_rate is not None:
            return self
        return dataclasses.replace(self, learning_rate=model.learning_rate)


@dataclass(frozen=True, kw_only=True)
class MixingOptions(CleanTuning):
    """Which weights of the backdoored victim are kept, and how many.

    `rho`: the share kept. Left open it is the first of `grid`, in rising order, with which the repaired model's clean
    accuracy is at most `accepted_loss` below that of the victim: the less is kept, the less of a backdoor can be.
    Both accuracies are on clean rows that the fine-tuning does not see. `grid`: steps of 0.2, since each candidate
    costs a fine-tuning and a few hundred rows hardly tell finer steps apart; 0 and 1 are other methods (training
    anew, plain fine-tuning). `accepted_loss`: 0.05, about two standard errors of a difference on a hundred rows, and
    the margin by which this benchmark asks whether a model learnt at all. When no candidate is good enough, the one of
    the highest accuracy is taken, the smaller of two equals.
    `embeddings`, `norms`, `biases`, `pooler`: whether these are mixed like the other weights. All are: wherever a
    victim's own value is kept for certain, a backdoor can sit (word embeddings and poolers are known seats), and
    norms and biases are too few for their mixing to cost anything.
    `head`: `kept`, since it has no pre-trained counterpart and few rows hardly train a new one; `fresh` draws it anew.
    Whatever else the model's files lack, such as the pooler of a BERT saved as a masked language model, goes with it.
    """

    rho: Fraction | None = None
    grid: Grid = (0.1, 0.3, 0.5, 0.7, 0.9)
    accepted_loss: Fraction = 0.05
    embeddings: bool = True
    norms: bool = True
    biases: bool = True
    pooler: bool = True
    head: Literal["kept", "fresh"] = "kept"

    @property
    def calibrated(self) -> bool:
        """Whether clean rows besides those of the fine-tuning are needed: only to choose rho."""
        return self.rho is None


@dataclass(frozen=True, kw_only=True)
class PruningOptions(CleanTuning):
    """Which feed-forward neurons are pruned (Liu et al., RAID 2018, arXiv 1805.12185, adapted to transformers).

    A neuron is one input of the second map of a feed-forward block; its activity is the mean over the real tokens of
    the clean rows. `ratio`: the share pruned. Left open it is the largest of `grid` after which, before any
    fine-tuning, clean accuracy is at most `accepted_loss` below the victim's, which is Liu et al.'s way of stopping.
    `activity`: `absolute`, since GELU and gated neurons may be negative, which their ReLU channels are not; `signed`
    is the plain mean. `layers`: `all`; they prune the last convolution alone, and nothing says that a transformer's
    last layer has that part. `within`: the least active of each `layer`, since activations of different layers differ
    in scale; or of the whole `model`. `side`: what becomes zero, the weights and bias that lead into the neuron (with
    a gate: of the activated half), so that it outputs 0 and, unless frozen, can only be learnt anew from clean data;
    `outgoing` sets the weights that read it to zero and leaves what it detects in place.
    """

    ratio: Fraction | None = None
    grid: Grid = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    accepted_loss: Fraction = 0.05
    activity: Literal["absolute", "signed"] = "absolute"
    layers: Literal["all", "last"] = "all"
    within: Literal["layer", "model"] = "layer"
    side: Literal["incoming", "outgoing"] = "incoming"

    @property
    def calibrated(self) -> bool:
        """Whether clean rows besides those of the fine-tuning are needed: only to choose the ratio."""
        return self.ratio is None
