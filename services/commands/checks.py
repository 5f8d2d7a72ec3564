"""The checks of `medmax doctor`. None of them changes the installation, whatever it finds."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from services.commands.remote import answers_as_medmax
from services.config import Settings, load
from services.errors import ConfigurationError, MedMaxError

GIB = 2**30
NO_SETTINGS = {"MEDMAX_SERVER", "MEDMAX_API_KEY", "MEDMAX_DEBUG", "MEDMAX_METRICS_DIR"}  # read elsewhere


@dataclass(frozen=True)
class Check:
    """One line: `status` is ok, warn or fail; `mend` says what to do about the latter two."""

    name: str
    status: str
    detail: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def run_all() -> Iterator[Check]:
    """Every check in turn; those that need settings are left out where the settings are wrong."""
    yield python()
    yield torch()
    yield ray()
    try:
        settings = load()
    except ConfigurationError as error:
        yield Check("configuration", "fail", str(error), f"correct {error.field or 'the MEDMAX_* variables'}")
        return
    checks: tuple[Callable[[Settings], Check], ...] = (
        configuration,
        names,
        rest_port,
        grpc_port,
        addresses,
        checkpoint,
        adapters,
        database,
        object_store,
        memory,
        disk,
    )
    for check in checks:
        yield check(settings)


def python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Check("Python", "ok", found)
    return Check("Python", "fail", found, "install Python 3.11 to 3.13, remove .venv and run `make setup`")


def torch() -> Check:
    mend = "run `make setup` again"
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("PyTorch", "fail", f"cannot be imported: {error}", mend)
    pinned = next((line[7:] for line in requires("medmax-serve") or () if line.startswith("torch==")), "")
    found = torch.__version__.partition("+")[0]
    gpu = f", {torch.cuda.device_count()} GPU" if torch.cuda.is_available() else ", no GPU"
    detail = f"{torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores{gpu}"
    if found != pinned:
        return Check("PyTorch", "warn", f"{detail}; {pinned} is what was tested", mend)
    return Check("PyTorch", "ok", detail)


def ray() -> Check:
    try:
        number = version("ray")
        import ray  # noqa: F401
    except (ImportError, PackageNotFoundError) as error:
        return Check("Ray", "fail", f"cannot be imported: {error}", "run `make setup` again")
    return Check("Ray", "ok", number)


def configuration(settings: Settings) -> Check:
    from services.gateway.access import Access
    from services.gateway.auth import Gate

    try:
        Gate(settings)
        Access(settings)
    except ConfigurationError as error:
        return Check("configuration", "fail", str(error), f"correct {error.field}")
    changed = sorted(f"MEDMAX_{name.upper()}" for name in settings.model_fields_set)
    keys = f"{len(settings.api_keys)} API keys" if settings.api_keys else "no API keys, loopback only"
    return Check("configuration", "ok", f"{keys}; set: {', '.join(changed) or 'nothing'}")


def names(_settings: Settings) -> Check:
    """A misspelt variable is read by nobody."""
    name = "variables"
    unknown = sorted(
        variable
        for variable in os.environ
        if variable.startswith("MEDMAX_")
        and variable not in NO_SETTINGS
        and variable.removeprefix("MEDMAX_").partition("__")[0].lower() not in Settings.model_fields
    )
    if not unknown:
        return Check(name, "ok", "every MEDMAX_* variable is known")
    return Check(name, "warn", f"not read: {', '.join(unknown)}", "see the names in services/config.py")


def addresses(settings: Settings) -> Check:
    """Services elsewhere, which this installation was told to use."""
    name = "services elsewhere"
    used = {
        field: getattr(settings, field)
        for field in ("tokenizer_address", "llm_address", "decoder_address")
        if getattr(settings, field)
    }
    silent = [
        f"{field.removesuffix('_address')} at {at}" for field, at in used.items() if not _speaks_health(at)
    ]
    if silent:
        variables = ", ".join(f"MEDMAX_{field.upper()}" for field in used)
        return Check(name, "fail", f"no answer from {', '.join(silent)}", f"start it, or correct {variables}")
    return Check(name, "ok", f"{len(used)} answer" if used else "none: all are this installation's own")


def rest_port(settings: Settings) -> Check:
    name, port = "REST port", settings.http_port
    if _free(settings.host, port):
        return Check(name, "ok", f"{port} is free")
    if answers_as_medmax(f"http://{_reachable(settings.host)}:{port}"):
        return Check(name, "ok", f"{port}: a MedMax server answers there")
    return Check(name, "fail", f"{port} is taken by another program", "stop it, or set MEDMAX_HTTP_PORT")


def grpc_port(settings: Settings) -> Check:
    name, port = "gRPC port", settings.grpc_port
    if _free(settings.host, port):
        return Check(name, "ok", f"{port} is free")
    if _speaks_health(f"{_reachable(settings.host)}:{port}"):
        return Check(name, "ok", f"{port}: a gRPC server answers its health check there")
    return Check(name, "fail", f"{port} is taken by another program", "stop it, or set MEDMAX_GRPC_PORT")


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)


def _speaks_health(address: str) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError as error:
            return error.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.NOT_FOUND}
        return True


def checkpoint(settings: Settings) -> Check:
    from services.checkpoint import open_checkpoint

    name = "checkpoint"
    try:
        found = open_checkpoint(settings.checkpoint, settings.vqgan)
        digest = found.digest
    except MedMaxError as error:
        return Check(
            name, "fail", f"{settings.checkpoint}: {error}", "set MEDMAX_CHECKPOINT, or restore the directory"
        )
    stated = str(found.provenance.get("digest") or "")
    detail = (
        f"{settings.model_id} {digest[:12]}, {found.image_size} px pictures of {found.codes_per_image} codes"
    )
    if not stated:
        return Check(
            name, "warn", f"{detail}; provenance.json states no digest", "nobody can tell whether it is whole"
        )
    if stated != digest:
        return Check(
            name,
            "fail",
            f"the weights' digest is {digest[:12]}, provenance.json says {stated[:12]}",
            "the files were changed or damaged; restore the directory",
        )
    return Check(name, "ok", f"{detail}; digest as in provenance.json")


def adapters(settings: Settings) -> Check:
    from services.checkpoint import open_checkpoint
    from services.llm.load import open_adapters

    name = "adapters"
    if not settings.adapters or settings.llm_address:
        return Check(name, "ok", "none" if not settings.adapters else "those of the language model elsewhere")
    try:
        found = open_adapters(settings, open_checkpoint(settings.checkpoint, settings.vqgan))
    except MedMaxError as error:
        return Check(name, "fail", str(error), "correct MEDMAX_ADAPTERS, or train it on this checkpoint")
    return Check(name, "ok", f"{', '.join(found)}: of this checkpoint")


def database(settings: Settings) -> Check:
    from services.interactions.database import connect, current_revision, database_url, newest_revision

    name = "database"
    if not settings.store:
        return Check(name, "ok", "interactions are not stored (MEDMAX_STORE)")
    try:
        url = database_url(settings)
    except ConfigurationError as error:
        return Check(name, "fail", str(error), f"correct {error.field}")
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return _creatable(name, Path(str(url.database)))
    try:
        engine = connect(url)
        revision = current_revision(engine)
        engine.dispose()
    except (MedMaxError, OSError) as error:
        return Check(name, "fail", f"{shown}: {error}", "start the database, or correct MEDMAX_DATABASE_URL")
    newest = newest_revision()
    if revision == newest:
        return Check(name, "ok", f"{shown}, schema {revision}")
    if revision is None or revision < newest:
        return Check(
            name,
            "warn",
            f"{shown}, schema {revision or 'none'}; the program's is {newest}",
            "migrated at the next start",
        )
    return Check(
        name,
        "fail",
        f"{shown}, schema {revision}, newer than {newest}",
        "upgrade this installation of medmax",
    )


def object_store(settings: Settings) -> Check:
    from services.interactions.pictures import PictureStore

    name = "object store"
    if not settings.store:
        return Check(name, "ok", "interactions are not stored (MEDMAX_STORE)")
    folder = settings.data_dir.absolute() / "pictures"
    if not settings.object_store and not folder.exists():
        return _creatable(name, folder)
    try:
        PictureStore.open(settings).probe()
    except MedMaxError as error:
        return Check(name, "fail", str(error), "make it writable, or correct MEDMAX_OBJECT_STORE")
    return Check(name, "ok", f"{settings.object_store or folder}, written, read and deleted a test file")


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that is there."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _creatable(name: str, path: Path) -> Check:
    above = next(place for place in path.absolute().parents if place.exists())
    if not above.is_dir():
        return Check(
            name, "fail", f"{path} cannot be made: {above} is no folder", "set MEDMAX_DATA_DIR to a folder"
        )
    if os.access(above, os.W_OK | os.X_OK):
        return Check(name, "ok", f"{path} will be made at the first start")
    return Check(
        name,
        "fail",
        f"{path} cannot be made: {above} is not writable",
        "set MEDMAX_DATA_DIR to a writable folder",
    )


def memory(_settings: Settings) -> Check:
    """Free memory, in a container within its limit."""
    available = _meminfo("MemAvailable")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        available = min(available, limit - used) if available else limit - used
    except (OSError, ValueError):
        pass
    if not available:
        return Check("memory", "warn", "cannot be measured on this system", "see that 3 GiB are free")
    detail = f"{available / GIB:.1f} GiB free"
    if available < GIB:
        return Check("memory", "fail", detail, "at least 1 GiB must be free, 3 GiB are better")
    return Check("memory", "ok" if available >= 3 * GIB else "warn", detail, "3 GiB are better")


def _meminfo(field: str) -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def disk(settings: Settings) -> Check:
    folder = _existing(settings.data_dir.absolute() / "any")
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    mend = "free some space, or set MEDMAX_DATA_DIR to another disk"
    if free < GIB // 8:
        return Check("disk", "fail", detail, mend)
    return Check("disk", "ok" if free >= GIB else "warn", detail, mend)
