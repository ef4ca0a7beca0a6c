"""A key that an installation brings along: known from then on, and never by accident."""

import pytest

from serving.errors import UserError
from serving.store.database import Database
from serving.store.keys import ApiKeys

SECRET = "lt_0a1b2c3d4e5f_" + "7" * 64


def adopt(database: Database, secret: str) -> str:
    return ApiKeys(database).adopt(secret, tenant="admin", name="installation", now=1000.0).id


def test_a_key_that_was_made_elsewhere_is_found_like_any_other(database: Database) -> None:
    assert adopt(database, SECRET) == "key_0a1b2c3d4e5f"
    found = ApiKeys(database).find(SECRET)
    assert found is not None
    assert (found.tenant, found.name, found.created_at) == ("admin", "installation", 1000.0)


def test_a_second_time_changes_nothing(database: Database) -> None:
    adopt(database, SECRET)
    ApiKeys(database).adopt(SECRET, tenant="somebody", name="else", now=2000.0)
    [key] = ApiKeys(database).list()
    assert (key.tenant, key.created_at) == ("admin", 1000.0)


@pytest.mark.parametrize(
    "secret",
    ["", "password", "lt_abc", "lt__" + "7" * 64, "lt_a.b_" + "7" * 64, "xx_abc_" + "7" * 64, "lt_abc_" + "ß" * 64,
     "lt_abc_" + "7" * 31, "lt_abc_" + "7 " * 32],
)  # fmt: skip
def test_a_key_of_another_form_or_too_short_to_be_random_is_refused(database: Database, secret: str) -> None:
    with pytest.raises(UserError, match="must be written lt_<id>_<secret>"):
        adopt(database, secret)
    assert ApiKeys(database).list() == []


def test_neither_another_keys_id_nor_a_revoked_key_comes_back(database: Database) -> None:
    adopt(database, SECRET)
    with pytest.raises(UserError, match="belongs to another key"):
        adopt(database, SECRET[:-1] + "8")
    ApiKeys(database).revoke("key_0a1b2c3d4e5f", now=2000.0)
    with pytest.raises(UserError, match="revoked"):
        adopt(database, SECRET)
    assert ApiKeys(database).find(SECRET) is None
