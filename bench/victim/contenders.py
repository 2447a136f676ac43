"""The ways to train that `bench speed` compares, each on the same rows for one epoch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.errors import RequestError
from bench.core.example import Example
from bench.victim.recipes import AlignmentOptions, LoraOptions, MultiScaleOptions, filled
from bench.victim.spec import ModelSpec

SEED = 0
WARM_UP = 2  # steps of a round before the clock starts


@dataclass(frozen=True)
class Contender:
    """One way to train: `trainer`, `reference`, `ours`, or `gang-N`."""

    name: str
    defense: str
    precision: str

    @property
    def members(self) -> int:
        """How many victims train at once."""
        return int(self.name.removeprefix("gang-")) if self.name.startswith("gang-") else 1


@dataclass(frozen=True)
class Setting:
    """What all contenders share. `steps` are those timed in each of `rounds` rounds."""

    spec: ModelSpec
    examples: tuple[Example, ...]
    steps: int = 20
    rounds: int = 3
    device: str = "cpu"
    threads: int = 1

    def rows(self) -> tuple[Example, ...]:
        """Return the rows of one round: as many full batches as there are steps."""
        return self.examples[: (WARM_UP + self.steps) * self.spec.batch_size]

    def round_spec(self) -> ModelSpec:
        """Return the model spec that trains one epoch over those rows, to the end."""
        return dataclasses.replace(self.spec, epochs=1, max_steps=None)


@dataclass
class Clock:
    """Takes the time from the end of the warm-up steps to the end of the last, the device's work included."""

    device: str
    warm_up: int = WARM_UP  # steps
    began: float | None = None
    seconds: float | None = None
    steps: int = 0

    def __call__(self, done: int, steps: int) -> None:
        """Take the end of a step, counted from 1."""
        from bench.victim.machine_speed import synchronize

        if done in (self.warm_up, steps):
            synchronize(self.device)
            now = time.perf_counter()
            if done == self.warm_up:
                self.began = now
            elif self.began is not None:
                self.seconds, self.steps = now - self.began, steps - self.warm_up


def measured(contender: Contender, setting: Setting) -> dict[str, Any]:
    """Train one round in this process, whose thread count is set and given back; return speed, memory and parameters.

    Raises:
        RequestError: a contender of no such name.
    """
    import torch

    from bench.victim.progress import peak_memory_mb

    before = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    clock, on_gpu = Clock(setting.device), torch.device(setting.device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(setting.device)
    try:
        trainable = _way(contender.name)(contender, setting, clock)
    finally:
        torch.set_num_threads(before)
    samples = clock.steps * setting.spec.batch_size * contender.members
    return {
        "samples_per_second": samples / clock.seconds,
        "steps": clock.steps,
        "peak_memory_mb": peak_memory_mb(torch.device(setting.device)),
        "trainable_parameters": trainable,
    }


def _way(name: str) -> Callable[[Contender, Setting, Clock], int]:
    known = {"trainer": _trainer, "reference": _reference, "ours": _ours}
    if name in known:
        return known[name]
    if name.startswith("gang-"):
        return _gang
    raise RequestError(f"There is no contender {name!r}.", f"There are: {', '.join(known)}, gang-N.")


def classes(examples: Sequence[Example]) -> int:
    """Return how many classes a head needs for these labels, at least 2."""
    return max(2, max(example.label for example in examples) + 1)


def _plain(contender: Contender, setting: Setting) -> Any:
    from bench.victim.reference import insert_lora, insert_multiscale, plain_victim

    settings = {"device": setting.device, "precision": contender.precision}
    victim = plain_victim(setting.round_spec(), classes(setting.examples), seed=SEED, **settings)
    if contender.defense != "vanilla":
        insert_lora(victim)
    if contender.defense == "musclelora":
        insert_multiscale(victim)
    return victim


def _alignment(contender: Contender, setting: Setting) -> tuple[AlignmentOptions | None, Sequence[Example]]:
    """Return the options of gradient alignment and its clean rows, where the defense has it."""
    if contender.defense != "musclelora":
        return None, ()
    options = filled(AlignmentOptions(), setting.spec, "released")
    return options, setting.examples[: options.samples()]


def _trainer(contender: Contender, setting: Setting, clock: Clock) -> int:
    from bench.victim.bare_trainer import train_by_trainer

    victim = _plain(contender, setting)
    train_by_trainer(victim, setting.rows(), seed=SEED, tick=clock)
    return _count(victim)


def _reference(contender: Contender, setting: Setting, clock: Clock) -> int:
    from bench.victim.reference import train_plainly

    victim = _plain(contender, setting)
    options, clean = _alignment(contender, setting)
    train_plainly(victim, setting.rows(), seed=SEED, clean=clean, alignment=options, tick=clock)
    return _count(victim)


def prepared(contender: Contender, setting: Setting, seed: int = SEED) -> tuple[Any, tuple[Any, ...]]:
    """Return a fresh victim of ours with the parts of one defense in it, and its hooks."""
    from bench.victim.alignment import GradientAlignment
    from bench.victim.assembly import add_lora, add_multiscale
    from bench.victim.loading import load_victim

    spec = setting.round_spec()
    settings = {"device": setting.device, "precision": contender.precision}
    victim = load_victim(spec, classes(setting.examples), seed=seed, **settings)
    if contender.defense != "vanilla":
        add_lora(victim, filled(LoraOptions(), spec, "released"), seed=seed)
    if contender.defense == "musclelora":
        add_multiscale(victim, filled(MultiScaleOptions(), spec, "released"), seed=seed)
    options, clean = _alignment(contender, setting)
    return victim, (GradientAlignment(clean, options, seed=seed),) if options else ()


def _ours(contender: Contender, setting: Setting, clock: Clock) -> int:
    from bench.victim.training import train

    victim, hooks = prepared(contender, setting)
    train(victim, setting.rows(), (), seed=SEED, hooks=hooks, progress=clock)
    return _count(victim)


def _gang(contender: Contender, setting: Setting, clock: Clock) -> int:
    """Train `contender.members` victims together on the same rows; their seeds, and so batches and masks, differ."""
    from bench.victim.training import Task, train_gang

    tasks = []
    for seed in range(contender.members):
        victim, hooks = prepared(contender, setting, seed)
        tasks.append(Task(victim, setting.rows(), (), seed, hooks))

    def joint(done: int, steps: int) -> None:  # both are sums over the members
        clock(done // len(tasks), steps // len(tasks))

    for log in train_gang(tasks, progress=joint):
        if isinstance(log, Exception):
            raise log
    return sum(_count(task.victim) for task in tasks)


def _count(victim: Any) -> int:
    return sum(value.numel() for value in victim.trainable().values())
