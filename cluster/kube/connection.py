"""One request to the Kubernetes API, over the official client's connections and credentials, and its answer or error.

Every request has a timeout, none is retried here, and every failure becomes one of errors.py. Knows paths and
bodies, not what they mean. The only module that imports `kubernetes`, and only to connect: that import takes long.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.exceptions import HTTPError

from cluster.kube.errors import NoCluster, Unavailable, error_of

if TYPE_CHECKING:
    from kubernetes.client.api_client import ApiClient

CONNECT_TIMEOUT_S = 5.0

POOL_CONNECTIONS = 16
"""Connections that are kept for the next request; each watch has one for itself as well."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Connection:
    """To one API server; any number of threads may share it."""

    client: "ApiClient"

    def ask(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        body: Any = None,
        query: Mapping[str, str | None] | None = None,
        media_type: str = "application/json",
    ) -> Json:
        """The JSON object that the server answers. Fields of `query` that are None are left out. Raises KubeError."""
        what = f"{method} {path}"
        response = self.send(
            method, path, body=body, query=query or {}, media_type=media_type, read_s=timeout_s, what=what
        )
        try:
            answer = json.loads(_whole(response, what))
        except ValueError as error:
            raise Unavailable(f"{what}: the answer is no JSON: {error}", status=response.status) from error
        if not isinstance(answer, dict):
            raise Unavailable(f"{what}: the answer is no object", status=response.status)
        return answer

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None],
        read_s: float,
        what: str,
        body: Any = None,
        media_type: str | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """An answer of status 2xx whose body is not read yet. `read_s`: seconds that the server may be silent. Raises
        KubeError for any other answer, and for none."""
        headers = {"Accept": "application/json"} | ({"Content-Type": media_type} if media_type else {})
        wanted = [(key, value) for key, value in query.items() if value is not None]
        request = self.client.param_serialize(
            method, path, query_params=wanted, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            answer = self.client.call_api(*request, _request_timeout=(min(CONNECT_TIMEOUT_S, read_s), read_s))
        except (HTTPError, OSError, _client_error()) as error:
            raise Unavailable(f"{what}: {error}") from error
        response: urllib3.BaseHTTPResponse = answer.response
        if not 200 <= response.status < 300:
            raise error_of(response.status, _whole(response, what), response.headers, what=what)
        return response


def open_connection(*, kubeconfig: Path | None, context: str | None) -> Connection:
    """To the cluster that `kubeconfig` names; without it to the cluster around us; outside of any, as the kubeconfig
    says which kubectl would use. Asks nobody yet. Raises NoCluster."""
    import yaml
    from kubernetes import config
    from kubernetes.client.api_client import ApiClient
    from kubernetes.client.configuration import Configuration

    settings = Configuration()
    load_here: Callable[..., None] = config.load_incluster_config
    load_file: Callable[..., None] = config.load_kube_config
    wrong = (config.ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError)
    try:
        if kubeconfig is None and context is None:
            try:
                load_here(client_configuration=settings)
            except config.ConfigException:
                load_file(client_configuration=settings)
        else:
            path = str(kubeconfig) if kubeconfig is not None else None
            load_file(config_file=path, context=context, client_configuration=settings)
    except wrong as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig is not None else "no cluster around us and no kubeconfig"
        raise NoCluster(f"{where}: {error}") from error
    # The client would sleep through a Retry-After and try again by itself, longer than any timeout of ours.
    settings.retries = False
    settings.connection_pool_maxsize = POOL_CONNECTIONS
    return Connection(ApiClient(settings))


def _client_error() -> type[Exception]:
    from kubernetes.client.exceptions import OpenApiException

    return OpenApiException


def _whole(response: urllib3.BaseHTTPResponse, what: str) -> bytes:
    try:
        return response.data
    except (HTTPError, OSError) as error:
        raise Unavailable(f"{what}: {error}", status=response.status) from error
    finally:
        response.release_conn()
