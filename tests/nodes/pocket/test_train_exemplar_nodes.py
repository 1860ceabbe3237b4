"""The shipped recipe of the models for editing by example runs as a graph, up to gates that can load its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphflow.nodes.pocket.descriptions import description
from graphflow.nodes.pocket.exemplar_gates import same_words
from graphflow.nodes.pocket.exemplars import entries
from graphflow.session import open_session

TINY: dict[str, Any] = {
    "edits.count": 1,
    "instruct.num_steps": 1,
    "instruct.batch_size": 2,
    "adapter.num_steps": 1,
    "adapter.batch_size": 2,
    "describer.num_steps": 1,
    "describer.batch_size": 2,
    "describer.image_size": 16,
    "gates.edits": 2,
    "gates.pictures": 2,
    "gates.mixes": 2,
    "gates.answers": 1,
    "gates.num_inference_steps": 2,
}


def test_the_recipe_trains_models_that_the_gates_can_load(tmp_path: Path) -> None:
    run = open_session("train/exemplar", settings=TINY, store=tmp_path / "store", device="cpu").run()
    gates = {row["gate"]: row for row in run["table"]}
    assert gates["do nothing: truth_success"]["measured"] == 0
    assert gates["do nothing: PSNR outside the edit, dB"]["measured"] == 60
    assert gates["answers: description"]["pass"] is False, "nothing can be right after one step"
    for sheet in ("instructions", "image_prompts", "mixes", "answers"):
        assert run[sheet].width > 128
    for role in ("instruct_denoiser", "ip_adapter", "vlm"):
        assert (run[role] / "graphflow.json").is_file()
    files = {file.suffix for role in ("instruct_denoiser", "ip_adapter", "vlm") for file in run[role].iterdir()}
    assert files <= {".safetensors", ".json", ".jinja"}


def test_answers_are_compared_by_their_words() -> None:
    told = description(entries()[0].exemplar)
    assert same_words(f"  {told.lower().rstrip('.')} ", told)
    assert not same_words(told.replace("replaced", "placed"), told)
