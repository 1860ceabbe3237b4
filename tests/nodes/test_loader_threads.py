"""Loading that leaves other threads alone gives the same weights as loading that does not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_blip, save_clip, save_llava, save_phi, save_sd, save_t5, save_ultra_edit
from measures import save_dinov2, save_qwen_vl

from graphflow.models.modules import roots_of
from graphflow.models.refs import ModelRef, loaders
from graphflow.nodes.loaders import threads
from graphflow.nodes.loaders.threads import DefaultType

CHECKPOINTS: list[tuple[str, str, Callable[[Path], Path]]] = [
    ("diffusers.vae", "vae", save_sd),
    ("diffusers.unet", "unet", save_sd),
    ("transformers.clip_text", "text_encoder", save_sd),
    ("diffusers.instruct_sd3", "transformer", save_ultra_edit),
    ("transformers.sd3_text", "", save_ultra_edit),
    ("transformers.clip", "", save_clip),
    ("transformers.clip_vision", "", save_clip),
    ("transformers.blip", "", save_blip),
    ("transformers.causal_lm", "", save_phi),
    ("transformers.seq2seq", "", save_t5),
    ("transformers.vlm", "", save_llava),
    ("transformers.vlm", "", save_qwen_vl),
    ("transformers.dino", "", save_dinov2),
]


def state(model: Any) -> dict[tuple[int, str], torch.Tensor]:
    roots = list(enumerate(roots_of(model)))
    return {(i, n): t for i, root in roots for n, t in [*root.named_parameters(), *root.named_buffers()]}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "part", "save"), CHECKPOINTS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_weights_and_buffers_are_the_libraries_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    part: str,
    save: Callable[[Path], Path],
    dtype: torch.dtype,
) -> None:
    save(tmp_path)
    options = {"tokenizer": "tokenizer"} if part == "text_encoder" else {}
    ref = ModelRef(loaders()[name].role, name, "tiny", path=tmp_path, part=part, options=options)
    ours = state(loaders()[name].load(ref, tmp_path, torch.device("cpu"), dtype))
    monkeypatch.setattr(threads, "others_undisturbed", lambda cls: nullcontext())
    theirs = state(loaders()[name].load(ref, tmp_path, torch.device("cpu"), dtype))
    assert ours.keys() == theirs.keys()
    assert {k: t.dtype for k, t in ours.items()} == {k: t.dtype for k, t in theirs.items()}
    assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == []


def test_a_default_type_holds_for_numbers_that_have_none() -> None:
    with DefaultType(torch.bfloat16):
        made = [torch.empty(1), torch.tensor(0.5), torch.tensor([1.0]), torch.ones(2), torch.linspace(0, 1, 3)]
        kept = [
            torch.empty(1, dtype=torch.float32),
            torch.tensor(1),
            torch.full((1,), 2),
            torch.tensor(torch.ones(1, dtype=torch.float32).numpy()),
        ]
    assert {t.dtype for t in made} == {torch.bfloat16}
    assert [t.dtype for t in kept] == [torch.float32, torch.int64, torch.int64, torch.float32]
    assert torch.empty(1).dtype == torch.float32
