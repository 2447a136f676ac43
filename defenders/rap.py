"""RAP (Yang et al., arXiv 2110.07831): a word that unsettles clean texts does not unsettle a backdoored one.

The vectors of a rare word are trained so that the word, put in front of a clean text, lowers the probability of the
protected label by 0.1 to 0.3. An input taken for that label whose probability falls by less than nearly all clean ones
is flagged.

Differs from the published code (`rap_defender.py` in OpenBackdoor and MuScleLoRA):
* The word's vectors are a copy: the victim's embedding is never written to. There it stays modified, so that whatever
  is measured next on the same victim is wrong; the word was also moved wherever else it occurs in a text.
* The protected label is an option. There it is read off the true poison flags of the test data.
* Each step uses its own gradient. There gradients are never zeroed and add up over all steps, which `momentum=1`
  reproduces.
* Only examples predicted as the protected label are flagged. There one predicted as another label, from which the word
  takes nothing, counts as suspicious although no backdoor can have acted.
* The trigger may be several tokens long; all their vectors are trained, each kept at its length.
* Any number of classes; MuScleLoRA's pipeline asserts two.

As published, it fails where its word is the attacker's: `mb` is one of the attack `ep`'s (OpenBackdoor's default, `cf`,
one of BadNets'). The label that it protects is the defender's guess, 1 as the paper's target; it does not follow the
cell's.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from bench.core.errors import CellError, RequestError
from bench.core.options import Count, Fraction, Index, NonNegative, Positive, Text
from defenders.base import Defender, Suspicion
from defenders.calibration import calibration_rows

Change = Annotated[float, Field(ge=-1.0, le=0.0, allow_inf_nan=False)]
LEAST_ROWS = 20  # clean dev texts to train the word on
LEAST_PROTECTED = 10  # of them predicted as the protected label, below which a low percentile means nothing
NO_DROP = -1.0  # the score of an example that is not predicted as the protected label: the lowest there is


@dataclass(frozen=True, kw_only=True)
class Rap(Defender):
    """Acts at inference; needs clean dev texts (no labels) and the label that an attacker would aim at."""

    name = "rap"
    calibrated = True

    trigger: Text = "mb"  # a rare word
    protected_label: Index = 1
    epochs: Count = 5  # passes over the clean dev texts
    batch_size: Count = 32
    lr: Positive = 1e-2
    momentum: Fraction = 0.0  # of plain gradient descent; 1 adds gradients up as the published code does
    prob_range: tuple[Change, Change] = (-0.1, -0.3)  # wanted change of the probability: upper and lower bound
    scale: NonNegative = 1.0  # weight of the upper bound in the loss
    frr: Fraction = 0.01  # clean dev texts of the protected label that we accept to flag

    def _validate(self) -> None:
        super()._validate()
        if self.prob_range[0] < self.prob_range[1]:
            raise RequestError(
                f"rap.prob_range is {self.prob_range}: the upper bound comes first.", "Write (-0.1, -0.3)."
            )

    def questions(
        self, model: Any = None, clean_data: Any = None, poison_data: Any = None
    ) -> Generator[Any, Any, Suspicion]:
        """Find minus the fall of the protected label's probability for examples predicted so, and -1 for the others.

        Raises:
            CellError: a label that does not exist, too few clean dev texts in all or predicted as it, or a trigger
                that the victim's tokenizer does not keep apart.
        """
        from bench.victim.questions import Likely
        from bench.victim.soft_trigger import SoftTrigger, train_soft_trigger

        label = self.protected_label
        if label >= model.classes:
            raise CellError(
                f"rap is to protect label {label}, and this model has the labels 0 to {model.classes - 1}.",
                "Set protected_label to one of them.",
            )
        rows = [text for text, *_ in calibration_rows(self, clean_data, LEAST_ROWS)]
        trigger = SoftTrigger(model, self.trigger)
        plain = yield from train_soft_trigger(
            trigger,
            rows,
            label=label,
            change=self.prob_range,
            scale=self.scale,
            epochs=self.epochs,
            batch_size=self.batch_size,
            rate=self.lr,
            momentum=self.momentum,
        )
        drop, protected = yield from self._drops(trigger, rows, plain)
        if protected.sum() < LEAST_PROTECTED:
            raise CellError(
                f"The victim takes {int(protected.sum())} clean dev texts for label {label}, and rap needs at least "
                f"{LEAST_PROTECTED} of them to calibrate on.",
                "Take a data set with more dev rows, or protect another label.",
            )
        threshold = float(np.quantile(drop[protected], self.frr))
        texts = [text for text, *_ in poison_data]
        drop, protected = yield from self._drops(trigger, texts, (yield Likely(texts)))
        return Suspicion(np.where(protected, -drop, NO_DROP), -threshold)

    def _drops(
        self, trigger: Any, texts: list[str], before: np.ndarray
    ) -> Generator[Any, Any, tuple[np.ndarray, np.ndarray]]:
        """Find the fall of the protected label's probability under the trigger [n], and who is predicted so [n].

        It is NaN for the others, whom nobody asks for and who are not read again. `before` are the probabilities
        [n, classes] without the trigger.
        """
        from bench.victim.questions import LikelyUnder

        protected = before.argmax(-1) == self.protected_label
        drop = np.full(len(texts), np.nan)
        if protected.any():
            after = yield LikelyUnder(trigger, trigger.encode([texts[row] for row in np.flatnonzero(protected)]))
            own = self.protected_label
            drop[protected] = before[protected, own].astype(np.float64) - after[:, own]
        return drop, protected
