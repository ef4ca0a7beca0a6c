"""Pools and nodes over HTTP: what the cluster's controller reads, terms that outlive a restart, drains."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.contract.pools_and_nodes import NodeState, PoolState, PoolTerms
from serving.config.farm import PoolConfig, ScalingConfig
from serving.config.pool_terms import TERMS, read_terms
from tests.serving.api.api_double import ApiDouble, running

POOLS = (
    PoolConfig(name="scaled", min_gangs=0, max_gangs=4, scaling=ScalingConfig(), spot="avoid"),
    PoolConfig(name="fixed", max_gangs=2, gangs=2),
)
DEMAND = {
    "measured_at": 1.0, "backlog_gpu_s": 60.0, "gpus_per_gang": 1, "calls_ready": 5, "calls_running": 1,
    "oldest_wait_s": 2.0, "required_gangs": 0.5, "due_slack_s": None,
}  # fmt: skip
SUPPLY = {"ready": 1, "idle": 0, "starting": 2, "draining": 0, "cold_start_s": 30.0}
DECISION = {"gangs": 3, "reason": "3 gangs: because", "decided_at": 2.0}
DRAIN = {"cause": "spot", "reason": "the cloud takes it back", "deadline_s": 100.0}


def node(name: str, state: Any = "alive") -> NodeState:
    return NodeState(
        id=name * 8, address="10.0.0.1", name=name, labels={"zone": "a"}, state=state, gangs=("default-x-0",),
        timeline_hosts=(), calls=1,
    )  # fmt: skip


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path, auth="on", pools=POOLS) as double:
        double.live.there = [node("abcdef0"), node("abcdef9"), node("head"), node("gone", "dead")]
        yield double


def pool(api: ApiDouble, name: str = "scaled", *, tenant: str = "admin") -> dict[str, Any]:
    found = api.http.get("/v1/pools", headers=api.key(tenant)).json()["data"]
    return next(one for one in found if one["name"] == name)


def put(api: ApiDouble, name: str, **terms: Any) -> Any:
    return api.http.put(f"/v1/pools/{name}/terms", json=terms, headers=api.key("admin"))


def test_a_pool_is_what_the_controller_reads_with_a_director_and_without(
    api: ApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"name": "scaled", "gangs_ready": 1, "demand": DEMAND, "supply": SUPPLY, "decision": DECISION}
    monkeypatch.setattr(api.live, "pools", lambda: [said])
    found = pool(api)
    state = PoolState.model_validate(found)
    assert (state.gpus_per_rank, state.terms.max_gangs, state.spot_applied) == (0, 4, "avoid")
    assert state.supply is not None
    assert state.supply.starting == 2
    assert state.decision is not None
    assert state.decision.reason == "3 gangs: because"
    assert found["live"] == {"name": "scaled", "gangs_ready": 1}, "what is beside it is not told twice"
    monkeypatch.undo()
    api.live.away = True
    assert PoolState.model_validate(pool(api)).demand is None
    assert pool(api)["live"] is None


def test_processes_and_nodes_of_a_pool_are_for_administrators(api: ApiDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    gangs = [{"gang": "scaled-0", "pids": [1, 2], "node": "ab"}]
    said = {"name": "scaled", "gangs_ready": 1, "gangs": gangs, "demand": DEMAND, "supply": SUPPLY}
    monkeypatch.setattr(api.live, "pools", lambda: [said])
    assert pool(api)["live"]["gangs"] == gangs
    assert pool(api, tenant="studio")["live"] == {"name": "scaled", "gangs_ready": 1}


def test_terms_are_kept_in_the_store_and_the_director_is_told(api: ApiDouble) -> None:
    pokes = api.live.pokes
    answer = put(api, "scaled", max_gangs=9, mode="external", replicas=3)
    assert answer.status_code == 200, answer.text
    terms = PoolTerms(max_gangs=9, mode="external", replicas=3)
    assert PoolTerms.model_validate(answer.json()["terms"]) == terms
    assert answer.json()["spot_applied"] == "avoid", "that of the terms comes with the next deployment"
    assert read_terms(api.services.config, api.services.jobs.recall_all(TERMS))["scaled"] == terms
    assert pool(api)["terms"]["replicas"] == 3
    from tests.serving.api.api_double import wait_until

    wait_until(lambda: api.live.pokes > pokes)


def test_who_changed_terms_and_drained_nodes_is_in_the_audit_log_once(api: ApiDouble) -> None:
    for _ in range(2):
        assert put(api, "scaled", max_gangs=9).status_code == 200
        drained = api.http.post(f"/v1/nodes/{'abcdef0' * 8}/drain", json=DRAIN, headers=api.key("admin"))
        assert drained.status_code == 200, drained.text
    log = api.http.get("/v1/audit", headers=api.key("admin")).json()["data"]
    assert sorted(entry["action"] for entry in log) == ["drain_node", "set_terms"]
    assert all("admin" in entry["actor"] for entry in log)


@pytest.mark.parametrize(
    ("terms", "path", "words"),
    [
        ({"min_gangs": 3, "max_gangs": 2}, "body", "max_gangs must be at least"),
        ({"max_gangs": 0}, "body", "max_gangs must be at least 1"),
        ({"max_gangs": "9"}, "max_gangs", "whole number"),
        ({"mode": "natve"}, "mode", "'native' or 'external'"),
        ({"max_gang": 9}, "max_gang", "not known here"),
        ({"max_gangs": 100_000}, "max_gangs", "2048"),
    ],
)
def test_terms_that_make_no_sense_are_refused(api: ApiDouble, terms: dict[str, Any], path: str, words: str) -> None:
    answer = put(api, "scaled", **terms)
    assert answer.status_code == 422
    [problem] = answer.json()["problems"]
    assert problem["path"] == path
    assert words in problem["message"]
    assert pool(api)["terms"]["max_gangs"] == 4


def test_an_unknown_pool_is_answered_with_the_nearest(api: ApiDouble) -> None:
    answer = put(api, "scald", max_gangs=1)
    assert answer.status_code == 404
    assert answer.json()["problems"][0]["nearest"] == "scaled"


def test_a_pool_of_a_fixed_size_has_no_terms_to_set(api: ApiDouble) -> None:
    own = pool(api, "fixed")["terms"]
    assert put(api, "fixed", **own).status_code == 200, "what changes nothing is no mistake"
    answer = put(api, "fixed", max_gangs=5)
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
    assert "scaling" in answer.json()["detail"]


def test_nodes_and_terms_are_for_administrators(api: ApiDouble) -> None:
    headers = api.key("studio")
    assert api.http.get("/v1/nodes", headers=headers).status_code == 403
    assert api.http.post("/v1/nodes/x/drain", json=DRAIN, headers=headers).status_code == 403
    assert api.http.put("/v1/pools/scaled/terms", json={}, headers=headers).status_code == 403


def test_nodes_are_listed_and_drained(api: ApiDouble) -> None:
    admin = api.key("admin")
    listed = api.http.get("/v1/nodes", headers=admin).json()["data"]
    assert [NodeState.model_validate(one) for one in listed] == api.live.there
    target = "abcdef0" * 8
    assert api.http.post(f"/v1/nodes/{target}/drain", json=DRAIN, headers=admin).json()["id"] == target
    assert api.live.drains == {target: 100.0}


def test_an_unknown_node_is_answered_with_the_nearest_and_the_head_stays(api: ApiDouble) -> None:
    admin = api.key("admin")
    wrong = api.http.post(f"/v1/nodes/{('abcdef0' * 8)[:-1]}1/drain", json=DRAIN, headers=admin)
    assert wrong.status_code == 404
    assert f"did you mean {'abcdef0' * 8}" in wrong.json()["detail"]
    head = api.http.post(f"/v1/nodes/{'head' * 8}/drain", json=DRAIN, headers=admin)
    assert (head.status_code, head.json()["code"]) == (409, "wrong_state")
    assert api.live.drains == {}


@pytest.mark.parametrize(
    "change", [{"deadline_s": 0}, {"deadline_s": True}, {"deadline_s": 1e9}, {"cause": "boredom"}, {"reason": ""}]
)
def test_a_drain_that_makes_no_sense_is_refused(api: ApiDouble, change: dict[str, Any]) -> None:
    answer = api.http.post(f"/v1/nodes/{'abcdef0' * 8}/drain", json={**DRAIN, **change}, headers=api.key("admin"))
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["path"] == next(iter(change))


def test_without_a_director_nodes_cannot_be_had(api: ApiDouble) -> None:
    api.live.away = True
    answer = api.http.get("/v1/nodes", headers=api.key("admin"))
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
