"""The tree: import order, file length, and what every source file keeps to; read off the syntax, nothing is run."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bench", "attackers", "defenders")
LONGEST = 300
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# The folder order is the import order: a module imports from lower layers, or from its own folder.
LAYERS = {
    "bench.core": 1,
    "bench.data": 2,
    "bench.victim": 2,
    "bench.openbackdoor": 2.5,  # to the right of the victim, to the left of the plug-ins
    "attackers": 3,
    "defenders": 3,
    "bench.engine": 4,
    "bench.analysis": 4,
    "bench.report": 5,
    "bench.commands": 6,
    "bench.api": 7,
    "bench.cli": 7,
    "bench.__main__": 8,
}
# The protocols of others ask for these; the list may only shrink. `__new__` gets what `__init__` names one by one.
OPEN_KEYWORDS = {
    "attackers/base.py __new__",
    "defenders/base.py __new__",
    "bench/openbackdoor/trainer.py __init__",  # its loader hands the poisoner's section to the trainer too
    "bench/openbackdoor/shims.py __call__",  # stands in for whatever an absent package would call, and refuses
    "bench/victim/prefix.py attend_with_prefix",  # transformers hands attention functions what any of them wants
}
EMPTY = ("bench", "configs")  # their `__init__` imports nothing, so importing them is free


def sources(*folders: str) -> list[Path]:
    """Return the Python files of the folders, by path."""
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert found
    return found


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str | None:
    """Return the layer that a module is in, None where it is not ours."""
    for name in LAYERS:
        if module == name or module.startswith(f"{name}."):
            return name
    return None


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and module of every import of a file: at the top, inside functions, for type checkers only."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            # `from bench import core` names a module by its alias.
            whole = [f"{node.module}.{alias.name}" for alias in node.names] if node.module in EMPTY else [node.module]
            yield from ((node.lineno, str(name)) for name in whole)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            if isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def misplaced(module: str, imported: str) -> bool:
    """Tell whether an import goes right, or sideways into another folder of the same layer."""
    here, there = layer(module), layer(imported)
    return there is not None and here != there and (here is None or LAYERS[there] >= LAYERS[here])


def test_every_module_has_a_layer() -> None:
    homeless = {module_name(path) for path in sources(*PACKAGES)} - set(EMPTY)
    assert [name for name in sorted(homeless) if layer(name) is None] == []


def test_an_import_only_goes_left() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}"
        for path in sources(*PACKAGES, "configs")
        for line, imported in imports(path)
        if misplaced(module_name(path), imported)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "imported", "wrong"),
    [
        ("bench.core.options", "bench.data.spec", True),
        ("bench.data.bank", "bench.core.errors", False),
        ("bench.data.bank", "bench.data.spec", False),
        ("bench.data.bank", "bench.victim.spec", True),
        ("bench.victim.training", "bench.data", True),
        ("attackers.base", "defenders.base", True),
        ("defenders.lora", "bench.engine.plan", True),
        ("bench.engine.plan", "bench.report.tables", True),
        ("bench.engine.plan", "bench.analysis.fourier", True),
        ("bench.report.tables", "bench.cli", True),
        ("bench.cli", "bench.commands.run", False),
        ("bench.engine.plan", "numpy", False),
        ("bench", "bench.core", True),
    ],
)
def test_the_rule_itself(module: str, imported: str, wrong: bool) -> None:
    assert misplaced(module, imported) is wrong


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(*PACKAGES, "configs", "tests")
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


@functools.cache
def nodes(*folders: str) -> list[tuple[str, ast.AST]]:
    """Return `file:line` and node of everything in the folders."""
    return [
        (f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node)
        for path in sources(*folders)
        for node in ast.walk(tree(path))
    ]


def test_only_the_command_line_prints() -> None:
    printing = [
        where
        for where, node in nodes(*PACKAGES)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [where for where in printing if not where.startswith(("bench/cli.py", "bench/commands/"))] == []


def test_no_bare_except_and_no_star_import() -> None:
    wrong = [
        where
        for where, node in nodes(*PACKAGES)
        if (isinstance(node, ast.ExceptHandler) and node.type is None)
        or (isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names))
    ]
    assert wrong == []


def test_no_function_takes_any_keyword() -> None:
    taking = {
        f"{where.partition(':')[0]} {node.name}"
        for where, node in nodes(*PACKAGES)
        if isinstance(node, FUNCTIONS) and node.args.kwarg is not None
    }
    assert taking == OPEN_KEYWORDS


def test_no_mutable_default() -> None:
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    wrong = [
        where
        for where, node in nodes(*PACKAGES)
        if isinstance(node, (*FUNCTIONS, ast.Lambda))
        and any(isinstance(default, mutable) for default in (*node.args.defaults, *node.args.kw_defaults))
    ]
    assert wrong == []


def public_functions(module: ast.Module) -> Iterator[ast.FunctionDef]:
    """Yield the functions of a module and the methods of its classes whose names are public all the way."""
    for node in module.body:
        owners = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
        for item in owners:
            if isinstance(item, FUNCTIONS) and not item.name.startswith("_"):
                yield item


def lacking(function: ast.FunctionDef) -> list[str]:
    """Return what a public function lacks: a docstring, annotations."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    extra = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    bare = [item.arg for item in (*named, *extra) if item.annotation is None and item.arg not in ("self", "cls")]
    lacks = [] if ast.get_docstring(function) else ["docstring"]
    return [*lacks, *bare, *([] if function.returns is not None else ["return annotation"])]


def test_every_public_function_says_what_it_does_and_takes() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name} lacks {', '.join(lacks)}"
        for path in sources(*PACKAGES)
        for function in public_functions(tree(path))
        if (lacks := lacking(function))
    ]
    assert wrong == []


def test_every_file_starts_with_a_sentence() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES)
        if tree(path).body and not ast.get_docstring(tree(path))
    ]
    assert silent == []
