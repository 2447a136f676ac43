"""Which stages go to one worker together: fixed by the plan, never by who is idle."""

from __future__ import annotations

from collections.abc import Iterable

from bench.engine.stages import Stage


def tasks(stages: Iterable[Stage]) -> list[list[str]]:
    """Return the keys of the stages in groups, each group the work of one worker at one time.

    Every stage stands in one group, and none in the group of a stage that it is made from. A member's numbers do not
    depend on its group: members that are already in the store are left out of it, and a group that cannot start
    because its members wait for each other's children is run one by one.
    """
    return [[stage.key] for stage in stages]
