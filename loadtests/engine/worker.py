"""The process of one engine: options on the first line of standard input, then a job a line; answers likewise.

    python -m loadtests.engine.worker ENGINE

Imports nothing of the project but `loadtests.engine`, so that an engine may live in an environment of its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from typing import Any

from loadtests.engine.jobs import Engine, Job, Options


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    engine: Engine | None = None
    try:
        options = Options(**json.loads(sys.stdin.readline()))
        engine = importlib.import_module(f"loadtests.engine.engines.{sys.argv[1]}").load(options)
        assert engine is not None
        # The same for all: full collections through what libraries left fall into nobody's measurement.
        gc.collect()
        gc.freeze()
        answer({"version": engine.version})
        for line in sys.stdin:
            job = Job.from_json(json.loads(line))
            # Not in the middle of a measurement.
            gc.collect()
            answer(engine.run(job).to_json())
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        if engine is not None:
            engine.close()


if __name__ == "__main__":
    main()
