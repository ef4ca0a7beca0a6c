"""What all tests share."""

import hypothesis
import pytest
import torch

from testkit.postgres import _postgres_template, _sqlite_template, database, database_url, postgres, postgres_url
from testkit.ranks import ranks
from testkit.s3 import s3_endpoint, s3_url

__all__ = [
    "_postgres_template",
    "_sqlite_template",
    "database",
    "database_url",
    "postgres",
    "postgres_url",
    "ranks",
    "s3_endpoint",
    "s3_url",
]

# On a busy machine an example takes as long as it takes.
hypothesis.settings.register_profile("longtake", deadline=None)
hypothesis.settings.load_profile("longtake")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """As in a gang. On the tensors of tests a second thread only waits for the first."""
    torch.set_num_threads(1)
