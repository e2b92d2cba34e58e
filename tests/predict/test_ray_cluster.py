"""What each process of a cluster gets, and what is done when one does not start."""

from typing import Any

import pytest

from cxrtool.choices import Device
from cxrtool.cli.command import with_left_out
from cxrtool.errors import CxrError, RequestError
from cxrtool.predict.ray_cluster import Share, _Actors, share_of
from cxrtool.settings import RuntimeSettings

SMALL, LARGE = {"CPU": 4.0, "memory": 1e9}, {"CPU": 10.0}
GPUS = {"CPU": 32.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "settings", "actors", "expected"),
    [
        ([SMALL, LARGE], {}, None, Share(3, 4, 0)),  # 4 on one machine, 4 and 4 on the other
        ([SMALL, LARGE], {"threads": 1}, None, Share(14, 1, 0)),
        ([SMALL, LARGE], {"threads": 5}, None, Share(2, 5, 0)),
        ([SMALL, LARGE], {"threads": 1}, 3, Share(3, 1, 0)),
        ([SMALL, GPUS, {"CPU": 6.0, "GPU": 1.0}], {}, None, Share(5, 6, 1)),
        ([GPUS], {"device": Device.CPU, "threads": 8}, None, Share(4, 8, 0)),
        ([{"CPU": 1.0, "GPU": 2.0}], {}, 1, Share(1, 1, 1)),
        ([{"memory": 1.0}, SMALL], {}, None, Share(1, 4, 0)),  # a head that takes no work
    ],
)
def test_processes_fill_the_cluster(
    nodes: list[dict[str, float]], settings: dict[str, Any], actors: int | None, expected: Share
) -> None:
    assert share_of(nodes, RuntimeSettings(**settings), actors) == expected


@pytest.mark.parametrize("nodes", [[], [{"memory": 1.0}], [SMALL]])
def test_a_cluster_without_room_is_refused(nodes: list[dict[str, float]]) -> None:
    with pytest.raises(RequestError, match="no machine of the cluster has 5 free processors"):
        share_of(nodes, RuntimeSettings(threads=5), None)


def test_a_cluster_without_a_gpu_is_refused_if_one_was_asked_for() -> None:
    with pytest.raises(RequestError, match="no machine of the cluster has a GPU"):
        share_of([SMALL], RuntimeSettings(device=Device.CUDA), None)


def test_a_process_computes_with_the_processors_that_it_has() -> None:
    settings = Share(2, 3, 0).settings(RuntimeSettings())
    assert (settings.threads, settings.workers) == (3, 3)
    settings = Share(2, 3, 0).settings(RuntimeSettings(threads=2, workers=7))
    assert (settings.threads, settings.workers) == (2, 7)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("folder --ray", "folder --ray auto"),
        ("--ray folder --csv a", "--ray auto folder --csv a"),
        ("--ray --csv a folder", "--ray auto --csv a folder"),
        ("--ray local folder", "--ray local folder"),
        ("--ray 10.0.0.1:6379 folder", "--ray 10.0.0.1:6379 folder"),
        ("--ray ray://head:10001 folder", "--ray ray://head:10001 folder"),
        ("--ray [::1]:6379", "--ray [::1]:6379"),
        ("--ray ../local", "--ray auto ../local"),
        ("-- --ray folder", "-- --ray folder"),
    ],
)
def test_the_address_may_be_left_out(given: str, expected: str) -> None:
    assert with_left_out(given.split()) == expected.split()


class BrokenRay:
    """A cluster on which every actor dies at once."""

    class exceptions:  # noqa: N801 - ray's name
        RayError = RuntimeError

    def __init__(self) -> None:
        self.started = 0

    def put(self, value: object) -> object:
        return value

    def remote(self, **resources: object) -> Any:
        def decorate(cls: type) -> Any:
            class Handle:
                @staticmethod
                def remote(task: object) -> Any:
                    self.started += 1
                    actor = Handle()
                    actor.ready = Handle()  # type: ignore[attr-defined]
                    actor.ready.remote = object  # type: ignore[attr-defined]
                    return actor

            return Handle

        return decorate

    def wait(self, references: list[object], **more: object) -> tuple[list[object], list[object]]:
        return references[:1], references[1:]

    def get(self, reference: object) -> None:
        raise RuntimeError("The actor died\nModuleNotFoundError: No module named 'cxrtool'\n")


def test_machines_without_cxrtool_are_named_as_the_reason() -> None:
    ray = BrokenRay()
    actors = _Actors(ray, None, Share(2, 1, 0), lambda: None)  # type: ignore[arg-type]
    with pytest.raises(CxrError, match=r"no process starts on the cluster .ModuleNotFoundError: No module named"):
        list(actors.blocks(iter([(range(1), ["a.jpg"])])))
    assert ray.started == 2 + 9
