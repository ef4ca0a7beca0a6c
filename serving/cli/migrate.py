"""`longtake migrate`: brings the database up to this release, for who deploys it before the farm."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.options import AsJson
from serving.cli.output.terminal import print_json, print_line
from serving.errors import UserError
from serving.settings import api_key

if TYPE_CHECKING:
    from serving.store.database import Database


def migrate(
    config: Annotated[Path | None, typer.Option(help="farm.yaml; docs/farm.md describes it.")] = None,
    admin_key: Annotated[
        bool, typer.Option("--admin-key", help="Make the key in LONGTAKE_API_KEY an administrator's, if it is not yet.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database's tables up to this release; several at once do it once."""
    from serving.config.farm import load_config
    from serving.store.database import open_database

    database = open_database(load_config(config, os.environ).store_url)
    try:
        step = database.schema_version()
        adopted = _adopt(database) if admin_key else None
    finally:
        database.close()
    if as_json:
        print_json({"schema": step, "admin_key": adopted}, indent=None)
        return
    print_line(f"the database is at schema {step}")
    if adopted is not None:
        print_line(f"{adopted} is an administrator's key")


def _adopt(database: "Database") -> str:
    """Without a first key nobody could make another. Returns its id. Raises UserError."""
    from serving.store.keys import ApiKeys

    secret = api_key()
    if secret is None:
        raise UserError("--admin-key: LONGTAKE_API_KEY is not set; it must hold the key, as lt_<id>_<secret>")
    return ApiKeys(database).adopt(secret, tenant="admin", name="installation", now=time.time()).id
