"""The JSON Schemas: draft-07, up to date, of one mind with the check, and made without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from mutations import judge, mutants, seeds

from graphflow.cli import run as graphflow
from graphflow.models.preset import shipped_presets
from graphflow.spec import plain, shipped_graphs
from graphflow.yamlfile import read_file, read_text

FILES = {"graphflow.schema.json": [], "graphflow-preset.schema.json": ["--preset"]}
FOLDER = shipped_graphs()["pix2pix_on_the_fly"].parent
PACK = '''
from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Image, Text

class Stamp(Node, kind="mine.stamp", version=1):
    """Write on a picture."""
    size: int = Field(ge=1, le=9, description="height of the letters")
    strength: float = Field(float("inf"), description="how dark")
    class In(Ports):
        image: Image
        text: Text | None = None
    class Out(Ports):
        image: Image
    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(image=x.image)
'''


def written(*arguments: str) -> str:
    """What a process of its own prints: the tests' kinds are none of its business."""
    code = "import sys; from graphflow.cli import run; code = run(sys.argv[1:]); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", f"{code}; sys.exit(code)", "schema", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def shipped(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def errors(data: Any, name: str = "graphflow.schema.json") -> list[str]:
    """What a validator of the draft says about a file."""
    jsonschema = pytest.importorskip("jsonschema")
    found = jsonschema.Draft7Validator(shipped(name)).iter_errors(plain(data))
    return ["/".join(map(str, e.absolute_path)) + f": {e.message}" for e in found]


def graph(node: str, more: str = "") -> Any:
    return read_text(f"graphflow: 1\n{more}\nnodes:\n  a: {{{node}}}\noutputs: {{out: a.text}}\n", "g.yaml")


@pytest.mark.parametrize("name", FILES)
def test_the_shipped_schema_is_up_to_date(name: str) -> None:
    command = f"graphflow schema {' '.join([*FILES[name], '--out', 'graphs/' + name])}"
    same = json.loads(written(*FILES[name])) == shipped(name)
    assert same, f"kinds, loaders, presets or graphs have changed; run: {command}"


@pytest.mark.parametrize("name", FILES)
def test_it_is_a_schema_of_the_draft(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert shipped(name)["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(shipped(name))


@pytest.mark.parametrize("path", [*shipped_graphs().values(), *shipped_presets().values()], ids=lambda p: p.stem)
def test_every_shipped_file_names_its_schema_and_fits_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema="), first
    named = (path.parent / first.partition("=")[2]).resolve()
    assert named.parent == FOLDER.resolve()
    assert errors(read_file(path), named.name) == []


def test_sub_graphs_maps_anchors_and_own_models_fit() -> None:
    for name, text in seeds()[-1].items():
        schema = "graphflow-preset.schema.json" if name == "preset.yaml" else "graphflow.schema.json"
        assert errors(read_text(text.decode(), name), schema) == []


@pytest.mark.parametrize(
    "node",
    [
        "uses: captoin, in: {image: inputs.x}",
        "uses: caption, in: {imag: inputs.x}",
        "uses: caption, in: {image: hello}",
        "uses: caption, in: {image: a.b.c}",
        "uses: caption, in: {image: [a.b]}",
        "uses: caption",
        "uses: caption, map: {num_beams: a.b}",
        "uses: caption, in: {image: a.b}, with: {num_beams: 1.5}",
        "uses: caption, in: {image: a.b}, with: {num_beams: true}",
        "uses: caption, in: {image: a.b}, with: {num_beams: 33}",
        "uses: caption, in: {image: a.b}, with: {image: x}",
        "uses: train.clip, with: {num_steps: 1}",
        "uses: prompt_swap, with: {image: cat.png}",
        "uses: prompt_swap, with: {steps: 1.5}",
        "uses: prompt_swap, in: {picture: a.b}",
        "in: {image: a.b}",
        "uses: caption, in: {image: a.b}, once: true",
    ],
)
def test_mistakes_do_not_fit(node: str) -> None:
    assert errors(graph(node))


@pytest.mark.parametrize(
    "node",
    [
        "uses: caption, map: {image: [a.b, c.d]}",
        "uses: caption, in: {image: a.b, model: models.big, num_beams: inputs.n}",
        "uses: captions.before_after, in: {caption: a.b, instruction: a.c}, with: {temperature: 1}",
        "uses: text.direction, in: {before: a.b, after: [c.d]}",
        "uses: train.clip, in: {num_steps: a.b}, map: {batch_size: a.c}",
        "uses: prompt_swap, map: {image: a.b}, with: {steps: 3, instruction: x}",
        "uses: parts/mine.yml, in: {anything: a.b}, with: {else: {x: 1}}",
    ],
)
def test_what_is_right_fits(node: str) -> None:
    assert errors(graph(node, "x-mine: {a: [1]}")) == []


def test_the_schema_and_the_check_are_of_one_mind_about_mutants(tmp_path: Path) -> None:
    """Whatever stands in the graph file itself, and is no matter of an edge's other end."""
    of_the_file = {"GF010", "GF011", "GF012", "GF013", "GF014", "GF015", "GF101", "GF104", "GF107", "GF120", "GF122"}
    seen = {True: 0, False: 0}
    for files, name in islice(mutants(seed=7), 600):
        if name != "graph.yaml" or len(files) > 2:
            continue  # the schema does not follow files
        codes = set(judge(files, tmp_path).codes)
        if not codes or codes <= of_the_file:
            found = errors(read_text(files[name].decode("utf-8-sig"), name))
            if not codes:  # the check takes any doc, and leaves the names of pictures to the binding of inputs
                found = [e for e in found if not e.startswith("inputs/")]
            seen[not codes] += 1
            assert bool(found) == bool(codes), f"{codes}: {found}, see {tmp_path / name}"
    assert min(seen.values()) > 30, seen


def test_kinds_of_a_pack_are_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "pack.py").write_text(PACK)
    found = json.loads(written("--nodes", str(tmp_path / "pack.py")), parse_constant=pytest.fail)
    uses = {c.get("const"): c["description"] for c in found["definitions"]["node"]["properties"]["uses"]["anyOf"]}
    assert uses["mine.stamp"] == "Write on a picture.\n\nimage: Image, text: Text? → image: Image"
    stamp = next(c["then"] for c in found["definitions"]["node"]["allOf"] if "stamp" in str(c["if"]))
    parameters = stamp["properties"]["with"]["properties"]
    assert parameters["size"] == {
        "type": "integer", "minimum": 1, "maximum": 9, "description": "height of the letters",
    }  # fmt: skip
    assert parameters["strength"] == {"type": "number", "description": "how dark (default Infinity)"}


def test_a_schema_is_written_and_says_how_graphs_name_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my.schema.json"
    assert graphflow(["schema", "--preset", "--out", str(out)]) == 0
    assert "# yaml-language-server: $schema=my.schema.json" in capsys.readouterr().out
    assert json.loads(out.read_text(encoding="utf-8"))["type"] == "object"


@pytest.mark.parametrize("arguments", [["--out", "none/x.json"], ["--nodes", "none.py"]])
def test_wrong_use_is_said(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert graphflow(["schema", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err
