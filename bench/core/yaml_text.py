"""YAML as this project reads it: plain JSON values, and numbers as people write them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import yaml

FLOAT = re.compile(
    r"^[-+]?(?:(?:[0-9][0-9_]*)?\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*\.?(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.)$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
MOST_VALUES = 100_000
FLOAT_TAG, DATE_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, but 5e-4 is a number (PyYAML follows YAML 1.1, where it is a word) and no key stands twice."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (FLOAT_TAG, DATE_TAG)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Return the mapping of a node, whose keys are different words."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or not isinstance(name := self.construct_object(key), str):
                raise yaml.constructor.ConstructorError(None, None, "a key is no word", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(FLOAT_TAG, FLOAT, list("-+0123456789."))


def read_yaml(text: str) -> Any:
    """Return the value of a YAML document: None, bool, int, float, str, and lists and string-keyed dicts of these.

    Raises:
        ValueError: it is not YAML, or holds anything else; the message is the reason, in one line.
    """
    try:
        value = yaml.load(text, _Loader)
        _check(value, (), itertools.count(1))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).replace('"<unicode string>", ', "").split())) from None
    return value


def _check(value: Any, within: tuple[int, ...], seen: Iterator[int]) -> None:
    if id(value) in within:
        raise ValueError("a value holds itself")
    if next(seen) > MOST_VALUES:  # a few lines of references can stand for billions
        raise ValueError(f"it holds more than {MOST_VALUES:,} values")
    if isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, (*within, id(value)), seen)
    elif isinstance(value, str):
        value.encode("utf-8")  # half of a character (a lone surrogate) raises a ValueError
    elif not (value is None or isinstance(value, (bool, int, float, str))):
        raise ValueError(f"a value is a {type(value).__name__}, which JSON does not have")
