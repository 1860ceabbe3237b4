"""A data set, methods and metrics that cost nothing, for tests of benchmarks. They count what runs and what is held."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import PIL.Image

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Image, Model, Scores, Table, Text

RUNS: Counter[str] = Counter()
TYPES = ("add", "style")
alive, most_alive = [0], [0]


def held(image: PIL.Image.Image) -> PIL.Image.Image:
    """Count a picture for as long as somebody holds it; `most_alive` is the peak."""
    alive[0] += 1
    most_alive[0] = max(most_alive[0], alive[0])
    weakref.finalize(image, _gone)
    return image


def _gone() -> None:
    alive[0] -= 1


class Drawn(Sequence[Any]):
    """Pictures that are drawn at every access."""

    def __init__(self, count: int, size: int, flip: bool) -> None:
        self.count, self.size, self.flip = count, size, flip

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.count))]
        if not 0 <= index < self.count:
            raise IndexError(index)
        more = 40 if self.flip else 0
        colour = index % 150 + more, index // 150 + more, 100 + more
        return held(PIL.Image.new("RGB", (self.size, self.size), colour))


class Edits(Node, kind="sample_bench.edits"):
    """A colour each, and the same 40 levels brighter; the types take turns."""

    cache: ClassVar[Literal["auto", "always", "never"]] = "never"

    limit: int = Field(6, ge=0, description="how many")
    size: int = Field(8, description="pixels of a side")

    class In(Ports):
        pass

    class Out(Ports):
        name: list[Text]
        source: list[Image]
        target: list[Image]
        edit_type: list[Text]
        instruction: list[Text]
        target_caption: list[Text]

    def run(self, x: In, ctx: Context) -> Out:
        names = [f"edit/{n}" for n in range(self.limit)]
        return self.Out(
            name=names, source=Drawn(self.limit, self.size, False), target=Drawn(self.limit, self.size, True),
            edit_type=[TYPES[n % 2] for n in range(self.limit)], instruction=[f"brighten {n}" for n in names],
            target_caption=[],
        )  # fmt: skip


class Brighten(Node, kind="sample_bench.brighten"):
    """Add the same to all pixels."""

    by: int = Field(40, description="levels")
    fails: str = Field("", description="fails where the instruction ends so")

    class In(Ports):
        image: Image
        instruction: Text

    class Out(Ports):
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        if self.fails and x.instruction.endswith(self.fails):
            raise ValueError(f"can't do '{x.instruction}'")
        RUNS[f"brighten {self.by}"] += 1
        pixels = np.asarray(x.image).astype(np.int16) + self.by
        return self.Out(image=held(PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8))))


class Apart(Node, kind="sample_bench.apart"):
    """Mean absolute difference in levels; `worst` has no value for pictures that are alike."""

    times: float = Field(1.0, description="what the difference is multiplied by")

    class In(Ports):
        image: Image
        reference: Image

    class Out(Ports):
        scores: Scores
        how: Table

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["apart"] += 1
        difference = np.abs(np.asarray(x.image, np.float64) - np.asarray(x.reference, np.float64)) * self.times
        scores = {"mean": float(difference.mean()), "worst": float(difference.max()) or None}
        rows = [
            {"score": "mean", "value": scores["mean"], "unit": "levels", "higher_is_better": False,
             "definition": "mean |a-b|", "reduction": "mean", "missing": ""},
            {"score": "worst", "value": scores["worst"], "unit": "levels", "higher_is_better": False,
             "definition": "max |a-b|", "missing": "" if scores["worst"] else "the pictures are equal"},
        ]  # fmt: skip
        return self.Out(scores=scores, how=rows)


class Needy(Node, kind="sample_bench.needy"):
    """A score by a network; without its weights there is none."""

    class In(Ports):
        image: Image
        model: Model["lpips"] | None = None

    class Out(Ports):
        scores: Scores
        how: Table

    def run(self, x: In, ctx: Context) -> Out:
        value = None if x.model is None else 1.0
        row = {"score": "lpips", "value": value, "unit": "", "higher_is_better": False, "definition": "LPIPS",
               "missing": "no weights of lpips"}  # fmt: skip
        return self.Out(scores={"lpips": value}, how=[row])


class Level(Node, kind="sample_bench.level"):
    """The mean level of a picture."""

    class In(Ports):
        image: Image

    class Out(Ports):
        features: Scores

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["level"] += 1
        return self.Out(features={"level": float(np.asarray(x.image).mean())})


class Shift(Node, kind="sample_bench.shift"):
    """How far the mean levels of two sets lie apart."""

    class In(Ports):
        features: list[Scores]
        reference: list[Scores]

    class Out(Ports):
        scores: Scores

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["shift"] += 1
        means = [np.mean([row["level"] for row in rows]) for rows in (x.features, x.reference)]
        return self.Out(scores={"shift": float(abs(means[0] - means[1]))})


class Told(Node, kind="sample_bench.told"):
    """A method with a prompt that is called like a column of pictures, and a picture that is optional."""

    class In(Ports):
        image: Image
        source: Text | None = None
        target: Image | None = None

    class Out(Ports):
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        assert x.source is None
        assert x.target is None
        return self.Out(image=x.image)
