"""What a record says of where it was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CODE = ("bench", "attackers", "defenders", "configs")  # what decides a number


def describe() -> dict[str, str | None]:
    """Return the versions, the commit of a checkout, today (UTC) and the kind of machine; packages are not imported."""
    return {
        "bench": _version("openbackdoor-bench"),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "peft")},
        "commit": commit_of(Path(__file__).resolve().parents[2]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit_of(root: Path) -> str | None:
    """Return the git commit of a checkout, None where there is none; `+changes` where its code is not that commit's."""
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        changed = _git(root, "status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed.strip() else commit


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
    ).stdout
