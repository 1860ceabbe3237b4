import json
import multiprocessing
import os
from dataclasses import replace

import pytest
import torch
from line_fit import Deadly, fitted_weight, line, loss_of, only_the_first_fails, resumed_weight

from graphflow.nodes.pocket.training.loop import Loop, all_steps, digest_of, fit, in_processes

LOOP = Loop(count=6, batch_size=4, learning_rate=0.05, warmup=1, ema=0.9, bfloat16=False, save_seconds=0)


class Interrupted(Exception):
    pass


def only(count):
    def steps(numbers):
        for number in numbers:
            if number == count:
                raise Interrupted
            yield number

    return steps


def test_the_loss_falls():
    model = line()
    before = [p.clone() for p in model.parameters()]
    losses = []

    def watched(step):
        losses.append(loss_of(model)(step))
        return losses[-1]

    fit(model, watched, Loop(count=60, batch_size=16, learning_rate=0.05, warmup=1), None, all_steps, print)
    assert losses[-1] < losses[0] / 4
    assert not torch.equal(before[0], model.weight)


def test_a_run_that_was_cut_off_ends_with_the_parameters_of_one_that_was_not(tmp_path):
    whole = line()
    fit(whole, loss_of(whole), LOOP, tmp_path / "whole", all_steps, print)

    first, second = line(), line()
    with pytest.raises(Interrupted):
        fit(first, loss_of(first), LOOP, tmp_path / "cut", only(3), print)
    said = []
    fit(second, loss_of(second), LOOP, tmp_path / "cut", all_steps, said.append)

    assert said[0] == "resumed at step 3"
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_a_checkpoint_is_safetensors_and_json_and_only_the_newest_is_kept(tmp_path):
    model = line()
    fit(model, loss_of(model), LOOP, tmp_path, all_steps, print)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.json", "step-6.safetensors"]
    last = json.loads((tmp_path / "last.json").read_text())
    assert last == {"done": 6, "file": "step-6.safetensors", "sha256": digest_of(tmp_path / "step-6.safetensors")}


@pytest.mark.parametrize("file", ["last.json", "step-6.safetensors"])
def test_a_damaged_checkpoint_is_not_resumed_from(tmp_path, file):
    good = line()
    fit(good, loss_of(good), LOOP, None, all_steps, print)
    first = line()
    fit(first, loss_of(first), LOOP, tmp_path, all_steps, print)
    path = tmp_path / file
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    again = line()
    fit(again, loss_of(again), LOOP, tmp_path, all_steps, print)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), good.parameters(), strict=True))


def test_a_finished_run_is_not_trained_further(tmp_path):
    model, again = line(), line()
    fit(model, loss_of(model), LOOP, tmp_path, all_steps, print)
    fit(again, loss_of(again), LOOP, tmp_path, only(0), print)
    assert torch.equal(model.weight, again.weight)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (9, 1.0), (60, 1.0), (80, 0.5), (100, 0.0)])
def test_the_learning_rate_warms_up_stays_flat_and_falls(step, rate):
    assert Loop(count=100, batch_size=1, learning_rate=1.0, warmup=10, flat=0.6).rate_at(step) == pytest.approx(rate)


def test_a_process_that_dies_before_it_begins_is_not_waited_for():
    with pytest.raises(RuntimeError, match="died before it began"):
        in_processes(fitted_weight, 2, all_steps, print, deadly=Deadly())


def test_two_processes_agree_on_parameters_that_neither_has_alone():
    alone = fitted_weight(all_steps, print)
    together = in_processes(fitted_weight, 2, all_steps, print)
    assert torch.isfinite(together).all()
    assert not torch.equal(alone, together)


def test_processes_have_processes_that_draw_for_them(tmp_path):
    here, elsewhere = (
        in_processes(resumed_weight, 2, all_steps, print, checkpoint=tmp_path / str(drawers), drawers=drawers)
        for drawers in (0, 1)
    )
    assert torch.equal(here, elsewhere)


def test_a_failure_ends_the_other_processes():
    with pytest.raises(OSError, match="the disk is full"):
        in_processes(only_the_first_fails, 2, all_steps, print)
    assert not multiprocessing.active_children()


def test_two_processes_that_were_cut_off_end_with_the_parameters_of_two_that_were_not(tmp_path):
    whole = in_processes(resumed_weight, 2, all_steps, print, checkpoint=tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(Interrupted):
        in_processes(resumed_weight, 2, only(6), print, checkpoint=cut)
    said = []
    assert torch.equal(in_processes(resumed_weight, 2, all_steps, said.append, checkpoint=cut), whole)
    assert said[0] == "resumed at step 4", "the averagings are after steps 1, 4, 7 and 8"
    assert sorted(file.name for file in cut.iterdir()) == [
        "last.json",
        "step-8-rank-1.safetensors",
        "step-8.safetensors",
    ]


def test_a_checkpoint_of_another_number_of_processes_is_not_resumed_from(tmp_path):
    in_processes(resumed_weight, 2, all_steps, print, checkpoint=tmp_path)
    said = []
    resumed_weight(all_steps, said.append, tmp_path)
    assert not said


def test_batches_that_others_draw_ahead_are_the_same_batches(tmp_path):
    def draw(step):
        x = torch.rand(step.batch_size, 3, generator=step.torch_rng)
        return x, x.sum(1, keepdim=True) + step.rng.random()

    def fitted(checkpoint=None, steps=all_steps, **how):
        model = line()

        def loss(step):
            x, y = step.drawn
            return (model(x) - y).square().mean()

        fit(model, loss, replace(LOOP, **how), checkpoint, steps, print, draw)
        return model.weight.detach().clone()

    here, elsewhere = fitted(drawers=0), fitted(drawers=2)
    assert torch.equal(here, elsewhere)
    with pytest.raises(Interrupted):
        fitted(tmp_path, only(3), drawers=2)
    assert torch.equal(fitted(tmp_path, drawers=2), here)


def test_an_accelerator_has_its_batches_drawn_by_the_other_cores():
    assert LOOP.drawing == 0
    assert replace(LOOP, device="cuda").drawing >= 1
    assert replace(LOOP, device="cuda", drawers=3).drawing == 3


def test_cores_are_counted_where_the_system_knows_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert replace(LOOP, device="mps").drawing >= 1
