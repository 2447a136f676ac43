"""Which model a cleansing defense looks at: the shared backdoored victim, or one that it trains for itself.

No torch here: a defense declares these options without loading a model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.options import Count, Options, Positive, label
from bench.core.seeding import derived_seed

if TYPE_CHECKING:
    from bench.victim.victim import Victim


@dataclass(frozen=True, kw_only=True)
class StudiedModel(Options):
    """Options of a defense that needs a model trained on the suspect rows.

    Raises:
        RequestError: `epochs` or `learning_rate` beside `victim="shared"`, which trains nothing.
    """

    own_epochs: ClassVar[int | None] = None  # epochs of a defense's own training; None: as many as the victim's

    victim: Literal["own", "shared"] = "shared"
    epochs: Count | None = None  # of its own training
    learning_rate: Positive | None = None  # of its own training; None: the model's

    def _validate(self) -> None:
        super()._validate()
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if self.victim == "shared" and value is not None:
                raise RequestError(
                    f"{label(self)}.{name} is {value!r}, but the shared victim is not trained by the defense.",
                    f"Leave {name} out, or set victim to 'own'.",
                )

    @property
    def wants_victim(self) -> bool:
        """Whether the engine is to lend the victim that was trained on the rows as they are."""
        return self.victim == "shared"

    def for_model(self, model: Any, recipe: str) -> Any:
        """Return these options with the epochs and the learning rate of its own training filled in."""
        if self.victim == "shared":
            return self
        return dataclasses.replace(
            self,
            epochs=self.epochs or self.own_epochs or model.epochs,
            learning_rate=self.learning_rate or model.learning_rate,
        )


def studied(options: StudiedModel, known: Knowledge, lent: Any, rows: Sequence[Example]) -> Victim:
    """Return the model to look at: the one lent, unchanged, or a fresh one trained on `rows` by the only loop.

    Its own training takes every setting of the model's file but epochs and rate, has no warm-up, and keeps the last
    weights, since no clean rows choose a checkpoint.

    Raises:
        CellError: `victim="shared"` and none was lent; `victim="own"` and there are no pre-trained weights.
    """
    if options.victim == "shared":
        victim = known.victim if lent is None else lent
        if victim is None:
            raise CellError(
                f"Defender {label(options)!r} works on the shared victim and was given none.",
                "Pass the backdoored victim as model, or set victim to 'own'.",
            )
        return victim
    from bench.victim.assembly import add_stand_in
    from bench.victim.training import train

    victim = known.fresh_victim()
    add_stand_in(victim, known.recipe, known.seed)
    full = options.for_model(victim.spec, known.recipe)
    victim.spec = dataclasses.replace(
        victim.spec,
        epochs=full.epochs,
        learning_rate=full.learning_rate,
        learning_rate_pet=full.learning_rate,  # of a stand-in
        warmup_epochs=0.0,
    )
    train(victim, rows, (), seed=derived_seed(known.seed, f"own victim of {label(options)}"))
    return victim
