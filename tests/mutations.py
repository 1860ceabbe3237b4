"""Broken graph files by the thousand: seeds, ways to break them, and the judge of what the static path makes of them.

`tests/test_fuzz.py` runs some hundreds, `benchmarks/fuzz_graphs.py` as many as one likes.
"""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from graphflow.check import check
from graphflow.errors import Diagnostic, InvalidError
from graphflow.models.preset import shipped_presets
from graphflow.spec import load_spec, shipped_graphs

HANGS = 120
"""Seconds after which a file is taken to hang. How long one really takes is measured by the benchmark, not by tests."""

Files = Mapping[str, bytes]
"""A graph with the files that it uses, by name; the first is the graph."""

_USES_PRESET = """graphflow: 1
inputs: {image: {type: Image, default: cat.png}}
models: preset.yaml
nodes:
  prepare: {uses: image.prepare, in: {image: inputs.image}}
  encode: {uses: vae.encode, in: {image: prepare.image, model: models.vae}}
  decode: {uses: vae.decode, in: {latents: encode.latents}}
outputs: {image: decode.image, latents: encode.latents}
"""
_USES_PRESET_OF_MEASURES = """graphflow: 1
inputs: {image: {type: Image, default: cat.png}, text: Text}
models: preset.yaml
nodes:
  score: {uses: score.clip, in: {image: inputs.image, text: inputs.text, model: models.clip}}
outputs: {scores: score.scores}
"""
_OUTER = """graphflow: 1
title: sub-graphs, maps, anchors, and models of its own
x-steps: &steps 3
inputs:
  photos: list[Image]
  requests: {type: "list[Text]", default: [a cat, a dog], doc: what to see}
  photo: {type: Image, default: cat.png}
  request: Text
  seed: {type: int, default: 7}
models:
  extends: preset.yaml
  captioner: {loader: transformers.blip, hub: someone/blip, revision: 0123abc, dtype: float16}
  other_llm: {loader: openai, endpoint: "http://127.0.0.1:1/v1", options: {model: small}}
nodes:
  words: {uses: caption, map: {image: inputs.photos}, with: {max_new_tokens: 20, num_beams: *steps}}
  each:
    uses: parts/inner.yaml
    map: {image: inputs.photos, text: words.text}
    with: {steps: *steps, guidance: 1e-1}
  once: {uses: parts/inner.yaml, in: {image: inputs.photo, text: inputs.request}, with: {steps: 2}}
  pairs:
    uses: captions.before_after
    map: {caption: words.text, instruction: inputs.requests}
    in: {seed: inputs.seed, model: models.other_llm}
  whole: {uses: pix2pix_on_the_fly, map: {image: each.image}, in: {seed: inputs.seed}, with: {steps: 2}}
  direction: {uses: text.direction, in: {before: words.text, after: [once.text, inputs.request]}}
outputs:
  images: whole.image
  inner: each.image
  latents: once.latents
  targets: pairs.target
"""
_INNER = """graphflow: 1
inputs:
  image: Image
  text: {type: Text, default: ''}
  steps: {type: int, default: 50}
  guidance: {type: float, default: 1}
nodes:
  prepare: {uses: image.prepare, in: {image: inputs.image}, with: {fit: pad}}
  encode: {uses: vae.encode, in: {image: prepare.image}}
  cond: {uses: text.encode, in: {text: inputs.text}}
  invert:
    uses: invert.ddim
    in: {latents: encode.latents, cond: cond.cond, num_inference_steps: inputs.steps}
    with: {convention: pix2pix_zero, regularise: true}
  innermost: {uses: ../again.yml, in: {latents: invert.noise, cond: cond.cond}}
outputs: {image: innermost.image, latents: invert.noise, text: inputs.text}
"""
_AGAIN = """graphflow: 1
inputs: {latents: Latents, cond: {type: TextCond}}
nodes:
  edit: {uses: denoise.ddim, in: {noise: inputs.latents, cond: inputs.cond, negative: inputs.cond}}
  decode: {uses: vae.decode, in: {latents: edit.latents}}
outputs: {image: decode.image}
"""


def seeds() -> list[Files]:
    """The shipped graphs, the shipped presets in use, and a graph with sub-graphs, maps, anchors and models."""
    presets = {name: path.read_bytes() for name, path in shipped_presets().items()}
    found: list[Files] = [{"graph.yaml": path.read_bytes()} for path in shipped_graphs().values()]
    for preset in presets.values():
        has_vae = b" vae:" in preset or b"extends:" in preset
        graph = _USES_PRESET if has_vae else _USES_PRESET_OF_MEASURES
        found.append({"graph.yaml": graph.encode(), "preset.yaml": preset})
    parts = {
        "parts/inner.yaml": _INNER.encode(),
        "again.yml": _AGAIN.replace("{latents: inputs", "{noise: inputs").encode(),
    }
    found.append({"graph.yaml": _OUTER.encode(), **parts, "preset.yaml": presets["pocket"]})
    return found


# --- ways to break a file ---------------------------------------------------------------------------------------------

Mutation = Callable[[random.Random, bytes, list[bytes]], bytes]

_TOKEN = re.compile(rb"[\w.\-/]+|[^\w\s]")
_EDGE = re.compile(rb"\b[A-Za-z_]\w*\.[A-Za-z_]\w*\b")
_VALUE = re.compile(rb"(?<=: )[^\s,{}\[\]][^\n,{}\[\]]*")
_SCALARS = [
    "0", "-1", "1", "1.5", "3.0", "1e-4", "1e999", "-.inf", ".nan", "9" * 30, "9" * 5000, "0x" + "f" * 300, "true",
    "null", "~", "''", '""', "12:30:45", "2001-01-01", "x" * 100_000, "a." * 20_000 + "b", "a." + "b" * 50_000, "🦊",
    "e\u0301", "\u202eabc", "\u2028", "\u0085", "\ufeff", "ﬀ.ﬀ", "\u00a0",
    "'\ud7ff'", '"\\0"', '"\\ud800"', '"\\uD83D\\uDE00"',
]  # fmt: skip
_SYNTAX = [
    '"\\x07"', "!!python/object:os.system x", "!!str 3", "!!int '3'", "! x", "&x", "*x", "&x 3", "<<: {a: b}", "? a",
    "- a", "|", "|2", ">-", "%YAML 1.1", "---", "...", "#", "# x", "@", "`", "\t", "{", "}", "[", "]", "{}", "[]",
    "[[]]", "{a: b}", "[a.b, c.d]", "[1, 2, 3]", "{? [a] : b}", ":", ": ", ",", "x-a: &a [*a]",
]  # fmt: skip
_WORDS = [
    "inputs", "models", "outputs", "nodes", "in", "inputs.x", "models.vae", "graphflow: 1", "graphflow: 2", "in: {}",
    "map: {}", "with: {}", "map: {image: inputs.image}", "uses: graph.yaml", "extends: preset.yaml", "__init__",
    "__class__.x", "model_config", "list[Text]", "list[list[Text]]", "list[", "Weights[vae]", "Weights[]",
    "Weights[" + "v" * 1000 + "]", "lib.x", "pocket.x", "..x", "a..b", "os.path", "loaders", "train", "sd15", "pocket",
]  # fmt: skip
_PATHS = [
    "graph.yaml", "parts/inner.yaml", "../again.yml", "preset.yaml", "../../../../../etc/passwd", "/dev/zero.yaml",
    "x/../graph.yaml", "a\\b.yaml", '"\\0.yaml"', "n" * 300 + ".yaml", ".yaml", "parts", ".", "..", "~/x.yaml",
    "file:///x.yaml", "C:\\x.yaml", "train/pocket", "pix2pix_on_the_fly", "prompt_swap",
]  # fmt: skip
_ODD = [*_SCALARS, *_SYNTAX, *_WORDS, *_PATHS]


def _flip(rng: random.Random, text: bytes, words: list[bytes]) -> bytes:
    at = rng.randrange(len(text))
    return text[:at] + bytes([text[at] ^ (1 << rng.randrange(8))]) + text[at + 1 :]


def _cut(rng: random.Random, text: bytes, words: list[bytes]) -> bytes:
    return text[: rng.randrange(len(text))]


def _drop_bytes(rng: random.Random, text: bytes, words: list[bytes]) -> bytes:
    at = rng.randrange(len(text))
    return text[:at] + text[at + rng.randint(1, 20) :]


def _lines(change: Callable[[random.Random, list[bytes]], None]) -> Mutation:
    def mutate(rng: random.Random, text: bytes, words: list[bytes]) -> bytes:
        lines = text.split(b"\n")
        change(rng, lines)
        return b"\n".join(lines)

    mutate.__name__ = change.__name__
    return mutate


def _drop_line(rng: random.Random, lines: list[bytes]) -> None:
    del lines[rng.randrange(len(lines))]


def _repeat_line(rng: random.Random, lines: list[bytes]) -> None:
    at = rng.randrange(len(lines))
    lines[at:at] = [lines[at]] * rng.choice((1, 1, 1, 300))


def _swap_lines(rng: random.Random, lines: list[bytes]) -> None:
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def _move_block(rng: random.Random, lines: list[bytes]) -> None:
    start = rng.randrange(len(lines))
    block = lines[start : start + rng.randint(1, 8)]
    at = rng.randrange(len(lines) + 1)
    lines[at:at] = block


def _indent(rng: random.Random, lines: list[bytes]) -> None:
    at = rng.randrange(len(lines))
    depth = len(lines[at]) - len(lines[at].lstrip(b" "))
    lines[at] = rng.choice((b" ", b" ", b" ", b"\t")) * max(0, depth + rng.randint(-4, 4)) + lines[at].lstrip(b" ")


def _places(pattern: re.Pattern[bytes], new: Callable[[random.Random, bytes, list[bytes]], bytes]) -> Mutation:
    """Replace one match of `pattern` by something else."""

    def mutate(rng: random.Random, text: bytes, words: list[bytes]) -> bytes:
        found = list(pattern.finditer(text))
        if not found:
            return text
        match = rng.choice(found)
        return text[: match.start()] + new(rng, match[0], words) + text[match.end() :]

    mutate.__name__ = new.__name__
    return mutate


def _other_word(rng: random.Random, old: bytes, words: list[bytes]) -> bytes:
    return rng.choice(words)


def _odd_word(rng: random.Random, old: bytes, words: list[bytes]) -> bytes:
    return rng.choice(_ODD).encode("utf-8", "surrogatepass")


def _no_word(rng: random.Random, old: bytes, words: list[bytes]) -> bytes:
    return b""


def _misspelt(rng: random.Random, old: bytes, words: list[bytes]) -> bytes:
    at = rng.randrange(len(old))
    return old[:at] + rng.choice((b"", b"x", old[at : at + 1] * 2)) + old[at + 1 :]


def _nested(rng: random.Random, old: bytes, words: list[bytes]) -> bytes:
    depth = rng.choice((1, 2, 10, 100, 400, 3000))
    opening, closing = rng.choice(((b"[", b"]"), (b"{a: ", b"}"), (b"[", b""), (b"- ", b""), (b"? ", b"")))
    return opening * depth + old + closing * depth


def _aliased(rng: random.Random, old: bytes, words: list[bytes]) -> bytes:
    return rng.choice((b"&s " + old, b"*s", b"*steps", b"&s [*s]", b"&steps " + old))


def _bomb(rng: random.Random, text: bytes, words: list[bytes]) -> bytes:
    lines = [b"x-0: &b0 [a, b, c, d, e, f, g, h]"]
    lines += [b"x-%d: &b%d [%s]" % (i, i, b", ".join([b"*b%d" % (i - 1)] * 8)) for i in range(1, rng.randint(2, 9))]
    return (
        b"\n".join(lines) + b"\n" + text.replace(b": 1\n", b": *b0\n")
        if rng.random() < 0.2
        else b"\n".join([*lines, text])
    )


def _swap_edges(rng: random.Random, text: bytes, words: list[bytes]) -> bytes:
    found = list(_EDGE.finditer(text))
    if len(found) < 2:
        return text
    a, b = sorted(rng.sample(found, 2), key=lambda m: m.start())
    return text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]


def _spliced(rng: random.Random, text: bytes, words: list[bytes]) -> bytes:
    other = b" ".join(rng.sample(words, min(len(words), 30)))
    return text[: rng.randrange(len(text))] + rng.choice((other, text[rng.randrange(len(text)) :]))


MUTATIONS: list[Mutation] = [
    _flip, _cut, _drop_bytes, _bomb, _swap_edges, _swap_edges, _spliced,
    *map(_lines, (_drop_line, _repeat_line, _swap_lines, _move_block, _indent)),
    *(_places(_TOKEN, new) for new in (_other_word, _other_word, _odd_word, _no_word, _misspelt, _nested, _aliased)),
    *(_places(_VALUE, new) for new in (_other_word, _odd_word, _odd_word, _nested, _aliased)),
    *(_places(_EDGE, new) for new in (_other_word, _odd_word, _misspelt)),
]  # fmt: skip


def mutants(seed: int) -> Iterator[tuple[Files, str]]:
    """Endless broken graphs, the same for the same seed; each with the name of the file that was changed."""
    rng = random.Random(seed)
    graphs = seeds()
    words = sorted({word for files in graphs for text in files.values() for word in _TOKEN.findall(text)})
    while True:
        files = dict(rng.choice(graphs))
        name = rng.choice(list(files))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if files[name]:
                files[name] = rng.choice(MUTATIONS)(rng, files[name], words)
        yield files, name


# --- the judge --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What became of a graph: the codes of its diagnostics, none for a valid one, and the seconds of CPU it took."""

    codes: tuple[str, ...]
    seconds: float


def judge(files: Files, folder: Path) -> Verdict:
    """Write the files and take the static path over the first.

    Raises:
        AssertionError: a diagnostic without code or place, or none within `HANGS` seconds.
        Exception: whatever escaped; a file may raise nothing but `InvalidError`.
    """
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    start = time.process_time()
    with _stopped_after(HANGS):
        try:
            found = check(load_spec(folder / next(iter(files)))).warnings
        except InvalidError as error:
            found = error.diagnostics
            assert found, "invalid, but nobody says why"
    seconds = time.process_time() - start
    for diagnostic in found:
        _assert_placed(diagnostic, files, folder)
    return Verdict(tuple(d.code for d in found if d.severity == "error"), seconds)


def _assert_placed(found: Diagnostic, files: Files, folder: Path) -> None:
    assert re.fullmatch(r"GF\d{3}", found.code), found
    assert found.message, found
    assert len(found.message) + len(found.hint) < 2000, f"{found.code} goes on and on: {found.message[:200]}…"
    assert found.mark.line >= 1 and found.mark.column >= 1, found  # noqa: PT018
    for name, text in files.items():
        if found.mark.file == str(folder / name):
            lines = len(re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text.decode("utf-8", "replace")))
            assert found.mark.line <= lines, f"{found}: the file has {lines} lines"
            return
    assert found.mark.file.endswith((".yaml", ".yml")) or found.mark.file in shipped_graphs(), found


@contextmanager
def _stopped_after(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
