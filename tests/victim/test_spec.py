from __future__ import annotations

import subprocess
import sys

import pytest

from bench.core.errors import CellError, RequestError
from bench.victim.spec import ModelSpec, model_names, model_spec
from tests.tiny import tiny_model

COMMIT = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"


def test_minilm_is_pinned_to_the_official_weights():
    spec = model_spec("minilm-l6")
    assert spec.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (spec.hub, spec.revision) == ("sentence-transformers/all-MiniLM-L6-v2", COMMIT)
    assert spec.scales == (1, 4, 8, 12, 16, 20, 24, 28) and spec.scales_paper == (*spec.scales, 32)
    assert spec.scale_factor == 6 and (spec.lora_rank, spec.lora_alpha) == (8, 32)


def test_every_model_file_builds():
    assert "minilm-l6" in model_names()
    for name in model_names():
        assert model_spec(name).name == name


def test_options_go_on_top_and_change_the_identity():
    spec = model_spec("minilm-l6", {"learning_rate": 3e-5})
    assert spec.learning_rate == 3e-5
    assert spec.identity() != model_spec("minilm-l6").identity()


def test_a_hub_model_needs_its_commit():
    spec = model_spec(f"hub:some/model@{COMMIT}")
    assert (spec.hub, spec.revision) == ("some/model", COMMIT)
    with pytest.raises(RequestError, match="no pinned commit"):
        model_spec("hub:some/model")
    with pytest.raises(RequestError, match="without a commit"):
        ModelSpec(name="x", hub="some/model")


def test_a_folder_brings_what_is_known_of_its_architecture(tmp_path_factory):
    spec = model_spec(str(tiny_model(tmp_path_factory, "roberta")))
    assert (spec.name, spec.family, spec.penultimate) == ("roberta", "encoder", "classifier.dense")
    assert model_spec(str(tiny_model(tmp_path_factory, "llama"))).lora_targets == ("q_proj", "v_proj")


def test_wrong_requests_name_the_remedy(tmp_path):
    with pytest.raises(RequestError, match="Did you mean 'minilm-l6'"):
        model_spec("minilm-l7")
    with pytest.raises(RequestError, match="Did you mean 'learning_rate'"):
        model_spec("minilm-l6", {"learning_rat": 1e-3})
    with pytest.raises(RequestError, match="epochs"):
        model_spec("minilm-l6", {"epochs": 0})
    with pytest.raises(RequestError, match="no readable config.json"):
        model_spec(str(tmp_path))
    with pytest.raises(RequestError, match="nowhere"):
        ModelSpec(name="x")


def test_planning_imports_no_torch():
    code = (
        "import sys; import bench.victim; from bench.victim.loading import weights_identity;"
        "from bench.victim import model_spec; import bench.victim.speed, bench.victim.recipes;"
        "weights_identity(model_spec('minilm-l6'));"
        "sys.exit(bool({'torch', 'transformers', 'peft', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_identity_follows_the_files(tmp_path):
    from bench.victim.loading import weights_identity

    assert weights_identity(model_spec(f"hub:some/model@{COMMIT}")) == f"hub:some/model@{COMMIT}"
    assert weights_identity(model_spec("minilm-l6")).startswith("sha256:53aa51172d")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    spec = model_spec(str(tmp_path))
    first = weights_identity(spec)
    assert weights_identity(spec) == first
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert weights_identity(spec) != first
    pinned = model_spec("minilm-l6", {"path": str(tmp_path)})  # its file pins the sha256 of the weights
    before = weights_identity(pinned)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert before != weights_identity(pinned) == weights_identity(spec)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CellError, match="no config.json"):
        weights_identity(spec)
