"""Which groups, versions and kinds the fake API server has, as clients ask for it."""

from testkit.json_object import Json
from tests.cluster.api_server.kinds import Kinds

VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0+fake", "platform": "linux/amd64"}
_REVIEWS = {"name": "selfsubjectaccessreviews", "singularName": "", "namespaced": False, "verbs": ["create"]}


def answer(path: str, kinds: Kinds) -> Json | None:
    """None for what is no question about the server itself."""
    path = "/" + path.strip("/")
    parts = path.strip("/").split("/")
    groups = {**kinds.groups(), "authorization.k8s.io": ["v1"]}
    if path in ("/healthz", "/livez", "/readyz"):
        return {"status": "ok"}
    if path == "/version":
        return {**VERSION, "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": ""}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*one) for one in sorted(groups.items())]}
    if len(parts) == 2 and parts[0] == "apis" and parts[1] in groups:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(parts[1], groups[parts[1]])}
    if path == "/api/v1":
        return _resources("", "v1", kinds)
    if len(parts) == 3 and parts[0] == "apis" and parts[2] in groups.get(parts[1], []):
        return _resources(parts[1], parts[2], kinds)
    return None


def _group(name: str, versions: list[str]) -> Json:
    told = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": told, "preferredVersion": told[0]}


def _resources(group: str, version: str, kinds: Kinds) -> Json:
    found = [one for kind in kinds.of(group, version) for one in kind.discovery()]
    if group == "authorization.k8s.io":
        found = [{**_REVIEWS, "kind": "SelfSubjectAccessReview"}]
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": found}
