"""Names of plug-ins with the options that tell them apart: `lora(rank=4)` and `lora(rank=8)`, and `lora` alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 40  # characters of a value


class Telling:
    """Which options differ among the plug-ins of one name on one axis."""

    def __init__(self, parts: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Take (axis, name, options) of every plug-in; one that is given once is enough."""
        seen: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for axis, name, options in parts:
            for option, value in options.items():
                seen[axis, name][option].add(json.dumps(value, sort_keys=True, default=str))
        self._options = {
            place: [option for option, values in options.items() if len(values) > 1] for place, options in seen.items()
        }

    def name(self, axis: str, part: Mapping[str, Any]) -> str:
        """Return the name of a plug-in as it stands in a record, with the options that tell it from others."""
        options = part.get("options") or {}
        shown = [option for option in self._options.get((axis, part["name"]), ()) if option in options]
        text = ", ".join(f"{option}={_text(options[option])}" for option in shown)
        return f"{part['name']}({text})" if text else part["name"]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
