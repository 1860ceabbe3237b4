"""Safetensors files are read without torch, and give what torch reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from graphflow.tensors import read_arrays, write_tensors


def test_what_the_system_refuses_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none/a.safetensors"):
        write_tensors({"value": torch.zeros(3)}, tmp_path / "none" / "a.safetensors")


def test_arrays_equal_the_tensors(tmp_path: Path) -> None:
    tensors = {
        "f32": torch.randn(2, 3),
        "f16": torch.randn(4).half(),
        "bf16": torch.randn(2, 2, 2).bfloat16(),
        "i64": torch.arange(5),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    arrays = read_arrays(tmp_path / "a.safetensors")
    assert arrays.keys() == tensors.keys()
    for name, tensor in tensors.items():
        expected = tensor.float().numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()
        assert arrays[name].dtype == expected.dtype
        assert np.array_equal(arrays[name], expected)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="no safetensors"):
        read_arrays(path)
