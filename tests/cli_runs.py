"""The graph that tests of runs on the command line use, and what a run leaves in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GRAPH = """graphflow: 1
title: a test
inputs:
  image: {type: Image}
  text: {type: Text, default: hello, nonempty: true}
  times: {type: int, default: 2}
nodes:
  picky: {uses: sample.picky, in: {text: inputs.text}}
  shout: {uses: sample.shout, in: {text: picky.text}}
  rep: {uses: sample.repeat, in: {text: shout.text, times: inputs.times}}
  join: {uses: sample.join, in: {texts: rep.texts}}
  negative: {uses: sample.invert, in: {image: inputs.image}}
outputs: {image: negative.image, text: join.text}
"""
IMAGE = ["-i", "image=photos/0.png"]
RUN = ["run", "g.yaml", *IMAGE, "-q", "--out"]  # and the out folder


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def record(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())
