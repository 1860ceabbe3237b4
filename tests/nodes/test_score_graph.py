"""Scores inside graphs: mapped over pictures, gathered, without weights and with weights that arrive later."""

from __future__ import annotations

from pathlib import Path

import pytest
from measures import half_mask, picture, save_inception, save_lpips

import graphflow

GRAPH = """
graphflow: 1
inputs:
  images: {type: "list[Image]"}
  references: {type: "list[Image]"}
  mask: {type: Mask}
models: models.yaml
nodes:
  pixels: {uses: score.pixels, map: {image: inputs.images, reference: inputs.references},
           in: {mask: inputs.mask}, with: {region: outside}}
  lpips:  {uses: score.lpips, map: {image: inputs.images, reference: inputs.references}}
  ours:   {uses: sets.features, map: {image: inputs.images}, with: {feature: 64}}
  theirs: {uses: sets.features, map: {image: inputs.references}, with: {feature: 64}}
  fid:    {uses: sets.fid, in: {features: ours.features, reference: theirs.features,
           how: ours.how, reference_how: theirs.how}}
  kid:    {uses: sets.kid, in: {features: ours.features, reference: theirs.features}}
outputs: {pixels: pixels.scores, lpips: lpips.scores, how: lpips.how, fid: fid.scores, kid: kid.scores, made: fid.how}
"""
PRESET = """
graphflow-preset: 1
space: tiny
models:
  lpips: {loader: lpips, path: lpips, options: {net: squeeze}}
"""
INCEPTION = "  inception: {loader: inception.fid, path: inception}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "graph.yaml").write_text(GRAPH)
    (tmp_path / "models.yaml").write_text(PRESET)
    return tmp_path


def run(folder: Path):
    images, references = ([picture(40, 40, seed) for seed in seeds] for seeds in (range(3), range(5, 8)))
    session = graphflow.load(str(folder / "graph.yaml"), store=folder / "store", device="cpu")
    result = session.run(images=images, references=references, mask=half_mask(40, 40))
    return {name: result[name] for name in ("pixels", "lpips", "how", "fid", "kid", "made")}


def test_a_score_without_weights_is_not_available_and_becomes_so_when_they_arrive(folder):
    before = run(folder)
    assert [list(s) for s in before["pixels"]] == [["l1_outside", "l2_outside", "psnr_outside", "ssim_outside"]] * 3
    assert all(value is not None for scores in before["pixels"] for value in scores.values())
    assert list(before["lpips"]) == [{"lpips": None}] * 3
    assert before["how"][0][0]["missing"].startswith("there is no lpips")
    assert before["fid"] == {"fid_64": None}
    assert before["kid"] == {"kid": None, "kid_std": None}

    save_lpips(folder / "lpips")
    save_inception(folder / "inception")
    (folder / "models.yaml").write_text(PRESET + INCEPTION)
    after = run(folder)
    assert after["pixels"] == before["pixels"]
    assert all(scores["lpips"] > 0 for scores in after["lpips"])
    assert after["fid"]["fid_64"] > 0
    assert after["kid"]["kid"] is not None
    assert after["made"][0]["weights"] == "inception"
    assert after["made"][0]["reduction"] == "3 and 3 pictures"
