"""`longtake cluster`: what it prints, its exit codes, and that it costs the other commands nothing."""

import importlib.metadata
import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from cluster.commands import printing
from cluster.commands.cli import _show as show
from cluster.commands.cli import app
from cluster.commands.manual_drain import find_ray_nodes, wait_for_drain
from cluster.contract.pools_and_nodes import NodeState
from cluster.crd import render_pool_crd
from cluster.errors import FarmUnavailable, UserMistake
from tests.cluster.controller.farm_double import KEY, node_state
from tests.cluster.controller.world import SPOT_TAINT, BreakableWorld, World

pytest_plugins = ["tests.cluster.fixtures"]


def run(world: World, *arguments: str, key: str = KEY) -> Result:
    places = ["--kubeconfig", str(world.kubeconfig), "--namespace", world.namespace]
    environment = {"LONGTAKE_URL": world.farm.url, "LONGTAKE_API_KEY": key, "COLUMNS": "200"}
    return CliRunner(env=environment).invoke(app, [*arguments, *places], catch_exceptions=False)


def test_status_shows_pools_nodes_and_drains(world: World) -> None:
    world.add_render_pool()
    gpus: dict[str, Any] = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.count": "4"}
    world.add_node("a", gangs=("wan-a-0",), **gpus)
    world.add_node("b")
    world.signal("a", taints=[SPOT_TAINT])
    found = run(world, "status", "--json")
    assert found.exit_code == 0, found.output
    shown = json.loads(found.stdout)
    (pool,) = shown["pools"]
    assert (pool["pool"], pool["gangs_ready"], pool["gangs_wanted"]) == ("wan", 1, 1)
    assert {node["node"]: (node["gpus"], node["pools"]) for node in shown["nodes"]}.items() >= {
        world.node_name("a"): (4, ["wan"]),
        world.node_name("b"): (0, []),
    }.items()
    (drain,) = [one for one in shown["drains"] if one["node"].startswith(world.namespace)]
    assert (drain["node"], drain["signals"], drain["asked_until"]) == (world.node_name("a"), [SPOT_TAINT["key"]], None)
    table = run(world, "status")
    assert "NVIDIA-L4" in table.stdout
    assert SPOT_TAINT["key"] in table.stdout


def test_status_tells_a_pod_whose_ray_node_is_dead_from_one_that_starts(world: World) -> None:
    dead = world.add_node("a", gangs=("wan-a-0",))
    world.farm.change_node(dead, state="dead", gangs=())
    world.add_node("b")
    world.farm.nodes.pop(next(id for id, node in world.farm.nodes.items() if node.name == world.node_name("b")))
    shown = json.loads(run(world, "status", "--json").stdout)["nodes"]
    states = {node["node"]: (node["state"], node["ray_node"]) for node in shown}
    assert states == {world.node_name("a"): ("dead", dead), world.node_name("b"): ("starting", None)}


def test_status_without_a_farm_shows_the_rest(world: World) -> None:
    world.add_render_pool()
    world.add_node("a")
    world.farm.stop()
    found = run(world, "status")
    assert found.exit_code == 0
    assert "nothing of the farm: the farm at" in found.stderr
    assert world.node_name("a") in found.stdout
    assert "wan" in found.stdout


def test_drain_by_the_name_of_a_kubernetes_node(world: World) -> None:
    ray = world.add_node("a", gangs=("wan-a-0",))
    found = run(world, "drain", world.node_name("a"), "--deadline", "60", "--reason", "new disk", "--no-wait")
    assert found.exit_code == 0, found.output
    ((node, request),) = world.farm.drains
    assert (node, request.cause, request.reason, request.deadline_s) == (ray, "operator", "new disk", 60.0)


def test_drain_waits_until_nothing_is_left(world: World) -> None:
    world.add_node("a")
    found = run(world, "drain", world.node_name("a"))
    assert found.exit_code == 0
    assert "longtake: drained" in found.stderr


def test_a_name_that_nothing_has_is_told_with_the_nearest(world: World) -> None:
    world.add_node("a", gangs=("wan-a-0",))
    wrong = world.node_name("a").replace("take", "tkae")
    found = run(world, "drain", wrong)
    assert found.exit_code == 2
    told = f"NODE: no Ray node is on or called {wrong!r}; did you mean {world.node_name('a')!r}?"
    assert told in found.stderr
    assert world.farm.drains == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--deadline", "0"], "deadline"),
        (["--reason", ""], "--reason"),
        (["--reason", "x" * 1001], "--reason"),
    ],
)
def test_wrong_options_of_drain_are_the_users_mistake(world: World, arguments: list[str], words: str) -> None:
    world.add_node("a")
    found = run(world, "drain", world.node_name("a"), *arguments)
    assert found.exit_code == 2
    assert words in found.stderr
    assert world.farm.drains == []


def test_a_wrong_key_and_a_farm_that_is_away_have_their_own_exit_codes(
    world: World,
) -> None:
    world.add_node("a")
    found = run(world, "drain", world.node_name("a"), key="wrong")
    assert (found.exit_code, found.stderr) == (2, "longtake: an API key is needed\n")
    world.farm.stop()
    found = run(world, "drain", world.node_name("a"))
    assert found.exit_code == 1
    assert "does not answer" in found.stderr


def test_a_kubeconfig_that_is_none_is_told_without_a_traceback(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["status", "--kubeconfig", str(tmp_path / "none")], catch_exceptions=False)
    assert found.exit_code == 2
    assert "longtake: kubeconfig" in found.stderr


def test_preflight_fails_with_exit_code_one_and_prints_fixes(breakable_world: BreakableWorld) -> None:
    world = breakable_world  # a real cluster may have what preflight is to miss
    found = run(world, "preflight")
    assert found.exit_code == 1
    assert "fail KubeRay CRD: not installed" in found.stdout
    assert "helm install kuberay-operator" in found.stdout
    findings = json.loads(run(world, "preflight", "--json").stdout)
    assert {"name", "state", "found", "fix"} == set(findings[0])


def test_crd_prints_what_kubectl_can_apply() -> None:
    found = CliRunner().invoke(app, ["crd"], catch_exceptions=False)
    assert yaml.safe_load(found.stdout) == render_pool_crd()


def nodes() -> list[NodeState]:
    return [node_state("a", address="10.0.0.1", gangs=("wan-a-0",)), node_state("h", address="10.0.0.9")]


def pod(name: str, *, ip: str, kind: str = "worker") -> dict[str, object]:
    meta = {"name": name, "labels": {"ray.io/node-type": kind}}
    return {"metadata": meta, "spec": {"nodeName": f"k-{name}"}, "status": {"podIP": ip}}


PODS = [pod("a", ip="10.0.0.1"), pod("h", ip="10.0.0.9", kind="head")]


@pytest.mark.parametrize("name", ["k-a", "a", "id-a", "10.0.0.1"])
def test_a_node_may_be_named_in_any_way_that_people_know(name: str) -> None:
    assert [one.id for one in find_ray_nodes(name, PODS, nodes())] == ["id-a"]


def test_the_node_of_rays_head_is_refused() -> None:
    with pytest.raises(UserMistake, match="Ray's head runs on k-h"):
        find_ray_nodes("k-h", PODS, nodes())


class Emptying:
    """A farm whose node has one gang less with every look, and that is away for one of them."""

    def __init__(self, gangs: int) -> None:
        self.gangs = gangs
        self.looks = 0

    def nodes(self) -> tuple[NodeState, ...]:
        self.looks += 1
        if self.looks == 2:
            raise FarmUnavailable("the farm does not answer in time")
        left = tuple(f"wan-{n}-0" for n in range(max(0, self.gangs - self.looks)))
        return (node_state("a", address="10.0.0.1", gangs=left, state="draining"),)


def test_waiting_tells_how_it_goes_and_ends_when_the_node_is_empty() -> None:
    lines: list[str] = []
    done = wait_for_drain(
        Emptying(4), nodes()[:1], within_s=60, poll_s=1, report=lines.append, clock=lambda: 0.0, sleep=lambda _: None
    )
    assert done
    assert lines == [
        "a: 3 gangs, 3 calls, 0 timeline hosts left",
        "the farm does not answer in time",
        "a: 1 gangs, 1 calls, 0 timeline hosts left",
        "drained",
    ]


def test_waiting_has_an_end() -> None:
    now = iter(range(100))
    lines: list[str] = []
    done = wait_for_drain(
        Emptying(1000),
        nodes()[:1],
        within_s=5,
        poll_s=1,
        report=lines.append,
        clock=lambda: next(now),
        sleep=lambda _: None,
    )
    assert not done
    assert lines[-1] == "not empty after 5 s"


def test_the_commands_cost_the_others_no_heavy_import() -> None:
    heavy = {"kubernetes", "httpx", "yaml", "rich.table"}
    program = f"import sys, cluster.commands.cli; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


class Point(importlib.metadata.EntryPoint):
    """An entry point that loads without an installed package."""

    def load(self) -> typer.Typer:
        if self.value == "broken":
            raise ImportError("no module named broken")
        return app


def test_longtake_mounts_the_group_and_survives_one_that_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    from serving.cli import commands

    before = list(commands.app.registered_groups)
    try:
        commands.mount_groups(
            [Point("broken", "broken", "longtake.commands"), Point("mounted", "x", "longtake.commands")]
        )
        found = CliRunner().invoke(commands.app, ["mounted", "crd"], catch_exceptions=False)
    finally:
        commands.app.registered_groups[:] = before
    assert found.exit_code == 0
    assert "renderpools.longtake.dev" in found.stdout
    assert "longtake: no commands of broken: no module named broken" in capsys.readouterr().err


def test_nothing_that_others_wrote_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J\x9b31m\n\u202ered"
    printing.print_line(hostile)
    printing.print_json({"a": hostile})
    printing.tell(hostile)
    keys = ["pool", "message", "gangs"]
    show({"pools": [dict.fromkeys(keys[:2], hostile) | {"gangs": [hostile]}], "nodes": [], "drains": []})
    told = capsys.readouterr()
    assert json.loads(told.out.splitlines()[2].strip().removeprefix('"a": ')) == hostile
    assert not {letter for letter in told.out + told.err if unicodedata.category(letter) in ("Cc", "Cf")} - {"\n"}
