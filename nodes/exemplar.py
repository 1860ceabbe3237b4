"""An edit that is shown on a pair of pictures, in words: what a vision-language model says about it."""

from __future__ import annotations

from typing import Any

from graphflow.node import Context, Field, Node, Ports
from graphflow.nodes.lib.exemplar_prompts import CAPTION, DESCRIBE, INSTRUCT
from graphflow.ports import Image, Model, Text


class _Asked(Node):
    """A question to the vision-language model, answered without sampling."""

    max_new_tokens: int = Field(512, ge=1, description="length limit of the answer")

    def ask(self, model: Any, picture: Any, question: str, ctx: Context) -> str:
        """The answer.

        Raises:
            ValueError: there is none.
        """
        answer: str = model.ask([picture], question, max_new_tokens=self.max_new_tokens).strip()
        if not answer:
            raise ValueError(f"the vision-language model {model.name or type(model).__name__} said nothing")
        ctx.log("answer: %s", answer)
        return answer


class _OfPair(_Asked):
    max_side: int = Field(512, ge=1, description="largest side of each picture in the pair that the model sees")

    class In(Ports):
        before: Image
        after: Image
        model: Model["vlm"]

    class Out(Ports):
        text: Text

    def about_pair(self, x: In, question: str, ctx: Context) -> str:
        from graphflow.nodes.lib.exemplar_prompts import side_by_side

        return self.ask(x.model, side_by_side(x.before, x.after, self.max_side), question, ctx)


class Describe(_OfPair, kind="exemplar.describe"):
    """Describe the edit that leads from one picture to the other, in at most 100 words (ReEdit's g_text)."""

    question: str = Field(DESCRIBE, description="what the model is asked about the pair, which it sees as one picture")

    def run(self, x: _OfPair.In, ctx: Context) -> _OfPair.Out:
        return self.Out(text=self.about_pair(x, self.question, ctx))


class Instruct(_OfPair, kind="exemplar.instruct"):
    """Put the edit that leads from one picture to the other as a command of at most 20 words, for InstructPix2Pix.

    Of an answer of several lines the last one counts.
    """

    question: str = Field(INSTRUCT, description="what the model is asked about the pair, which it sees as one picture")

    def run(self, x: _OfPair.In, ctx: Context) -> _OfPair.Out:
        from graphflow.nodes.lib.exemplar_prompts import last_line

        return self.Out(text=last_line(self.about_pair(x, self.question, ctx)))


class Caption(_Asked, kind="exemplar.caption"):
    """Describe what a picture would be after an edit that is given in words, in one line (ReEdit's g_caption).

    A caption of `max_words` or more ends with its last sentence that ends within them.
    """

    question: str = Field(CAPTION, description="what the model is asked about the picture; {edit} is the edit")
    max_words: int = Field(40, ge=1, description="longer captions are cut")

    class In(Ports):
        image: Image
        edit: Text
        model: Model["vlm"]

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.exemplar_prompts import caption_question, shortened

        answer = self.ask(x.model, x.image, caption_question(self.question, x.edit), ctx)
        return self.Out(text=shortened(answer, self.max_words))
