"""Where models are, which are missing, and what stands for them in keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphflow.errors import Mark, MissingError
from graphflow.models.files import fingerprint, local_folder, missing, model_files, require
from graphflow.models.preset import load_preset
from graphflow.models.refs import ModelRef
from graphflow.models.weights import model_key
from graphflow.nodes.loaders.files import subfolder
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


def test_a_branch_names_a_commit_and_no_folder(hub: Path) -> None:
    pointer = hub.parents[1] / "refs" / "main"
    for text in ("../..", str(hub), "\N{SNOWMAN}"):
        pointer.write_text(text)
        assert local_folder(vae(hub="owner/name", part="vae")) is None
    pointer.write_bytes(b"\xff\xfe")
    assert local_folder(vae(hub="owner/name", part="vae")) is None


def test_two_tags_that_begin_alike_are_two_models() -> None:
    refs = [vae(hub="owner/name", revision=f"release-2024-0{n}") for n in (1, 2)]
    assert len({model_key(ref) for ref in refs}) == 2


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


def test_what_can_not_be_pulled_is_named(hub: Path, tmp_path: Path) -> None:
    (hub / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    pulled, mine = vae(hub="owner/name", revision=COMMIT, part="vae"), vae(path=tmp_path / "mine")
    with pytest.raises(MissingError, match=r"\nget them: graphflow models pull mine$"):
        require({"vae": pulled}, "mine")
    with pytest.raises(MissingError, match=r"\nto be put there by hand: mine\nget the others: .+ pull mine$"):
        require({"vae": pulled, "mine": mine}, "mine")
    (hub / "vae" / "diffusion_pytorch_model.safetensors").touch()
    with pytest.raises(MissingError, match=r"\nto be put there by hand: mine$"):
        require({"vae": pulled, "mine": mine}, "mine")
    shipped = load_preset("magicbrush", Mark("-"), None).models
    with pytest.raises(MissingError, match=r"by hand: instruct_denoiser; see .*magicbrush\.yaml$"):
        require({"instruct_denoiser": shipped["instruct_denoiser"]}, "magicbrush")


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


def test_an_option_names_no_folder_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "model" / "tokenizer").mkdir(parents=True)
    for named in ("tokenizer", "./tokenizer"):
        ref = ModelRef("text_encoder", "x", "sd", options={"tokenizer": named})
        assert subfolder(ref, tmp_path / "model", "tokenizer", tmp_path).is_dir()
    for named in ("..", str(tmp_path), "tokenizer/../.."):
        ref = ModelRef("text_encoder", "x", "sd", options={"tokenizer": named})
        with pytest.raises(MissingError, match="leaves its folder"):
            subfolder(ref, tmp_path / "model", "tokenizer", tmp_path)
