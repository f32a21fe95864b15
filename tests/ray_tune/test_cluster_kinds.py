"""Which kind of device a study's trials stay on, by what Ray says of nodes; without Ray, and without the devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrstudy.config.means import ResourcesConfig
from lrstudy.errors import InputError
from lrstudy.ray_tune.cluster import Cluster, _Found
from lrstudy.workload.devices import Resources

GPU = Resources("cuda", 4, 0.5)
CACHE = Path()


def node(name: str, cpus: int, gpus: int = 0, kind: str = "") -> _Found:
    return _Found(name, f"host-{name}", {"CPU": cpus, "GPU": gpus}, kind)


class Known(Cluster):
    """A cluster of known nodes, whose devices compute as their kind, or for CPUs as the first letter of the node's name, says."""

    def __init__(self, *found: _Found, limit: int | None = None) -> None:
        super().__init__("auto", limit)
        self._found = found
        self.asked: list[dict[str, str]] = []
        self.coming: tuple[_Found, ...] = ()

    def wait(self) -> None:
        pass

    def _look(self) -> str:
        self._found = (*self._found, *self.coming)
        return ""

    def _ask(self, resources, labels):
        self.asked.append(labels)
        return labels

    def _answer(self, asked, resources):
        (value,) = asked.values() or ("NVIDIA A100-SXM4-80GB",)
        return {"device": resources.device, "device_model": value if resources.device == "cuda" else value[0]}


MIXED = (node("a", 8, 2, "A100"), node("b", 32, 4, "V100"), node("c", 8, 2, "A100"), node("d", 64))


def chosen(cluster: Cluster, config: ResourcesConfig, earlier=None) -> tuple[str, list[tuple[str, int]]]:
    resources = cluster.resources(config)
    measured = cluster.numerics(resources, CACHE, earlier)
    return str(measured["device_model"]), [(one.node_id, one.num_slots) for one in cluster.nodes]


def test_the_kind_with_room_for_most_trials_is_taken():
    assert chosen(Known(*MIXED), ResourcesConfig(gpu=0.5, cpu=4)) == ("V100", [("b", 8)])
    assert chosen(Known(*MIXED), ResourcesConfig(gpu=0.5, cpu=8)) == ("V100", [("b", 4)])


def test_cores_limit_the_trials_of_a_node():
    assert chosen(Known(node("a", 8, 4, "A100")), ResourcesConfig(gpu=0.25, cpu=2)) == ("A100", [("a", 4)])


def test_the_kind_that_the_study_names_is_taken():
    assert chosen(Known(*MIXED), ResourcesConfig(cpu=4, accelerator="A100")) == ("A100", [("a", 2), ("c", 2)])
    with pytest.raises(InputError, match=r"resources\.accelerator: expected GPUs of the kind H100; got A100, V100"):
        Known(*MIXED).resources(ResourcesConfig(accelerator="H100"))


def test_a_study_that_has_begun_stays_on_its_kind_as_long_as_there_is_one():
    began = {"device": "cuda", "device_model": "A100", "precision": "fp32"}
    config = ResourcesConfig(gpu=0.5, cpu=4)
    assert chosen(Known(*MIXED), config, began)[0] == "A100"
    gone = Known(*(one for one in MIXED if one.accelerator != "A100"))
    assert chosen(gone, config, began)[0] == "V100"


def test_cpus_that_compute_alike_are_one_kind():
    nodes = (node("x1", 8), node("y1", 8), node("x2", 8))
    assert chosen(Known(*nodes), ResourcesConfig(cpu=4)) == ("x", [("x1", 2), ("x2", 2)])
    assert chosen(Known(*nodes), ResourcesConfig(cpu=4), {"device": "cpu", "device_model": "y"}) == ("y", [("y1", 2)])


def test_workers_ask_for_the_kind():
    cluster = Known(*MIXED)
    chosen(cluster, ResourcesConfig(gpu=0.5, cpu=4))
    assert cluster.bundle(0.5, 4) == ({"CPU": 4, "GPU": 0.5}, {"ray.io/accelerator-type": "V100"})
    alike = Known(node("x1", 8), node("x2", 8))
    chosen(alike, ResourcesConfig(cpu=4))
    assert alike.bundle(0, 4)[1] == {}, "nodes that join later may be used too"


def test_a_cluster_that_grows_is_asked_for_a_gpu_before_it_has_one():
    growing = Known(node("head", 0), limit=12)
    assert growing.resources(ResourcesConfig(gpu="auto", cpu=4)) == Resources("cuda", 4, 1.0)
    assert growing.num_slots(GPU) == 12
    growing.coming = (node("a", 8, 1, "A100"), node("b", 8, 1, "T4"))
    growing.numerics(GPU, CACHE, None)
    assert growing.asked == [{}]
    assert growing.bundle(0.5, 4)[1] == {"ray.io/accelerator-type": "A100"}, "the kind that came first is kept"
    with pytest.raises(
        InputError, match=r"resources\.gpu: expected GPUs in the Ray cluster at auto; got 1 node without any"
    ):
        Known(node("head", 4)).resources(ResourcesConfig(gpu=1.0))


def test_a_gpu_has_as_many_cores_as_the_poorest_node_gives_it():
    cluster = Known(node("a", 16, 2, "A100"), node("c", 8, 4, "A100"))
    chosen(cluster, ResourcesConfig(gpu=0.5, cpu=1))
    assert cluster.cores_per_gpu() == 2
