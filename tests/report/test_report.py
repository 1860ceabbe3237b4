"""The report: complete, self-contained, and deaf to whatever stands in the texts it shows."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import records
import torch
from PIL import Image
from records import node, picture, record, value

from graphflow.errors import DamagedBlobError
from graphflow.record import InputRecord, RunRecord, ValueRecord
from graphflow.report import render, write_report
from graphflow.report.chart import MAX_NODES, chart
from graphflow.report.page import build, rerun_command
from graphflow.report.pictures import false_colour, latents_picture
from graphflow.report.values import MAX_PICTURES, draw
from graphflow.spec import shipped_graphs

ATTACK = "</style></script><script>alert('x')</script><img src=x onerror=alert(1)>\" onload=\"alert(2)"


class Reader(HTMLParser):
    """Collects tags and attributes, and that every opened tag is closed."""

    VOID = frozenset({"meta", "img", "input", "br", "wbr", "circle", "path", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def load(found: ValueRecord) -> Any:
    return records.values().get(found.digest)


def page(found: RunRecord) -> Reader:
    reader = Reader(render(found, load))
    assert reader.open == []
    return reader


def test_the_page_loads_nothing_and_runs_only_its_own_script() -> None:
    html = render(record(), load)
    reader = Reader(html)
    sources = [value or "" for _, attrs in reader.tags for name, value in attrs.items() if name in ("src", "srcset")]
    assert sources
    assert all(s.startswith("data:image/") for s in sources)
    links = [attrs.get("href") or "" for _, attrs in reader.tags if "href" in attrs]
    assert all(link.startswith("#node-") for link in links)
    assert not reader.all("link")
    assert "url(" not in html
    assert "@import" not in html
    policy = next(m["content"] or "" for m in reader.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;")
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_no_text_of_the_record_becomes_markup() -> None:
    plain = record()
    hostile = record(
        title=ATTACK,
        graph=ATTACK,
        text=ATTACK,
        status="failed",
        inputs={
            "image": plain.inputs["image"],
            "instruction": InputRecord(type="Text", value=ATTACK),
            ATTACK: InputRecord(type="Text", value=ATTACK, source=ATTACK),
        },
        overrides={ATTACK: ATTACK},
        nodes={
            **plain.nodes,
            ATTACK: node(ATTACK, {ATTACK: ATTACK}, {ATTACK: value(ATTACK, "words")}, parameters={ATTACK: ATTACK},
                         status="failed", reason=ATTACK, key=ATTACK),
        },
        outputs={ATTACK: value("Text", "words"), "image": value("Image", "dog", ATTACK)},
    )  # fmt: skip
    reader = page(hostile)
    assert len(reader.all("script")) == 1
    attributes = {name for _, attrs in reader.tags for name in attrs}
    assert not {a for a in attributes if a.startswith("on")}
    assert all((img["src"] or "").startswith("data:") for img in reader.all("img"))
    assert "\x1b" not in render(record(title="a\x1b[31mb"), load)


def test_before_and_after_are_compared() -> None:
    reader = page(record())
    compared = [img for img in reader.all("img") if img["alt"] in ("before", "after")]
    assert [img["alt"] for img in compared] == ["after", "before"]
    assert all("crisp" in (img.get("class") or "") for img in compared)
    assert decoded(compared[0]["src"]).getpixel((0, 0)) == picture("brown").getpixel((0, 0))
    assert decoded(compared[1]["src"]).getpixel((0, 0)) == picture("orange").getpixel((0, 0))
    assert [i["type"] for i in reader.all("input")] == ["range"]


def decoded(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def test_the_prepared_picture_stands_for_before_when_it_has_the_outputs_frame() -> None:
    wide = {"big": picture("blue", (99, 50)), "cut": picture("green"), "dog": picture("brown")}
    found = record(
        inputs={"photo": InputRecord(type="Image", digest="big", source="photo.jpg")},
        nodes={"fit": node("image.prepare", {"image": "inputs.photo"}, {"image": value("Image", "cut")})},
    )
    hero = build(found, lambda v: wide.get(v.digest)).hero
    assert hero.before is not None
    assert decoded(hero.before.uri).getpixel((0, 0)) == picture("green").getpixel((0, 0))


def test_every_value_is_shown() -> None:
    html = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", render(record(), load)))
    for expected in (
        "turn the cat into a dog", "seed 0", "a cat", "a dog", "clip text 0.3123", "shape 1 × 4 × 6 × 8",
        "dtype float32", "shape 3 × 1 × 4 × 6 × 8", "clean", "t = 501", "shape 1 × 5 × 3", "name score extra",
        "two true", "cached, saved 2.00 s", "num_inference_steps 50", "some/repo@0123abc/vae", "← encode.latents",
        "graphflow run edit.yaml -i image=cat.png", "0123456789abcdef", "no earlier result", "graphflow run image.png",
    ):  # fmt: skip
        assert expected in html, expected


def test_large_pictures_are_smooth_and_shrunk_and_small_ones_exact() -> None:
    big = draw("image", "Image", Image.effect_noise((1500, 900), 50).convert("RGB")).pictures[0]
    assert (big.width, big.height, big.crisp) == (1500, 900, False)
    assert decoded(big.uri).width == 512
    small = Image.effect_noise((64, 64), 50).convert("RGB")
    shown = draw("image", "Image", small).pictures[0]
    assert shown.crisp
    assert decoded(shown.uri).tobytes() == small.tobytes()


def test_long_lists_are_cut_and_say_so() -> None:
    view = draw("images", "list[Image]", [picture("red")] * (MAX_PICTURES + 7))
    assert (len(view.pictures), view.more) == (MAX_PICTURES, 7)
    assert draw("t", "Text", "x" * 9999).text.endswith("(5999 characters more)")


def test_latents_become_false_colours() -> None:
    channels = np.zeros((3, 4, 4), np.float32)
    channels[0] = np.linspace(-3, 7, 16).reshape(4, 4)
    channels[2, 0, 0] = np.nan
    rgb = false_colour(channels)
    assert rgb.shape == (4, 4, 3)
    assert rgb[0, 0, 0] == 0
    assert rgb[3, 3, 0] == 255
    grey = false_colour(channels[:1])
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert latents_picture(np.zeros((4, 4))) is None
    assert latents_picture(np.zeros((0, 4, 4, 4))) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_torch_tensors_are_shown_like_arrays(dtype: torch.dtype) -> None:
    view = draw("z", "Latents", torch.full((1, 4, 2, 2), 300.0, dtype=dtype, requires_grad=True))
    assert dict(view.facts) == {"shape": "1 × 4 × 2 × 2", "dtype": str(dtype)[6:], "norm": "1200"}
    assert len(view.pictures) == 1


def test_a_failed_run_names_the_failure() -> None:
    nodes = dict(list(record().nodes.items())[:2])
    nodes["invert"] = node("invert.ddim", {"latents": "encode.latents"}, {}, status="failed", reason="ValueError: bad")
    html = render(record(status="failed", nodes=nodes, outputs={}), load)
    assert "invert (invert.ddim) failed" in html
    assert "ValueError: bad" in html


def test_values_that_are_gone_do_not_stop_the_page() -> None:
    def lost(found: ValueRecord) -> Any:
        if found.digest == "words":
            raise DamagedBlobError("the stored value is damaged")
        return None

    html = render(record(), lost)
    assert "no longer in the store" in html
    assert "the stored value is damaged" in html


def test_values_of_an_unexpected_shape_do_not_stop_the_page() -> None:
    html = render(record(), lambda found: 7)
    assert "can&#39;t be shown: " in html
    assert html.rstrip().endswith("</html>")


def test_a_run_without_pictures_and_an_empty_run_have_a_page(tmp_path: Path) -> None:
    bare = RunRecord(graphflow="0", graph="g", title="", text="", inputs={}, status="cancelled")
    write_report(bare, load, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>g</h1>" in html
    assert "The run was cancelled" in html


def test_the_rerun_command_survives_a_shell() -> None:
    found = record(
        graph="my graph",
        inputs={
            "t": InputRecord(type="Text", value='it\'s "so" $HOME `x`'),
            "n": InputRecord(type="int", value=3),
            "photo": InputRecord(type="Image", digest="d", source="a b.png"),
        },
        overrides={"edit.guidance_scale": 7.5},
        preset="sd15",
    )
    printed = subprocess.run(
        ["sh", "-c", "printf '%s\\n' " + " ".join(rerun_command(found))], capture_output=True, text=True, check=True
    )
    assert printed.stdout.splitlines() == [
        "graphflow", "run", "my graph.yaml", "--models", "sd15", "-i", "t=it's \"so\" $HOME `x`", "-i", "n=3",
        "-i", "photo=a b.png", "--set", "edit.guidance_scale=7.5",
    ]  # fmt: skip


def test_the_rerun_command_is_what_was_typed() -> None:
    typed = [
        "run",
        "my graphs/edit.yaml",
        "-i",
        "image=photos/cat.png",
        "-q",
        "--nodes",
        "my nodes.py",
        "--set",
        "a.b=$X",
    ]
    assert rerun_command(record(command=typed)) == [
        "graphflow run 'my graphs/edit.yaml'", "-i image=photos/cat.png", "-q", "--nodes 'my nodes.py'",
        "--set 'a.b=$X'",
    ]  # fmt: skip


def test_what_a_picture_needs_to_run_again_are_the_files_of_nodes_and_the_store() -> None:
    def nothing(value: ValueRecord) -> None:
        return None

    typed = ["run", "-q", "--nodes", "my nodes.py", "edit.yaml", "--nodes=more.py", "-i", "image=cat.png"]
    again = "graphflow run image.png --nodes 'my nodes.py' --nodes=more.py"
    assert build(record(command=typed), nothing).again == again
    for store in (["--store", "my store"], ["--store=there"]):
        assert build(record(command=[*typed, *store]), nothing).again == f"{again} {shlex.join(store)}"
    assert build(record(), nothing).again == "graphflow run image.png"


def test_the_rerun_command_of_a_run_from_python_leaves_out_defaults_and_keeps_types() -> None:
    inputs = {
        "image": InputRecord(type="Image", digest="d", source="cat.png"),
        "n": InputRecord(type="int", value=3, default=True),
        "mask": InputRecord(type="Mask", digest="d", source="mask.png", default=True),
    }
    found = rerun_command(record(inputs=inputs, overrides={"a.text": "3", "a.list": "[x]", "a.n": 3}))
    assert found[1:] == ["-i image=cat.png", "--set 'a.text=\"3\"'", "--set 'a.list=\"[x]\"'", "--set a.n=3"]


def test_a_shipped_graph_is_named_only_when_it_is_that_graph() -> None:
    name, path = next(iter(shipped_graphs().items()))
    text = path.read_text(encoding="utf-8")
    assert rerun_command(record(graph=path.stem, text=text))[0] == f"graphflow run {name}"
    assert rerun_command(record(graph=path.stem, text=text + "# changed"))[0] == f"graphflow run {path.name}"


def test_the_graphs_own_preset_is_not_repeated() -> None:
    assert rerun_command(record())[1] == "-i image=cat.png"


def test_the_chart_places_every_box_once_and_edges_run_forward() -> None:
    found = chart(record())
    places = {(b.x, b.y) for b in found.boxes}
    assert len(places) == len(found.boxes) == len(record().nodes) + 1  # and the input image
    x = {b.name: b.x for b in found.boxes}
    assert x["image"] < x["caption"] < x["embed"]
    assert x["encode"] < x["invert"] < x["decode"]
    assert all(0 <= b.x < found.width and 0 <= b.y < found.height for b in found.boxes)
    for path in found.edges:
        numbers = [float(n) for n in re.findall(r"[MC ](-?[\d.]+) -?[\d.]+(?= |$)", path)]
        assert numbers[0] < numbers[-1]


def test_a_huge_graph_is_not_drawn() -> None:
    nodes = {f"n{i}": node("k", {"a": f"n{i - 1}.b"} if i else {}, {}) for i in range(MAX_NODES + 1)}
    assert chart(record(nodes=nodes)).boxes == []


def test_a_report_of_arrays_imports_no_torch() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import records; from graphflow.report import render;"
        "render(records.record(), lambda v: records.values().get(v.digest)); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
