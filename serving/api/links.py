"""Signed links: whoever has one may GET a single file for a while without a key. A page needs them for what its
elements load, since a <video> cannot send a header.

A link is signed by the API key that asked for it: HMAC-SHA256 over path and end, as S3 signs its URLs. So every replica
of the Api can check it, the farm keeps no further secret, and a link ends early if its key is revoked. The URL names
the key by its id, which is no secret; nothing in it leads to the key itself.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from serving.api.errors import ApiError
from serving.store.keys import ApiKey, ApiKeys

LINK_LIFE_S = 3600
"""Seconds for which a link holds. A player asks again by range while it plays, and the page renews its link then."""

_NAME = "[A-Za-z0-9_-]{1,64}"
_FILE = f"film|manifest|thumbnail|spritesheet|takes/{_NAME}/(preview|head(/[0-9]{{1,10}})?)"
LINKED = re.compile(rf"/v1/jobs/(?P<job>{_NAME})/({_FILE})|/v1/assets/sha256:(?P<asset>[0-9a-f]{{64}})")
"""The paths that can be linked: files of jobs, and assets."""

_SIGNATURE = "signature"


@dataclass(frozen=True)
class Links:
    """Makes links and checks them."""

    keys: ApiKeys
    clock: Callable[[], float]
    """Unix seconds."""

    def sign(self, path: str, key_id: str) -> tuple[str, int]:
        """A link to a path of LINKED, and the unix seconds at which it ends. Raises NotFound if the key is revoked."""
        ends_at = int(self.clock()) + LINK_LIFE_S
        signature = self.keys.sign(key_id, _message(path, str(ends_at)))
        return f"{path}?expires={ends_at}&key={key_id}&{_SIGNATURE}={signature}", ends_at

    def find_signer(self, method: str, path: str, query: QueryParams) -> ApiKey | None:
        """The key that signed the link by which a request comes; None if none did. Raises ApiError 403 if it has
        expired."""
        ends_at = query.get("expires", "")
        if method not in ("GET", "HEAD") or not LINKED.fullmatch(path) or not re.fullmatch(r"[0-9]{1,12}", ends_at):
            return None
        if int(ends_at) <= self.clock():
            raise ApiError(403, "this link has expired; GET /v1/links makes a new one", code="link_expired")
        return self.keys.find_signer(query.get("key", ""), _message(path, ends_at), query[_SIGNATURE])


def is_link(query: QueryParams) -> bool:
    """Whether a request claims to come by a link."""
    return _SIGNATURE in query


def _message(path: str, ends_at: str) -> bytes:
    return f"longtake link\n{path}\n{ends_at}".encode()
