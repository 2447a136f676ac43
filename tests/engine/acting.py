"""Small defenses that act at each stage, for tests of the engine: named as `tests.engine.acting:Class`."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from bench.core.memory import cut
from bench.core.options import Count
from defenders.base import Defender, Suspicion
from defenders.lora import Lora
from defenders.strip import Strip

HERE = "tests.engine.acting"


@dataclass(frozen=True)
class Flagger(Defender):
    """Flag texts that hold a trigger word."""

    name = "flagger"
    word_length: Count = 2

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[int]:
        """Flag a text that holds one of the words of BadNets."""
        assert all((example.label, example.poisoned) == (0, 0) for example in poison_data)
        return [int(bool({"cf", "mn", "bb", "tq"} & set(example.text.split()))) for example in poison_data]


@dataclass(frozen=True)
class Cleaner(Defender):
    """Delete the trigger words from every text."""

    name = "cleaner"
    correction = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[tuple]:
        """Return the texts without the words of BadNets."""
        assert all((example.label, example.poisoned) == (0, 0) for example in poison_data)
        words = {"cf", "mn", "bb", "tq"}
        return [(" ".join(w for w in text.split() if w not in words), label, 0) for text, label, _ in poison_data]


@dataclass(frozen=True)
class Settled(Cleaner):
    """Delete the trigger words from every text, without a victim and without random numbers."""

    name = "settled"
    filter_uses_model = False
    filter_is_drawn = False


@dataclass(frozen=True)
class Repairer(Defender):
    """Set every bias of the victim's classifier to zero."""

    name = "repairer"

    def repair(self, victim: Any, knowledge: Any) -> Any:
        """Change the copy and return it."""
        victim.model.classifier.bias.data.zero_()
        return victim


@dataclass(frozen=True)
class Cleanser(Defender):
    """Remove training rows that hold a trigger word."""

    name = "cleanser"
    pre = True
    correction = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[tuple]:
        """Return the rows without the words of BadNets."""
        return [row for row in poison_data if not {"cf", "mn", "bb", "tq"} & set(row[0].split())]


@dataclass(frozen=True)
class LearntCleanser(Cleanser):
    """Remove the same rows, having looked at clean ones."""

    name = "learnt-cleanser"
    clean_samples: Count = 5

    def samples(self) -> int:
        """Return how many."""
        return self.clean_samples


@dataclass(frozen=True)
class LearntCleaner(Settled):
    """Delete the same words, having looked at clean rows."""

    name = "learnt-cleaner"
    clean_samples: Count = 6

    def samples(self) -> int:
        """Return how many."""
        return self.clean_samples


@dataclass(frozen=True)
class RemovesFirst(Defender):
    """Remove the first three training rows."""

    name = "removes-first"
    pre = True
    correction = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[tuple]:
        """Return the rows after the third."""
        return list(poison_data[3:])


@dataclass(frozen=True)
class RemovesAll(Defender):
    """Remove every training row of class 1."""

    name = "removes-all"
    pre = True
    correction = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[tuple]:
        """Return the rows of class 0."""
        return [row for row in poison_data if row[1] == 0]


@dataclass(frozen=True)
class Vandal(Defender):
    """Change the victim that was lent to it."""

    name = "vandal"

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[int]:
        """Edit the classifier, flag nothing."""
        model.model.classifier.bias.data += 1.0
        return [0] * len(poison_data)


@dataclass(frozen=True)
class Crashes(Defender):
    """Raise an error that is nobody's own."""

    name = "crashes"

    def wrap(self, victim: Any) -> None:
        """Fail."""
        raise ZeroDivisionError("on purpose")


@dataclass(frozen=True)
class Dies(Defender):
    """End the worker process at once."""

    name = "dies"

    def wrap(self, victim: Any) -> None:
        """Leave without a word."""
        import os

        os._exit(9)


@dataclass(frozen=True)
class Hungry(Defender):
    """Run out of memory unless batches are cut into as many parts."""

    name = "hungry"
    parts: Count = 2

    def wrap(self, victim: Any) -> None:
        """Raise what Python raises."""
        if cut() < self.parts:
            raise MemoryError


@dataclass(frozen=True)
class Positional(Defender):
    """Flag the last third of what it is shown, whatever the texts say."""

    name = "positional"

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[int]:
        """Guess that poisoned examples come last."""
        return [int(place >= 2 * len(poison_data) / 3) for place in range(len(poison_data))]


@dataclass(frozen=True)
class SecondGuesser(Defender):
    """Blank every text that it is shown after its first call."""

    name = "second-guesser"
    correction = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[tuple]:
        """Guess that the first call shows the clean texts, and the second the poisoned ones."""
        before = self.__dict__.get("calls", 0)
        object.__setattr__(self, "calls", before + 1)
        return [("" if before else text, label, 0) for text, label, _ in poison_data]


@dataclass(frozen=True, kw_only=True)
class Ruined(Lora):
    """LoRA whose weights are no numbers after the last step, if it is told so."""

    name = "ruined"
    ruined: bool = False

    def hooks(self, knowledge: Any) -> tuple[Any, ...]:
        """Return itself, or nothing."""
        return (self,) if self.ruined else ()

    def on_gradients(self, run: Any, batch: Any) -> None:
        """Spoil the last step, behind the loss that is looked at."""
        for value in run.parameters.values():
            if run.step == run.steps - 1 and value.grad is not None:
                value.grad.fill_(float("nan"))


@dataclass(frozen=True, kw_only=True)
class Louder(Strip):
    """STRIP with a second opinion of its own, which nothing that it asks tells of."""

    name = "louder"

    def suspicion(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Suspicion:
        """Flag whatever is no STRIP's."""
        found = super().suspicion(model, clean_data, poison_data)
        return found._replace(threshold=found.threshold - 1)


@dataclass(frozen=True, kw_only=True)
class Asking(Defender):
    """Flag the texts of which the victim is not sure; it asks twice."""

    name = "asking"

    def questions(
        self, model: Any = None, clean_data: Any = None, poison_data: Any = None
    ) -> Generator[Any, Any, Suspicion]:
        """Find how unsure the victim is of each text and of its first word."""
        from bench.victim.questions import Likely

        whole = yield Likely([text for text, *_ in poison_data])
        first = yield Likely([text.split()[0] for text, *_ in poison_data])
        return Suspicion(-whole.max(1) - first.max(1), -1.1)
