"""Options that a grid or the command line sets for a whole axis: what they reach, and what they say nothing to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.core import registry
from bench.core.errors import RequestError, unknown
from bench.core.options import option_names
from bench.core.registry import ATTACKERS, DEFENDERS
from bench.engine import plugins
from bench.engine.chain import names_of

if TYPE_CHECKING:
    from bench.engine.grid import Grid

ALL = "all"
AXES = ("dataset", "attack", "model", "defense", "analysis")
PLUGINS = ("attack", "defense")  # axes on which a setting reaches those that have the option, and the others not


def named(family: registry.Family, choices: tuple) -> list[tuple[str, dict[str, Any]]]:
    """Return name and options of each choice; `all` is every plug-in of the folder, `vanilla` first."""
    own = sorted(registry.own_plugins(family), key=lambda name: name != "vanilla")
    return [plugins.parse(name) for choice in choices for name in (own if choice == ALL else [choice])]


def chains(choices: tuple) -> list[list[tuple[str, dict[str, Any]]]]:
    """Return the links of each choice; each defense of `all` is a chain of one."""
    found: list[list[tuple[str, dict[str, Any]]]] = []
    for choice in choices:
        if choice == ALL:
            found += [[choice] for choice in named(DEFENDERS, (ALL,))]
        else:
            found.append(named(DEFENDERS, tuple(names_of(choice))))
    return found


def by_axis(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of each axis.

    Raises:
        RequestError: not `axis.option`, or no such axis.
    """
    settings: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        axis, dot, option = name.partition(".")
        if not dot or not option:
            raise RequestError(
                f"{name!r} is no option.", "Write axis.option=value, model.learning_rate=5e-4 for example."
            )
        if axis not in AXES:
            raise unknown("axis", axis, AXES)
        settings.setdefault(axis, {})[option] = value
    return settings


def check_settings(blocks: Collection[Grid]) -> None:
    """Raise RequestError where a setting is an option of nothing chosen, in any block: a united grid may hold it."""
    for axis in PLUGINS:
        wanted, valid = _set(axis, blocks), _options(axis, blocks)
        for option in sorted(wanted - valid):
            raise unknown(f"option of any chosen {axis}", option, valid)


def without_idle(before: Collection[Grid], after: Collection[Grid], asked: Collection[str]) -> list[Grid]:
    """Return `after`, blocks that were narrowed, without settings of theirs that only plug-ins left out have.

    What is in `asked` was set on the command line, and stays; so does what nothing in `before` has either.
    """
    idle: set[str] = set()
    for axis in PLUGINS:
        lone = _set(axis, after) - _options(axis, after) if _set(axis, after) else set()
        if lone:
            idle |= {f"{axis}.{option}" for option in lone & _options(axis, before)}
    idle -= set(asked)
    if not idle:
        return list(after)
    return [
        replace(block, set={name: value for name, value in block.set.items() if name not in idle}) for block in after
    ]


def _set(axis: str, blocks: Iterable[Grid]) -> set[str]:
    return {option for block in blocks for option in by_axis(block.set).get(axis, {})}


def _options(axis: str, blocks: Iterable[Grid]) -> set[str]:
    """Return the options of everything that is chosen on an axis."""
    if axis == "attack":
        family, chosen = ATTACKERS, [choice for block in blocks for choice in named(ATTACKERS, block.attacks)]
    else:
        family, chosen = DEFENDERS, [link for block in blocks for chain in chains(block.defenders) for link in chain]
    return {option for name, _ in chosen for option in option_names(registry.plugin_class(family, name))}
