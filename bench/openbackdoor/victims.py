"""OpenBackdoor's victims as ours; ours has all that its code asks of a victim, and goes in as it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bench.core.errors import CellError
from bench.victim.spec import ARCHITECTURES, ModelSpec

if TYPE_CHECKING:
    from bench.victim.victim import Victim


def is_theirs(model: Any) -> bool:
    """Tell whether an object is a victim of OpenBackdoor's; the package is not imported for it."""
    victim = getattr(sys.modules.get("openbackdoor.victims.victim"), "Victim", None)
    return victim is not None and isinstance(model, victim)


def as_ours(model: Any) -> Victim:
    """Return a victim of ours around the Hugging Face model of a `PLMVictim`, or a victim of ours as it is.

    It holds the same tensors, so what trains or is inserted in the one does so in the other.

    Raises:
        CellError: a victim without a Hugging Face classifier (its LSTM, its masked language model).
    """
    from bench.victim.victim import Victim

    if isinstance(model, Victim):
        return model
    plm = getattr(model, "plm", None)
    if "SequenceClassification" not in type(plm).__name__:
        raise CellError(
            f"A {type(model).__name__} of OpenBackdoor holds no sequence classifier of Hugging Face.",
            "Use its PLMVictim (type plm), or a victim of ours.",
        )
    place = plm.config.name_or_path or plm.config.model_type  # says what it is; the weights are here already
    known = ARCHITECTURES.get(str(plm.config.model_type), {})
    spec = ModelSpec(**{**known, "name": place, "path": place, "max_length": model.max_len})
    training = plm.training
    ours = Victim(plm, model.tokenizer, spec, plm.config.num_labels)
    plm.train(training)  # making a victim puts its model into eval mode
    return ours
