"""Series of tensors: a file a timestep, read when it is wanted, stored without being held."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graphflow.codecs import CODECS
from graphflow.errors import DamagedBlobError
from graphflow.series import SeriesWriter, TensorSeries
from graphflow.store import Store

TENSORS = {
    981: {"q": torch.randn(1, 4, 8), "k": torch.randn(1, 4, 8).bfloat16()},
    961: {"q": torch.randn(1, 4, 8)},
    1: {"empty": torch.zeros(0, 3)},
}
SHARED = {"cond": torch.randn(1, 7, 8)}


def write(folder: Path, tensors: dict[int, dict[str, torch.Tensor]] = TENSORS, note: str = "x") -> TensorSeries:
    folder.mkdir(parents=True)
    writer = SeriesWriter(folder)
    for timestep, named in tensors.items():
        writer.add(timestep, named)
    return writer.finish({"note": note}, SHARED)


def test_a_series_comes_back_from_the_store_in_order(tmp_path: Path, store: Store) -> None:
    series = write(tmp_path / "a")
    stored = store.put(series, "series")
    again = store.load(stored)
    assert again.folder != series.folder
    assert list(again) == [981, 961, 1]
    assert again.notes == {"note": "x"}
    assert torch.equal(again.shared["cond"], SHARED["cond"])
    for timestep, named in TENSORS.items():
        assert again[timestep].keys() == named.keys()
        for name, tensor in named.items():
            assert again[timestep][name].dtype == tensor.dtype
            assert torch.equal(again[timestep][name], tensor)
    assert stored.bytes > again.bytes > 0
    assert CODECS["series"].digest(again) == stored.digest
    assert 961 in again
    assert 5 not in again
    with pytest.raises(KeyError):
        again[5]


def test_the_digest_is_of_what_it_holds(tmp_path: Path) -> None:
    digest = CODECS["series"].digest
    series = write(tmp_path / "a")
    assert digest(write(tmp_path / "b")) == digest(series)
    others = [
        write(tmp_path / "note", note="y"),
        write(tmp_path / "order", dict(reversed(TENSORS.items()))),
        write(tmp_path / "value", TENSORS | {961: {"q": TENSORS[961]["q"] + 1}}),
        write(tmp_path / "name", TENSORS | {961: {"k": TENSORS[961]["q"]}}),
        write(tmp_path / "shape", TENSORS | {961: {"q": TENSORS[961]["q"].reshape(4, 8)}}),
    ]
    assert len({digest(series), *map(digest, others)}) == 6


def test_a_damaged_series_is_no_result(tmp_path: Path, store: Store) -> None:
    stored = store.put(write(tmp_path / "a"), "series")
    file = store.path(stored.digest, "series") / "t00961.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(DamagedBlobError, match="truncated or altered"):
        store.load(stored)


def test_a_series_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    series = write(tmp_path / "a")
    (series.folder / "t00961.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks t00961\.safetensors"):
        TensorSeries(series.folder)
    with pytest.raises(ValueError, match="holds no series of tensors"):
        TensorSeries(tmp_path)
    assert "no TensorSeries but dict" in str(CODECS["series"].check({}))


def test_numbers_that_are_none_and_a_timestep_twice_are_refused(tmp_path: Path) -> None:
    writer = SeriesWriter(tmp_path)
    writer.add(1, {"q": torch.zeros(1)})
    with pytest.raises(ValueError, match="timestep 1 was written already"):
        writer.add(1, {"q": torch.zeros(1)})
    with pytest.raises(ValueError, match="t00002: 'q' holds NaN"):
        writer.add(2, {"q": torch.tensor([float("nan")])})


def test_digesting_and_planning_import_no_torch(tmp_path: Path) -> None:
    series = write(tmp_path / "a")
    code = (
        "import sys; from pathlib import Path; from graphflow.codecs import CODECS; codec = CODECS['series'];"
        "print(codec.digest(codec.peek(Path(sys.argv[1]))), 'torch' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, str(series.folder)]
    found = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [CODECS["series"].digest(series), "False"]
