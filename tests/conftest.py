"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """As in a gang. On the tensors of tests a second thread only waits for the first."""
    torch.set_num_threads(1)
