"""Calls of the Kubernetes API through its own client: retried while the server is away, with errors of ours."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.errors import (
    ConfigurationError,
    InvalidInput,
    MedMaxError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from services.rollout.target import Conflict

CALL_S = 15.0
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class Cluster:
    """A connection to an API server.

    Args:
        namespace: of the release; empty = the context's, or the pod's own.
        context: of the kubeconfig; empty = its current one. KUBECONFIG names the file; in a pod without one the
            service account is used.
        patience_s: how long a server that is away is waited for.
        on_trouble: told once when waiting begins, with the reason.

    Raises:
        ConfigurationError: the client is not installed, or there is no usable kubeconfig.
    """

    def __init__(
        self,
        namespace: str = "",
        context: str = "",
        patience_s: float = 300.0,
        on_trouble: Callable[[str], None] = lambda text: None,
    ) -> None:
        try:
            from kubernetes import client, config
        except ImportError:
            raise ConfigurationError(
                "roll-outs in a cluster need the package kubernetes: pip install 'medmax-serve[cluster]'"
            ) from None
        self.patience_s = patience_s
        self._on_trouble = on_trouble
        settings = client.Configuration()
        own = ""
        try:
            if not os.environ.get("KUBECONFIG") and not context and _IN_POD.exists():
                config.load_incluster_config(client_configuration=settings)
                own = (_IN_POD.parent / "namespace").read_text().strip()
            else:
                config.load_kube_config(
                    os.environ.get("KUBECONFIG") or None,  # the client reads it when it is imported
                    context=context or None,
                    client_configuration=settings,
                    persist_config=False,
                )
                own = _namespace_of(context)
        except (config.ConfigException, OSError, TypeError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigurationError(
                f"no usable kubeconfig: {reason}"[:300], field="--context" if context else "KUBECONFIG"
            ) from None
        settings.retries = False
        self.namespace = namespace or own or "default"
        api = client.ApiClient(settings)
        self.custom = client.CustomObjectsApi(api)
        self.core = client.CoreV1Api(api)

    def call(self, what: str, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """`function(*args, **more)`, again while the server is away.

        Args:
            what: the verb and the object, such as `patch rayservices/medmax`, for errors.

        Raises:
            Unauthenticated: 401. PermissionDenied: 403. NotFound: 404. Conflict: 409. InvalidInput: the server
            refuses the object. Unavailable: it stayed away.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        limit = time.monotonic() + self.patience_s
        pause, told = FIRST_WAIT_S, False
        while True:
            try:
                return function(*args, _request_timeout=CALL_S, **more)
            except ApiException as error:
                if (error.status or 0) != 429 and not 500 <= (error.status or 0) <= 599:
                    raise translated(error, what) from None
                trouble = f"the API server answered HTTP {error.status}"
            except (HTTPError, OSError) as error:
                trouble = f"the API server cannot be reached ({type(error).__name__})"
            if time.monotonic() + pause > limit:
                raise Unavailable(f"{trouble} for {self.patience_s:.0f} s, on {what}") from None
            if not told:
                self._on_trouble(f"{trouble}; trying for {self.patience_s:.0f} s")
                told = True
            time.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, LONGEST_WAIT_S)


def translated(error: Any, what: str) -> MedMaxError:
    """The error of ours for an answer of the API server."""
    if error.status == 401:
        return Unauthenticated(
            "the API server does not accept the credentials (HTTP 401): the token or certificate has expired or is "
            "wrong. Log in again, then repeat the command: a roll-out goes on where it was"
        )
    if error.status == 403:
        return PermissionDenied(
            f"the API server does not allow: {what} (HTTP 403). The chart's Role NAME-rollout has what is needed; "
            "bind it with rollout.subjects"
        )
    if error.status == 404:
        return NotFound(f"the API server has no such thing: {what}")
    if error.status == 409:
        return Conflict(f"changed meanwhile: {what}")
    return InvalidInput(f"the API server refused {what} (HTTP {error.status}): {_message(error)}")


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return str(error.reason)[:500]


def _namespace_of(context: str) -> str:
    from kubernetes import config

    contexts, current = config.list_kube_config_contexts(os.environ.get("KUBECONFIG") or None)
    chosen = next((each for each in contexts if each["name"] == context), current) if context else current
    return str(chosen["context"].get("namespace") or "")
