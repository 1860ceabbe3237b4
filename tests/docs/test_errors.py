"""docs/errors.md lists every code, with a message that the engine really prints."""

from __future__ import annotations

import re
from pathlib import Path

import PIL.Image
import pytest

import graphflow
from graphflow import errors
from graphflow.bench.session import open_bench
from graphflow.check import check
from graphflow.errors import GraphflowError, InvalidError
from graphflow.provenance import read
from graphflow.spec import load_spec
from graphflow.version import __version__

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
ROWS = {row[0]: row[1:] for row in re.findall(r"^\| (GF\d{3}) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)}

GRAPH = """\
graphflow: 1
inputs:
  photo: Image
  words: {type: "list[Text]", default: [a, b]}
models: pocket
nodes:
  caption: {uses: caption, in: {image: inputs.photo}}
  source: {uses: text.encode, in: {text: caption.text}}
  encode: {uses: vae.encode, in: {image: inputs.photo}}
outputs: {text: caption.text, cond: source.cond, latents: encode.latents}
"""
OTHER_SPACE = """\
graphflow: 1
inputs: {noise: Latents, text: Text}
models: {extends: pocket, denoiser: {loader: diffusers.unet, packaged: pocket/weights/denoiser, space: sdxl}}
nodes:
  source: {uses: text.encode, in: {text: inputs.text}}
  edit: {uses: denoise.ddim, in: {noise: inputs.noise, cond: source.cond}, with: {guidance_scale: 1}}
outputs: {latents: edit.latents}
"""
MAP_OF_A_LIST = """\
graphflow: 1
inputs:
  words: list[Text]
models: pocket
nodes:
  d: {uses: text.direction, map: {before: inputs.words}, in: {after: inputs.words}}
outputs: {d: d.direction}
"""
PASSES_ON = """\
graphflow: 1
inputs: {image: Image, text: Text}
models: pocket
nodes:
  caption: {uses: caption, in: {image: inputs.image}}
outputs: {text: inputs.text, caption: caption.text}
"""
MAPS_IT = """\
graphflow: 1
inputs:
  photos: list[Image]
  text: Text
models: pocket
nodes:
  each: {uses: parts.yaml, map: {image: inputs.photos}, in: {text: inputs.text}}
outputs: {texts: each.text}
"""
CIRCLE = "graphflow-preset: 1\nextends: circle.yaml\nmodels: {}\n"

# What makes a graph wrong: texts to replace in GRAPH.
CASES: dict[str, list[tuple[str, str]]] = {
    "GF001": [(GRAPH, "\xe9")],
    "GF002": [("outputs: {text", "outputs: {{text")],
    "GF003": [("models: pocket", "models: pocket\nmodels: sd15")],
    "GF004": [("models: pocket", "models: !!python/name:os.system pocket")],
    "GF010": [("  caption: {uses: caption, in: {image: inputs.photo}}", "  caption: {in: {image: inputs.photo}}")],
    "GF011": [("graphflow: 1", "graphflow: 9")],
    "GF012": [("  encode:", "  en-code:"), (", latents: encode.latents", "")],
    "GF013": [("photo: Image", "photo: Imag")],
    "GF014": [("{text: caption.text}}", "{text: a cat}}")],
    "GF015": [("models: pocket", "model: pocket\nmodels: pocket")],
    "GF101": [("uses: vae.encode", "uses: vae.encod")],
    "GF102": [("{text: caption.text}}", "{text: captoin.text}}")],
    "GF103": [("{text: caption.text}}", "{text: caption.txt}}")],
    "GF104": [("uses: vae.encode, in: {image:", "uses: vae.encode, in: {imag:")],
    "GF105": [("{text: caption.text}}", "{text: inputs.photo}}")],
    "GF106": [("uses: text.encode, in: {text: caption.text}}", "uses: text.encode}")],
    "GF107": [("uses: caption, in", "uses: caption, with: {num_beam: 3}, in")],
    "GF108": [("uses: caption, in", "uses: caption, with: {num_beams: 0}, in")],
    "GF109": [("uses: caption, in", "uses: caption, with: {prompt: caption.text}, in")],
    "GF110": [("{image: inputs.photo}}\n  source", "{image: inputs.photo, prompt: caption.text}}\n  source")],
    "GF111": [("uses: caption, in", "uses: caption, with: {image: 3}, in")],
    "GF112": [(GRAPH, OTHER_SPACE)],
    "GF113": [("{text: caption.text}}", "{text: inputs.foto}}")],
    "GF116": [(GRAPH, MAP_OF_A_LIST)],
    "GF117": [("uses: text.encode", "uses: edit.yaml")],
    "GF118": [(GRAPH, MAPS_IT)],
    "GF120": [("models: pocket", "models: pockt")],
    "GF121": [
        ("models: pocket", "models: {vae: {loader: diffusers.vae, packaged: pocket/weights/vae, space: pocket}}")
    ],
    "GF122": [("models: pocket", "models: {vae: {loader: diffuser.vae, path: w, space: mine}}")],
    "GF123": [("models: pocket", "models: {vae: {loader: diffusers.vae, hub: a/b, path: w, space: mine}}")],
    "GF124": [("models: pocket", "models: {vae: {loader: diffusers.vae, path: w, space: mine, options: {tiles: 2}}}")],
    "GF125": [("models: pocket", "models: {vae: {loader: diffusers.vae, path: w, space: mine, dtype: float8}}")],
    "GF126": [("models: pocket", "models: circle.yaml")],
    "GF150": [(", latents: encode.latents", "")],
}

BENCH = """\
graphflow-bench: 1
data: {uses: dataset.pocket}
methods:
  swap: {uses: prompt_swap}
metrics:
  score: {uses: pocket_score.edit, models: pocket}
"""
# The same for a bench file.
BENCHES: dict[str, tuple[str, str]] = {
    "GF160": ("methods:\n  swap: {uses: prompt_swap}", "methods: swap"),
    "GF161": ("metrics:", "metric: {}\nmetrics:"),
    "GF162": ("  swap:", "  do-nothing: {column: source}\n  swap:"),
    "GF163": ("{uses: prompt_swap}", "{title: swap}"),
    "GF164": ("dataset.pocket", "image.prepare"),
    "GF165": ("{uses: prompt_swap}", "{uses: prompt_swap, in: {instruction: hint}}"),
    "GF166": ("pocket_score.edit", "caption"),
    "GF167": ("metrics:", "columns: {scores.psnr: {}}\nmetrics:"),
    "GF168": ("pocket_score.edit", "score.pixels"),
}


def printed_of_bench(code: str, folder: Path) -> list[str]:
    """The messages with this code that a bench file gives."""
    old, new = BENCHES[code]
    assert old in BENCH, code
    path = folder / "bench.yaml"
    path.write_text(BENCH.replace(old, new, 1))
    try:
        open_bench(str(path), store=folder / "store", device="cpu").plan({})
    except InvalidError as error:
        return [d.message for d in error.diagnostics if d.code == code]
    return []


def printed(code: str, folder: Path) -> list[str]:
    """The messages with this code that the case gives."""
    text = GRAPH
    for old, new in CASES.get(code, []):
        assert old in text, code
        text = text.replace(old, new, 1)
    path = folder / "edit.yaml"
    path.write_text(text, encoding="latin-1" if code == "GF001" else "utf-8")
    (folder / "parts.yaml").write_text(PASSES_ON, encoding="utf-8")
    (folder / "circle.yaml").write_text(CIRCLE, encoding="utf-8")
    try:
        if code == "GF130":
            graphflow.load(str(path), store=folder / "store").plan(photo=str(folder / "cat.png"), words=["a", 3])
        elif code == "GF140":
            path.with_name("run.json").write_text('{"format": 1')
            read(path.with_name("run.json"))
        elif code == "GF141":
            read(path)
        elif code == "GF142":
            too_large(folder)
        elif code == "GF151":
            warnings = graphflow.load(str(folder / "parts.yaml"), store=folder / "store", over=["image"]).graph.warnings
            return [d.message for d in warnings if d.code == code]
        found = check(load_spec(path, "edit.yaml")).warnings
    except InvalidError as error:
        found = error.diagnostics
    return [d.message for d in found if d.code == code]


def too_large(folder: Path) -> None:
    import records

    from graphflow import provenance

    record = records.record().model_copy(update={"text": "x" * (provenance.LIMIT + 1)})
    provenance.embed(PIL.Image.new("RGB", (1, 1)), record, folder / "big.png")


def codes_in_source() -> set[str]:
    files = [p for folder in ("graphflow", "nodes") for p in (ROOT / folder).rglob("*.py")]
    return {code for path in files for code in re.findall(r"\bGF\d{3}\b", path.read_text(encoding="utf-8"))}


def test_the_table_lists_the_codes_of_the_source() -> None:
    assert set(ROWS) == codes_in_source()


@pytest.mark.parametrize("code", sorted(codes_in_source()))
def test_the_message_in_the_table_is_what_is_printed(code: str, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (2, 2)).save(tmp_path / "cat.png")
    messages = printed_of_bench(code, tmp_path) if code in BENCHES else printed(code, tmp_path)
    shown = [m.replace(str(tmp_path), "…").replace(__version__, "…") for m in messages]
    assert ROWS[code][0].strip("`").replace("\\|", "|") in shown


def test_the_exit_codes_are_those_of_the_errors() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", PAGE, re.MULTILINE))
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, GraphflowError)]
    assert {int(code) for code in rows} == {0, 130, *(c.exit_code for c in classes)}
