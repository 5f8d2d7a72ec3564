"""Saves interactions from several threads until it is killed or has saved enough; prints each id once stored.

python -m tests.unit.interactions.writer SETTINGS_JSON COUNT
"""

from __future__ import annotations

import asyncio
import json
import sys

from services.config import load
from services.interactions import InteractionStore
from tests.unit.interactions.samples import interaction, random_picture


async def main(settings_json: str, count: int) -> None:
    store = InteractionStore.open(load(**json.loads(settings_json)))

    async def save() -> None:
        print(await store.save(interaction(pictures=(random_picture(),))), flush=True)

    for _ in range(count // 4):
        await asyncio.gather(*(save() for _ in range(4)))
    store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
