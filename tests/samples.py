"""Small nodes that the engine's tests are written with. They count their runs, so that a test can say what ran."""

from __future__ import annotations

import zlib
from collections import Counter

import PIL.Image

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Image, Text

RUNS: Counter[str] = Counter()


class Shout(Node, kind="sample.shout", version=1):
    """Text in capital letters."""

    mark: str = Field("!", description="what ends the text")

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["shout"] += 1
        return self.Out(text=x.text.upper() + self.mark)


class Count(Node, kind="sample.count", version=1):
    """The number of characters."""

    class In(Ports):
        text: Text

    class Out(Ports):
        length: int

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["count"] += 1
        return self.Out(length=len(x.text))


class Repeat(Node, kind="sample.repeat", version=1):
    """A list with the same text several times."""

    times: int = Field(2, ge=0, le=100, description="how often")

    class In(Ports):
        text: Text

    class Out(Ports):
        texts: list[Text]

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["repeat"] += 1
        return self.Out(texts=[x.text for _ in ctx.steps(range(self.times))])


class Join(Node, kind="sample.join", version=1):
    """All texts in one."""

    separator: str = Field(" ", description="what stands between two texts")

    class In(Ports):
        texts: list[Text]

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["join"] += 1
        return self.Out(text=self.separator.join(x.texts))


class Invert(Node, kind="sample.invert", version=1):
    """The negative of a picture."""

    class In(Ports):
        image: Image

    class Out(Ports):
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["invert"] += 1
        return self.Out(image=x.image.point(lambda value: 255 - value))


class Fail(Node, kind="sample.fail", version=1):
    """A node that raises."""

    message: str = Field("boom", description="what it says")

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        raise RuntimeError(self.message)


class Picky(Node, kind="sample.picky", version=1):
    """Passes text on, unless it is bad."""

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text
        length: int

    def run(self, x: In, ctx: Context) -> Out:
        if "bad" in x.text.lower():
            raise ValueError(f"{x.text} is not welcome")
        return self.Out(text=x.text, length=len(x.text))


class Add(Node, kind="sample.add", version=1):
    """The sum of two numbers."""

    step: int = Field(0, description="what is added to both")

    class In(Ports):
        a: int
        b: int

    class Out(Ports):
        total: int

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["add"] += 1
        return self.Out(total=x.a + x.b + self.step)


class Mean(Node, kind="sample.mean", version=1):
    """The mean of numbers, as far as there are some."""

    scale: float = Field(1.0, description="what the mean is multiplied by")

    class In(Ports):
        values: list[float]

    class Out(Ports):
        mean: float

    def run(self, x: In, ctx: Context) -> Out:
        assert all(isinstance(v, float) for v in x.values)
        RUNS["mean"] += 1
        return self.Out(mean=sum(x.values) / len(x.values) * self.scale if x.values else 0.0)


class Take(Node, kind="sample.take", version=1):
    """The first few characters: forgets most of what it is given."""

    count: int = Field(1, description="how many, modulo four")

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["take"] += 1
        return self.Out(text=x.text[: self.count % 4])


class Letters(Node, kind="sample.letters", version=1):
    """The first few characters as a list: how long it is depends on what it is given."""

    limit: int = Field(3, description="how many at most, modulo four")

    class In(Ports):
        text: Text

    class Out(Ports):
        letters: list[Text]

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["letters"] += 1
        return self.Out(letters=list(x.text[: self.limit % 4]))


class Paint(Node, kind="sample.paint", version=1):
    """A picture that depends on a text."""

    class In(Ports):
        text: Text

    class Out(Ports):
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["paint"] += 1
        number = zlib.crc32(x.text.encode())
        return self.Out(image=PIL.Image.new("RGB", (3, 2), (number & 255, number >> 8 & 255, number >> 16 & 255)))


class Colour(Node, kind="sample.colour", version=1):
    """What colour a picture has in its corner."""

    class In(Ports):
        image: Image

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["colour"] += 1
        return self.Out(text=bytes(x.image.getpixel((0, 0))).hex())


class Long(Node, kind="sample.long", version=1):
    """A text that is not worth storing: long, and quickly made again."""

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["long"] += 1
        return self.Out(text=x.text + "." * 70_000)


class Passing(Node, kind="sample.passing", version=1):
    """Text that is never stored."""

    cache = "never"

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["passing"] += 1
        return self.Out(text=x.text + "~")


class Unsure(Node, kind="sample.unsure", version=1):
    """Says that its result is another one each time."""

    deterministic = False

    class In(Ports):
        text: Text

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        RUNS["unsure"] += 1
        return self.Out(text=x.text + "?")
