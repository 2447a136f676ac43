"""Finding plug-ins: the folder, entry points of installed packages, `module:Class`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attackers.badnets import BadNets
from bench.core import registry
from bench.core.errors import RequestError
from bench.core.registry import ATTACKERS, DEFENDERS, names, own_plugins, plugin_class
from defenders.base import Defender
from defenders.vanilla import Vanilla

PLUGIN = """
from dataclasses import dataclass

from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class Thirdparty(Defender):
    name = "thirdparty"
    strength: int = 3


@dataclass(frozen=True, kw_only=True)
class Nameless(Defender):
    strength: int = 3


class Undecorated(Defender):
    name = "undecorated"
    strength: int = 3


class Stranger:
    name = "stranger"


thing = 5
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that puts a package with entry points on the path, as pip would."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def put(package: str, code: str = PLUGIN, group: str = "openbackdoor_bench.defenders", **points: str) -> None:
        (tmp_path / f"{package}.py").write_text(code, encoding="utf-8")
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        registry._entry_points.cache_clear()

    yield put
    for name in set(sys.modules) - before:
        del sys.modules[name]
    registry._entry_points.cache_clear()


def test_the_folder_is_the_list() -> None:
    folder = Path(sys.modules["defenders"].__path__[0])
    assert {"vanilla", "lora", "musclelora"} <= set(names(DEFENDERS))
    assert {"badnets", "addsent", "hiddenkiller", "stylebkd"} <= set(names(ATTACKERS))
    assert names(DEFENDERS) == sorted(names(DEFENDERS))
    for name, cls in own_plugins(DEFENDERS).items():
        assert cls.name == name and (folder / f"{cls.__module__.split('.')[1]}.py").is_file()


def test_helpers_in_the_folder_are_no_plugins() -> None:
    assert not {"base", "paraphrase", "selection"} & set(names(ATTACKERS)) and "base" not in names(DEFENDERS)


def test_a_name_or_module_and_class_find_the_same() -> None:
    assert plugin_class(DEFENDERS, "vanilla") is Vanilla is plugin_class(DEFENDERS, "defenders.vanilla:Vanilla")
    assert plugin_class(ATTACKERS, "badnets") is BadNets


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"There is no defender named 'musclelor'\. Did you mean 'musclelora'\?"):
        plugin_class(DEFENDERS, "musclelor")
    with pytest.raises(RequestError, match=r"no attacker named 'musclelora'\. There are: .*badnets"):
        plugin_class(ATTACKERS, "musclelora")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:Thing", "No module named 'no_such_module'"),
        ("defenders.vanilla:Vanila", "has no attribute 'Vanila'"),
        ("defenders.vanilla:", "cannot be loaded"),
        (":Vanilla", "cannot be loaded"),
        ("..defenders:Vanilla", "relative import"),
        ("random:Random", "no defender: it is not a dataclass derived from defenders.base.Defender"),
        ("random:randint", "no defender"),
        ("attackers.badnets:BadNets", "no defender"),
        ("defenders.base:Defender", "has no name"),
    ],
)
def test_what_is_no_plugin_is_refused(target: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        plugin_class(DEFENDERS, target)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        ("kit.py:Thirdparty", "Write kit:Thirdparty, a module and not a file."),
        ("./kit.py:Thirdparty", "Write kit:Thirdparty, a module and not a file."),
        ("sub/kit.py:Thirdparty", "Write sub.kit:Thirdparty, a module and not a file."),
        ("/far/kit.py:Thirdparty", "Write kit:Thirdparty, a module and not a file, and put the folder /far on"),
        ("absent:Thirdparty", "the folder that holds absent.py"),
        ("kit:Thirdpart", "Did you mean 'Thirdparty'?"),
        ("lacking:Thirdparty", "Install what it imports"),
        ("kit:Initialised", "decorate the class"),
    ],
)
def test_the_remedy_for_what_cannot_be_loaded(install: Callable[..., None], target: str, remedy: str) -> None:
    own = "class Initialised(Defender):\n    name = 'initialised'\n\n    def __init__(self, x):\n        pass\n"
    install("kit", f"{PLUGIN}\n\n{own}")
    install("lacking", "import no_such_package")
    with pytest.raises(RequestError) as caught:
        plugin_class(DEFENDERS, target)
    assert remedy in caught.value.remedy


def test_a_file_here_without_a_class_is_told_how_to_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "mine.py"):
        with pytest.raises(RequestError, match="Write mine:Class"):
            plugin_class(DEFENDERS, name)


def test_an_entry_point_adds_a_name(install: Callable[..., None]) -> None:
    install("kit", mine="kit:Thirdparty")
    found = plugin_class(DEFENDERS, "mine")
    assert found.name == "thirdparty" and issubclass(found, Defender)
    assert "mine" in names(DEFENDERS) and "mine" not in names(ATTACKERS) and "mine" not in own_plugins(DEFENDERS)
    with pytest.raises(RequestError, match="Did you mean 'mine'"):
        plugin_class(DEFENDERS, "minee")


def test_entry_points_are_read_by_group(install: Callable[..., None]) -> None:
    install("kit", group="openbackdoor_bench.attackers", mine="kit:Thirdparty")
    assert "mine" in names(ATTACKERS) and "mine" not in names(DEFENDERS)
    with pytest.raises(RequestError, match="kit:Thirdparty is no attacker"):
        plugin_class(ATTACKERS, "mine")


def test_an_entry_point_may_name_an_extra(install: Callable[..., None]) -> None:
    install("kit", mine="kit:Thirdparty [gpu]")
    assert plugin_class(DEFENDERS, "mine").name == "thirdparty"


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ("kit:Gone", "has no attribute 'Gone'"),
        ("gone:Thirdparty", "No module named 'gone'"),
        ("kit:Nameless", "kit:Nameless has no name"),
        ("kit:Undecorated", "it is not a dataclass"),
        ("kit:Stranger", "it is not a dataclass derived"),
        ("kit:thing", "is no defender"),
    ],
)
def test_a_broken_entry_point_fails_when_it_is_asked_for(install: Callable[..., None], point: str, reason: str) -> None:
    install("kit", mine=point)
    assert plugin_class(DEFENDERS, "vanilla") is Vanilla
    with pytest.raises(RequestError, match=reason):
        plugin_class(DEFENDERS, "mine")


@pytest.mark.parametrize("code", ["def (", "1 / 0", "raise RuntimeError('no licence')"])
def test_a_module_that_does_not_import_is_a_wrong_request(install: Callable[..., None], code: str) -> None:
    install("kit", code, mine="kit:Thirdparty")
    with pytest.raises(RequestError, match="defender 'mine' cannot be loaded") as caught:
        plugin_class(DEFENDERS, "mine")
    assert caught.value.__cause__ is not None


def test_a_name_that_two_packages_give_is_refused(install: Callable[..., None]) -> None:
    install("kit", mine="kit:Thirdparty")
    install("kitten", mine="kitten:Thirdparty")
    with pytest.raises(RequestError, match="Two defenders are named 'mine': kit:Thirdparty and kitten:Thirdparty"):
        plugin_class(DEFENDERS, "mine")
    assert plugin_class(DEFENDERS, "kitten:Thirdparty").__module__ == "kitten"


def test_a_package_cannot_take_the_name_of_ours(install: Callable[..., None]) -> None:
    install("kit", vanilla="kit:Thirdparty")
    with pytest.raises(RequestError, match="Two defenders are named 'vanilla'"):
        plugin_class(DEFENDERS, "vanilla")
    assert plugin_class(DEFENDERS, "defenders.vanilla:Vanilla") is Vanilla


def test_a_class_with_the_name_of_ours_is_refused_however_it_is_asked_for(install: Callable[..., None]) -> None:
    copied = PLUGIN.replace('"thirdparty"', '"vanilla"')
    install("kit", copied, vanilla="kit:Thirdparty", mine="kit:Thirdparty")
    for asked in ("kit:Thirdparty", "mine"):
        with pytest.raises(
            RequestError, match="is named 'vanilla', which is the name of defenders.vanilla:Vanilla"
        ) as no:
            plugin_class(DEFENDERS, asked)
        assert 'name = "my-vanilla"' in no.value.remedy
    with pytest.raises(RequestError, match="Two defenders are named 'vanilla'") as caught:
        plugin_class(DEFENDERS, "vanilla")
    assert "another name, in its class and its entry point" in caught.value.remedy
    assert plugin_class(DEFENDERS, "defenders.vanilla:Vanilla") is Vanilla


def test_a_class_with_the_name_that_another_package_registers_is_refused(install: Callable[..., None]) -> None:
    install("kit", thirdparty="kit:Thirdparty", broken="gone:Away")
    install("shop", "from kit import Thirdparty")
    install("kitten")
    install("away", PLUGIN.replace('"thirdparty"', '"broken"'))
    assert plugin_class(DEFENDERS, "thirdparty") is plugin_class(DEFENDERS, "shop:Thirdparty")
    with pytest.raises(RequestError, match="'thirdparty', which is the name of kit:Thirdparty.*another name"):
        plugin_class(DEFENDERS, "kitten:Thirdparty")
    with pytest.raises(RequestError, match="'broken', which is the name of gone:Away"):
        plugin_class(DEFENDERS, "away:Thirdparty")


def test_two_files_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "again.py").write_text(PLUGIN.replace('"thirdparty"', '"vanilla"'), encoding="utf-8")
    monkeypatch.setattr(sys.modules["defenders"], "__path__", [*sys.modules["defenders"].__path__, str(tmp_path)])
    own_plugins.cache_clear()
    try:
        with pytest.raises(RequestError, match="Two defenders are named 'vanilla'"):
            own_plugins(DEFENDERS)
    finally:
        sys.modules.pop("defenders.again", None)
        own_plugins.cache_clear()
