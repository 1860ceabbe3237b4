"""Data sets of a few small pictures, written in the layout in which each set is published."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (12, 8)
COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")


def colour(number: int) -> Image.Image:
    """A plain picture; the number says which colour."""
    return Image.new("RGB", SIZE, COLOURS[number % len(COLOURS)])


def save(image: Image.Image, path: Path) -> Path:
    """Write a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def write(path: Path, data: Any) -> Path:
    """Write text, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return path


def cell(image: Image.Image, name: str = "x.png") -> dict[str, Any]:
    """A picture as the hub's image type stores it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": name}


def cut_out(number: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """The picture with its left half cut out, as MagicBrush's masks are."""
    image = colour(number).resize(size).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    return image


def parquet(folder: Path, split: str, rows: list[dict[str, Any]], shards: int = 1, group: int = 1000) -> None:
    """Rows as `data/<split>-0000n-of-0000m-<hash>.parquet`."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    (folder / "data").mkdir(parents=True, exist_ok=True)
    each = -(-len(rows) // shards)
    for shard in range(shards):
        table = pa.Table.from_pylist(rows[shard * each : (shard + 1) * each])
        name = f"{split}-{shard:05d}-of-{shards:05d}-0123456789abcdef.parquet"
        pq.write_table(table, folder / "data" / name, row_group_size=group)


def magicbrush_rows() -> list[dict[str, Any]]:
    """Three turns of one session, one of another."""
    turns = [("139", 1), ("139", 2), ("139", 3), ("30", 1)]
    return [
        {
            "img_id": session,
            "turn_index": turn,
            "source_img": cell(colour(n)),
            "mask_img": cell(cut_out(n, (24, 16))),
            "instruction": f"edit {n}",
            "target_img": cell(colour(n + 1)),
        }
        for n, (session, turn) in enumerate(turns)
    ]


def magicbrush_parquet(folder: Path) -> Path:
    """The hub's form, dev in two files."""
    parquet(folder, "dev", magicbrush_rows(), shards=2)
    return folder


def magicbrush_test(folder: Path) -> Path:
    """The folder of the test set."""
    sessions: dict[str, list[dict[str, str]]] = {}
    whole: dict[str, dict[str, str]] = {}
    local: dict[str, dict[str, str]] = {}
    for session, turns in (("139", 2), ("30", 1)):
        names = [f"{session}-input.png", *(f"{session}-output{turn}.png" for turn in range(1, turns + 1))]
        for number, name in enumerate(names):
            save(colour(number), folder / "images" / session / name)
        for turn in range(1, turns + 1):
            save(cut_out(turn), folder / "images" / session / f"{session}-mask{turn}.png")
        sessions[session] = [
            {
                "input": names[turn - 1],
                "mask": f"{session}-mask{turn}.png",
                "output": names[turn],
                "instruction": f"edit {session} {turn}",
            }
            for turn in range(1, turns + 1)
        ]
        whole[session] = {name: f"whole {name}" for name in names}
        local[session] = {name: f"local {name}" for name in names[1:]}
    write(folder / "edit_sessions.json", sessions)
    write(folder / "global_descriptions.json", whole)
    write(folder / "local_descriptions.json", local)
    return folder


def emu_rows() -> list[dict[str, Any]]:
    """Two good rows, and one with each of the faults of captions."""
    captions = [
        ("a dog", "a dog in the snow"),
        ("a cat", "A  Cat"),
        ("a car", "a red car"),
        ("a train station in city", "a train station in city at night"),
        ("", "a house"),
    ]
    tasks = ("background", "global", "local", "style", "add")
    return [
        {
            "instruction": f"edit {n}",
            "image": cell(colour(n)),
            "task": tasks[n],
            "split": "test",
            "idx": 10 + n,
            "hash": f"{n:032x}",
            "input_caption": before,
            "output_caption": after,
        }
        for n, (before, after) in enumerate(captions)
    ]


def emu_edit(folder: Path) -> Path:
    """The test split of Emu Edit."""
    parquet(folder, "test", emu_rows())
    return folder


def pie_entry(**changes: Any) -> dict[str, Any]:
    """An annotation of PIE-Bench."""
    return {
        "image_path": "1_change_object_80/1_artificial/1_animal/111000000000.jpg",
        "original_prompt": "a [cat] on a  bench",
        "editing_prompt": "a [dog] on a  bench",
        "editing_instruction": "turn the cat into a dog",
        "editing_type_id": "1",
        "blended_word": "cat dog",
        "mask": [513, 3, 1025, 3],
    } | changes


def pie_bench(folder: Path, **changes: Any) -> Path:
    """Two edits of PIE-Bench; `changes` are those of the first."""
    second = pie_entry(image_path="0_random_140/000000000000.jpg", editing_type_id=0, blended_word="", mask=[])
    entries = {"111000000000": pie_entry(**changes), "000000000000": second}
    for entry in (pie_entry(), second):
        save(Image.new("RGB", (512, 512), "red"), folder / "annotation_images" / entry["image_path"])
    write(folder / "mapping_file.json", entries)
    return folder


def tedbench(folder: Path) -> Path:
    """Pictures that differ in their suffix only, and an edit that stands twice."""
    for number, name in enumerate(("bird.jpeg", "bird.png")):
        save(colour(number), folder / "originals" / name)
    edits = [
        ("bird.jpeg", "A bird eating a fish."),
        ("bird.png", "A bird eating a fish."),
        ("bird.png", "A flying bird"),
    ]
    write(folder / "input_list.json", [{"img_name": n, "target_text": t} for n, t in (*edits, edits[0])])
    return folder


def instruct_pix2pix(folder: Path) -> Path:
    """Two instructions, the first with two pairs."""
    for number, (name, seeds) in enumerate((("0000000", ["11", "12"]), ("0000001", ["7"]))):
        for place, seed in enumerate(seeds):
            for side in (0, 1):
                save(colour(2 * place + side + number), folder / name / f"{seed}_{side}.jpg")
        write(folder / name / "prompt.json", {"input": "a field", "edit": f"edit {number}", "output": "a red field"})
    write(folder / "seeds.json", [["0000000", ["11", "12"]], ["0000001", ["7"]]])
    return folder


def reedit(folder: Path) -> Path:
    """Two exemplar edits, the first with ground truth."""
    for number, name in enumerate(("add_glasses2-21", "sor_cat")):
        stems = ("0_0", "0_1", "1_0", "1_1") if number == 0 else ("0_0", "0_1", "1_0")
        for place, stem in enumerate((*stems, "concat")):
            save(colour(place), folder / name / f"{stem}.png")
        write(folder / name / "ins.txt", f"do edit {number}\n")
    return folder


def gedit_rows() -> list[dict[str, Any]]:
    """Two requests in both languages; one of the rows calls Chinese by its other code."""
    rows = []
    for task, key in (("subject-add", "k1"), ("color_alter", "k2")):
        for language, says in (("en", "paint it"), ("zh" if key == "k2" else "cn", "上色")):
            rows.append(
                {
                    "task_type": task,
                    "key": key,
                    "instruction": f"{says} {key}",
                    "instruction_language": language,
                    "input_image": cell(colour(0)),
                    "input_image_raw": cell(colour(1)),
                    "Intersection_exist": key == "k2",
                }
            )
    return rows


def gedit_bench(folder: Path) -> Path:
    """GEdit-Bench, its one split."""
    parquet(folder, "train", gedit_rows())
    return folder


def imgedit(folder: Path) -> Path:
    """Both suites of ImgEdit-Bench."""
    save(colour(0), folder / "original_images" / "animal" / "1.jpg")
    save(colour(1), folder / "original_images" / "2.jpg")
    basic = {
        "1082": {"id": "animal/1.jpg", "prompt": "Change the shell. ", "edit_type": "alter"},
        "673": {"id": "2.jpg", "prompt": "Make it a woodcut.", "edit_type": "style"},
    }
    write(folder / "basic_edit.json", basic)
    write(folder / "UGE_edit.json", {"1": {"id": "2.jpg", "prompt": "Remove the slice."}})
    return folder


def own_table(folder: Path, table: str = "", name: str = "edits.csv") -> Path:
    """A folder with pictures a.png to c.png, a mask, and a table."""
    for number, stem in enumerate("abc"):
        save(colour(number), folder / "pictures" / f"{stem}.png")
    save(Image.new("L", SIZE, 255), folder / "mask.png")
    text = table or (
        "source,instruction,source_caption,target_caption,target,mask,edit_type\n"
        'pictures/a.png,"make it, please, green",a red field,a green field,pictures/b.png,mask.png,colour\n'
        "pictures/b.png,make it blue,a green field,a blue field,pictures/c.png,mask.png,colour\n"
        "pictures/c.png,make it art,a blue field,art,pictures/a.png,mask.png,style\n"
    )
    write(folder / name, text)
    return folder
