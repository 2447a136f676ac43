"""`bench new`: the file of a defense or an attack, and its test, both passing as they are."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from rich.console import Console

from bench.core import registry
from bench.core.errors import RequestError
from bench.core.registry import ATTACKERS, DEFENDERS, Family

NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
LONGEST = 60
TAKEN = ("all", "base", "openbackdoor")  # words of grids, of the folder, and a reserved prefix
FAMILIES = {"attacker": ATTACKERS, "defender": DEFENDERS}


def write_new(kind: str, name: str, console: Console) -> int:
    """Write `FILE.py` and its test: into a checkout of the suite when the working folder is one, else right here.

    Raises:
        RequestError: the name is no identifier or taken, or a file is in the way; nothing is written then.
    """
    family = FAMILIES[kind]
    module = _module(family, name)
    folder = Path.cwd()
    inside = _is_checkout(folder)
    source = folder / family.package / f"{module}.py" if inside else folder / f"{module}.py"
    test = folder / "tests" / family.package / f"test_{module}.py" if inside else folder / f"test_{module}.py"
    if not inside and find_spec(module) is not None:
        raise RequestError(f"A module named {module!r} can already be imported here.", "Choose another name.")
    for path in (source, test):
        if path.exists():
            raise RequestError(f"{path.relative_to(folder)} is already there.", "Choose another name, or move it.")
    plugin, class_name = module.replace("_", "-"), _class_name(module)
    if class_name in _imported(kind) | _imported(f"{kind}_test"):
        problem = f"The class of {name!r} would be {class_name}, a name that its file or its test imports."
        raise RequestError(problem, f"Choose another name, like rare-{plugin}.")
    place = f"{family.package}.{module}" if inside else module
    target = plugin if inside else f"{module}:{class_name}"
    gap = "" if inside else "\n"  # between imports of the suite and of the user's own
    words = {"name": plugin, "class_name": class_name, "module": place, "target": target, "gap": gap}
    _write({source: _filled(kind, words), test: _filled(f"{kind}_test", words)})
    for path in (source, test):
        console.print(f"written: {path.relative_to(folder)}", markup=False, highlight=False)
    axis = "--attacks" if kind == "attacker" else "--defenders"
    first = "" if kind == "attacker" else "vanilla,"
    console.print(f"test it: python -m pytest {test.relative_to(folder)}", markup=False, highlight=False)
    console.print(f"run it:  python -m bench run --grid demo {axis} {first}{target}", markup=False, highlight=False)
    return 0


def _module(family: Family, name: str) -> str:
    """Return the module name for a plug-in of this name."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise RequestError(
            f"{name!r} is no name for {_a(family.kind)}: a name is lower-case words joined by - or _, "
            f"at most {LONGEST} characters.",
            "Choose one like rare-words.",
        )
    module = name.replace("-", "_")
    plugin = module.replace("_", "-")
    if keyword.iskeyword(module) or keyword.iskeyword(_class_name(module)) or plugin in TAKEN:
        raise RequestError(f"{name!r} is a reserved word.", "Choose another name.")
    existing = registry.names(family)
    if plugin in existing or module in existing:
        raise RequestError(f"There is already {_a(family.kind)} named {plugin!r}.", "Choose another name.")
    return module


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _class_name(module: str) -> str:
    return "".join(word.capitalize() for word in module.split("_"))


def _is_checkout(folder: Path) -> bool:
    """Tell whether a folder is a checkout of this suite: new files then go where its own are."""
    try:
        project = (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    bases = ("defenders/base.py", "attackers/base.py", "tests/defenders", "tests/attackers")
    return 'name = "openbackdoor-bench"' in project and all((folder / path).exists() for path in bases)


def _text(template: str) -> str:
    return (files("bench.commands") / "templates" / f"{template}.txt").read_text(encoding="utf-8")


def _imported(template: str) -> set[str]:
    """Return the names that a written file imports, but for the class that it is about."""
    lines = re.findall(r"^(?:from \S+ )?import (.+)$", _text(template), re.MULTILINE)
    return {name.rpartition(" ")[2] for line in lines for name in line.split(", ")}


def _filled(template: str, words: dict[str, str]) -> str:
    return Template(_text(template)).substitute(words)


def _write(texts: dict[Path, str]) -> None:
    written: list[Path] = []
    try:
        for path, text in texts.items():
            with path.open("x", encoding="utf-8", newline="\n") as stream:
                written.append(path)
                stream.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise RequestError(f"{path} cannot be written: {error.strerror}.", "Work in a folder that can be.") from None
