"""Asking about paths that anybody may have written: too long ones, with a NUL or half a character, are not there.

And where this suite keeps what only saves time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def is_folder(path: str | Path) -> bool:
    """Tell whether a path is a folder; False for a name that no file system takes."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """Tell whether a path is a file; False for a name that no file system takes."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_name(text: str) -> bool:
    """Tell whether a file system could take a text as a path, whatever its length."""
    try:
        return "\0" not in text and bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def absolute(path: str) -> str:
    """Return a path that means the same from any working folder; what is no name of a file as it is."""
    return os.path.abspath(path) if is_name(path) else path


def json_object(path: Path) -> dict[str, Any] | None:
    """Return the object that a JSON file holds, None where it cannot be read or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def cache_folder() -> Path:
    """Return the folder, which may be absent, of what only saves time: under XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openbackdoor-bench"
