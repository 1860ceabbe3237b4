"""Presets: files, inline mappings, inheritance; every mistake with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graphflow.check import check
from graphflow.errors import InvalidError, Mark
from graphflow.models.preset import Preset, load_preset
from graphflow.spec import parse_spec
from graphflow.yamlfile import read_text

MARK = Mark("graph.yaml", 5, 9)


def inline(text: str, folder: Path | None = Path()) -> Preset:
    return load_preset(read_text(text, "graph.yaml"), MARK, folder)


def problems(text: str, folder: Path | None = Path()) -> str:
    with pytest.raises(InvalidError) as caught:
        inline(text, folder)
    return str(caught.value)


def test_one_role_of_a_preset_can_be_replaced() -> None:
    preset = inline("extends: pocket\nllm: {loader: openai, endpoint: 'http://localhost:1/v1', options: {model: m}}")
    assert preset.models["llm"].endpoint == "http://localhost:1/v1"
    assert preset.models["vae"].packaged == "pocket/weights/vae"


def test_a_file_extends_another_and_paths_begin_at_it(graph_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    path = graph_file(
        "graphflow-preset: 1\ntitle: mine\nspace: mine\nextends: pocket\n"
        "models:\n  vae: {loader: diffusers.vae, path: weights}\n",
        "mine.yaml",
    )
    preset = load_preset("mine.yaml", MARK, path.parent)
    assert preset.title == "mine"
    assert preset.models["vae"].path == tmp_path / "weights"
    assert preset.models["vae"].space == "mine"
    assert preset.models["clip"].space == "pocket-clip"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vae: {loader: diffusers.va, packaged: x}", "graph.yaml:1:15: GF122"),
        ("vae: {loader: diffusers.va, packaged: x}", "did you mean diffusers.vae?"),
        ("vae: {loader: diffusers.vae}", "exactly one of hub, path, packaged, endpoint; found none"),
        ("vae: {loader: diffusers.vae, hub: a/b, path: c}", "found hub and path"),
        ("vae: {loader: diffusers.vae, hub: https://x}", "expected owner/name"),
        ("vae: {loader: diffusers.vae, packaged: x, dtyp: float16}", "did you mean dtype?"),
        ("vae: {loader: diffusers.vae, packaged: x, dtype: int8}", "one of float32, bfloat16, float16"),
        ("vae: {loader: diffusers.vae, packaged: x, options: {colour: red}}", "has no option 'colour'"),
        ("llm: {loader: openai, endpoint: localhost, options: {model: m}}", "1:33: GF123 'localhost' is no address"),
        ("llm: {loader: openai, endpoint: 'localhost:80/v1'}", "expected http:// or https:// and a host"),
        ("llm: {loader: openai, endpoint: 'http:///v1'}", "expected http:// or https:// and a host"),
        ("llm: {loader: openai, endpoint: 'http://a:b'}", "expected http:// or https:// and a host"),
        ("vae: 3", "is a mapping with a loader, found a number"),
        ("extends: pockt", "did you mean pocket?"),
    ],
)
def test_mistakes_of_a_preset(text: str, says: str) -> None:
    assert says in problems(text)


def test_a_graph_out_of_a_picture_opens_no_path() -> None:
    assert "can't open a path" in problems("vae: {loader: diffusers.vae, path: /etc}", None)
    assert "can't call a service" in problems("llm: {loader: openai, endpoint: 'http://x/v1'}", None)
    with pytest.raises(InvalidError, match="can't open the file"):
        load_preset("/etc/x.yaml", MARK, None)


@pytest.mark.parametrize("text", ["packaged: ../../etc", "packaged: /etc", "packaged: x, part: ../y"])
def test_a_model_stays_in_its_folder(text: str) -> None:
    assert "leaves its folder" in problems(f"vae: {{loader: diffusers.vae, {text}}}")


@pytest.mark.parametrize("revision", ["/etc/passwd", "../../x", "a/../b", "a//b", ".x"])
def test_a_revision_names_no_file(revision: str) -> None:
    text = f"vae: {{loader: diffusers.vae, hub: a/b, revision: '{revision}'}}"
    assert "is no revision" in problems(text, None)


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "v1.0+cu", "0" * 40])
def test_commits_tags_and_branches_are_revisions(revision: str) -> None:
    preset = inline(f"vae: {{loader: diffusers.vae, hub: a/b, revision: '{revision}'}}", Path())
    assert preset.models["vae"].revision == revision


def test_only_a_preset_file_can_ask_for_a_key(graph_file: Callable[..., Path]) -> None:
    entry = "{loader: openai, endpoint: 'https://x/v1', options: {model: m, api_key_env: X_API_KEY}}"
    assert "a graph can't ask for a key" in problems(f"llm: {entry}")
    path = graph_file(f"graphflow-preset: 1\nmodels:\n  llm: {entry}\n", "service.yaml")
    assert load_preset("service.yaml", MARK, path.parent).models["llm"].options["api_key_env"] == "X_API_KEY"


GRAPH = """graphflow: 1
inputs: {image: {type: Image}, text: {type: Text}}
models:
  extends: pocket
  other_vae: {loader: diffusers.vae, packaged: pocket/weights/vae, space: sdxl}
  writer: {loader: transformers.seq2seq, packaged: x}
nodes:
  encode: {uses: vae.encode, in: {image: inputs.image, model: models.%s}}
  source: {uses: text.encode, in: {text: inputs.text}}
  invert: {uses: invert.ddim, in: {latents: encode.latents, cond: source.cond}}
outputs: {noise: invert.noise}
"""


def test_latents_of_one_family_can_not_reach_another() -> None:
    check(parse_spec(GRAPH % "vae", "g.yaml"))
    with pytest.raises(InvalidError) as caught:
        check(parse_spec(GRAPH % "other_vae", "g.yaml"))
    found = str(caught.value)
    assert "g.yaml:10:45: GF112 'invert.latents' lives in space pocket (denoiser pocket/weights/denoiser)" in found
    assert "but encode.latents lives in sdxl (vae pocket/weights/vae)" in found


def test_a_named_model_must_play_the_role() -> None:
    with pytest.raises(InvalidError, match=r"'encode.model' takes a vae, but models.writer is a llm"):
        check(parse_spec(GRAPH % "writer", "g.yaml"))
    with pytest.raises(InvalidError, match=r"did you mean models.other_vae\?"):
        check(parse_spec(GRAPH % "other_va", "g.yaml"))


def test_a_preset_without_the_role_says_what_it_has(graph_file: Callable[..., Path]) -> None:
    path = graph_file("graphflow-preset: 1\nmodels:\n  vae: {loader: diffusers.vae, packaged: x}\n", "few.yaml")
    with pytest.raises(InvalidError) as caught:
        check(parse_spec(GRAPH % "vae", "g.yaml"), models="few.yaml", models_folder=path.parent)
    assert "'source.model' needs a text_encoder; preset 'few' has none" in str(caught.value)
    assert "'invert.model' needs a denoiser" in str(caught.value)
