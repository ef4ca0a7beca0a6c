"""The machines that the farm runs on: what is on each, and emptying one before it goes. For administrators."""

from fastapi import APIRouter

from cluster.contract.pools_and_nodes import NodeState
from serving.api.caller import ADMIN_TENANT, Admin
from serving.api.services import TheServices
from serving.api.wire.farm import NodeList
from serving.api.wire.openapi import failures
from serving.api.wire.reading import StrictRoute
from serving.api.wire.requests import Drain
from serving.store.audit import AuditEntry

router = APIRouter(tags=["farm"], route_class=StrictRoute)


@router.get("/v1/nodes", summary="Nodes")
def nodes(caller: Admin, services: TheServices) -> NodeList:
    """Every machine of the farm's Ray cluster, with the gangs and timeline hosts on it."""
    return NodeList.model_validate({"data": services.live.nodes()})


@router.post("/v1/nodes/{node_id}/drain", summary="Empty a node", responses=failures(404, 409))
def drain(node_id: str, body: Drain, caller: Admin, services: TheServices) -> NodeState:
    """Gives a node's gangs no new call, has others take their place, and moves its timelines away with all that they
    hold. Until the deadline, calls that are out may end. Asked twice it changes nothing but an earlier deadline."""
    node, changed = services.live.drain(node_id, body.model_dump(mode="json"))
    if changed:
        detail, now = body.model_dump_json(), services.clock()
        services.audit.add(AuditEntry(now, ADMIN_TENANT, caller.actor, "drain_node", node_id, detail=detail))
    return NodeState.model_validate(node)
