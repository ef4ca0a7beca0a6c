"""Who is asking: the tenant, the name for the audit log, and whether they may manage the farm."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from serving.api.errors import ApiError


@dataclass(frozen=True)
class Caller:
    """The sender of a request."""

    tenant: str
    actor: str
    """For the audit log: tenant and key, never the key's secret."""
    is_admin: bool
    requests_per_minute: int | None = None
    """The tenant's own limit, if it has one."""
    key_id: str | None = None
    """Id of the API key by which they came, or that signed their link; None if the farm asks for none."""

    @property
    def scope(self) -> str | None:
        """The tenant whose jobs they see; None for all."""
        return None if self.is_admin else self.tenant


ADMIN_TENANT = "admin"
"""The tenant whose keys may manage the farm and see the jobs of all."""

LOCAL = Caller(tenant="default", actor="local", is_admin=True)
"""Whoever asks where no keys are needed."""


async def find_caller(request: Request) -> Caller:
    """The caller that the gate has let in."""
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


async def find_admin(request: Request) -> Caller:
    """The same, who must be an administrator."""
    caller = await find_caller(request)
    if not caller.is_admin:
        raise ApiError(403, "this needs the key of an administrator", code="admin_only")
    return caller


AnyCaller = Annotated[Caller, Depends(find_caller)]
Admin = Annotated[Caller, Depends(find_admin)]
