"""The gateway's replica, without Ray."""

from pathlib import Path

import pytest

from services.config import Settings
from services.deployments.ingress import GatewayReplica
from services.errors import Unavailable
from tests.support.tiny import tiny_checkpoint


class Replica(GatewayReplica):
    def __del__(self) -> None:
        """Ray awaits the one above; Python would not."""


async def test_a_lost_database_does_not_have_the_replica_restarted(tmp_path: Path) -> None:
    elsewhere = {f"{name}_address": "127.0.0.1:1" for name in ("tokenizer", "llm", "decoder")}
    replica = Replica(Settings(checkpoint=tiny_checkpoint(tmp_path), data_dir=tmp_path / "data", **elsewhere))
    store = replica._assistant.backends.store
    assert store is not None
    store.engine.dispose()
    for file in (tmp_path / "data").glob("medmax.sqlite3*"):
        file.unlink()
    (tmp_path / "data" / "medmax.sqlite3").mkdir()
    with pytest.raises(Unavailable):
        await store.check_health()
    await replica.check_health()
    await replica._assistant.close()
