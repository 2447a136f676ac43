"""From `strip(repeat=5)` to a constructed plug-in and to the part that stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import RequestError
from bench.core.registry import ATTACKERS, DEFENDERS, own_plugins
from bench.core.spec import Part
from bench.engine import plugins
from bench.engine.plugin_code import PIN
from tests.engine.acting import Flagger

MODULE = "tests.engine.acting:Flagger"


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("strip", "strip", {}),
        ("  strip ", "strip", {}),
        ("lora+ga", "lora+ga", {}),
        ("strip()", "strip", {}),
        ("strip(repeat=5)", "strip", {"repeat": 5}),
        ("strip (repeat = 5 , frr= 5e-2)", "strip", {"repeat": 5, "frr": 0.05}),
        ("a(x=[1, 2, [3]], y=b)", "a", {"x": [1, 2, [3]], "y": "b"}),
        ("a(x={p: 1, q: [2, 3]}, y=)", "a", {"x": {"p": 1, "q": [2, 3]}, "y": None}),
        ("addsent(sentence='one, two = three)')", "addsent", {"sentence": "one, two = three)"}),
        ('addsent(sentence="it\'s, [so]")', "addsent", {"sentence": "it's, [so]"}),
        ("a(x=(1))", "a", {"x": "(1)"}),
        ("a(x=true, y=null, z=no way)", "a", {"x": True, "y": None, "z": "no way"}),
        ("a(x=1,)", "a", {"x": 1}),
        ("kit.mod:Class(x=1)", "kit.mod:Class", {"x": 1}),
        ({"name": "strip"}, "strip", {}),
        ({"name": "strip", "repeat": 5}, "strip", {"repeat": 5}),
    ],
)
def test_what_a_choice_says(text: str | Mapping[str, Any], name: str, options: dict[str, Any]) -> None:
    assert plugins.parse(text) == (name, options)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is no name"),
        ("(repeat=5)", "is no name"),
        ("strip(repeat=5", "is no name"),
        ("strip)", "is no name"),
        ("strip(repeat=5) more", "is no name"),
        (5, "5 is no name"),
        (None, "None is no name"),
        (["strip"], "is no name"),
        ("strip(5)", "'5' in 'strip.5.' is no option"),
        ("strip(=5)", "'=5' in .* is no option"),
        ("strip(two words=5)", "is no option"),
        ("strip(repeat=5, repeat=6)", "sets repeat twice"),
        ("strip(repeat=[5)", "is no value"),
        ("strip(repeat={a: 1, a: 2})", "'a' stands twice"),
        ("strip(repeat=!!python/name:os.system )", "is no value"),
        ({}, "has no name"),
        ({"repeat": 5}, "has no name"),
        ({"name": 5}, "has no name"),
        ({"name": "strip", 5: 5}, "has no name"),
    ],
)
def test_what_is_no_choice(text: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        plugins.parse(text)
    assert caught.value.remedy


@given(st.text(max_size=30) | st.text(alphabet="ab(),=[]{}'\" 0.5", max_size=30))
@settings(database=None, derandomize=True, deadline=None, max_examples=300)
def test_any_text_is_a_choice_or_a_wrong_request(text: str) -> None:
    try:
        name, options = plugins.parse(text)
    except RequestError as error:
        assert error.remedy
    else:
        assert name and all(key.isidentifier() for key in options)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a,b", ["a", "b"]),
        (" a , b ", ["a", "b"]),
        ("a", ["a"]),
        ("", []),
        (",a,,", ["a"]),
        ("strip(repeat=5,frr=0.1),onion", ["strip(repeat=5,frr=0.1)", "onion"]),
        ("a(x=[1,2]),b(y='p,q')", ["a(x=[1,2])", "b(y='p,q')"]),
    ],
)
def test_a_list_splits_outside_brackets_and_quotes(text: str, items: list[str]) -> None:
    assert plugins.split_list(text) == items


def test_options_reach_the_plugin() -> None:
    assert plugins.construct(ATTACKERS, "badnets", {"triggers": ["x"], "num_triggers": 2}).triggers == ("x",)
    assert plugins.construct(DEFENDERS, MODULE, {"word_length": 3}) == Flagger(word_length=3)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("badnet", {}, "There is no attacker named 'badnet'. Did you mean 'badnets'?"),
        (
            "badnets",
            {"trigger": ["x"]},
            "There is no option of attacker 'badnets' named 'trigger'. Did you mean 'triggers",
        ),
        ("badnets", {"num_triggers": 0}, "badnets.num_triggers is 0: input should be greater than or equal to 1."),
        ("badnets", {"num_triggers": "4"}, "badnets.num_triggers is '4': input should be a valid integer."),
        ("badnets", {"name": "x"}, "There is no option of attacker 'badnets' named 'name'."),
        ("badnets", {"poison_rate": 0.5}, "There is no option of attacker 'badnets' named 'poison_rate'."),
        ("hiddenkiller", {"template": 3}, "There is no option of attacker 'hiddenkiller' named 'template'."),
        ("random:Random", {}, "random:Random is no attacker"),
    ],
)
def test_a_wrong_plugin_or_option_is_named(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError) as caught:
        plugins.construct(ATTACKERS, name, options)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("family", [ATTACKERS, DEFENDERS])
def test_a_part_leads_back_to_its_plugin(family: Any) -> None:
    for name in own_plugins(family):
        plugin = plugins.construct(family, name, {})
        part = plugins.part_of(family, plugin, name)
        assert (part.name, part.source, part.version) == (name, "", plugin.version)
        assert part.options == plugin.identity()
        assert plugins.restore(family, part) == plugin == plugins.restore(family, part.json())


def test_a_plugin_from_elsewhere_keeps_where() -> None:
    plugin = plugins.construct(DEFENDERS, MODULE, {"word_length": 4})
    part = plugins.part_of(DEFENDERS, plugin, MODULE)
    assert part.identity == Part("flagger", {"word_length": 4}, source=MODULE).identity and list(part.pins) == [PIN]
    assert part.json()["source"] == MODULE and plugins.defender(part.json()) == plugin


def test_module_and_class_of_our_own_is_the_name() -> None:
    written = "attackers.badnets:BadNets"
    part = plugins.part_of(ATTACKERS, plugins.construct(ATTACKERS, written, {}), written)
    assert part == plugins.part_of(ATTACKERS, plugins.construct(ATTACKERS, "badnets", {}), "badnets")


def test_a_constructor_of_its_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from dataclasses import dataclass\nfrom defenders.base import Defender\n\n\n@dataclass(frozen=True)\n"
    code += "class Own(Defender):\n    name = 'own'\n\n    def __init__(self, x):\n        pass\n"
    (tmp_path / "own_constructor.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match="cannot be constructed from its options.*write no __init__"):
        plugins.construct(DEFENDERS, "own_constructor:Own", {})
