"""From plans of real graphs to tasks."""

from __future__ import annotations

from harness import Harness

from graphflow.graph import Place
from graphflow.models.weights import model_key
from graphflow.scheduler.from_plan import PlanTasks, models_of, trained_key
from graphflow.session import open_session
from graphflow.store import Store

MAPPED = """
graphflow: 1
inputs:
  text: {type: Text, default: x}
nodes:
  list: {uses: sample.repeat, in: {text: inputs.text}, with: {times: 3}}
  loud: {uses: sample.shout, map: {text: list.texts}}
  long: {uses: sample.count, map: {text: loud.text}}
outputs: {lengths: long.length}
"""


def test_instances_of_a_list_that_is_not_known_have_no_tasks_yet(store: Store) -> None:
    h = Harness(store, MAPPED)
    session = h.session()
    plan = session.plan()
    assert [t.name for t in PlanTasks(plan, session.graph).all()] == ["list"]


def test_cached_instances_have_no_tasks_and_are_no_needs(store: Store) -> None:
    h = Harness(store, MAPPED)
    h.run()
    session = h.session({"loud.mark": "?"})
    tasks = {t.name: t for t in PlanTasks(session.plan(), session.graph).all()}
    assert list(tasks) == ["loud[0]", "loud[1]", "loud[2]", "long[0]", "long[1]", "long[2]"]
    assert tasks["loud[1]"].needs == ()
    assert tasks["long[1]"].needs == ("loud[1]",)
    assert {t.where for t in tasks.values()} == {"host"}
    assert tasks["long[2]"].seconds > 0, "the time of the earlier run is expected"


def test_the_task_of_an_instance_that_became_known_during_the_run(store: Store) -> None:
    session = Harness(store, MAPPED).session()
    maker = PlanTasks(session.plan(), session.graph)
    task = maker.task(session.graph.nodes["loud"], (1,))
    assert (task.name, task.needs, task.element) == ("loud[1]", ("list",), ("loud", 1))


def test_nodes_with_models_go_to_a_device_and_roles_that_load_the_same_thing_share_a_key(store: Store) -> None:
    session = open_session("pix2pix_on_the_fly", store=store.folder)
    tasks = {t.name: t for t in PlanTasks(session.plan(), session.graph).all()}
    graph = session.graph
    assert tasks["encode"].where == "device"
    assert tasks["encode"].models == tasks["decode"].models == (model_key(graph.nodes["encode"].models["model"]),)
    assert set(tasks["edit"].needs) == {"invert", "source", "direction"}
    sizes = models_of(graph, "float32")
    assert all(sizes[key].bytes > 0 for task in tasks.values() for key in task.models)


def test_trained_models_have_the_key_of_the_place_that_makes_them(store: Store) -> None:
    graph = Harness(store, MAPPED).session().graph
    assert trained_key(graph, Place("loud", "text", (2,))) == "loud[2].text"
    assert trained_key(graph, Place("inputs", "weights")) == "inputs.weights"
