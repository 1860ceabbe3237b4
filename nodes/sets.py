"""Distances between two sets of pictures: FID and KID.

`sets.features` makes the features of one picture, mapped over both sets; `sets.fid` and `sets.kid` take the two lists,
and the lists of how they were made.
So a rerun with one more picture computes one more picture, and memory does not grow with their size: eight kilobytes
a picture.
"""

from __future__ import annotations

from typing import Any, Literal

from graphflow.node import Context, Field, Node, Ports, Seed
from graphflow.nodes.measure import Measure, Scored, absent
from graphflow.ports import Embedding, Image, Model, Table

RESIZE = {"none": "clean", "torchmetrics": "tensorflow", "reedit": "pil_bilinear"}
WORDS = {
    "clean": "PIL bicubic to 299x299, antialiased, not rounded (clean-fid)",
    "tensorflow": "bilinear of TensorFlow 1 to 299x299 (torch-fidelity)",
    "pil_bilinear": "PIL bilinear to 299x299, rounded to bytes",
}


class Features(Node, kind="sets.features"):
    """Features of one picture by the Inception of FID; without its weights there are none (no rows).

    FID and KID mean the 2048 of the last pooling. ReEdit's script takes the 64 after the first one, and the numbers
    have nothing to do with each other.
    """

    feature: Literal[64, 192, 768, 2048] = Field(2048, description="which layer, by its number of features")
    compat: Literal["none", "torchmetrics", "reedit"] = Field(
        "none",
        description="how a picture becomes 299x299: none is clean-fid's way (bicubic, antialiased, not rounded); "
        "torchmetrics that of torch-fidelity (TensorFlow 1, bilinear); reedit bilinear in PIL",
    )

    class In(Ports):
        image: Image
        model: Model["inception"] | None = None

    class Out(Ports):
        features: Embedding
        how: Table

    def run(self, x: In, ctx: Context) -> Out:
        import torch

        from graphflow.nodes.lib.metrics.record import Setting, setting_row

        if x.model is None:
            row = setting_row(Setting(compat=self.compat), absent("inception"))
            return self.Out(features=torch.zeros(0, self.feature), how=[row])
        resize = RESIZE[self.compat]
        made = Setting(
            backbone=f"FID Inception, {self.feature} features",
            weights=x.model.name,
            input_range="0 … 255 - 128, by 128",
            resize=WORDS[resize],
            reduction="mean over positions",
            compat=self.compat,
        )
        return self.Out(features=x.model.features(x.image, self.feature, resize), how=[setting_row(made)])


class SetMeasure(Measure):
    """Base of the distances between sets."""

    class In(Ports):
        features: list[Embedding]
        reference: list[Embedding]
        how: list[Table] = []  # noqa: RUF012
        reference_how: list[Table] = []  # noqa: RUF012

    def lacks(self, x: Any) -> str:
        """Why there is no distance, or an empty text."""
        for name in ("features", "reference"):
            rows = [len(f) for f in getattr(x, name)]
            if not all(rows):
                return absent("inception")
            if sum(rows) < 2:
                return f"a spread needs 2 pictures at least, '{name}' has {sum(rows)}"
        return ""

    def setting(self, x: Any) -> dict[str, str]:
        """How the features were made, as far as `how` says.

        Raises:
            ValueError: they were made in different ways, and so there is no distance between them.
        """
        made = [row for table in (*x.how, *x.reference_how) for row in table]
        for key in ("backbone", "weights", "resize"):
            if len(found := sorted({row[key] for row in made})) > 1:
                raise ValueError(f"the features of both sets were made with a different {key}: {'; '.join(found)}")
        counts = " and ".join(str(sum(len(f) for f in side)) for side in (x.features, x.reference))
        known = {k: made[0][k] for k in ("backbone", "weights", "input_range", "resize")} if made else {}
        return {"backbone": f"FID Inception, {_width(x)} features", **known, "reduction": f"{counts} pictures"}


class Fid(SetMeasure, kind="sets.fid"):
    """FID: Fréchet distance of Gaussians fitted to the features of both sets (Heusel et al. 2017); lower is better.

    Biased upwards for few pictures; 2048 features want 10,000 and more. With other features than 2048 the score is
    called fid_64 and the like, since it can't be compared.
    """

    compat: Literal["none", "reedit_interim"] = Field(
        "none",
        description="reedit_interim: the mean over i of the distance of the first i pairs, each picture counted "
        "twice, as its script does by never resetting its state",
    )

    def run(self, x: SetMeasure.In, ctx: Context) -> Scored:
        from graphflow.nodes.lib.metrics import sets

        if missing := self.lacks(x):
            return self.give({_named(x): None}, missing)
        if self.compat == "reedit_interim":
            return self.give({_named(x): sets.interim_fid(x.features, x.reference)}, **self.setting(x))
        ours, theirs = sets.statistics(x.features), sets.statistics(x.reference)
        few, width = min(ours.count, theirs.count), len(ours.mean)
        if few <= width:
            ctx.log("warning: FID over %d pictures with %d features: a small sample makes it too large", few, width)
        return self.give({_named(x): sets.frechet(ours, theirs)}, **self.setting(x))


class Kid(SetMeasure, kind="sets.kid"):
    """KID: unbiased squared MMD with a cubic kernel (Bińkowski et al. 2018); about 0 for equal sets, lower is better.

    The mean over random subsets; kid_std is their standard deviation. With fewer pictures than a subset wants, one
    subset of all of the smaller set is taken, and the row says so.
    """

    subsets: int = Field(100, ge=1, description="how many random subsets")
    subset_size: int = Field(1000, ge=2, description="pictures of each set in a subset")
    seed: Seed = Field(0, description="of the choice of subsets")

    def run(self, x: SetMeasure.In, ctx: Context) -> Scored:
        import torch

        from graphflow.nodes.lib.metrics import sets

        if missing := self.lacks(x):
            return self.give({"kid": None, "kid_std": None}, missing)
        ours, theirs = (torch.cat(list(side)) for side in (x.features, x.reference))
        size = min(self.subset_size, len(ours), len(theirs))
        # Subsets that hold everything differ in nothing but their order.
        subsets = 1 if len(ours) == len(theirs) == size else self.subsets
        mean, deviation = sets.kid(ours, theirs, subsets, size, self.seed)
        how = self.setting(x)
        how["reduction"] += f"; mean over {subsets} subsets of {size}"
        return self.give({"kid": mean, "kid_std": deviation}, **how)


def _named(x: Any) -> str:
    width = _width(x)
    return "fid" if width == 2048 else f"fid_{width}"


def _width(x: Any) -> int:
    return next((f.shape[1] for side in (x.features, x.reference) for f in side), 2048)
