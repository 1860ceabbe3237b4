"""A run leaves nothing behind in the process: no circle of objects keeps its store open."""

from __future__ import annotations

import gc
import weakref

from harness import Harness

from graphflow.store import Store

GRAPH = """
graphflow: 1
inputs: {text: {type: Text, default: hello}}
nodes:
  shout: {uses: sample.shout, in: {text: inputs.text}}
  rep: {uses: sample.repeat, in: {text: shout.text}}
  each: {uses: sample.shout, map: {text: rep.texts}}
outputs: {texts: each.text}
"""


def test_a_finished_run_goes_without_the_garbage_collector(store: Store) -> None:
    harness = Harness(store, GRAPH)
    gc.collect()
    gc.disable()
    try:
        done = harness.run()
        runner = weakref.ref(done.runner)
        values = weakref.ref(done.runner._values)
        del done
        assert runner() is None
        assert values() is None
    finally:
        gc.enable()
