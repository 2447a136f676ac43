"""The only training loop: AdamW, a linear schedule, hooks between backward and clipping, the best clean checkpoint.

It trains a gang: one or more victims whose forward and backward passes run together. All else is each member's own:
batches, dropout, gradients, clipping, optimizer, checkpoint, failure. A victim trained alone is a gang of one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.memory import part_size
from bench.core.seeding import derived_seed
from bench.victim.batching import Batch, Encoded
from bench.victim.gradients import Passes
from bench.victim.joint.passes import JointModel
from bench.victim.joint.support import kind_of, shareable
from bench.victim.progress import Keeper, Losses, peak_memory_mb, reset_peak, seeded
from bench.victim.read_words import ReadWords, read_words
from bench.victim.run import Hook, Observer, Rider, Run, TrainingLog, linear_factor, looks, streams
from bench.victim.victim import Victim

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Task:
    """One training: a victim to change in place, its rows, the rows that choose its checkpoint, and what acts on it."""

    victim: Victim
    examples: Sequence[Example]
    selection: Sequence[Example]
    seed: int
    hooks: Sequence[Hook] = ()
    observers: Sequence[Observer] = ()


def train(
    victim: Victim,
    examples: Sequence[Example],
    selection: Sequence[Example],
    *,
    seed: int,
    hooks: Sequence[Hook] = (),
    observers: Sequence[Observer] = (),
    progress: Callable[[int, int], None] | None = None,
) -> TrainingLog:
    """Train the victim in place and leave it, in eval mode, with the weights of the best clean selection accuracy.

    A later look must be strictly better to be kept. Batches and dropout are functions of `seed`; global random state
    is given back. With no selection rows the last weights stay. `progress` gets (steps done, steps).

    Raises:
        CellError: nothing to train on, nothing that trains (or not in fp32), a label out of range, or a loss that is
            not finite.
    """
    (log,) = train_gang([Task(victim, examples, selection, seed, hooks, observers)], progress=progress)
    if isinstance(log, CellError):
        raise log
    return log


def train_gang(
    tasks: Sequence[Task], *, width: int | None = None, progress: Callable[[int, int], None] | None = None
) -> list[TrainingLog | CellError]:
    """Train victims in place, as `train` would train each alone; return the log of each, or why it failed.

    The numbers of a member are those that it gets alone, up to the order in which floats are summed. Where a pass
    needs more memory than there is, it is tried again at half the width, down to one member.

    Args:
        width: how many members run in one pass at most; None: 1 on a CPU, where one batch fills the core and a
            larger one only leaves the cache (measured: 8 in one pass are slower than alone), all of them on a GPU.

    Raises:
        CellError: the victims cannot train together (see bench/victim/joint/support.py).
    """
    reason = shareable([task.victim for task in tasks]) if len(tasks) > 1 else ""
    if reason:
        raise CellError(f"These {len(tasks)} trainings cannot be one gang: {reason}.", "Train them one by one.")
    members, results = _members(tasks)
    if not members:
        return results
    device = tasks[0].victim.device
    passes = Passes(width or (1 if device.type == "cpu" else len(tasks)))
    steps = sum(member.run.steps for member in members)
    reset_peak(device)
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        for member in members:
            member.run.victim.train()
            stack.callback(member.run.victim.eval)
        # Only a victim that takes transformers' own pass draws from the global generators, and it is alone.
        stack.enter_context(seeded(derived_seed(tasks[0].seed, "dropout"), device))
        for member in members:
            member.watch()
        active = members
        while active:
            for part in passes.of(active):
                for member in part:
                    member.step()
            _look([member for member in active if member.error is None and member.keeper.due])
            active = [member for member in active if not member.done]
            if progress is not None:
                progress(sum(member.run.step for member in members), steps)
    for member in members:
        results[member.place] = member.finish(len(members), time.perf_counter() - began)
    return results


def _members(tasks: Sequence[Task]) -> tuple[list[Member], list[TrainingLog | CellError]]:
    """Return the members that can begin, and a result for each task: so far the error of one that cannot."""
    victims = [task.victim for task in tasks]
    joint = JointModel(victims) if kind_of(victims[0]) is not None else None
    members, results = [], []
    for place, task in enumerate(tasks):
        error = CellError("This training has not ended.", "Report it.")
        try:
            members.append(Member(task, place, joint))
        except CellError as refused:
            error = refused
        results.append(error)
    return members, results


class Member:
    """One training of a gang."""

    def __init__(self, task: Task, place: int, joint: JointModel | None) -> None:
        victim = task.victim
        spec, parameters = victim.spec, victim.trainable()
        if not task.examples:
            raise CellError("There are no training rows.", "Give at least one.")
        if not parameters:
            raise CellError(f"No parameter of model {spec.name!r} trains.", "Unfreeze some in the defense's wrap.")
        victim.check_trainable()
        self.data, held_out = victim.encode(task.examples), victim.encode(task.selection)
        words = self._words(task, joint, parameters)
        if words is not None:
            self.data, parameters[words.name] = words.renamed(self.data), words.read
            joint.put_words(place, words.name, words.read, words.padding)
        per_epoch = math.ceil(len(self.data) / spec.batch_size)
        steps = min(per_epoch * spec.epochs, spec.max_steps or per_epoch * spec.epochs)
        epochs = math.ceil(steps / per_epoch)
        self.run = Run(victim, parameters, steps, epochs, per_epoch, spec.batch_size, joint=joint, member=place)
        self.run.words = words
        self.run.streams = streams(task.seed, victim.device)
        self.place, self.hooks = place, tuple(task.hooks)
        # Hooks are told apart by identity: a third party's may not be hashable.
        self.riding = {id(hook) for hook in self.hooks if hasattr(hook, "ride")} if joint and joint.stackable else set()
        self.optimizer = _optimizer(self.run)
        self.keeper = Keeper(self.run, held_out, looks(steps, per_epoch, spec.evaluations))
        self.losses = Losses()
        self.observers = tuple(task.observers)
        self.upcoming = _batches(self.run, self.data, task.seed)
        self.loss: Tensor | None = None
        self.batch: Batch | None = None
        self.rides: list[tuple[Rider, Batch]] = []
        self.references: dict[int, tuple[Tensor, list[Tensor | None]]] = {}
        self.error: CellError | None = None
        self.look_seconds = 0.0

    def _words(self, task: Task, joint: JointModel | None, parameters: Mapping[str, nn.Parameter]) -> ReadWords | None:
        """Return what stands for the word embedding, where it is known which texts this training reads."""
        if joint is None or not joint.forward.bare_words or not all(hasattr(hook, "reads") for hook in task.hooks):
            return None
        texts = [self.data, *(task.victim.encode(hook.reads) for hook in task.hooks)]
        return read_words(task.victim, parameters, texts)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.error is not None or self.run.step == self.run.steps

    @property
    def batches_of_step(self) -> list[Batch]:
        """The batches that the next step reads."""
        return [self.batch, *(batch for _, batch in self.rides)]

    def draw(self) -> None:
        """Draw the batches of the next step: the training batch and those that ride along."""
        self.batch, self.references = next(self.upcoming), {}
        self.rides = [(hook, hook.ride(self.run)) for hook in self.hooks if id(hook) in self.riding]

    def step(self) -> None:
        """Make one optimizer step from the gradients of the last pass; an error stays with this member."""
        run = self.run
        for hook in self.hooks:
            if id(hook) in self.references:
                hook.on_references(run, *self.references[id(hook)])
            else:
                hook.on_gradients(run, self.batch)
        nn.utils.clip_grad_norm_(list(run.parameters.values()), MAX_GRADIENT_NORM)
        factor = linear_factor(run.step, run.steps, round(run.victim.spec.warmup_epochs * run.steps_per_epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        run.step += 1
        self.watch()
        try:
            self.losses.add(self.loss, run.step)
            if run.step % run.steps_per_epoch == 0 or run.step == run.steps:
                self.losses.close_epoch()
            if self.keeper.due:
                self.losses.check()
        except CellError as error:
            self.error = error

    def watch(self) -> None:
        """Let the observers look; their time is not the training's."""
        began = time.perf_counter()
        if self.observers:
            self.run.put_back()
        for observer in self.observers:
            observer.on_step(self.run)
        if self.observers:
            self.look_seconds += time.perf_counter() - began

    def finish(self, gang: int, seconds: float) -> TrainingLog | CellError:
        """Return the log, with the best weights restored, or the error."""
        if self.error is not None:
            return self.error
        self.keeper.restore()
        self.run.put_back()
        run, rows = self.run, len(self.data)
        seen = (run.steps // run.steps_per_epoch) * rows + (run.steps % run.steps_per_epoch) * run.batch_size
        return TrainingLog(
            steps=run.steps,
            epochs=run.epochs,
            losses=tuple(self.losses.epochs),
            selection=tuple(self.keeper.accuracies),
            selected_at=tuple(self.keeper.steps),
            best=self.keeper.best,
            seconds=seconds / gang,
            samples_per_second=seen / max(seconds / gang - self.look_seconds, 1e-9),
            trainable_parameters=sum(value.numel() for value in run.victim.trainable().values()),
            peak_memory_mb=peak_memory_mb(run.victim.device),
            gang=gang,
            unpadded=run.joint is not None,
        )


def _look(members: Sequence[Member]) -> None:
    """Evaluate the selection rows of the members for whom it is time, in one pass where they have one."""
    if not members:
        return
    began = time.perf_counter()
    joint = members[0].run.joint
    if len(members) == 1:
        (member,) = members
        member.run.put_back()
        member.keeper.take(member.run.victim.accuracy(member.keeper.held_out))
    else:
        held_out = {member.place: member.keeper.held_out for member in members}
        found = joint.probabilities(held_out, part_size(members[0].run.victim.prediction_batch))
        for member in members:
            right = found[member.place].argmax(-1) == member.keeper.held_out.labels.numpy()
            member.keeper.take(float(right.mean()))
    for member in members:
        member.look_seconds += (time.perf_counter() - began) / len(members)


def _batches(run: Run, data: Encoded, seed: int) -> Iterator[Batch]:
    """Yield a batch per step; every epoch is a new shuffle of all rows."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "batches"))
    for epoch in range(run.epochs):
        run.epoch = epoch
        for rows in data.shuffled(run.batch_size, generator):
            if run.step == run.steps:
                return
            yield run.batch(data, rows)


def _optimizer(run: Run) -> torch.optim.Optimizer:
    spec = run.victim.spec
    rate = spec.learning_rate_pet if run.victim.attached else spec.learning_rate
    groups = [{"params": list(run.parameters.values()), "initial_lr": rate}]
    fused = run.victim.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=fused)
