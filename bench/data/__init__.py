"""Data: pinned sources, their splits, paraphrase banks, the embedded demo corpus, the user's own tables."""

from bench.data.bank import Bank, load_bank
from bench.data.catalog import about, dataset_names, dataset_spec
from bench.data.dataset import Dataset, leaks_of, load_dataset
from bench.data.spec import SPLITS, DatasetSpec

__all__ = [
    "SPLITS",
    "Bank",
    "Dataset",
    "DatasetSpec",
    "about",
    "dataset_names",
    "dataset_spec",
    "leaks_of",
    "load_bank",
    "load_dataset",
]
