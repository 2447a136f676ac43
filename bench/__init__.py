"""The suite from Python: `from bench import run_grid, load_records`; see docs/api.md.

Nothing of the suite is imported until a name is asked for.
"""

import importlib

OFFERED = (
    "compare",
    "load_records",
    "plan_grid",
    "run_grid",
    "save_adapter",
    "to_dataset",
    "to_every_eval_ever",
    "to_pandas",
)


def __getattr__(name: str) -> object:
    """Return a function of `bench.api` when it is first asked for."""
    if name not in OFFERED:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.api"), name)


def __dir__() -> list[str]:
    """Return the names that the package offers."""
    return sorted({*globals(), *OFFERED})
