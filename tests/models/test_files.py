"""Where models are, which are missing, and what stands for them in keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphflow.errors import MissingError
from graphflow.models.files import fingerprint, local_folder, missing, model_files, require
from graphflow.models.refs import ModelRef
from graphflow.store import Store

COMMIT = "0123456789012345678901234567890123456789"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    (snapshot / "vae").mkdir(parents=True)
    (snapshot / "vae" / "config.json").write_text("{}")
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text(COMMIT)
    return snapshot


def vae(**source: object) -> ModelRef:
    return ModelRef("vae", "diffusers.vae", "sd", **source)  # type: ignore[arg-type]


def test_a_snapshot_is_found_by_commit_and_by_branch(hub: Path) -> None:
    assert local_folder(vae(hub="owner/name", revision=COMMIT, part="vae")) == hub
    assert local_folder(vae(hub="owner/name", part="vae")) == hub
    assert local_folder(vae(hub="owner/other", part="vae")) is None
    assert local_folder(vae(hub="owner/name", revision="f" * 40, part="vae")) is None


def test_the_hubs_own_library_finds_the_same_cache(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants
    from huggingface_hub import try_to_load_from_cache

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub.parents[2]))
    found = try_to_load_from_cache("owner/name", "vae/config.json", cache_dir=hub.parents[2])
    assert found == str(hub / "vae" / "config.json")


def test_incomplete_models_are_missing(hub: Path) -> None:
    ref = vae(hub="owner/name", revision=COMMIT, part="vae")
    assert missing({"vae": ref}) == []
    (hub / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "has no file vae/" in missing({"vae": ref})[0]
    with pytest.raises(MissingError, match="1 model\\(s\\) are not on this machine"):
        require({"vae": ref}, "mine")


def test_the_fingerprint_is_the_commit_or_the_bytes(hub: Path, store: Store, tmp_path: Path) -> None:
    assert f"hub:owner/name@{COMMIT}/vae" in fingerprint(vae(hub="owner/name", part="vae"))
    local = vae(path=hub, part="vae")
    first = fingerprint(local, store.file_digest)
    assert first == fingerprint(local, store.file_digest)
    moved = tmp_path / "elsewhere"
    hub.rename(moved)
    assert fingerprint(vae(path=moved, part="vae"), store.file_digest) == first, "the place does not count"
    (moved / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"other weights")
    assert fingerprint(vae(path=moved, part="vae"), store.file_digest) != first, "an overwritten file does"
    assert fingerprint(vae(path=moved, part="vae", dtype="bfloat16"), store.file_digest) != first


def test_files_that_the_loader_does_not_read_do_not_count(hub: Path) -> None:
    before = model_files(vae(path=hub, part="vae"), hub)
    (hub / "README.md").write_text("changed")
    assert model_files(vae(path=hub, part="vae"), hub) == before
