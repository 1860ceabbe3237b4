"""yaml-language-server with our schema: it completes kinds, ports and parameters, explains them, and marks mistakes.

The real server runs: the one on PATH, or the version that `tests/language_server/package.json` pins, installed by npm
into pytest's cache. Without either the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lsp import LanguageServer
from mutations import seeds

from graphflow.models.preset import shipped_presets
from graphflow.spec import shipped_graphs

PINNED = Path(__file__).parent / "language_server"
HEAD = "graphflow: 1\ninputs:\n  image: {type: Image}\nnodes:\n"
TAIL = "outputs: {text: a.text}\n"


def command(folder: Path) -> list[str]:
    """What starts the server; installs it into `folder` when there is none."""
    found = os.environ.get("YAML_LANGUAGE_SERVER") or shutil.which("yaml-language-server")
    if found:
        return [found, "--stdio"]
    server = folder / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        pytest.skip("no yaml-language-server and no Node.js on PATH")
    if not server.exists():
        if npm is None:
            pytest.skip("no yaml-language-server and no npm on PATH")
        for file in ("package.json", "package-lock.json"):
            shutil.copy(PINNED / file, folder)
        install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm can't install yaml-language-server: {done.stderr.strip()[-300:]}")
    return [node, str(server), "--stdio"]


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our schemas, as a process writes them that knows the shipped kinds only."""
    folder = tmp_path_factory.mktemp("schemas")
    files = {"graph": folder / "graph.json", "preset": folder / "preset.json"}
    for name, more in (("graph", []), ("preset", ["--preset"])):
        code = "import sys; from graphflow.cli import run; sys.exit(run(sys.argv[1:]))"
        subprocess.run([sys.executable, "-c", code, "schema", *more, "--out", str(files[name])], check=True)
    return files


@pytest.fixture(scope="module")
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    version = json.loads((PINNED / "package.json").read_text())["dependencies"]["yaml-language-server"]
    cache = getattr(request.config, "cache", None)
    name = f"yaml-language-server-{version}"
    return command(cache.mkdir(name) if cache else tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def server(start: list[str], schemas: dict[str, Path]) -> Iterator[LanguageServer]:
    running = LanguageServer(start, schemas)
    yield running
    running.close()


def node(text: str) -> str:
    return f"{HEAD}  a:\n{text}\n{TAIL}"


def test_the_version_is_on_record(start: list[str], record_property: Callable[[str, object], None]) -> None:
    package = next(p / "package.json" for p in Path(start[-2]).resolve().parents if (p / "package.json").exists())
    found = json.loads(package.read_text())
    assert found["name"] == "yaml-language-server"
    record_property("yaml-language-server", found["version"])
    print(f"yaml-language-server {found['version']}")


def test_uses_completes_every_kind_and_every_shipped_graph_with_its_docs(server: LanguageServer) -> None:
    offered = server.completions(node("    uses: |"))
    assert {"caption", "captions.before_after", "invert.ddim", "vae.decode", "pix2pix_on_the_fly"} <= offered.keys()
    assert "DDIM inversion" in str(offered["invert.ddim"]["documentation"])
    assert "latents: Latents, cond: TextCond" in str(offered["invert.ddim"]["documentation"])


def test_with_completes_the_parameters_of_its_kind_and_no_others(server: LanguageServer) -> None:
    offered = server.completions(node("    uses: caption\n    with:\n      |"))
    # `captions.before_after` begins with `caption`, which the server takes for a match where a schema says const
    assert offered.keys() == {"max_new_tokens", "num_beams", "prompt"}
    assert "longest caption" in offered["max_new_tokens"]["documentation"]
    assert offered["num_beams"]["insertText"] == "num_beams: ${1:3}"


def test_with_completes_the_values_of_a_choice(server: LanguageServer) -> None:
    text = "    uses: invert.ddim\n    with:\n      convention: |"
    assert server.completions(node(text)).keys() == {"diffusers", "pix2pix_zero"}


@pytest.mark.parametrize("section", ["in", "map"])
def test_in_and_map_complete_ports_and_parameters(server: LanguageServer, section: str) -> None:
    offered = server.completions(node(f"    uses: invert.ddim\n    {section}:\n      |"))
    assert {"latents", "cond", "model", "num_inference_steps"} <= offered.keys()
    assert "Latents" in offered["latents"]["documentation"]
    assert "trajectory" not in offered
    assert offered["cond"]["insertText"] == "cond: "


def test_a_shipped_graph_completes_its_inputs(server: LanguageServer) -> None:
    assert "instruction" in server.completions(node("    uses: prompt_swap\n    in:\n      |"))
    offered = server.completions(node("    uses: prompt_swap\n    with:\n      |"))
    assert "steps" in offered
    assert "image" not in offered, "a picture is no constant"


@pytest.mark.parametrize(
    ("text", "some"),
    [
        ("|", {"graphflow", "title", "inputs", "models", "nodes", "outputs"}),
        (HEAD + "  a:\n    uses: caption\n    |\n" + TAIL, {"in", "map", "with", "doc"}),
        ("graphflow: 1\ninputs:\n  x: |\n", {"Image", "list[Text]", "int", "Weights[vae]"}),
        ("graphflow: 1\ninputs:\n  x:\n    |\n", {"type", "default", "doc", "nonempty"}),
        ("graphflow: 1\nmodels: |\n", {"pocket", "sd15"}),
        ("graphflow: 1\nmodels:\n  |\n", {"extends", "vae", "denoiser", "captioner"}),
        ("graphflow: 1\nmodels:\n  vae:\n    |\n", {"loader", "hub", "path", "packaged", "revision", "part", "dtype"}),
        ("graphflow: 1\nmodels:\n  vae:\n    loader: |\n", {"diffusers.vae"}),
        ("graphflow: 1\nmodels:\n  llm:\n    loader: transformers.causal_lm\n    options:\n      |\n", {"template"}),
    ],
)
def test_every_part_of_a_graph_is_completed(server: LanguageServer, text: str, some: set[str]) -> None:
    assert some <= server.completions(text).keys()


def test_a_preset_is_completed(server: LanguageServer) -> None:
    assert {"graphflow-preset", "space", "extends", "models"} <= server.completions("|", "preset").keys()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("uses: |caption, in: {image: inputs.image}", "Describe a picture in one sentence."),
        ("uses: caption, in: {|image: inputs.image}", "an 8-bit RGB picture"),
        ("uses: caption, in: {image: inputs.image}, with: {|num_beams: 2}", "beams of the search"),
        ("uses: caption, |in: {image: inputs.image}", "edges: port or parameter"),
        ("uses: prompt_swap, with: {|steps: 2}", "DDIM steps"),
    ],
)
def test_hover_explains_kinds_ports_and_parameters(server: LanguageServer, text: str, says: str) -> None:
    shown = server.hover(f"{HEAD}  a: {{{text}}}\n{TAIL}")
    assert says in shown
    assert "pix2pix" not in shown, "only the one under the cursor"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("uses: captoin, in: {image: inputs.image}", '"caption"'),
        ("uses: caption, in: {imag: inputs.image}", "Property imag is not allowed"),
        ("uses: caption, in: {}", 'Missing property "image"'),
        ("uses: caption", 'Missing property "in"'),
        ("uses: caption, map: {num_beams: a.b}", 'Missing property "in"'),
        ("uses: train.clip, with: {num_steps: 3}", 'Missing property "batch_size"'),
        ("uses: caption, in: {image: hello}", "an edge is node.port"),
        ("uses: text.direction, in: {before: [a.b, c], after: a.b}", "an edge is node.port"),
        ("uses: vae.encode, in: {image: [a.b]}", 'Expected "string"'),
        ("uses: caption, in: {image: a.b}, with: {num_beam: 2}", "Property num_beam is not allowed"),
        ("uses: caption, in: {image: a.b}, with: {num_beams: two}", 'Expected "integer"'),
        ("uses: caption, in: {image: a.b}, with: {num_beams: 0}", "below the minimum of 1"),
        ("uses: invert.ddim, in: {latents: a.b, cond: a.b}, with: {convention: other}", '"pix2pix_zero"'),
        ("uses: caption, in: {image: a.b}, mapp: {}", "Property mapp is not allowed"),
        ("uses: caption, map: {imag: a.b}", "Property imag is not allowed"),
        ("uses: prompt_swap, in: {imag: a.b}", "Property imag is not allowed"),
        ("uses: prompt_swap, with: {steps: many}", 'Expected "integer"'),
    ],
)
def test_a_mistake_in_a_node_is_marked(server: LanguageServer, text: str, says: str) -> None:
    found = server.check(f"{HEAD}  a: {{{text}}}\n{TAIL}")
    assert [line for line, _ in found] == [5] * len(found)
    assert says in "\n".join(message for _, message in found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("inputs: {a: Imag}", '"Image"'),
        ("inputs: {a: {type: int, default: many}}", 'Expected "integer"'),
        ("inputs: {a: {type: int, defalt: 1}}", "Property defalt is not allowed"),
        ("inputs: {a b: Image}", "not a name"),
        ("models: pokcet", '"pocket"'),
        ("models: {vae: {loader: diffusers.unet, hub: a/b}}", '"diffusers.vae"'),
        ("models: {vae: {loader: diffusers.vae}}", "Missing property"),
        ("models: {vae: {loader: diffusers.vae, hub: a/b, dtype: int8}}", '"bfloat16"'),
        ("models: {vae: {loader: diffusers.vae, hub: a/b, options: {scheduler: x}}}", "Property scheduler"),
        ("noodles: 1", "Property noodles is not allowed"),
    ],
)
def test_a_mistake_elsewhere_is_marked(server: LanguageServer, text: str, says: str) -> None:
    found = server.check(f"graphflow: 1\n{text}\nnodes:\n  a: {{uses: caption, in: {{image: a.b}}}}\n{TAIL}")
    assert [line for line, _ in found] == [2] * len(found)
    assert says in "\n".join(message for _, message in found)


@pytest.mark.parametrize("path", [*shipped_graphs().values(), *shipped_presets().values()], ids=lambda p: p.stem)
def test_shipped_files_are_clean_with_the_schema_that_they_name(server: LanguageServer, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert server.check(text, path) == []
    assert server.check(text + "noodles: 1\n", path.with_name("more.yaml"))[0][1] == "Property noodles is not allowed."


def test_sub_graphs_maps_anchors_and_own_models_are_clean(server: LanguageServer) -> None:
    for name, text in seeds()[-1].items():
        own = text.decode().partition("$schema=../graphflow-preset.schema.json\n")
        assert server.check(own[2] or own[0], "preset" if name == "preset.yaml" else "graph") == []


@pytest.mark.parametrize(
    "text",
    [
        "uses: caption, map: {image: a.b}",
        "uses: caption, map: {image: [a.b, c.d], num_beams: a.n}, with: {max_new_tokens: 3}",
        "uses: train.clip, in: {num_steps: inputs.n}, with: {batch_size: 2}",
        "uses: prompt_swap, map: {image: inputs.images}, with: {steps: 3}",
        "uses: parts/some.yaml, in: {a: b.c, d: [e.f]}, map: {g: h.i}, with: {j: [1, {k: l}]}",
        "uses: vae.encode, in: {image: a.b, model: models.other}",
    ],
)
def test_good_nodes_are_clean(server: LanguageServer, text: str) -> None:
    assert server.check(f"{HEAD}  a: {{{text}}}\n{TAIL}") == []
