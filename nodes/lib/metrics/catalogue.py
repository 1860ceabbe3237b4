"""Every score that the nodes return: what tables need to print it and readers need to understand it."""

from __future__ import annotations

from dataclasses import dataclass, replace

REGIONS = {"_inside": "inside the mask", "_outside": "outside the mask"}


@dataclass(frozen=True)
class Metric:
    """One score.

    Attributes:
        title: what a table's heading says.
        unit: dB, %, points … or "" for a bare number.
        higher_is_better: the direction; it holds for a comparison with the picture that the edit should look like.
        range: smallest and largest value.
        definition: the formula in words.
        source: paper or script.
        also: other names that tables print.
    """

    title: str
    unit: str
    higher_is_better: bool
    range: str
    definition: str
    source: str
    also: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    "l1": Metric("L1", "", False, "0 … 1", "mean |a - b| of RGB in [0, 1]", "MagicBrush, Emu Edit"),
    "l2": Metric("L2", "", False, "0 … 1", "mean (a - b)² of RGB in [0, 1]; no root", "MagicBrush", ("MSE",)),
    "psnr": Metric("PSNR", "dB", True, "0 … ∞", "10·log10(1 / mean (a - b)²) of RGB in [0, 1]", "PIE-Bench"),
    "ssim": Metric(
        "SSIM", "", True, "-1 … 1", "structural similarity, Gaussian 11x11 of σ 1.5, RGB in [0, 1]", "Wang et al. 2004"
    ),
    "lpips": Metric(
        "LPIPS", "", False, "0 … about 1", "weighted squared distance of unit features", "Zhang et al. 2018, eq. 1"
    ),
    "clip_text": Metric(
        "CLIP-T", "", True, "-1 … 1", "cos(picture, text)", "MagicBrush, Emu Edit", ("CLIPout", "CLIP-T")
    ),
    "clip_text_distance": Metric("1 - CLIP-T", "", False, "0 … 2", "1 - cos(picture, text)", "Pix2Pix-OnTheFly"),
    "clip_score": Metric(
        "CLIP score", "", True, "0 … 100", "100·max(cos(picture, text), 0)", "Hessel et al. 2021, torchmetrics' scale"
    ),
    "clip_image": Metric(
        "CLIP-I to source", "", True, "-1 … 1", "cos(picture, source picture)", "Emu Edit, IP2P", ("CLIPimg",)
    ),
    "clip_target": Metric("CLIP-I", "", True, "-1 … 1", "cos(picture, target picture)", "MagicBrush", ("CLIP-I",)),
    "clip_direction": Metric(
        "CLIP dir", "", True, "-1 … 1", "cos(Î' - Î, T̂' - T̂), each embedding of length 1",
        "Gal et al. 2021, IP2P", ("CLIPdir",),
    ),
    "clip_instruction": Metric(
        "CLIP dir (instruction)", "", True, "-1 … 1", "cos(Î' - Î, T(instruction)); the text side is no difference",
        "ReEdit's script", ("Dir. Similarity",),
    ),
    "s_visual": Metric(
        "S-Visual", "", True, "-1 … 1", "cos(E(after) - E(before), E(picture) - E(source)), E of any length",
        "VISII, ReEdit",
    ),
    "dino_image": Metric("DINO-I", "", True, "-1 … 1", "cos of class tokens", "MagicBrush", ("DINO",)),
    "structure_distance": Metric(
        "Structure distance", "", False, "0 … 4", "mean squared difference of cosines between all pairs of keys; "
        "tables print it times 1000", "Tumanyan et al. 2022, PIE-Bench",
    ),
    "hps": Metric("HPSv2", "", True, "-1 … 1", "cos(picture, text) of a CLIP trained on preferences", "Wu et al. 2023"),
    "fid": Metric(
        "FID", "", False, "0 … ∞", "Fréchet distance of Gaussians fitted to 2048 Inception features",
        "Heusel et al. 2017",
    ),
    "fid_64": Metric(
        "FID (64 features)", "", False, "0 … ∞", "the same after the first max pooling; not comparable to FID",
        "ReEdit's script",
    ),
    "fid_192": Metric("FID (192 features)", "", False, "0 … ∞", "after the second max pooling", "torchmetrics"),
    "fid_768": Metric("FID (768 features)", "", False, "0 … ∞", "before the auxiliary head", "torchmetrics"),
    "kid": Metric(
        "KID", "", False, "about 0 … ∞", "unbiased squared MMD with a cubic kernel, mean over random subsets; may be "
        "slightly negative", "Bińkowski et al. 2018",
    ),
    "kid_std": Metric("KID deviation", "", False, "0 … ∞", "standard deviation over the subsets", "torchmetrics"),
    "viescore": Metric("VIEScore O", "points", True, "0 … 10", "√(SC·PQ)", "Ku et al. 2024, GEdit-Bench"),
    "viescore_sc": Metric(
        "VIEScore SC", "points", True, "0 … 10", "the lesser of: instruction carried out, nothing else changed",
        "Ku et al. 2024", ("Semantic consistency",),
    ),
    "viescore_pq": Metric(
        "VIEScore PQ", "points", True, "0 … 10", "the lesser of: natural, free of artefacts", "Ku et al. 2024",
        ("Perceptual quality",),
    ),
    "imgedit": Metric(
        "ImgEdit", "points", True, "1 … 5", "mean of three aspects that depend on the type of edit", "ImgEdit-Bench"
    ),
    "imgedit_1": Metric("ImgEdit, edit", "points", True, "1 … 5", "first: is it what was asked", "ImgEdit-Bench"),
    "imgedit_2": Metric("ImgEdit, look", "points", True, "1 … 5", "second: does it look right", "ImgEdit-Bench"),
    "imgedit_3": Metric("ImgEdit, rest", "points", True, "1 … 5", "third: details and the rest", "ImgEdit-Bench"),
}  # fmt: skip


def metric(score: str) -> Metric:
    """The entry of a score; ``psnr_outside`` is that of ``psnr`` with the region in its title and definition.

    Raises:
        KeyError: no node returns a score of that name.
    """
    for ending, where in REGIONS.items():
        base = METRICS.get(score.removesuffix(ending)) if score.endswith(ending) else None
        if base is not None:
            return replace(base, title=f"{base.title} {where}", definition=f"{base.definition}, {where}")
    return METRICS[score]
