"""Assets are one tenant's, found by their bytes, bounded by a quota, and kept as long as somebody needs them."""

import hashlib
from pathlib import Path

import pytest

from serving.errors import ArtifactMissing, NotFound, WrongState
from serving.jobs.lifecycle import Lifecycle
from serving.store.artifacts import Artifacts
from serving.store.assets import Asset, AssetQuota, Assets, MissingAssets, TooManyAssets
from serving.store.database import Database
from serving.store.jobs import JobStore
from testkit.records import NOW, new_job

MUCH = AssetQuota(files=100, bytes=1 << 20)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts.open(str(tmp_path / "artifacts"))


@pytest.fixture
def assets(database: Database, artifacts: Artifacts) -> Assets:
    return Assets(database, artifacts)


def sent(assets: Assets, content: bytes, *, tenant: str = "ada", at: float = NOW, quota: AssetQuota = MUCH) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    asset = Asset(
        tenant=tenant, sha256=sha256, media_type="image/png", bytes=len(content), width=4, height=2,
        created_at=at, used_at=at,
    )  # fmt: skip
    assets.add(asset, content, quota)
    return sha256


def test_a_file_is_found_by_its_hash_by_its_tenant_alone(assets: Assets) -> None:
    sha256 = sent(assets, b"one")
    assert assets.read("ada", sha256) == b"one"
    assert assets.find("ada", sha256) is not None
    assert assets.find("bob", sha256) is None
    with pytest.raises(ArtifactMissing):
        assets.read("bob", sha256)
    sent(assets, b"one", tenant="bob")
    assets.delete("ada", sha256)
    assert assets.read("bob", sha256) == b"one"


def test_sending_a_file_again_uses_it_anew_and_keeps_one(assets: Assets) -> None:
    sha256 = sent(assets, b"one")
    sent(assets, b"one", at=NOW + 50)
    found = assets.find("ada", sha256)
    assert found is not None
    assert (found.created_at, found.used_at) == (NOW, NOW + 50)
    assert assets.usage("ada") == (1, 3)


def test_a_quota_of_files_and_of_bytes_holds_for_each_tenant(assets: Assets) -> None:
    sent(assets, b"12345", quota=AssetQuota(2, 10))
    with pytest.raises(TooManyAssets, match="10 bytes in all; there are 1 of 5, and this one has 6"):
        sent(assets, b"123456", quota=AssetQuota(2, 10))
    sent(assets, b"abcde", quota=AssetQuota(2, 10))
    with pytest.raises(TooManyAssets, match="may keep 2 assets"):
        sent(assets, b"x", quota=AssetQuota(2, 100))
    sent(assets, b"12345", quota=AssetQuota(2, 10))  # it is there already
    sent(assets, b"123456", tenant="bob", quota=AssetQuota(2, 10))
    assert (assets.usage("ada"), assets.usage()) == ((2, 10), (3, 16))


def test_pages_list_a_tenants_files_by_hash(assets: Assets) -> None:
    hashes = sorted(sent(assets, bytes([k])) for k in range(5))
    sent(assets, b"other", tenant="bob")
    first = assets.list(tenant="ada", limit=3)
    rest = assets.list(tenant="ada", after=first[-1].sha256, limit=3)
    assert [asset.sha256 for asset in (*first, *rest)] == hashes


def test_a_job_that_names_what_is_not_there_is_not_accepted(assets: Assets, database: Database) -> None:
    store, there, other = JobStore(database), sent(assets, b"one"), sent(assets, b"two", tenant="bob")
    job = new_job(tenant="ada")
    with pytest.raises(MissingAssets) as caught:
        store.insert(job, [], actor="ada/laptop", assets=[there, other])
    assert caught.value.missing == (other,)
    assert store.get(job.id) is None
    store.insert(job, [], actor="ada/laptop", assets=[there])
    assert store.get(job.id) is not None


def test_a_file_is_kept_while_a_job_needs_it_and_for_a_while_after(assets: Assets, database: Database) -> None:
    store, lifecycle = JobStore(database), Lifecycle(database)
    used, unused = sent(assets, b"one"), sent(assets, b"two")
    job = store.insert(new_job(NOW + 10, tenant="ada"), [], actor="ada/laptop", assets=[used])
    with pytest.raises(WrongState, match=f"used by job {job.id}"):
        assets.delete("ada", used)
    assert assets.expire(unused_since=NOW + 1000) == 1
    assert [sha256 for sha256 in (used, unused) if assets.find("ada", sha256) is None] == [unused]
    lifecycle.apply(job.id, "cancel", reason="enough", now=NOW + 2000)
    assert assets.expire(unused_since=NOW + 1999) == 0
    assert assets.expire(unused_since=NOW + 2000) == 1
    assert assets.find("ada", used) is None
    with pytest.raises(ArtifactMissing):
        assets.read("ada", used)
    with pytest.raises(NotFound):
        assets.delete("ada", used)


def test_a_job_of_another_tenant_keeps_no_file(assets: Assets, database: Database) -> None:
    sha256 = sent(assets, b"one")
    sent(assets, b"one", tenant="bob")
    JobStore(database).insert(new_job(tenant="bob"), [], actor="bob/laptop", assets=[sha256])
    assert assets.expire(unused_since=NOW + 10) == 1
    assert (assets.find("ada", sha256), assets.find("bob", sha256) is not None) == (None, True)
