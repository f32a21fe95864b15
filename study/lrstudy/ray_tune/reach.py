"""Whether a Ray cluster can be reached, asks for a token and takes ours: seen in milliseconds, before Ray is connected.

Ray itself waits up to a minute for a cluster that is not there, and connects to an open one without a word.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from typing import Any

from lrstudy.errors import Fault, InputError
from lrstudy.ray_tune import cluster_token

OPTION = "--address"
_TIMEOUT_S = 10.0
_ALIVE = 0
"""The state of a living node in Ray's protocol."""
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


def reach(address: str, *, without_token: bool = False) -> str:
    """The cluster's address as HOST:PORT, once it has answered, takes our token, and has a node on this host.

    Sets RAY_AUTH_MODE in this process's environment, so that whatever connects afterwards uses the token too.

    Args:
        address: ``auto`` for the cluster of this host, or HOST:PORT of its control process.
        without_token: The user accepts that the cluster asks for no token.

    Raises:
        InputError: The address is none, nobody answers there, the token is missing, wrong or readable by others, the
            cluster asks for none although `without_token` was not given, or this host is no node of it.
    """
    found = _resolved(address)
    is_open = _is_admitted(found, "")
    if is_open and not without_token:
        raise InputError(
            Fault(
                OPTION,
                f"the Ray cluster at {found} runs without a token: whoever reaches its ports can run code as its owner",
                advice="Start it with RAY_AUTH_MODE=token and a token file of mode 0600 (docs/security.md). If somebody else "
                "runs it within a closed network, --without-token accepts that.",
            )
        )
    if not is_open and without_token:
        advice = f"Leave out --without-token, and let {cluster_token.PATH} name the token's file."
        raise InputError(Fault("--without-token", f"the Ray cluster at {found} asks for a token", advice=advice))
    text = ""
    if not is_open:
        token = cluster_token.find()
        text = token.text
        if not _is_admitted(found, text):
            raise InputError(
                Fault(
                    "token",
                    f"the Ray cluster at {found} refuses the token from {token.source}: it is another cluster's",
                    advice=f"Let {cluster_token.PATH} name the file that the nodes of this cluster were started with.",
                )
            )
    _require_node_here(found, _nodes(found, text))
    os.environ.update(cluster_token.OPEN if is_open else cluster_token.WITH_TOKEN)
    reread_environment()
    return found


def reread_environment() -> None:
    """Let Ray, if this process has used it before, forget which token there was and whether one is asked for."""
    import ray._raylet

    compiled: Any = ray._raylet
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


def require_address(address: str) -> None:
    """Raise InputError unless an address is ``auto`` or HOST:PORT."""
    match = _ADDRESS.fullmatch(address)
    if address == "auto" or (match and 0 < int(match[2]) < 65536):
        return
    advice = (
        "A job that is submitted to the cluster needs no Ray Client: there, --address auto."
        if "://" in address
        else "The port is that of `ray start --head --port`, 6379 by default."
    )
    raise InputError(Fault(OPTION, expected="auto or HOST:PORT", got=repr(address), advice=advice))


def _resolved(address: str) -> str:
    """HOST:PORT. Raises InputError for what is no address, and if no cluster is found for ``auto``."""
    named = (os.environ.get("RAY_ADDRESS") or "auto") if address == "auto" else address
    require_address(named)
    if named != "auto":
        return named
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address("auto") or ""
    except ConnectionError:
        advice = "Start a node of it here (`ray start`), name it as HOST:PORT, or leave the option out."
        raise InputError(Fault(OPTION, "no Ray cluster was found on this machine", advice=advice)) from None


def _is_admitted(address: str, token: str) -> bool:
    """Whether the cluster's control process answers to this token ("" for none). Raises InputError if nobody answers."""
    import grpc

    try:
        _call(address, token, "CheckAlive")
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return False
        raise InputError(_unreachable(address, error)) from None
    return True


def _nodes(address: str, token: str) -> Sequence[Any]:
    """What the control process knows of the living nodes."""
    return [node for node in _call(address, token, "GetAllNodeInfo").node_info_list if node.state == _ALIVE]


def _call(address: str, token: str, method: str) -> Any:
    """One call of the control process, with this very token, whatever Ray has read in this process. Raises grpc.RpcError."""
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    with _channel(address) as channel:
        stub: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
        request = getattr(gcs_service_pb2, f"{method}Request")()
        headers = [("authorization", f"Bearer {token}")] if token else []
        try:
            return getattr(stub, method)(request, metadata=headers, timeout=_TIMEOUT_S)
        except ValueError as error:  # a token that cannot be sent, such as one with a line break
            raise InputError(Fault("token", f"the token cannot be sent: {error}")) from None


def _channel(address: str) -> Any:
    """A channel to the control process, encrypted if Ray's TLS is configured; never through a proxy."""
    import grpc

    options = [("grpc.enable_http_proxy", 0)]
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(address, options)
    from ray._common.tls_utils import load_certs_from_env

    chain, key, authority = load_certs_from_env()  # type: ignore[no-untyped-call]
    credentials = grpc.ssl_channel_credentials(authority, private_key=key, certificate_chain=chain)
    return grpc.secure_channel(address, credentials, options)


def _unreachable(address: str, error: Any) -> Fault:
    """The fault of an address at which no Ray cluster answers."""
    import grpc

    host, _, port = address.rpartition(":")
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return Fault(
            OPTION, f"what answers at {address} is no Ray cluster", advice="Is that the port of `ray start --head`?"
        )
    why = {
        grpc.StatusCode.DEADLINE_EXCEEDED: f"no answer within {_TIMEOUT_S:.0f} s",
        grpc.StatusCode.UNAVAILABLE: _reason(str(error.details())),
    }.get(error.code(), f"{error.code().name}: {str(error.details())[:200]}")
    return Fault(
        OPTION,
        f"cannot reach the Ray cluster at {address} ({why})",
        advice=f"Is its head running, is {port} the port of its control process (not of the dashboard), and does a firewall "
        f"between here and {host} let it through?",
    )


def _reason(details: str) -> str:
    """The last part of what gRPC says of a failed connection."""
    return details.rpartition(": ")[2].strip(" )") or "unavailable"


def _require_node_here(address: str, nodes: Sequence[Any]) -> None:
    """Raise InputError if none of the nodes is on this host: Ray's drivers work through a node beside them."""
    theirs = [node.node_manager_address for node in nodes]
    if not any(map(_is_ours, theirs)):
        shown = ", ".join(theirs[:5]) + (f" and {len(theirs) - 5} more" if len(theirs) > 5 else "")
        raise InputError(
            Fault(
                OPTION,
                f"this machine ({socket.gethostname()}) is no node of the Ray cluster at {address} ({shown or 'no living nodes'})",
                advice=f"Start a node here (ray start --address={address}), or run the command on a node, for example as a job.",
            )
        )


def _is_ours(address: str) -> bool:
    """Whether this host has the address: a socket can be bound to it."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
