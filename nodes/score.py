"""Scores of one edited picture: against a reference, a text, an exemplar pair.

See `measure` for what comes back. `compat` repeats the habits of an official script, so that its tables can be met.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from graphflow.node import BatchNode, Context, Field
from graphflow.nodes.measure import BLACK, Measure, RegionMeasure, Scored
from graphflow.ports import Image, Mask, Model, Ports, Text


class Pixels(RegionMeasure, kind="score.pixels"):
    """L1 and L2 (both lower is better), PSNR in dB and SSIM (both higher) of a picture against a reference.

    Pixels are RGB in [0, 1], and so are L1 and L2; L2 is the mean squared error and not its root. SSIM (Wang et al.
    2004) is 1 for equal pictures. Their PSNR is infinite and so not a number that can be kept or averaged: it is None,
    or what `identical_psnr` says.
    """

    compat: Literal["none", "magicbrush", "pie_bench"] = Field(
        "none",
        description="none: both pictures have one size, a region is the mean over its pixels; magicbrush: the picture "
        "is first resized to the reference, bicubic; pie_bench: a region is scored on pictures that are black outside "
        "of it, over all pixels",
    )
    ssim_windows: Literal["inside", "all"] = Field(
        "inside",
        description="inside: windows that lie wholly in the picture (the paper, torchmetrics up to 1.4); all: those "
        "over the border too (torchmetrics 1.9)",
    )
    identical_psnr: float | None = Field(None, ge=0, description="dB that equal pictures count as; None: no score")

    class In(Ports):
        image: Image
        reference: Image
        mask: Mask | None = None

    def run(self, x: In, ctx: Context) -> Scored:
        from graphflow.nodes.lib.metrics import pixels, similarity

        image, reference = x.image.convert("RGB"), x.reference.convert("RGB")
        if self.compat == "magicbrush" and image.size != reference.size:
            image = pixels.stretched(image, reference.size, "bicubic")
        pixels.same_size(image, reference)
        masking: similarity.Masking = "multiply" if self.compat == "pie_bench" else "mean"
        values, missing = similarity.compare(
            pixels.to_unit(image), pixels.to_unit(reference), self.mask(x.mask, image.size), masking, self.ssim_windows
        )
        if values["psnr"] == float("inf") and self.identical_psnr is not None:
            values["psnr"] = self.identical_psnr
        how = {"mean": f"{self.region}: mean over its pixels", "multiply": f"{self.region}: {BLACK}"}[masking]
        return self.give(
            self.named(values),
            self.named(missing),
            resize="picture to the reference, PIL bicubic" if self.compat == "magicbrush" else "none",
            region="whole" if self.region == "whole" else how,
            reduction=f"mean over pixels and channels; ssim over windows ({self.ssim_windows})",
        )


class Lpips(RegionMeasure, BatchNode, kind="score.lpips"):
    """LPIPS of two pictures (Zhang et al. 2018): 0 is the same picture; lower is better.

    The backbone is that of the preset's lpips; numbers of squeeze, alex and vgg can't be compared. The network gets
    pixels in [-1, 1]. A region is scored on pictures that are black outside of it, as in PIE-Bench.
    """

    compat: Literal["none", "reedit"] = Field(
        "none", description="none: native size; reedit: both pictures are first stretched to 224x224, bilinear in PIL"
    )

    class In(Ports):
        image: Image
        reference: Image
        mask: Mask | None = None
        model: Model["lpips"] | None = None

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Scored]:
        from graphflow.nodes.lib.batches import of_pairs

        model = xs[0].model
        if model is None:
            return [self.lacking("lpips", *self.named({"lpips": None})) for _ in xs]
        values = of_pairs([self._pair(x) for x in xs], model.distance)
        return [self._scored(model, value) for value in values]

    def _pair(self, x: In) -> list[Any] | None:
        from graphflow.nodes.lib.metrics import pixels

        images = self.blacked(x, "image", "reference")
        if images is None:
            return None
        if self.compat == "reedit":
            images = [pixels.stretched(image, (224, 224), "bilinear") for image in images]
        pixels.same_size(*images)
        return [pixels.to_unit(image) * 2 - 1 for image in images]

    def _scored(self, model: Any, value: float | None) -> Scored:
        return self.give(
            self.named({"lpips": value}),
            "the region has no pixels",
            backbone=model.net,
            weights=model.name,
            input_range="[-1, 1]",
            resize="PIL bilinear to 224x224" if self.compat == "reedit" else "none",
            region="whole" if self.region == "whole" else f"{self.region}: {BLACK}",
            reduction="mean over positions, sum over layers",
        )


class ClipScore(Measure, BatchNode, kind="score.clip", version=2):
    """CLIP similarities of a picture to a text, to the source and to the target; what is not given is not scored.

    clip_text is cos(picture, text) (CLIP-T; CLIPout with the caption after the edit) and clip_text_distance is
    1 - clip_text; clip_image is cos(picture, source) (CLIPimg) and clip_target cos(picture, target) (CLIP-I);
    clip_direction is the cosine of the change of the picture and the change of the text (CLIPdir, each embedding of
    length 1; Gal et al. 2021, Brooks et al. 2023), and clip_instruction ReEdit's form of it, with the instruction in
    place of the change of the text. From -1 to 1; for all but the distance, higher is better. Values depend on the
    CLIP that the preset binds: compare only those of one.
    """

    compat: Literal["none", "openai", "ip2p"] = Field(
        "none",
        description="preprocessing of pictures: none is the checkpoint's own; openai that of OpenAI's clip package "
        "(MagicBrush); ip2p stretches to a square, bicubic without antialiasing (InstructPix2Pix)",
    )

    class In(Ports):
        image: Image
        source: Image | None = None
        text: Text | None = None
        source_text: Text | None = None
        target: Image | None = None
        instruction: Text | None = None
        model: Model["clip"] | None = None

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Scored]:
        from graphflow.nodes.lib.metrics import joint

        edits = [joint.Edit(x.source, x.text, x.source_text, x.target, x.instruction) for x in xs]
        if xs[0].model is None:
            return [self.lacking("clip", *edit.names()) for edit in edits]
        found = joint.similarities(xs[0].model, [x.image for x in xs], edits, self.compat)
        return [self.give(values, **joint.setting(xs[0].model, self.compat)) for values in found]


class ClipTextScore(RegionMeasure, BatchNode, kind="score.clip_score"):
    """CLIPScore: 100·max(cos(picture, text), 0), as torchmetrics and the tables print it; higher is better.

    ReEdit takes ViT-B/16 and the instruction as text; PIE-Bench ViT-L/14 and the prompt after the edit, for the whole
    picture and for the region inside the mask, black outside.
    """

    compat: Literal["none", "openai", "ip2p"] = Field(
        "none", description="preprocessing of the picture, as for score.clip"
    )

    class In(Ports):
        image: Image
        text: Text
        mask: Mask | None = None
        model: Model["clip"] | None = None

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Scored]:
        from graphflow.nodes.lib.metrics import joint

        model = xs[0].model
        if model is None:
            return [self.lacking("clip", *self.named({"clip_score": None})) for _ in xs]
        pictures = [(self.blacked(x, "image"), x.text) for x in xs]
        there = [(images[0], text) for images, text in pictures if images is not None]
        scores: list[float] = []
        if there:
            embedded = joint.embed_images(model, [image for image, _ in there], self.compat)
            scores = joint.clip_score(embedded, model.text([text for _, text in there])).tolist()
        values = iter(scores)
        region = "whole" if self.region == "whole" else f"{self.region}: {BLACK}"
        setting = joint.setting(model, self.compat) | {"region": region, "scale": "100"}
        named = [self.named({"clip_score": None if images is None else next(values)}) for images, _ in pictures]
        return [self.give(scored, "the region has no pixels", **setting) for scored in named]


class SVisual(Measure, BatchNode, kind="score.s_visual"):
    """S-Visual: cos(E(after) - E(before), E(image) - E(source)): did the picture change as the exemplar pair did?

    VISII (Nguyen et al. 2023) and ReEdit, with the projected embeddings of CLIP ViT-L/14, which are not normalised
    before the subtraction. From -1 to 1; higher is better.
    """

    compat: Literal["none", "openai", "ip2p"] = Field("none", description="preprocessing, as for score.clip")

    class In(Ports):
        before: Image
        after: Image
        source: Image
        image: Image
        model: Model["clip"] | None = None

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Scored]:
        from graphflow.nodes.lib.metrics import joint

        if xs[0].model is None:
            return [self.lacking("clip", "s_visual") for _ in xs]
        pictures = [picture for x in xs for picture in (x.before, x.after, x.source, x.image)]
        four_BD = joint.embed_images(xs[0].model, pictures, self.compat).unflatten(0, (-1, 4)).unbind(1)
        setting = joint.setting(xs[0].model, self.compat)
        return [self.give({"s_visual": value}, **setting) for value in joint.s_visual(*four_BD).tolist()]


class Hps(Measure, BatchNode, kind="score.hps"):
    """HPSv2: how people would like the picture for the text (Wu et al. 2023); about 0.2 to 0.3, higher is better.

    The cosine of an OpenCLIP ViT-H/14 with the weights of HPS v2 or v2.1, not times 100. The official preprocessing
    shrinks the longer side to 224 and adds black margins; nothing is cropped.
    """

    antialias: bool = Field(
        True, description="when shrinking; torchvision 0.17 and later does it by itself, earlier ones did not"
    )

    class In(Ports):
        image: Image
        text: Text
        model: Model["hps"] | None = None

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Scored]:
        import torch
        from torch.nn.functional import cosine_similarity

        from graphflow.nodes.lib.metrics.pixels import hps_pixels

        model = xs[0].model
        if model is None:
            return [self.lacking("hps", "hps") for _ in xs]
        images = model.embed(torch.cat([hps_pixels(x.image, model.size, self.antialias) for x in xs]))
        values = cosine_similarity(images, model.text([x.text for x in xs])).tolist()
        smooth = "with" if self.antialias else "without"
        setting = {
            "backbone": f"{type(model).__name__} {model.size}",
            "weights": model.name,
            "input_range": "[0, 1] - CLIP's mean, by its deviation",
            "resize": f"tensor bicubic {smooth} antialiasing, longer side to {model.size}, black margins",
        }
        return [self.give({"hps": value}, **setting) for value in values]


class Dino(Measure, BatchNode, kind="score.dino"):
    """DINO-I: cosine of the class tokens of two pictures, from -1 to 1; higher is better.

    MagicBrush takes DINO ViT-S/16, the shorter side at 256, bicubic, and the 224x224 in the middle. Other papers take
    DINOv2 or ViT-B/16: their numbers can't be compared.
    """

    resize: int = Field(256, ge=1, description="pixels of the shorter side, bicubic in PIL")
    crop: int = Field(224, ge=1, description="pixels a side of the square in the middle")

    class In(Ports):
        image: Image
        reference: Image
        model: Model["dino"] | None = None

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Scored]:
        from torch.nn.functional import cosine_similarity

        from graphflow.nodes.lib.batches import of_pairs
        from graphflow.nodes.lib.metrics.pixels import dino_pixels

        model = xs[0].model
        if model is None:
            return [self.lacking("dino", "dino_image") for _ in xs]
        pairs = [[dino_pixels(i, self.resize, self.crop) for i in (x.image, x.reference)] for x in xs]
        values = of_pairs(pairs, lambda a, b: cosine_similarity(model.embed(a), model.embed(b)))
        setting = {
            "backbone": f"{type(model.model).__name__} patch {model.patch}, class token",
            "weights": model.name,
            "input_range": "[0, 1] - ImageNet's mean, by its deviation",
            "resize": f"PIL bicubic to the shorter side {self.resize}, centre crop {self.crop}x{self.crop}",
        }
        return [self.give({"dino_image": value}, **setting) for value in values]


class Structure(RegionMeasure, BatchNode, kind="score.structure"):
    """Structure distance: mean squared difference of the self-similarity of DINO keys; 0 is best, lower is better.

    Splice (Tumanyan et al. 2022), PIE-Bench: DINO ViT-B/8, keys of layer 11 with heads concatenated, class token
    included, the shorter side at 224 and the longer one at most 480, bilinear on the tensor. Tables print it times
    1000.
    """

    compat: Literal["none", "pie_bench"] = Field(
        "none",
        description="pie_bench repeats its script, which gives the network pixels in 0 … 255 where [0, 1] is meant",
    )
    layer: int = Field(-1, description="whose keys; counted from 0, or from the end with -1; 11 is the last of ViT-B")
    size: int = Field(224, ge=1, description="pixels of the shorter side")
    antialias: bool = Field(
        True, description="when shrinking; torchvision 0.17 and later does it by itself, earlier ones did not"
    )

    class In(Ports):
        image: Image
        reference: Image
        mask: Mask | None = None
        model: Model["structure"] | None = None

    def run_many(self, xs: Sequence[In], ctx: Context) -> list[Scored]:
        from graphflow.nodes.lib.batches import of_pairs
        from graphflow.nodes.lib.metrics import vit

        model = xs[0].model
        if model is None:
            return [self.lacking("structure", *self.named({"structure_distance": None})) for _ in xs]
        keys = lambda pixels: model.keys(pixels, self.layer)  # noqa: E731
        values = of_pairs([self._pair(x) for x in xs], lambda a, b: vit.structure_distance(keys(a), keys(b)))
        return [self._scored(model, value) for value in values]

    def _pair(self, x: In) -> list[Any] | None:
        from graphflow.nodes.lib.metrics import pixels

        images = self.blacked(x, "image", "reference")
        if images is None:
            return None
        pixels.same_size(*images)
        read = pixels.to_bytes if self.compat == "pie_bench" else pixels.to_unit
        return [pixels.structure_pixels(read(image), self.size, 480, self.antialias) for image in images]

    def _scored(self, model: Any, value: float | None) -> Scored:
        smooth = "with" if self.antialias else "without"
        scale = "0 … 255" if self.compat == "pie_bench" else "[0, 1]"
        return self.give(
            self.named({"structure_distance": value}),
            "the region has no pixels",
            backbone=f"{type(model.model).__name__} patch {model.patch}, keys of layer {self.layer}",
            weights=model.name,
            input_range=f"{scale} - ImageNet's mean, by its deviation",
            resize=f"tensor bilinear {smooth} antialiasing, shorter side to {self.size}, longer one at most 480",
            region="whole" if self.region == "whole" else f"{self.region}: {BLACK}",
            reduction="mean over all pairs of tokens",
        )
