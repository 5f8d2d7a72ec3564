"""A small Kubernetes API server for tests, strict where the real one is.

It validates every object it is sent with the API's own schemas, keeps resource versions and generations, answers stale
writes with 409, applies merge patches, streams watches from a resource version (410 Gone once that is forgotten), keeps
`status` a subresource, and authorises by Roles as RBAC does. Nothing is asynchronous behind it: no controller runs.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.chart import CRD
from tests.support.http_server import handling
from tests.support.kubernetes import VERSIONS, complaints, rayservice_complaints

Object = dict[str, Any]
PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?P<status>/status)?"
)
KINDS = {"rayservices": "RayService", "leases": "Lease", "configmaps": "ConfigMap"}
UNCONDITIONAL = {"configmaps"}  # may be replaced without a resource version
MERGE_PATCH = "application/merge-patch+json"
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Refused(Exception):
    """Answered with a Status object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


@dataclass
class Request:
    """What a request is about."""

    verb: str
    group: str
    version: str
    namespace: str
    plural: str
    name: str
    status: bool
    query: dict[str, str]
    body: Any = None
    content_type: str = ""

    @property
    def resource(self) -> str:
        return self.plural + ("/status" if self.status else "")


@dataclass
class ApiServer:
    """
    Attributes:
        tokens: rules of Roles by bearer token; None = everything.
        down: connections are cut without an answer.
        seen: verb, resource and name of every request that was authorised.
    """

    url: str = ""
    tokens: dict[str, list[Object] | None] = field(default_factory=dict)
    down: bool = False
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    revision: int = 1
    forgotten: int = 0
    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    events: list[tuple[int, str, Object]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def compact(self) -> None:
        """Forgets what happened so far: watches from before get 410."""
        with self.changed:
            self.revision += 1
            self.forgotten, self.events = self.revision, []

    def authorise(self, request: Request, token: str) -> None:
        if token not in self.tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")
        rules = self.tokens[token]
        if rules is not None and not any(_allows(rule, request) for rule in rules):
            what = f'cannot {request.verb} resource "{request.resource}" in API group "{request.group}"'
            raise Refused(403, "Forbidden", f'{request.resource} "{request.name}" is forbidden: {what}')
        self.seen.append((request.verb, request.resource, request.name))

    def answer(self, request: Request) -> tuple[int, Object]:
        """Everything but watches."""
        with self.changed:
            return getattr(self, f"_{request.verb}")(request)  # type: ignore[no-any-return]

    def _get(self, request: Request) -> tuple[int, Object]:
        return 200, self._find(request)

    def _list(self, request: Request) -> tuple[int, Object]:
        items = [each for each in self.objects.values() if _selected(each, request)]
        version = f"{request.group}/{request.version}".strip("/")
        metadata = {"resourceVersion": str(self.revision)}
        return 200, {
            "kind": f"{KINDS[request.plural]}List",
            "apiVersion": version,
            "metadata": metadata,
            "items": items,
        }

    def _create(self, request: Request) -> tuple[int, Object]:
        made = copy.deepcopy(request.body)
        name = made.get("metadata", {}).get("name", "")
        key = request.plural, request.namespace, name
        if key in self.objects:
            raise Refused(409, "AlreadyExists", f'{request.plural} "{name}" already exists')
        if made["metadata"].get("resourceVersion"):
            raise Refused(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if request.plural == "rayservices":
            made.pop("status", None)  # a subresource
        made["metadata"] |= {
            "namespace": request.namespace,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **({"generation": 1} if request.plural == "rayservices" else {}),
        }
        _validate(request, made)
        return 201, self._store(key, made, "ADDED")

    def _update(self, request: Request) -> tuple[int, Object]:
        old, body = self._find(request), copy.deepcopy(request.body)
        given = body.get("metadata", {}).get("resourceVersion")
        if not given and request.plural not in UNCONDITIONAL:
            raise Refused(
                422, "Invalid", "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
            )
        return 200, self._replace(request, old, body, given)

    def _patch(self, request: Request) -> tuple[int, Object]:
        if request.content_type != MERGE_PATCH:
            raise Refused(415, "UnsupportedMediaType", f"{request.content_type} is not taken here")
        old = self._find(request)
        given = (request.body.get("metadata") or {}).get("resourceVersion")
        return 200, self._replace(request, old, merged(old, request.body), given)

    def _delete(self, request: Request) -> tuple[int, Object]:
        old = self.objects.pop((request.plural, request.namespace, self._find(request)["metadata"]["name"]))
        self._event("DELETED", old)
        return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _replace(self, request: Request, old: Object, new: Object, given: str | None) -> Object:
        if given and given != old["metadata"]["resourceVersion"]:
            raise Refused(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {request.plural} "{request.name}": the object has been modified; '
                "please apply your changes to the latest version and try again",
            )
        for name in ("uid", "creationTimestamp", "resourceVersion", "generation", "name", "namespace"):
            if name in old["metadata"]:
                new["metadata"][name] = old["metadata"][name]
        if request.plural == "rayservices":
            kept = {key: value for key, value in old.items() if key != "status"} if request.status else None
            if kept is not None:
                new = {**copy.deepcopy(kept), "status": new.get("status", {})}
            elif "status" in old:
                new["status"] = copy.deepcopy(old["status"])
            else:
                new.pop("status", None)
            if new["spec"] != old["spec"]:
                new["metadata"]["generation"] += 1
        if new == old:
            return old
        _validate(request, new)
        return self._store((request.plural, request.namespace, request.name), new, "MODIFIED")

    def _store(self, key: tuple[str, str, str], value: Object, what: str) -> Object:
        self._event(what, value)
        self.objects[key] = value
        return value

    def _event(self, what: str, value: Object) -> None:
        self.revision += 1
        value["metadata"]["resourceVersion"] = str(self.revision)
        self.events.append((self.revision, what, copy.deepcopy(value)))
        self.changed.notify_all()

    def _find(self, request: Request) -> Object:
        found = self.objects.get((request.plural, request.namespace, request.name))
        if found is None:
            raise Refused(404, "NotFound", f'{request.plural} "{request.name}" not found')
        return found

    def watch(self, request: Request) -> Iterator[Object]:
        """Events after the resource version, until the request's time is over."""
        limit = time.monotonic() + float(request.query.get("timeoutSeconds", 30))
        at = int(request.query.get("resourceVersion") or 0)
        if 0 < at < self.forgotten:
            yield {
                "type": "ERROR",
                "object": Refused(410, "Expired", f"too old resource version: {at}").status,
            }
            return
        while time.monotonic() < limit and not self.down:
            with self.changed:
                new = [each for each in self.events if each[0] > at]
                if not new:
                    self.changed.wait(min(0.2, limit - time.monotonic()))
            at = new[-1][0] if new else at
            for _, what, value in new:
                if value["kind"] == KINDS[request.plural] and _selected(value, request):
                    yield {"type": what, "object": value}


def merged(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = copy.deepcopy(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merged(made.get(key), value)
    return made


def _allows(rule: Object, request: Request) -> bool:
    names = rule.get("resourceNames")
    name = request.name or request.query.get("fieldSelector", "").removeprefix("metadata.name=")
    return (
        request.group in rule["apiGroups"]
        and request.resource in rule["resources"]
        and request.verb in rule["verbs"]
        and (not names or (name in names and request.verb != "create"))
    )


def _selected(each: Object, request: Request) -> bool:
    if each["metadata"]["namespace"] != request.namespace or each["kind"] != KINDS[request.plural]:
        return False
    selector = request.query.get("fieldSelector", "")
    return not selector or selector == f"metadata.name={each['metadata']['name']}"


def _validate(request: Request, each: Object) -> None:
    version = f"{request.group}/{request.version}".strip("/")
    if (each.get("apiVersion"), each.get("kind")) != (version, KINDS[request.plural]):
        raise Refused(400, "BadRequest", "the object does not match the address it was sent to")
    if request.plural != "rayservices":
        wrong = complaints(each, VERSIONS[-1])
    else:
        wrong = rayservice_complaints(each) if CRD.exists() else []
    if wrong:
        raise Refused(422, "Invalid", f'{each["kind"]} "{request.name}" is invalid: {"; ".join(wrong[:3])}')


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """A running one, on loopback over plain HTTP."""
    server = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            if server.down:
                self.close_connection = True
                return
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            try:
                request = _request(self, body)
                server.authorise(request, self.headers.get("Authorization", "").removeprefix("Bearer "))
                if request.verb == "watch":
                    self._stream(request)
                    return
                code, value = server.answer(request)
            except Refused as refused:
                code, value = refused.status["code"], refused.status
            self._send(code, value)

        def _send(self, code: int, value: Object) -> None:
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, request: Request) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in server.watch(request):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            if server.down:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with handling(Handler) as server.url:
        yield server


def _request(handler: BaseHTTPRequestHandler, body: bytes) -> Request:
    parts = urlsplit(handler.path)
    found = PATH.fullmatch(parts.path)
    if not found or found["plural"] not in KINDS:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    verb = VERBS[handler.command]
    if verb == "get" and not found["name"]:
        verb = "watch" if query.get("watch", "").lower() in {"true", "1"} else "list"
    return Request(
        verb,
        found["group"] or "",
        found["version"],
        found["namespace"],
        found["plural"],
        found["name"] or "",
        bool(found["status"]),
        query,
        json.loads(body) if body else None,
        handler.headers.get("Content-Type", ""),
    )
