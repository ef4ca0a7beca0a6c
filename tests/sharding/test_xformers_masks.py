"""xformers' block-diagonal mask means what our packed attention does. Its kernels need a GPU; its masks do not.

xformers lies beside the environment, not in it: diffusers would import it everywhere, and it warns wherever torch is
another than it was built for.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BESIDE = Path(sys.prefix) / "xformers"

PROGRAM = """
import torch
from xformers.ops.fmha.attn_bias import BlockDiagonalMask

from sharding.attention import CpuFlash, choose_backend, has_xformers

assert has_xformers()
assert choose_backend("cuda").name == "xformers"
torch.manual_seed(0)
for queries, keys in (([3], [5]), ([4, 1, 7], [2, 9, 3]), ([5, 5], [5, 5])):
    mask = BlockDiagonalMask.from_seqlens(queries, keys).materialize((sum(queries), sum(keys)))
    query, key, value = (torch.randn(1, sum(of), 2, 8) for of in (queries, keys, keys))
    heads_first = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=mask).transpose(1, 2)
    packed = CpuFlash().attend_packed(query, key, value, query_lengths=queries, key_lengths=keys)
    torch.testing.assert_close(packed, expected, rtol=0, atol=1e-6)
print("the same")
"""


@pytest.mark.skipif(not BESIDE.exists(), reason="xformers is not beside the environment: rm .venv/ready && make check")
def test_packed_attention_is_attention_under_the_block_diagonal_mask_of_xformers() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(BESIDE)])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "the same\n", done.stderr
