"""What is shown of a run: every node ends in a line, live or plain; nothing when nothing is wanted."""

from __future__ import annotations

import io
import re
import threading
from typing import Any

import pytest
from rich.console import Console

from graphflow.cli.live import RichProgress
from graphflow.cli.progress import PlainProgress, Progress, Quiet, progress
from graphflow.events import (
    Event,
    Logged,
    ModelLoaded,
    ModelLoading,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeSkipped,
    NodeStarted,
    RunFinished,
    RunStarted,
)

T0 = 1000.0
RUN: list[Event] = [
    RunStarted(
        graph="edit", nodes={"prepare": "cached", "caption": "cached", "edit": "run", "decode": "maybe"}, time=T0
    ),
    NodeFinished(node="prepare", how="cached", time=T0),
    NodeFinished(node="caption", how="cached", time=T0),
    NodeStarted(node="edit", kind="denoise.ddim", device="cpu", time=T0),
    ModelLoaded(
        role="denoiser", name="pocket/weights/denoiser", seconds=0.5, device="cpu", stage="host", bytes=2**25, time=T0
    ),
    NodeProgress(node="edit", step=0, total=50, label="denoise", time=T0),
    Logged(node="edit", message="guidance is high", time=T0),
    NodeProgress(node="edit", step=50, total=50, label="denoise", time=T0 + 4),
    NodeFinished(node="edit", how="ran", seconds=4.25, time=T0 + 4),
    NodeStarted(node="decode", kind="vae.decode", time=T0 + 4),
    NodeFinished(node="decode", how="ran", seconds=0.031, time=T0 + 4),
    RunFinished(status="done", seconds=4.5, time=T0 + 5),
]
FAILED: list[Event] = [
    RunStarted(graph="edit", nodes={"edit": "run"}),
    NodeStarted(node="edit", kind="denoise.ddim"),
    NodeFailed(node="edit", message="RuntimeError: out of luck"),
    RunFinished(status="failed", seconds=1.0),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def play(display: Progress, events: list[Event]) -> None:
    with display:
        for event in events:
            display(event)


def plain(events: list[Event]) -> str:
    stream = io.StringIO()
    play(PlainProgress(stream), events)
    return stream.getvalue()


def live(events: list[Event]) -> str:
    """What stays on the screen of a terminal, without colours."""
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    play(RichProgress(stream, console), events)
    return on_screen(stream.getvalue())


def on_screen(text: str) -> str:
    """The lines that a terminal would show in the end: carriage returns, line erasing and cursor-up are obeyed."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|[^\x1b]", text):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + 1 :]
            column += 1
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def test_plain_lines() -> None:
    assert plain(RUN) == (
        "edit: 4 nodes, 2 cached\n"
        "[1/4] prepare: cached\n"
        "[2/4] caption: cached\n"
        "       loaded denoiser pocket/weights/denoiser, 32.0 MiB in 0.50 s\n"
        "       edit: guidance is high\n"
        "[3/4] edit: 4.25 s\n"
        "[4/4] decode: 31 ms\n"
        "done in 4.50 s: 2 computed, 2 cached\n"
        "1 load of 32.0 MiB · 4.25 s on cpu\n"
    )


def test_live_ticks_stay_and_bars_vanish() -> None:
    assert live(RUN) == (
        "• prepare, caption  cached\n"
        "    loaded denoiser  pocket/weights/denoiser, 32.0 MiB in 0.50 s\n"
        "    guidance is high  edit\n"
        "✓ edit  4.25 s\n"
        "✓ decode  31 ms\n"
        "● done in 4.50 s: 2 computed, 2 cached\n"
        "    1 load of 32.0 MiB · 4.25 s on cpu\n"
    )


@pytest.mark.parametrize("show", [plain, live])
def test_a_failure_names_node_and_reason(show: Any) -> None:
    text = show(FAILED)
    assert re.search(r"edit.*RuntimeError: out of luck", text)
    assert "failed in 1.00 s" in text


def test_a_running_node_shows_step_speed_and_label() -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with RichProgress(stream, console) as display:
        for event in RUN[:6]:
            display(event)
        for step in (10, 20):
            display._updated.clear()  # as if a tenth of a second had passed
            display(NodeProgress(node="edit", step=step, total=50, label="denoise"))
        console.print(display._render())
    text = on_screen(stream.getvalue())
    assert re.search(r"edit .*20/50 · [\d.]+ it/s · .* left · denoise", text)
    assert re.search(r"2/4 nodes · \d+:\d\d", text)


def test_steps_that_nobody_could_see_cost_no_update(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    display = RichProgress(stream, Console(file=stream, force_terminal=True))
    updates: list[int] = []
    monkeypatch.setattr(display._bars, "update", lambda task, completed, **_: updates.append(completed))
    monkeypatch.setattr("graphflow.cli.live.time.monotonic", lambda: 5.0)
    display(NodeStarted(node="edit", kind="k"))
    for step in range(1001):
        display(NodeProgress(node="edit", step=step, total=1000))
    assert updates == [0, 1000]


def test_a_second_loop_of_a_node_begins_at_zero() -> None:
    stream = Terminal()
    display = RichProgress(stream, Console(file=stream, force_terminal=True))
    display(NodeStarted(node="train", kind="k"))
    for step in (0, 50):
        display(NodeProgress(node="train", step=step, total=50))
    display._updated.clear()
    display(NodeProgress(node="train", step=0, total=80))
    task = display._bars.tasks[0]
    assert (task.completed, task.total, task.finished) == (0, 80, False)


def test_a_long_node_reports_now_and_then_in_a_log() -> None:
    steps: list[Event] = [
        NodeProgress(node="train", step=i, total=100, label="loss 0.1", time=T0 + i) for i in range(100)
    ]
    text = plain([NodeStarted(node="train", kind="train.vae", time=T0), *steps])
    assert text == "".join(f"       train {i}/100 loss 0.1\n" for i in (30, 60, 90))


def test_many_cached_nodes_share_a_line() -> None:
    names = {f"n{i}": "cached" for i in range(100)}
    events: list[Event] = [RunStarted(graph="g", nodes=names)]
    events += [NodeFinished(node=n, how="cached") for n in names]
    text = live([*events, RunFinished(status="done", seconds=0.05)])
    assert text == "• n0, n1, n2, n3, n4, n5 and 94 more  cached\n● done in 50 ms: 100 cached\n"


def mapped(count: int, seconds: float = 0.1) -> list[Event]:
    """A node before, `count` instances of which the first two are cached and the last fails, and what needs them."""
    names = [f"each[{i}]/caption" for i in range(count)]
    below = [f"each[{i}]/count" for i in range(count)]
    events: list[Event] = [RunStarted(graph="g", nodes=dict.fromkeys(["load", *names, *below], "run"), time=T0)]
    events += [NodeStarted(node="load", kind="k"), NodeFinished(node="load", how="ran", seconds=1.0, time=T0)]
    now = T0
    for i, name in enumerate(names):
        now += seconds
        if i < 2:
            events.append(NodeFinished(node=name, how="cached", time=now))
            continue
        events.append(NodeStarted(node=name, kind="caption", time=now - seconds))
        if i < count - 1:
            events.append(NodeFinished(node=name, how="ran", seconds=seconds, time=now))
        else:
            events.append(NodeFailed(node=name, message="boom", time=now))
    events += [NodeFinished(node=n, how="ran", seconds=0.01, time=now) for n in below[:-1]]
    events.append(NodeSkipped(node=below[-1], reason=f"needs {names[-1]}, which has no result", time=now))
    return [*events, RunFinished(status="failed", seconds=3.0, time=now)]


def test_instances_of_a_mapped_node_share_a_line_in_a_log() -> None:
    assert plain(mapped(6)) == (
        "g: 13 nodes, 0 cached\n"
        "[ 1/13] load: 1.00 s\n"
        "[ 7/13] each[5]/caption: FAILED: boom\n"
        "[ 7/13] each[0…4]/caption: 3 computed in 0.30 s, 2 cached\n"
        "[13/13] each[0…5]/count: 5 computed in 50 ms, 1 not run\n"
        "failed in 3.00 s: 9 computed, 2 cached, 1 failed, 1 not run\n"
    )


def test_a_long_map_tells_now_and_then_how_far_it_is() -> None:
    lines = plain(mapped(8, seconds=1.5)).splitlines()
    assert lines[2:5] == [
        "[ 4/17] each[0…2]/caption: 1 computed in 1.50 s, 2 cached",
        "[ 6/17] each[3, 4]/caption: 2 computed in 3.00 s",
        "[ 8/17] each[5, 6]/caption: 2 computed in 3.00 s",
    ]


def test_instances_of_a_mapped_node_share_a_line_on_a_terminal() -> None:
    assert live(mapped(6)) == (
        "✓ load  1.00 s\n"
        "✗ each[5]/caption  boom\n"
        "✓ each[0…4]/caption  3 computed in 0.30 s, 2 cached\n"
        "✓ each[0…5]/count  5 computed in 50 ms, 1 not run\n"
        "● failed in 3.00 s: 9 computed, 2 cached, 1 failed, 1 not run\n"
    )


def test_a_mapped_node_has_a_bar_that_counts_its_instances() -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with RichProgress(stream, console) as display:
        for event in mapped(6)[:8]:
            display(event)
        console.print(display._render())
    text = on_screen(stream.getvalue())
    assert re.search(r"each\[…\]/caption .* 3/6", text)
    assert re.search(r"each\[3\]/caption ", text)
    assert "4/13 nodes" in text


@pytest.mark.parametrize("show", [plain, live])
def test_a_node_that_can_not_run_says_what_it_needs(show: Any) -> None:
    text = show([RunStarted(graph="g", nodes={"a": "run"}), NodeSkipped(node="a", reason="needs b")])
    assert re.search(r"a:?  ?not run: needs b", text)


def test_a_list_that_is_not_known_yet_is_counted_as_it_comes() -> None:
    events: list[Event] = [RunStarted(graph="g", nodes={"rep": "run", "shout[…]": "maybe", "join": "maybe"}, time=T0)]
    events += [NodeFinished(node=n, how="ran", seconds=0.01, time=T0) for n in ("rep", "shout[0]", "shout[1]", "join")]
    text = plain([*events, RunFinished(status="done", seconds=1.0, time=T0)])
    assert text == (
        "g: 3 nodes, 0 cached\n[1/3+] rep: 10 ms\n[4/4+] shout[0, 1]: 2 computed in 20 ms\n[4/4+] join: 10 ms\n"
        "done in 1.00 s: 4 computed\n"
    )


@pytest.mark.parametrize("show", [plain, live])
def test_a_message_can_neither_move_the_cursor_nor_be_markup(show: Any) -> None:
    text = show([RunStarted(graph="g", nodes={"a": "run"}), Logged(node="a", message="\x1b[2J[bold]x[/bold]")])
    assert "\ufffd[2J[bold]x[/bold]" in text


def test_the_display_fits_the_stream() -> None:
    assert type(progress(quiet=True, stream=Terminal())) is Quiet
    assert isinstance(progress(quiet=False, stream=io.StringIO()), PlainProgress)
    assert isinstance(progress(quiet=False, stream=Terminal()), RichProgress)


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    play(progress(quiet=True), RUN)
    out, err = capsys.readouterr()
    assert out == err == ""


def test_quiet_prints_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    display = progress(quiet=True)
    display(Logged(node="", message="warning: the disk is full"))
    display(Logged(node="a", message="waits for another process"))
    assert capsys.readouterr() == ("", "warning: the disk is full\n")


def test_events_may_come_from_many_threads() -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    display = RichProgress(stream, console)
    names = [f"n{i}" for i in range(8)]

    def work(name: str) -> None:
        display(NodeStarted(node=name, kind="k"))
        for step in range(200):
            display(NodeProgress(node=name, step=step, total=200))
        display(NodeFinished(node=name, how="ran", seconds=1.0))

    with display:
        display(RunStarted(graph="g", nodes=dict.fromkeys(names, "run")))
        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        display(RunFinished(status="done", seconds=1.0))
    lines = on_screen(stream.getvalue()).splitlines()
    assert sorted(lines[:-1]) == [f"✓ {name}  1.00 s" for name in names]
    assert lines[-1] == "● done in 1.00 s: 8 computed"


def test_the_terminal_is_left_usable_after_an_error() -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=80)
    display = RichProgress(stream, console)
    with pytest.raises(KeyboardInterrupt):
        interrupted(display)
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")  # the cursor is shown again
    assert "prepare" in on_screen(stream.getvalue())


def interrupted(display: RichProgress) -> None:
    with display:
        display(RUN[0])
        display(RUN[1])
        raise KeyboardInterrupt


def load(stage: Any, model: str = "unet", device: str = "cuda:0", seconds: float = 1.0, gib: int = 3) -> list[Event]:
    fields: dict[str, Any] = {"role": "denoiser", "name": model, "device": device, "bytes": gib * 2**30, "stage": stage}
    return [ModelLoading(**fields), ModelLoaded(seconds=seconds, **fields)]


SWAPS: list[Event] = [
    RunStarted(graph="g", nodes={"a": "run", "fit": "run"}),
    *load("host", seconds=2.0),
    *load("device", seconds=0.5),
    NodeStarted(node="fit", kind="k", device="host"),
    NodeFinished(node="fit", how="ran", seconds=9.0),
    NodeStarted(node="a", kind="k", device="cuda:0"),
    NodeFinished(node="a", how="ran", seconds=3.0, peak=2**30),
    *load("device", seconds=0.5),
    RunFinished(status="done", seconds=5.0),
]


def test_a_model_is_told_once_with_its_size_and_the_whole_way_and_loads_are_counted() -> None:
    assert plain(SWAPS) == (
        "g: 2 nodes, 0 cached\n"
        "       loaded denoiser unet, 3.0 GiB onto cuda:0 in 2.50 s\n"
        "[1/2] fit: 9.00 s\n"
        "[2/2] a: 3.00 s\n"
        "done in 5.00 s: 2 computed\n"
        "2 loads of 6.0 GiB · peak 1.0 GiB beside the weights · 3.00 s on cuda:0\n"
    )
    assert live(SWAPS) == (
        "    loaded denoiser  unet, 3.0 GiB onto cuda:0 in 2.50 s\n"
        "✓ fit  9.00 s\n"
        "✓ a  3.00 s\n"
        "● done in 5.00 s: 2 computed\n"
        "    2 loads of 6.0 GiB · peak 1.0 GiB beside the weights · 3.00 s on cuda:0\n"
    )


@pytest.mark.parametrize(
    ("events", "line"),
    [(load("host")[:1], r"loading denoiser .*3\.0 GiB from disk"),
     (load("device")[:1], r"loading denoiser .*3\.0 GiB onto cuda:0")],
)  # fmt: skip
def test_a_load_is_shown_while_it_lasts(events: list[Event], line: str) -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with RichProgress(stream, console) as display:
        for event in [SWAPS[0], *events]:
            display(event)
        console.print(display._render())
        assert re.search(line, on_screen(stream.getvalue()))
        for event in SWAPS[1:5]:
            display(event)
        assert display._bars.tasks == []


def test_a_load_that_failed_leaves_no_bar_when_it_is_tried_again() -> None:
    stream = Terminal()
    display = RichProgress(stream, Console(file=stream, force_terminal=True, width=100, color_system=None))
    for event in (*load("host")[:1], *load("host")):
        display(event)
    assert display._bars.tasks == []


def test_a_run_in_which_nothing_computes_says_that_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("graphflow.cli.live.time.monotonic", lambda: now[0])
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    display = RichProgress(stream, console)

    def waits() -> bool:
        with console.capture() as captured:
            console.print(display._render())
        return "waiting" in captured.get()

    display(SWAPS[0])
    assert not waits()
    now[0] += 2
    assert waits()
    display(NodeStarted(node="a", kind="k", device="cuda:0"))
    assert not waits()
    display(NodeFinished(node="a", how="ran", seconds=1.0))
    assert not waits()
    now[0] += 2
    assert waits()
    display(load("host")[0])
    assert not waits()


def test_a_cached_run_says_nothing_of_devices() -> None:
    text = plain([RunStarted(graph="g", nodes={"a": "cached"}), NodeFinished(node="a", how="cached"),
                  RunFinished(status="done", seconds=0.1)])  # fmt: skip
    assert text.splitlines()[-1] == "done in 0.10 s: 1 cached"
