"""Small nodes that the engine's tests are written with. They count their runs, so that a test can say what ran."""

from __future__ import annotations

from collections import Counter

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
