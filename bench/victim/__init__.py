"""The model under attack. Importing this package imports no torch."""

from __future__ import annotations

from bench.victim.spec import ModelSpec, model_names, model_spec

__all__ = ["ModelSpec", "model_names", "model_spec"]
