"""Options that a grid or the command line sets for a whole axis: what they reach, and what they say nothing to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
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
# Fields of a grid, and what `axis.option` calls them.
AXIS_OF = {
    "datasets": "dataset",
    "attacks": "attack",
    "models": "model",
    "defenders": "defense",
    "analysis": "analysis",
}
AXES = tuple(AXIS_OF.values())
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


@dataclass(frozen=True)
class Settings:
    """The options that a grid sets for whole axes: `over` what a choice names itself, and `under` it."""

    over: Mapping[str, Mapping[str, Any]]
    under: Mapping[str, Mapping[str, Any]]

    def on(self, axis: str, named: Mapping[str, Any], valid: Collection[str] | None = None) -> dict[str, Any]:
        """Return the options of a choice that names some itself; of those set only the valid ones, where given."""
        over, under = (
            {option: value for option, value in given.get(axis, {}).items() if valid is None or option in valid}
            for given in (self.over, self.under)
        )
        return {**under, **named, **over}


def settings_of(grid: Grid) -> Settings:
    """Return the settings of a block.

    Raises:
        RequestError: not `axis.option`, or no such axis.
    """
    yields = yielding(grid)
    over = {name: value for name, value in grid.set.items() if name not in yields}
    under = {name: value for name, value in grid.set.items() if name in yields}
    return Settings(by_axis(over), by_axis(under))


def yielding(grid: Grid) -> frozenset[str]:
    """Return which settings of a block give way to options that a choice names itself."""
    return grid.__dict__.get("_yielding", frozenset())


def give_way(grid: Grid, replaced: Collection[str], asked: Collection[str]) -> None:
    """Change a block so that its own settings of replaced axes give way to options that the new choices name.

    What is in `asked` was set on the command line, after all else, and does not.
    """
    axes = {AXIS_OF[field] for field in replaced if field in AXIS_OF}
    own = (name for name in grid.set if name not in asked and name.partition(".")[0] in axes)
    object.__setattr__(grid, "_yielding", frozenset(own))


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
