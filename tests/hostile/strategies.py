"""What bad input is made of: hostile texts, values, and the number of examples of each test."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# Examples of each generating test; together they are at least 2,000 (a test checks it).
EXAMPLES = {
    "requests": 150,
    "runs": 40,
    "grid files": 350,
    "specs": 500,
    "tables": 500,
    "banks": 250,
    "records": 200,
    "record commands": 40,
    "model folders": 120,
    "names": 60,
}

TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "...",
    "\u202eabc",
    "\u200f\u2066x",
    "\ud800",
    "<script>alert(1)</script>",
    "a|b",
    "[x](javascript:alert(1))",
    "**b**\n# head",
    "=1+1",
    "\x1b[31mred",
    "\r\n\t\x07",
    "[red]x[/red]",
    "[/]",
    "x" * 5000,
    "9" * 5000,
    "1e999",
    "nan",
    "-inf",
    "null",
    "true",
    "~",
    "lora(",
    "lora)",
    "lora(rank=",
    "lora(rank=[1,2)",
    "lora(rank=0)",
    "lora(rank=1,rank=1)",
    "lora(rank=!!python/object/apply:os.system ['true'])",
    "lora>mslr",
    "vanilla>",
    ">",
    "{a: b",
    "&a *a",
    "*a",
    "? x",
    "os:system",
    "builtins:print",
    "random:Random",
    "a:b:c",
    ":",
    "openbackdoor:strip",
    "demo(subset=-1)",
    "demo(subset=99999999)",
    "demo(dev=never)",
    "sst2(files={})",
    "pickle.pkl",
    "x.csv",
    "x.jsonl",
    "nowhere/",
    "💥",
    "٣",
    "Ⅷ",
    "\ufeff",
    "--",
    "-1",
    "1.5",
    "%s%n",
    "$HOME",
)


def hostile() -> st.SearchStrategy[str]:
    """Return texts that somebody could send: chosen ones, pairs of them, and any characters at all."""
    chosen = st.sampled_from(TEXTS)
    anything = st.text(st.characters(exclude_categories=()), max_size=12)
    return chosen | st.tuples(chosen, chosen).map("".join) | anything


def values() -> st.SearchStrategy[Any]:
    """Return any JSON value, and some that JSON does not have."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.integers(10**30, 10**40)
        | st.floats()
        | hostile()
        | st.just(b"bytes")
    )
    names = hostile()
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
    )


def examples(name: str) -> settings:
    """Return the settings of a generating test: its number of examples, the same ones on every run."""
    unhurried = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=EXAMPLES[name], deadline=None, derandomize=True, database=None, suppress_health_check=unhurried
    )
