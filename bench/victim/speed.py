"""How fast this machine trains: a bare Trainer, a plain loop, our loop alone and in gangs, side by side in one run.

Every contender lives in a process of its own, since a process's peak memory never falls. All of them train on the same
rows in rounds, one after the other and in turned order, so that a neighbour's work meets them alike.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from bench.core.errors import RequestError, unknown
from bench.core.processes import settle
from bench.victim.contenders import WARM_UP, Contender, Setting, measured

DEFENSES = ("vanilla", "lora", "musclelora")
BY_TRAINER = ("vanilla", "lora")  # what a bare Trainer can do: no second pass
PRECISIONS = ("fp32", "bf16")
GANGS = (2, 4, 8, 16)  # how many victims train together, by default

Around = dict[str, dict[str, float]]
Tell = Callable[[str], None]
Process = Callable[[], Executor]  # where one contender lives


def fresh_process() -> Executor:
    """Return a process that imports everything anew, and ends with this one."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), settle)


@dataclass
class _Found:
    """What the rounds of one contender gave."""

    contender: Contender
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def speeds(self) -> list[float]:
        return [found["samples_per_second"] for found in self.rounds]


def check(setting: Setting, defenses: Sequence[str], precisions: Sequence[str], gangs: Sequence[int]) -> None:
    """Refuse what cannot be measured.

    Raises:
        RequestError: a name that is not measured here, a gang of fewer than 2, too few rows for the steps.
    """
    for kind, given, known in (("defense to measure", defenses, DEFENSES), ("precision", precisions, PRECISIONS)):
        if not given:
            raise RequestError(f"No {kind} is named.", f"Name some of: {', '.join(known)}.")
        for name in given:
            if name not in known:
                raise unknown(kind, name, known)
    for size in gangs:
        if size < 2:
            raise RequestError(f"A gang of {size} is none: at least 2 train together.", "Name sizes from 2 on.")
    for name, value in (("--steps", setting.steps), ("--rounds", setting.rounds), ("--threads", setting.threads)):
        if value < 1:
            raise RequestError(f"{name} is {value}: at least 1 is needed.", "Leave it out for the default.")
    needed = (WARM_UP + setting.steps) * setting.spec.batch_size
    if len(setting.examples) < needed:
        raise RequestError(
            f"{setting.steps} steps of {setting.spec.batch_size} after {WARM_UP} to warm up need {needed} rows, "
            f"and there are {len(setting.examples)}.",
            "Measure fewer --steps, or on a larger training set.",
        )


def speed_rows(
    setting: Setting,
    around: Around,
    *,
    defenses: Sequence[str] = DEFENSES,
    precisions: Sequence[str] = ("fp32",),
    gangs: Sequence[int] = GANGS,
    tell: Tell = lambda text: None,
    process: Process = fresh_process,
) -> list[dict[str, Any]]:
    """Return a row for each contender, measured round by round beside the others of its defense.

    `around` is what `surroundings` returned.
    `samples_per_second` is the median over the rounds (of all members of a gang together). The ratios are medians of
    those of one round, within a defense: `against_reference` and `against_ours` at the same precision, `against_fp32`
    to the reference in fp32; None where the other was not measured. `peak_share` is useful work over the matmul peak.

    Raises:
        RequestError: what `check` refuses.
    """
    check(setting, defenses, precisions, gangs)
    rows = []
    for defense in defenses:
        contenders = [
            Contender(name, defense, precision)
            for precision in precisions
            for name in ("trainer", "reference", "ours", *(f"gang-{size}" for size in gangs))
            if (name != "trainer" or defense in BY_TRAINER) and not (name.startswith("gang-") and defense == "vanilla")
        ]
        found = _rounds(contenders, setting, tell, process)
        rows += [_row(one, found, setting, around) for one in found]
    return rows


def _rounds(contenders: Sequence[Contender], setting: Setting, tell: Tell, process: Process) -> list[_Found]:
    found = [_Found(contender) for contender in contenders]
    with ExitStack() as stack:
        pools = [stack.enter_context(process()) for _ in contenders]
        for turn in range(setting.rounds):
            order = list(zip(found, pools, strict=True))
            for one, pool in order if turn % 2 == 0 else order[::-1]:
                one.rounds.append(pool.submit(measured, one.contender, setting).result())
                speed = one.rounds[-1]["samples_per_second"]
                name = f"{one.contender.name} {one.contender.defense} {one.contender.precision}"
                tell(f"round {turn + 1} of {setting.rounds}: {name}: {speed:.1f} samples a second")
    return found


def surroundings(
    setting: Setting, defenses: Sequence[str], precisions: Sequence[str], process: Process = fresh_process
) -> Around:
    """Return what machine and rows allow: the matmul peak (operations a second) by precision, the useful work of a
    sample (operations) by defense, and what padding costs.
    """
    with process() as pool:
        return pool.submit(_surroundings, setting, tuple(defenses), tuple(precisions)).result()


def _surroundings(setting: Setting, defenses: Sequence[str], precisions: Sequence[str]) -> Around:
    import torch

    from bench.victim.machine_speed import matmul_peak, padding, useful_work

    before = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        return {
            "matmul_peak": {precision: matmul_peak(setting.device, precision) for precision in precisions},
            "work_per_sample": {name: useful_work(setting.spec, setting.rows(), name) for name in defenses},
            "padding": padding(setting.spec, setting.rows()),
        }
    finally:
        torch.set_num_threads(before)


def _row(one: _Found, all_found: Sequence[_Found], setting: Setting, around: Around) -> dict[str, Any]:
    speed = statistics.median(one.speeds())
    contender = one.contender
    return {
        **dataclasses.asdict(contender),
        "samples_per_second": speed,
        "seconds_per_cell": len(setting.examples) * setting.spec.epochs / speed,
        "peak_memory_mb": max(found["peak_memory_mb"] for found in one.rounds),
        "peak_share": speed * around["work_per_sample"][contender.defense] / around["matmul_peak"][contender.precision],
        "against_reference": _against(one, all_found, "reference", contender.precision),
        "against_fp32": _against(one, all_found, "reference", "fp32"),
        "against_ours": _against(one, all_found, "ours", contender.precision),
        "model": setting.spec.name,
        "device": setting.device,
        "threads": setting.threads,
        "batch_size": setting.spec.batch_size,
        "steps": one.rounds[0]["steps"],
        "trainable_parameters": one.rounds[0]["trainable_parameters"],
        "rounds": one.speeds(),
    }


def _against(one: _Found, all_found: Sequence[_Found], name: str, precision: str) -> float | None:
    for other in all_found:
        if (other.contender.name, other.contender.precision) == (name, precision):
            pairs = zip(one.speeds(), other.speeds(), strict=True)
            return statistics.median(mine / theirs for mine, theirs in pairs)
    return None
