"""Data sets of edits, as lists of the same length that `map:` takes apart.

The user names the folder of a set (`-i data=DIR`, an input of type Folder); nothing is downloaded. Each set declares
what it has, and only that: a set without ground truth has no `target`. Pictures are decoded one at a time when they
are asked for, and never copied into the store: they are on disk already.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Folder, Image, Mask, Text

if TYPE_CHECKING:
    import PIL.Image

    from graphflow.nodes.lib.datasets.rows import Row


class Pictures(Sequence["PIL.Image.Image"]):
    """A column of pictures. Each is decoded at every access and not kept, so that a thousand need no memory."""

    def __init__(self, pictures: Sequence[Any], grey: bool) -> None:
        self._pictures, self._grey = pictures, grey

    def __len__(self) -> int:
        return len(self._pictures)

    @overload
    def __getitem__(self, index: int) -> PIL.Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> PIL.Image.Image | Pictures:
        if isinstance(index, slice):
            return Pictures(self._pictures[index], self._grey)
        from graphflow.pictures import to_rgb

        image = to_rgb(self._pictures[index].load())
        return image.convert("L") if self._grey else image


class _DataSet(Node):
    """What every set has: rows in a fixed order, of which a stretch can be taken."""

    cache: ClassVar[Literal["auto", "always", "never"]] = "never"

    start: int = Field(0, ge=0, description="number of edits to pass over, counted after the other choices")
    limit: int | None = Field(None, ge=1, description="at most so many edits; all if it is left out")

    class Out(Ports):
        name: list[Text]
        source: list[Image]

    @abstractmethod
    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        """Every row of the set, in the order of its files."""

    def run(self, x: Any, ctx: Context) -> Any:
        from graphflow.nodes.lib.datasets.rows import choose, in_turns

        where = x.folder.name if hasattr(x, "folder") else self.kind
        rows = self.rows(x, ctx.log)
        if getattr(self, "balanced", False):
            rows = in_turns(rows)
        rows = choose(rows, self.start, self.limit, getattr(self, "edit_types", ()), where)
        ctx.log("%s: %d edits", where, len(rows))
        return self.Out(**{name: _column(rows, name, port.type) for name, port in self.outputs().items()})


def _column(rows: Sequence[Row], name: str, port_type: Any) -> Sequence[Any]:
    """The values of a port; none at all where not every row has one."""
    values = [row[name] for row in rows if name in row]
    if len(values) < len(rows):
        return []
    return values if port_type.name == "Text" else Pictures(values, grey=port_type.name == "Mask")


class _OnDisk(_DataSet):
    class In(Ports):
        folder: Folder


class _Typed(Node):
    """A set that says of what type each edit is."""

    same_as_absent: ClassVar[frozenset[str]] = frozenset({"balanced"})

    edit_types: tuple[str, ...] = Field((), description="only edits of these types; all if it is left out")
    balanced: bool = Field(False, description="the edit types take turns, so that a limit takes of each alike")


# --- the sets -------------------------------------------------------------------------------------------------------


class MagicBrush(_OnDisk, kind="dataset.magicbrush"):
    """MagicBrush (Zhang et al. 2023), train or dev as the hub has them (Parquet): masks and ground truth, no captions.

    A session is a chain of edits of one picture; the source of a later turn is the ground truth of the turn before.
    """

    split: Literal["train", "dev"] = Field("dev", description="train has 8,807 edits, dev 528")
    turns: Literal["all", "first", "last"] = Field("all", description="which edits of each session")

    class Out(_OnDisk.Out):
        instruction: list[Text]
        target: list[Image]
        mask: list[Mask]
        session: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.magicbrush import read_parquet

        return read_parquet(x.folder, self.split, self.turns)


class MagicBrushTest(_OnDisk, kind="dataset.magicbrush_test"):
    """MagicBrush's test set, a folder of pictures and JSON files; also dev in that form. It must not be published.

    source_caption and target_caption describe the whole picture; the official CLIP-T compares with
    target_local_caption, which describes what was edited. All turns together are the paper's single-turn setting.
    """

    turns: Literal["all", "first", "last"] = Field("all", description="which edits of each session")

    class Out(_OnDisk.Out):
        instruction: list[Text]
        source_caption: list[Text]
        target_caption: list[Text]
        target_local_caption: list[Text]
        target: list[Image]
        mask: list[Mask]
        session: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.magicbrush import read_folder

        return read_folder(x.folder, self.turns)


class EmuEdit(_OnDisk, _Typed, kind="dataset.emu_edit"):
    """Emu Edit's test set (Sheynin et al. 2023) as the hub has it (Parquet): captions, no ground truth."""

    split: Literal["validation", "test"] = Field("test", description="validation has 2,022 rows, test 3,589")
    bad_captions: bool = Field(
        False, description="also rows whose captions say nothing of the edit: the same twice, empty or a placeholder"
    )

    class Out(_OnDisk.Out):
        instruction: list[Text]
        source_caption: list[Text]
        target_caption: list[Text]
        edit_type: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.emu_edit import read

        return read(x.folder, self.split, self.bad_captions, log)


class PieBench(_OnDisk, _Typed, kind="dataset.pie_bench"):
    """PIE-Bench (Ju et al. 2024): 700 edits of ten types with captions and masks, no ground truth."""

    class Out(_OnDisk.Out):
        instruction: list[Text]
        source_caption: list[Text]
        target_caption: list[Text]
        blended_word: list[Text]
        mask: list[Mask]
        edit_type: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.pie_bench import read

        return read(x.folder)


class TEdBench(_OnDisk, kind="dataset.tedbench"):
    """TEdBench (Kawar et al. 2023): 100 pictures with the caption that each shall have, no ground truth."""

    class Out(_OnDisk.Out):
        target_caption: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.tedbench import read

        return read(x.folder)


class InstructPix2Pix(_OnDisk, kind="dataset.instruct_pix2pix"):
    """InstructPix2Pix's generated pairs (Brooks et al. 2023) as its authors publish them: captions and ground truth.

    An instruction has up to four pairs; exemplar_set.combine makes exemplars of them.
    """

    class Out(_OnDisk.Out):
        instruction: list[Text]
        source_caption: list[Text]
        target_caption: list[Text]
        target: list[Image]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.instruct_pix2pix import read

        return read(x.folder)


class ReEdit(_OnDisk, _Typed, kind="dataset.reedit"):
    """ReEdit's exemplar-based edits (Srivastava et al. 2025): a pair shows an edit to be done to the source.

    `target` is empty when not every chosen edit has ground truth.
    """

    only_with_target: bool = Field(False, description="leave out edits without ground truth (1_1.png)")

    class Out(_OnDisk.Out):
        exemplar_before: list[Image]
        exemplar_after: list[Image]
        instruction: list[Text]
        target: list[Image]
        edit_type: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.reedit import read

        return read(x.folder, self.only_with_target, log)


class GEditBench(_OnDisk, _Typed, kind="dataset.gedit_bench"):
    """GEdit-Bench (Liu et al. 2025) as the hub has it (Parquet): 606 requests of real users in each language."""

    language: Literal["en", "cn"] = Field("en", description="of the requests")
    picture: Literal["input_image", "input_image_raw"] = Field(
        "input_image", description="the picture as the official scorer compares it, or the raw one"
    )
    intersection: bool = Field(False, description="only the requests that every compared model answered")

    class Out(_OnDisk.Out):
        instruction: list[Text]
        edit_type: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.gedit_bench import read

        return read(x.folder, self.language, self.picture, self.intersection)


class ImgEdit(_OnDisk, _Typed, kind="dataset.imgedit"):
    """ImgEdit-Bench (Ye et al. 2025), the basic suite: requests of nine types."""

    index: str = Field("basic_edit.json", min_length=1, description="the JSON file, inside the folder")
    pictures: str = Field("original_images", min_length=1, description="where its pictures lie, inside the folder")

    class Out(_OnDisk.Out):
        instruction: list[Text]
        edit_type: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.imgedit import read

        return read(x.folder, self.index, self.pictures, typed=True)


class ImgEditUGE(_OnDisk, kind="dataset.imgedit_uge"):
    """ImgEdit-Bench (Ye et al. 2025), the understanding-grounding-editing suite: harder requests, without types."""

    index: str = Field("UGE_edit.json", min_length=1, description="the JSON file, inside the folder")
    pictures: str = Field("original_images", min_length=1, description="where its pictures lie, inside the folder")

    class Out(_OnDisk.Out):
        instruction: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.imgedit import read

        return read(x.folder, self.index, self.pictures, typed=False)


class FolderOfEdits(_OnDisk, _Typed, kind="dataset.folder"):
    """Edits of your own: a folder with pictures and a table (CSV or JSON lines), a row an edit.

    The table's columns are the outputs' names, 'source' and 'target' and 'mask' naming files in the folder. Only
    'source' is required; the output of a column that the table lacks is an empty list.
    """

    index: str = Field("", description="the table, inside the folder; left out: the only table there")

    class Out(_OnDisk.Out):
        instruction: list[Text]
        source_caption: list[Text]
        target_caption: list[Text]
        target: list[Image]
        mask: list[Mask]
        edit_type: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.lib.datasets.table import read

        rows = read(x.folder, self.index, log)
        if self.edit_types and "edit_type" not in rows[0]:
            raise ValueError(f"{x.folder.name}: 'edit_types' is given, but the table has no column 'edit_type'")
        return rows


class Pocket(_DataSet, _Typed, kind="dataset.pocket"):
    """The pocket benchmark: 224 held-out edits of all seven types of the pocket world, with exact ground truth.

    The types take turns, so that a limit keeps the balance; `pocket_score.edit` scores a result by the edit's name.
    """

    benchmark: Literal["pocket-64-v1", "pocket-128-v1"] = Field(
        "pocket-128-v1", description="a version fixes the edits for ever; 64: the same at half the side"
    )

    class In(Ports):
        pass

    class Out(_DataSet.Out):
        instruction: list[Text]
        source_caption: list[Text]
        target_caption: list[Text]
        target: list[Image]
        mask: list[Mask]
        edit_type: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.pocket.benchmark import rows

        return rows(self.benchmark)


class PocketExemplars(_DataSet, _Typed, kind="dataset.pocket_exemplars"):
    """The exemplar benchmark: 112 held-out edits shown on a pair, to be done to another picture; exact ground truth.

    The columns of `dataset.reedit` and of `dataset.pocket`; `description` is the true one of the shown edit. The types
    take turns, so that a limit keeps the balance; `pocket_score.edit` scores a result by the edit's name.
    """

    benchmark: Literal["pocket-64-exemplars-v1", "pocket-128-exemplars-v1"] = Field(
        "pocket-128-exemplars-v1",
        description="a version fixes the edits for ever; 64: the same at half the side",
    )

    class In(Ports):
        pass

    class Out(_DataSet.Out):
        exemplar_before: list[Image]
        exemplar_after: list[Image]
        instruction: list[Text]
        description: list[Text]
        source_caption: list[Text]
        target_caption: list[Text]
        target: list[Image]
        mask: list[Mask]
        edit_type: list[Text]

    def rows(self, x: Any, log: Callable[[str], None]) -> list[Row]:
        from graphflow.nodes.pocket.exemplars import rows

        return rows(self.benchmark)
