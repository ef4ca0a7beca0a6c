"""How a farm is deployed on a cluster: from its file, with the terms of the store, on a database brought up to date."""

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from serving.config.farm import load_config
from serving.config.pool_terms import TERMS
from serving.errors import UserError
from serving.settings import CONTROL_RESOURCE
from serving.store.database import open_database
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys
from testkit.farm_process import LONGTAKE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""Ray Serve's own, of when it is imported."""

FARM = """
pools:
  - {{name: scaled, min_gangs: 0, max_gangs: 4, scaling: {{drain_within_s: 60}}, node_labels: {{zone: a}}}}
  - {{name: fixed, gangs: 2, max_gangs: 2, gang_shape: auto}}
store_url: sqlite:///{folder}/farm.db
artifacts_url: {folder}/artifacts
"""


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    file = tmp_path / "farm.yaml"
    file.write_text(FARM.format(folder=tmp_path))
    return file


def deploy(args: dict[str, Any]) -> Any:
    """The application that Serve would run."""
    from serving.app import deploy

    return deploy(args)


def renderer(application: Any, pool: str) -> Any:
    """The deployment of a pool's gangs."""
    parts = application._bound_deployment.init_args
    return next(part._bound_deployment for part in parts if part._bound_deployment.name == f"Renderer-{pool}")


def test_a_farm_is_deployed_from_its_file_and_the_variables(farm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_POOLS__0__SPOT", "avoid")
    application = deploy({"config": str(farm), "revision": "7"})
    scaled, fixed = renderer(application, "scaled"), renderer(application, "fixed")
    autoscaling = scaled._deployment_config.autoscaling_config
    assert (autoscaling.min_replicas, autoscaling.initial_replicas) == (0, None), "what is there stays"
    assert autoscaling.policy.policy_kwargs == {"pool": "scaled"}, "terms and targets may change, and no gang goes"
    selectors = scaled._replica_config.placement_group_bundle_label_selector
    assert selectors == [{"zone": "a", "ray.io/market-type": "!spot"}] * 2, "the leader too"
    assert fixed._deployment_config.autoscaling_config is None
    assert fixed._deployment_config.num_replicas == 2
    assert not fixed._replica_config.placement_group_bundle_label_selector
    assert fixed.init_args == (
        {
            "name": "fixed",
            "model": "pocket",
            "gang_shape": "1",
            "gpus_per_rank": 0,
            "ranks_per_node": None,
            "drain_s": 60.0,
        },
    ), "auto is settled"


def test_what_is_no_gang_stays_on_nodes_that_are_not_taken_away(farm: Path) -> None:
    application = deploy({"config": str(farm)})
    parts = [application, *application._bound_deployment.init_args]
    light = [part._bound_deployment for part in parts if "Renderer" not in part._bound_deployment.name]
    assert {part.name for part in light} == {"Api", "Encoder", "Decoder"}
    assert all(CONTROL_RESOURCE in part._replica_config.ray_actor_options["resources"] for part in light)


def test_what_terms_say_of_spot_comes_with_the_next_deployment(farm: Path) -> None:
    def selector() -> Any:
        selectors = renderer(deploy({"config": str(farm)}), "scaled")._replica_config
        return selectors.placement_group_bundle_label_selector[0]

    assert selector() == {"zone": "a"}
    database = open_database(load_config(farm, {}).store_url)
    JobStore(database).learn(TERMS, "scaled", {"max_gangs": 2, "spot": "only"}, now=1.0)
    database.close()
    assert selector() == {"zone": "a", "ray.io/market-type": "spot"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"confg": "x"}, "did you mean 'config'"),
        ({}, "args.config: must be the path"),
        ({"config": 3}, "args.config: must be the path"),
        ({"config": "/nowhere/farm.yaml"}, "cannot be read"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(args: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        deploy(args)


# ---------------------------------------------------------------------------------------------- longtake migrate


def migrate(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("LONGTAKE_")}
    command = [LONGTAKE, "migrate", *arguments]
    return subprocess.run(command, env={**own, **variables}, capture_output=True, text=True, timeout=120, check=False)


def test_migrate_makes_the_tables_once_and_says_their_version(farm: Path, tmp_path: Path) -> None:
    home = {"LONGTAKE_HOME": str(tmp_path / "home")}
    first = migrate("--config", str(farm), **home)
    assert first.returncode == 0, first.stderr
    again = migrate("--config", str(farm), "--json", **home)
    step = json.loads(again.stdout)["schema"]
    assert first.stdout == f"the database is at schema {step}\n"
    database = open_database(load_config(farm, {}).store_url)
    assert database.schema_version() == step
    database.close()


def test_several_migrations_at_once_do_it_once(database_url: str) -> None:
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: done.append(migrate(LONGTAKE_STORE_URL=database_url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    assert len({one.stdout for one in done}) == 1


def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'farm.db'}"
    database = open_database(url)
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    refused = migrate(LONGTAKE_STORE_URL=url)
    assert refused.returncode == 1
    assert "newer Longtake" in refused.stderr


def test_a_database_that_is_not_there_is_a_fault_and_a_wrong_url_a_mistake() -> None:
    away = migrate(LONGTAKE_STORE_URL="postgresql://nobody@127.0.0.1:9/none")
    assert (away.returncode, "does not answer" in away.stderr) == (1, True), away.stderr
    assert migrate(LONGTAKE_STORE_URL="mysql://x").returncode == 2


def test_pools_can_be_applications_of_their_own_so_that_the_rest_may_change_beneath_them(farm: Path) -> None:
    from serving.app import build_front, build_pool

    config = load_config(farm, {"LONGTAKE_HOME": str(farm.parent)})
    front = build_front(config.as_json())
    names = [part._bound_deployment.name for part in front._bound_deployment.init_args]
    assert names == ["Encoder", "Decoder"]
    scaled, whole = config.pools[0], renderer(deploy({"config": str(farm)}), "scaled")
    args = {**scaled.for_gangs(), "spot": scaled.spot, "node_labels": scaled.node_labels, "scaling": {}}
    alone = build_pool(args)._bound_deployment
    assert (alone.name, alone.init_args) == (whole.name, whole.init_args)
    for option in ("placement_group_bundles", "placement_group_bundle_label_selector", "ray_actor_options"):
        assert getattr(alone._replica_config, option) == getattr(whole._replica_config, option)
    assert alone._deployment_config == whole._deployment_config


def test_a_migration_makes_a_key_known_only_where_it_is_told_to(tmp_path: Path) -> None:
    secret = "lt_0a1b_" + "7" * 64
    store = {"LONGTAKE_HOME": str(tmp_path), "LONGTAKE_API_KEY": secret}
    quiet = migrate("--json", **store)
    assert json.loads(quiet.stdout)["admin_key"] is None, quiet.stderr
    told = [migrate("--admin-key", **store) for _ in range(2)]
    assert [done.returncode for done in told] == [0, 0], told[0].stderr
    assert told[1].stdout.splitlines()[-1] == "key_0a1b is an administrator's key"
    assert secret not in told[1].stdout
    database = open_database(f"sqlite:///{tmp_path}/farm.db")
    found = ApiKeys(database).find(secret)
    database.close()
    assert found is not None
    assert found.tenant == "admin"


@pytest.mark.parametrize(("key", "said"), [("", "LONGTAKE_API_KEY is not set"), ("short", "must be written lt_<id>_")])
def test_a_key_that_cannot_be_made_known_fails_the_migration(tmp_path: Path, key: str, said: str) -> None:
    done = migrate("--admin-key", LONGTAKE_HOME=str(tmp_path), LONGTAKE_API_KEY=key)
    assert done.returncode == 2
    assert said in done.stderr
