"""Sets for editing by example, in ReEdit's folder layout, from pairs of pictures: filter, combine, filter, write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, overload

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Image, Scores, Text, Weights, ports_of

T = TypeVar("T")


class _Chosen(Sequence[T]):
    """Some elements of a list in another order. Pictures are decoded when they are asked for, as in the list."""

    def __init__(self, values: Sequence[T], places: Sequence[int]) -> None:
        self._values, self._places = values, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return _Chosen(self._values, self._places[index])
        return self._values[self._places[index]]


class _Pairs(Ports):
    name: list[Text]
    source: list[Image]
    target: list[Image]
    instruction: list[Text]
    edit_type: list[Text]


class _PairsIn(_Pairs):
    edit_type: list[Text] = []  # noqa: RUF012  ports are values of an instance


class _Exemplars(_Pairs):
    exemplar_before: list[Image]
    exemplar_after: list[Image]


class _ExemplarsIn(_Exemplars):
    edit_type: list[Text] = []  # noqa: RUF012


def _columns(x: Any, ports: type[Ports]) -> dict[str, Sequence[Any]]:
    """The lists of a set, by name; that of the types is empty where the set does not say them.

    Raises:
        ValueError: they differ in length.
    """
    columns = {name: getattr(x, name) for name in ports_of(ports)}
    lengths = {name: len(values) for name, values in columns.items() if name != "edit_type" or len(values)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the lists differ in length: {', '.join(f'{n} {name}' for name, n in lengths.items())}")
    return columns


def _filtered(
    columns: Mapping[str, Sequence[Any]],
    scores: Sequence[Mapping[str, Any]],
    least: Mapping[str, float | None],
    log: Callable[..., None],
) -> dict[str, Any]:
    """The columns without the edits whose scores are too low; says how many each threshold turned away."""
    from graphflow.nodes.lib.exemplar_sets import good_enough

    count = len(columns["name"])
    if len(scores) != count:
        raise ValueError(f"there are {len(scores)} scores for {count} edits; expected as many")
    passed = good_enough(scores, least)
    places = [n for n in range(count) if all(verdicts[n] for verdicts in passed.values())]
    turned_away = ", ".join(f"{name} {verdicts.count(False)}" for name, verdicts in passed.items()) or "none"
    log("%d of %d edits kept; too low: %s", len(places), count, turned_away)
    if not places:
        raise ValueError(f"none of {count} edits is good enough; too low: {turned_away}")
    return {name: _Chosen(values, places) if len(values) else [] for name, values in columns.items()}


class FilterPairs(Node, kind="exemplar_set.filter_pairs"):
    """Keep the pairs that show what their captions say: InstructPix2Pix's thresholds on the scores of score.clip.

    A threshold needs its score: clip_text the caption after the edit, clip_direction both captions, clip_image the
    source. `source_scores` are those of the sources with the captions before the edit.
    """

    cache: ClassVar[Literal["auto", "always", "never"]] = "never"

    min_text: float | None = Field(0.2, ge=-1, le=1, description="least clip_text, of source_scores too if given")
    min_image: float | None = Field(0.7, ge=-1, le=1, description="least clip_image: how much of the picture stays")
    min_direction: float | None = Field(0.2, ge=-1, le=1, description="least clip_direction")

    class In(_PairsIn):
        scores: list[Scores]
        source_scores: list[Scores] = []  # noqa: RUF012  ports are values of an instance

    class Out(_Pairs):
        pass

    def run(self, x: In, ctx: Context) -> Out:
        scores = list(x.scores)
        least = {"clip_text": self.min_text, "clip_image": self.min_image, "clip_direction": self.min_direction}
        if x.source_scores:
            if len(x.source_scores) != len(scores):
                raise ValueError(f"there are {len(x.source_scores)} source_scores for {len(scores)} scores")
            scores = [{**a, "source_text": b.get("clip_text")} for a, b in zip(scores, x.source_scores, strict=True)]
            least["source_text"] = self.min_text
        return self.Out(**_filtered(_columns(x, _Pairs), scores, least, ctx.log))


class Combine(Node, kind="exemplar_set.combine"):
    """Pairs that show the same edit become exemplars: one shows it, the picture of another is to be edited.

    The same edit is the same instruction and type. Edits that only one pair shows are left out.
    """

    cache: ClassVar[Literal["auto", "always", "never"]] = "never"

    per_edit: int = Field(2, ge=1, description="at most so many exemplars of one edit")
    default_type: str = Field("object_replacement", description="type of every edit, for sets that don't say it")

    class In(_PairsIn):
        pass

    class Out(_Exemplars):
        pass

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.exemplar_sets import combinations, same_edits

        columns = _columns(x, _Pairs)
        columns["edit_type"] = types = x.edit_type or [self.default_type] * len(x.name)
        groups = same_edits(x.instruction, types)
        if not groups:
            raise ValueError(f"no two of the {len(x.name)} pairs have the same instruction and type of edit")
        found = combinations(groups, self.per_edit)
        ctx.log("%d exemplars of %d edits, from %d pairs", len(found), len(groups), len(x.name))
        shows, edited = [i for i, _, _ in found], [j for _, j, _ in found]
        rest: dict[str, Any] = {name: _Chosen(values, edited) for name, values in columns.items()}
        rest["name"] = [f"{x.name[i]}-{between}" for i, _, between in found]
        return self.Out(exemplar_before=_Chosen(x.source, shows), exemplar_after=_Chosen(x.target, shows), **rest)


class Filter(Node, kind="exemplar_set.filter"):
    """Keep the exemplars whose two pairs change alike: a threshold on score.s_visual of the ground truth."""

    cache: ClassVar[Literal["auto", "always", "never"]] = "never"

    min_s_visual: float | None = Field(0.2, ge=-1, le=1, description="least s_visual")

    class In(_ExemplarsIn):
        scores: list[Scores]

    class Out(_Exemplars):
        pass

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(**_filtered(_columns(x, _Exemplars), x.scores, {"s_visual": self.min_s_visual}, ctx.log))


class Write(Node, kind="exemplar_set.write"):
    """Write exemplars as a folder in ReEdit's layout, which dataset.reedit reads: a folder an edit.

    0_0.png and 0_1.png are the exemplar before and after, 1_0.png the picture to edit, 1_1.png its ground truth, and
    ins.txt the edit in words. Types of other sets are named as ReEdit's nearest; a removal counts as a replacement.
    """

    default_type: str = Field("object_replacement", description="type of every edit, for sets that don't say it")

    class In(_ExemplarsIn):
        pass

    class Out(Ports):
        exemplars: Weights["exemplar_set"]

    def run(self, x: In, ctx: Context) -> Out:
        from graphflow.nodes.lib.exemplar_sets import folder_name, write_edit

        columns, out = _columns(x, _Exemplars), ctx.folder()
        columns["edit_type"] = x.edit_type or [self.default_type] * len(x.name)
        seen: Counter[str] = Counter()
        for number in ctx.steps(range(len(x.name)), total=len(x.name), label="edits"):
            row = {name: values[number] for name, values in columns.items()}
            name = folder_name(row["name"], row["edit_type"])
            seen[name] += 1
            places = {"0_0": "exemplar_before", "0_1": "exemplar_after", "1_0": "source", "1_1": "target"}
            pictures = {place: row[column] for place, column in places.items()}
            where = out / (name if seen[name] == 1 else f"{name}.{seen[name]}")
            write_edit(where, pictures, row["instruction"])
        return self.Out(exemplars=out)
