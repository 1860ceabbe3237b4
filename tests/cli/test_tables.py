"""Tables of the command line: complete on 80 columns, harmless with hostile texts."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any, Literal

import records
import runs_on_devices
import samples
from rich.console import Console

from graphflow.check import check
from graphflow.cli import tables
from graphflow.known import Known
from graphflow.node import Context, Field, Node, Ports
from graphflow.plan import Plan, PlannedNode
from graphflow.ports import Image, Latents, Model, Text
from graphflow.spec import parse_spec

GRAPH = """
graphflow: 1
title: Shouting
inputs: {text: Text}
nodes:
  shout: {uses: sample.shout, in: {text: inputs.text}}
outputs: {text: shout.text}
"""


class Everything(Node, kind="zz.everything", version=3):
    """A node with every kind of port and parameter.

    A second paragraph.
    """

    not_in_key = frozenset({"mode"})

    strength: float = Field(0.5, ge=0, le=1, description="how much")
    mode: Literal["fast", "good"] = Field("fast", description="which way")
    names: list[str] = Field(default_factory=list, max_length=4, description="what to call it")
    count: int = Field(gt=0, description="how many; has no default")

    class In(Ports):
        image: Image
        hints: list[Text]
        latents: Latents | None = None
        model: Model["vae"]

    class Out(Ports):
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(image=x.image)


def shown(render: Any, *arguments: Any, width: int = 80) -> str:
    stream = io.StringIO()
    render(*arguments, Console(file=stream, width=width, highlight=False))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def planned(nodes: dict[str, PlannedNode]) -> Plan:
    return Plan(nodes, Known(check(parse_spec(GRAPH, "g.yaml")), {}))


def test_a_plan() -> None:
    graph = check(parse_spec(GRAPH, "g.yaml"))
    plan = planned({
        "prepare": PlannedNode("prepare", "image.prepare", "cached", "", "k", 2.0, 3000),
        "shout": PlannedNode("shout", "sample.shout", "run", "instruction changed", "k", 12.5, 800),
        "edit": PlannedNode("edit", "denoise.ddim", "maybe", "after shout"),
    })  # fmt: skip
    assert shown(tables.plan_table, plan, graph) == (
        "Shouting\n"
        "node     kind           status  reason                  size    time\n"
        "prepare  image.prepare  cached                       2.9 KiB\n"
        "shout    sample.shout   run     instruction changed    800 B  12.5 s\n"
        "edit     denoise.ddim   maybe   after shout\n"
        "1 cached, 1 to run, 1 maybe; at least 12.5 s by earlier runs, 2.00 s saved\n"
    )


def test_instances_of_a_mapped_node_share_a_line_of_the_plan() -> None:
    def entry(name: str, status: Any, reason: str = "", seconds: float | None = 2.0) -> PlannedNode:
        return PlannedNode(name, "caption", status, reason, "k", seconds, 1024)

    nodes = {f"each[{i}]/caption": entry(f"each[{i}]/caption", "cached") for i in range(28)}
    nodes |= {f"each[{i}]/caption": entry(f"each[{i}]/caption", "run", f"image{i} changed") for i in (28, 29)}
    nodes |= {f"each[{i}]/count": entry(f"each[{i}]/count", "maybe", f"after each[{i}]/caption") for i in (28, 29)}
    nodes["join"] = entry("join", "maybe", "after each[28]/caption", None)
    graph = SimpleNamespace(title="")
    assert shown(tables.plan_table, planned(nodes), graph, width=120) == (
        "node                kind     status              reason                                    size    time\n"
        "each[0…29]/caption  caption  cached ×28, run ×2  image28 changed (and 1 other reason)  30.0 KiB  4.00 s\n"
        "each[28, 29]/count  caption  maybe ×2            after each[…]/caption                  2.0 KiB  4.00 s\n"
        "join                caption  maybe               after each[28]/caption                 1.0 KiB\n"
        "28 cached, 2 to run, 3 maybe; at least 8.00 s by earlier runs, 56.0 s saved\n"
    )
    stream = io.StringIO()
    tables.plan_table(planned(nodes), graph, Console(file=stream, width=100), every=True)
    assert len(stream.getvalue().splitlines()) == 1 + 33 + 1


def test_headings_stay_whole_where_there_is_room_and_no_column_is_lost() -> None:
    columns = [f"a_long_heading_{i}" for i in range(4)]
    assert columns[3] in shown(tables.rows_table, columns, [["text " * 9] * 4], width=110).splitlines()[0]
    narrow = shown(tables.rows_table, columns, [["text", "1", "2", "last"]], width=40)
    assert "last" in narrow


def test_a_record_tells_instances_in_one_line() -> None:
    nodes = {
        f"each[{i}]/caption": records.node(
            "caption", {}, {}, status="failed" if i == 3 else "ran", seconds=1.0, parameters={"beams": 3, "seed": i}
        )
        for i in range(4)
    }
    text = shown(tables.record_page, records.record(nodes=nodes), width=120)
    assert "each[0…3]/caption  caption v1  ran ×3, failed ×1  beams=3, seed=several  4.00 s" in text


def test_a_cached_plan_says_that_nothing_runs() -> None:
    plan = planned({"a": PlannedNode("a", "k", "cached", "")})
    assert tables.plan_summary(plan) == "everything is cached: 1 node, nothing runs"


def test_a_long_reason_is_folded_and_complete() -> None:
    reason = "parameter guidance_scale (5.0 → 7.5), input direction, model denoiser changed" * 2
    plan = planned({"edit": PlannedNode("edit", "denoise.pix2pix_zero", "run", reason, "k", 1.0, 10)})
    text = shown(tables.plan_table, plan, SimpleNamespace(title=""))
    assert all(len(line) <= 80 for line in text.splitlines())
    column = [line[line.find("reason") if "reason" in line else 34 : 66] for line in text.splitlines()[1:-1]]
    assert "".join(reason.split()) in "".join("".join(column).split())


def test_the_catalogue_groups_by_family() -> None:
    text = shown(tables.nodes_table, [Everything, samples.Shout, samples.Count])
    assert text == (
        "sample\n"
        "  sample.count  text: Text → length: int\n"
        "      The number of characters.\n"
        "  sample.shout  text: Text → text: Text\n"
        "      Text in capital letters.\n"
        "\n"
        "zz\n"
        "  zz.everything  image: Image, hints: list[Text], latents: Latents?, model vae → image: Image\n"
        "      A node with every kind of port and parameter.\n"
    )


def test_a_nodes_page() -> None:
    assert shown(tables.node_page, Everything) == (
        "zz.everything  version 3\n"
        "\n"
        "A node with every kind of port and parameter.\n"
        "\n"
        "A second paragraph.\n"
        "\n"
        "Inputs   type\n"
        "image    Image       an 8-bit RGB picture (height width 3)\n"
        "hints    list[Text]  text\n"
        "latents  Latents?    latents of a diffusion model, scaled (b c h w)\n"
        "model    model vae   from the preset, or trained weights by an edge\n"
        "\n"
        "Outputs  type\n"
        "image    Image  an 8-bit RGB picture (height width 3)\n"
        "\n"
        "Parameters\n"
        "strength  float = 0.5  ≥ 0, ≤ 1\n"
        "    how much\n"
        'mode  fast | good = "fast"\n'
        "    which way\n"
        "names  list[str] = []  length ≤ 4\n"
        "    what to call it\n"
        "count  int, required  > 0\n"
        "    how many; has no default\n"
        "\n"
        "Cache: stored when that pays; results depend on device kind and dtype; mode\n"
        "can't change the result\n"
    )


def test_a_record() -> None:
    text = shown(tables.record_page, records.record(overrides={"invert.guidance_scale": 1.5}))
    for expected in (
        "An edit\n", "graph    edit\n", "device   cpu float32\n", "status   done in 3.50 s\n", "image        cat.png\n",
        'instruction  "turn the cat into a dog"\n', "invert.guidance_scale  1.5\n",
        "vae  some/repo@0123abc/vae  diffusers.vae",
        "image   Image image.png 2.0 KiB\n", "num_inference_steps=50",
    ):  # fmt: skip
        assert expected in text, expected
    assert "guidance_scale=1.0" in "".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_record_tells_peaks_and_how_devices_were_used_where_that_is_known() -> None:
    text = shown(tables.record_page, runs_on_devices.swapped(), width=120)
    assert "cuda:0   busy 46 %, 2 loads, at most 4.0 GiB of 6.0 GiB of weights\n" in text
    assert re.search(r"(?m)^node +kind +status +parameters +peak +time$", text)
    assert re.search(r"(?m)^edit +denoise.ddim v1 +ran +2.0 GiB +4.00 s$", text)
    assert re.search(r"(?m)^fit +image.prepare v1 +ran +0.40 s$", text)
    plain = shown(tables.record_page, records.record())
    assert "peak" not in plain
    assert "busy" not in plain


def test_a_failed_record_names_the_failure() -> None:
    failed = records.node("k", {}, {}, status="failed", reason="ValueError: no luck")
    text = shown(tables.record_page, records.record(status="failed", nodes={"edit": failed}))
    assert text.endswith("edit failed: ValueError: no luck\n")


def test_a_hostile_record_can_neither_move_the_cursor_nor_be_markup() -> None:
    bad = "\x1b]0;owned\x07[red]x[/red]\u202e\r"
    text = shown(tables.record_page, records.record(title=bad, text=bad, device=bad), width=200)
    assert "[red]x[/red]" in text
    assert not set("\x1b\x07\u202e\r") & set(text)


def test_checks_and_rows() -> None:
    rows = [("good", "torch", "2.9", ""), ("todo", "GPU", "one", "install a driver"), ("bad", "store", "none", "")]
    text = shown(tables.checks, rows)
    assert text == "✓ torch 2.9\n! GPU   one\n        → install a driver\n✗ store none\n"
    text = shown(tables.rows_table, ["codec", ">size"], [["image", "1.0 MiB"], ["json", "12 B"]])
    assert text == "codec     size\nimage  1.0 MiB\njson      12 B\n"
