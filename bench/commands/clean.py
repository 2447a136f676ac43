"""What a run's folder holds that no record needs: `bench clean`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rich.console import Console

from bench.commands.status import plan_into
from bench.core.errors import RequestError
from bench.engine.progress import claims
from bench.engine.store import Store
from bench.engine.upkeep import UNFINISHED, Freeable, free, freeable, other_originals, run_claim, unread


def clean_folder(out: Path, yes: bool, everything: bool, console: Console) -> int:
    """Print what can be freed, with sizes, and free it if `yes`; `everything`: also what a run would go on from.

    Raises:
        RequestError: nothing has been run into the folder, or a run is at work in it.
    """
    plan, claim = plan_into(out, None), run_claim(out, shared=False)
    try:
        alone = claim.take()
    except OSError as error:
        raise RequestError(f"{out} cannot be written: {error.strerror}.", "Make it writable.") from None
    with contextlib.ExitStack() as held:
        held.callback(claim.drop)
        if not alone or any(True for _ in claims(Store(out / "store", read_only=True))):
            raise RequestError(f"A run is at work in {out}.", "Wait until it is done, or stop it.")
        found = freeable(out, plan)
        chosen = [item for item in found if everything or item.why != UNFINISHED]
        for why in dict.fromkeys(item.why for item in found):
            group = [item for item in found if item.why == why]
            kept = "" if group[0] in chosen else " (kept; --all frees it)"
            console.print(f"{_size(group):>10}  {len(group)} x {why}{kept}", markup=False, highlight=False)
        for reason in unread(plan):
            note = f"{reason} Stages that may be made from it count as what an unfinished run would go on from."
            console.print(note, markup=False, highlight=False)
        for path in sorted(set(other_originals(out, plan).values())):
            note = f"Stages made from another {path} than is there now count as what a run would go on from."
            console.print(note, markup=False, highlight=False)
        if not chosen:
            console.print("Nothing to free.", highlight=False)
        elif not yes:
            console.print(f"{_size(chosen):>10}  in all. Give --yes to free it.", highlight=False)
        else:
            freed = sum(free(out, item) for item in chosen)
            console.print(f"{_words(freed):>10}  freed.", highlight=False)
    return 0


def _size(items: list[Freeable]) -> str:
    return _words(sum(item.size for item in items))


def _words(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
