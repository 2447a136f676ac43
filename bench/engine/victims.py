"""Which victim a stage works on, and the defense bound to all that it may know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.core.errors import CellError
from bench.core.knowledge import Knowledge
from bench.core.seeding import derived_seed
from bench.core.spec import Part
from bench.engine import plugins
from bench.engine.artifacts import read_meta
from bench.engine.clean_rows import CleanRows, divide
from bench.engine.stages import Stage
from bench.engine.store import LostError, Store
from bench.engine.work import Job
from bench.victim.assembly import add_stand_in
from bench.victim.loading import load_victim, weights_identity
from bench.victim.spec import ModelSpec


def spec_of(content: dict[str, Any]) -> ModelSpec:
    """Return the spec of the model that a stage's content names.

    Raises:
        CellError: it is a folder whose files are no longer those that were planned.
    """
    spec = plugins.model(content["model"])
    if content["model"].get("place") and weights_identity(spec) != content["model"]["pins"]["weights"]:
        raise CellError(
            f"The files of model {spec.name!r} in {spec.path!r} have changed since the run began.",
            "Run the same command again.",
        )
    return spec


def fresh(job: Job, content: dict[str, Any], seed: int) -> Any:
    """Return a pre-trained victim; what of it is drawn (`load_victim`) comes from `seed`."""
    classes = job.meta("load")["classes"]
    return _loader(job)(
        spec_of(content), classes, seed=seed, device=job.machine.device, precision=content.get("precision", "fp32")
    )


def _loader(job: Job) -> Callable[..., Any]:
    """Return what loads a victim: plain ones where `bench speed` runs the other side of its comparison."""
    if job.machine.loop == "ours":
        return load_victim
    from bench.victim.reference import plain_victim

    return plain_victim


def clean_rows(
    job: Job, samples: int = 0, calibrated: bool = False, budget: int | None = None, taken: int = 0
) -> CleanRows:
    """Return the clean rows of a stage's seed, divided by use."""
    dataset = job.parent_payloads["load"]["content"]["dataset"]
    dev = job.examples("load", "dev").examples
    return divide(dev, samples, calibrated, dataset["name"], job.content["seed"], budget, taken)


def bound(job: Job, victim: Any = None) -> tuple[Any, dict[str, int]]:
    """Return the defense bound to all that it may know, and how many clean rows that is."""
    defense = plugins.defender(job.content["defense"])
    clean = clean_rows(job, defense.samples(), defense.calibrated, defense.clean_budget, job.content.get("taken", 0))
    knowledge = Knowledge(
        classes=job.meta("load")["classes"],
        clean=clean.method,
        calibration=clean.calibration,
        seed=job.seed("defense"),
        recipe=job.content.get("recipe", "released"),
        model=spec_of(job.content) if "model" in job.content else None,
        pretrained=(lambda: fresh(job, job.content, job.seed("pretrained"))) if "model" in job.content else None,
        victim=victim,
        device=job.machine.device,
    )
    counts = {"method": len(clean.method), "calibration": len(clean.calibration)}
    return defense.bound(knowledge), counts


def restored(job: Job, role: str = "victim") -> Any:
    """Return the victim that a parent stage trained or repaired."""
    payload = job.parent_payloads[role]
    while payload["kind"] == "repair":
        payload = payload["parent_payloads"]["victim"]
    content = payload["content"]
    victim = fresh(job, content, _head_seed(payload))
    if "defense" in content:
        defense = plugins.defender(content["defense"])
        known = Knowledge(
            victim.classes, seed=_seed_of(payload, "defense"), recipe=content["recipe"], model=spec_of(content)
        )
        defense.bound(known).wrap(victim)
    add_stand_in(victim, content["recipe"], _seed_of(payload, "defense"))
    victim.restore(job.parents[role])
    return victim


def drawn(store: Store, key: str) -> dict[str, Any]:
    """Return, by name, the tensors of its backbone that a training drew because the model's files lack them.

    Raises:
        BenchError: the model is not on this machine as it was, or a stage that the training was made from is gone.
    """
    manifest = _manifest(store, key)
    content = manifest["content"]
    spec = spec_of(content)
    if spec.family == "decoder":  # none has a pooler, which is all that files may lack of a backbone
        return {}
    classes = read_meta(store.file(manifest["parents"]["load"], "meta.json").parent)["classes"]
    seed = derived_seed(_made(store, key).identity, "head")
    victim = load_victim(spec, classes, seed=seed, precision=content["precision"])
    found = {name: value.detach() for name, value in victim.tensors().items() if name in victim.drawn}
    return {name: value for name, value in found.items() if name.partition(".")[0] not in victim.head}


def _made(store: Store, key: str) -> Stage:
    """Return a finished stage with the identity that it had; its key lacks the versions of plug-ins."""
    manifest = _manifest(store, key)
    content = {
        name: Part(value["name"], value["options"], value.get("source", "")) if isinstance(value, dict) else value
        for name, value in manifest["content"].items()
    }
    parents = {role: _made(store, parent) for role, parent in manifest["parents"].items()}
    return Stage(manifest["kind"], content, parents)


def _manifest(store: Store, key: str) -> dict[str, Any]:
    manifest = store.manifest(key)
    if manifest is None:
        raise LostError(key, f"Stage {key} is not in the store.")
    return manifest


def _seed_of(payload: dict[str, Any], name: str) -> int:
    return derived_seed(payload["identity"], name)


def _head_seed(payload: dict[str, Any]) -> int:
    return _seed_of(payload, "head")


def versions() -> dict[str, str]:
    """Return the versions of what a number can depend on."""
    import platform
    from importlib.metadata import version

    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    return {"python": platform.python_version(), **packages}
