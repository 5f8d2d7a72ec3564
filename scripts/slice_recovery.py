"""Does fine-tuning on corrected answers bring a broken slice of questions back, and what does it cost elsewhere?

    python scripts/slice_recovery.py --slice chest_xray:side --broken models/phantom-broken --out out/recovery

`--broken` is a model trained with `medmax train phantom --without chest_xray:side`. Rows with the right answers to
the slice's questions, and rows of everything else in which the model is held to the answers it gave before
(`"learn": "keep"`), go through `medmax train lora` and `train merge`.
All three models then answer every question about held-out phantoms, greedily. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import math
import multiprocessing
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import Progress

from evaluation.phantom_eval import evaluate, question_request, reply
from evaluation.phantoms import answer_matches, draw, held_out, questions, truth
from evaluation.phantoms.questions import (
    balanced,
    closed_questions,
    even_answers,
    mcq_questions,
    open_questions,
)
from evaluation.phantoms.rows import END_OF_TURN, IMAGE, captioning, image_generation, typed
from services import config
from services.commands.output import err
from services.config import SHIPPED_MODEL
from services.gateway.assistant import Assistant
from services.gateway.local import local_assistant
from training.phantom.without import Slice, parse_slice

FIRST_SEED = 990_000_000
"""Of the phantoms that rows are about: for training, and never used by `medmax train phantom` below --seed 990."""
RECOVERED, FORGOTTEN = 0.95, 0.01
_CONCURRENT, _ROUNDS = 24, 3
_TYPES = ((closed_questions, even_answers), (open_questions, balanced), (mcq_questions, balanced))


def write_rows(folder: Path, wanted: Slice, corrected: int, replay: int, rng: np.random.Generator) -> Path:
    """`corrected` rows about the slice, one a picture, and `replay` rows of other things; returns their file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []

    def add(seed: int, turns: Sequence[tuple[str, str]], source: str) -> None:
        picture = f"images/{seed}.png"
        Image.fromarray(draw(seed).picture).save(folder / picture)
        text = END_OF_TURN.join(part for turn in turns for part in turn)
        learn = "all" if source == "phantom-corrected" else "keep"
        rows.append({"text": text, "image_path": picture, "task": "vqa", "source": source, "learn": learn})

    seeds = itertools.count(FIRST_SEED)
    while len(rows) < corrected:
        seed = next(seeds)
        if truth(seed).modality == wanted[0] and (turns := _about(seed, wanted, len(rows), rng)):
            add(seed, turns, "phantom-corrected")
    # Every second one of the slice's own modality: what else is asked about that is forgotten first.
    while len(rows) < corrected + replay:
        seed = next(seeds)
        if len(rows) % 2 or truth(seed).modality == wanted[0]:
            add(seed, _others(seed, wanted, rng), "phantom-replay")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(rows[i]) + "\n" for i in rng.permutation(len(rows))))
    return file


def _about(seed: int, wanted: Slice, number: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """A dialogue of the slice's questions with their right answers, up to three of each type that the phantom allows; the
    types take turns, also in being the first."""
    kinds = (*_TYPES[number % 3 :], *_TYPES[: number % 3])
    left = [([question for question in ask(truth(seed), rng) if question.topic == wanted[1]], choose)
            for ask, choose in kinds]  # fmt: skip
    turns: list[tuple[str, str]] = []
    for _ in range(_ROUNDS):
        for asked, choose in left:
            if asked:
                question = choose(asked, rng)
                asked[:] = [other for other in asked if other.text != question.text]
                turns.append((f"{'' if turns else IMAGE}{typed(question.text, rng)}", question.answer))
    return turns


def _others(seed: int, wanted: Slice, rng: np.random.Generator) -> list[tuple[str, str]]:
    """A dialogue of a question of each type outside of the slice, in any order; now and then a caption or a drawing."""
    shown = truth(seed)
    chosen = rng.random()
    if chosen < 0.1:
        return [image_generation(shown, rng)]
    if chosen < 0.2:
        asked, answer = captioning(shown, rng)
        return [(f"{IMAGE}{asked}", answer)]
    turns: list[tuple[str, str]] = []
    for ask, choose in (_TYPES[i] for i in rng.permutation(len(_TYPES))):
        asks = [question for question in ask(shown, rng) if (shown.modality, question.topic) != wanted]
        question = choose(asks, rng)
        turns.append((f"{'' if turns else IMAGE}{typed(question.text, rng)}", question.answer))
    return turns


@dataclass
class Scores:
    """Share right of every question, caption and drawing, 0 to 1, by slice; in the same order for every model."""

    of: dict[Slice, list[float]] = field(default_factory=partial(defaultdict, list))

    def mean(self, slice_: Slice) -> float:
        return float(np.mean(self.of[slice_]))


async def ask_all(assistant: Assistant, seed: int, count: int, drawings: int, advance: Any) -> Scores:
    """Every question about `count` phantoms; captions of and drawings like `drawings` of them."""
    gate, scores = asyncio.Semaphore(_CONCURRENT), Scores()

    async def one(number: int) -> list[tuple[Slice, float]]:
        async with gate:
            phantom = draw(number)
            file = io.BytesIO()
            Image.fromarray(phantom.picture).save(file, "PNG")
            found = []
            for question in questions(phantom):
                answer = await reply(assistant, question_request(file.getvalue(), question.text))
                right = answer_matches(question, answer.text)
                found.append(((phantom.modality, question.topic), float(right)))
            advance(1)
            return found

    for found in await asyncio.gather(*(one(number) for number in held_out(seed, count))):
        for slice_, right in found:
            scores.of[slice_].append(right)
    if drawings:
        report = await evaluate(
            assistant,
            seed,
            drawings,
            ("caption_slots", "image_findings"),
            progress=lambda done, total: advance(1),
        )
        if failed := [outcome.error for outcome in report.outcomes if outcome.error]:
            raise RuntimeError(f"{len(failed)} requests failed, first: {failed[0]}")
        for outcome in report.outcomes:
            scores.of[outcome.modality, outcome.topic].append(outcome.right / outcome.total)
    return scores


def measure(name: str, checkpoint: Path, arguments: argparse.Namespace) -> Scores:
    settings = config.load(
        checkpoint=checkpoint, store=False, request_timeout_s=3600, threads=arguments.threads
    )

    async def run() -> Scores:
        with Progress(console=err) as shown:
            task = shown.add_task(name, total=arguments.phantoms + arguments.drawings)
            async with local_assistant(settings) as assistant:
                return await ask_all(
                    assistant, arguments.seed, arguments.phantoms, arguments.drawings,
                    lambda count: shown.update(task, advance=count),
                )  # fmt: skip

    return asyncio.run(run())


def compare(wanted: Slice, full: Scores, broken: Scores, mended: Scores) -> dict[str, Any]:
    """A line for every slice, and whether the slice came back and the others stayed."""
    lines = []
    for slice_ in sorted(full.of):
        gain = np.array(mended.of[slice_]) - np.array(broken.of[slice_])
        error = float(gain.std(ddof=1) / math.sqrt(len(gain))) if len(gain) > 1 else None
        line = {"modality": slice_[0], "topic": slice_[1], "n": len(gain), "full": full.mean(slice_),
                "broken": broken.mean(slice_), "mended": mended.mean(slice_), "gain": float(gain.mean()),
                "gain_stderr": error, "target": slice_ == wanted}  # fmt: skip
        lines.append(line)
    target = next((line for line in lines if line["target"]), None)
    if target is None:
        raise SystemExit("no held-out phantom asks about the slice; raise --phantoms")
    worst = min((line for line in lines if not line["target"]), key=lambda line: line["gain"])
    return {
        "slice": ":".join(wanted),
        "recovered": target["mended"] >= RECOVERED * target["full"],
        "others_kept": worst["gain"] >= -FORGOTTEN,
        "worst_other": worst,
        "slices": lines,
    }


def markdown(result: dict[str, Any]) -> str:
    verdict = "came back" if result["recovered"] else "did not come back"
    kept = (
        "no other slice lost more than one point"
        if result["others_kept"]
        else "another slice lost more than one point"
    )
    rows = [
        f"The slice `{result['slice']}` {verdict} (at least {RECOVERED:.0%} of the full model); {kept}.",
        "",
        "| modality | topic | n | full % | broken % | mended % | mended - broken |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in result["slices"]:
        error = f" ± {100 * line['gain_stderr']:.1f}" if line["gain_stderr"] is not None else ""
        cells = [line["modality"], line["topic"], str(line["n"])]
        cells += [f"{100 * line[name]:.1f}" for name in ("full", "broken", "mended")]
        cells.append(f"{100 * line['gain']:+.1f}{error}")
        rows.append("| " + " | ".join(f"**{cell}**" if line["target"] else cell for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _medmax(*arguments: str) -> dict[str, Any]:
    """Runs a command of ours; its progress goes on to the terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments, "--json"], stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        raise SystemExit(f"medmax {arguments[0]} {arguments[1]}: {result['error']['message']}")
    return result


def _mend(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fine-tunes the broken model into the folder `mended`; what `train lora` says of it."""
    out, rng = arguments.out, np.random.default_rng([arguments.seed, 31])
    file = write_rows(out / "data", arguments.slice, arguments.rows, arguments.replay, rng)
    names = ("epochs", "batch", "rate", "rank", "alpha", "keep_weight", "threads", "workers", "seed")
    options = [
        text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(arguments, name)))
    ]
    trained = _medmax(
        "train", "lora", "--data", str(file), "--base", str(arguments.broken), "--out", str(out / "adapter"),
        "--cache", str(out / "codes.sqlite3"), *options,
    )  # fmt: skip
    _medmax("train", "merge", "--base", str(arguments.broken), "--adapter", str(out / "adapter"),
            "--out", str(out / "mended"), "--weight", str(arguments.weight))  # fmt: skip
    return trained


def main(given: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slice", type=parse_slice, required=True, help="modality:topic")
    parser.add_argument("--broken", type=Path, required=True)
    parser.add_argument("--full", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--mended", type=Path, help="of an earlier run: only ask again")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    for name, default in (("rows", 200), ("replay", 1400), ("phantoms", 1000), ("drawings", 200), ("seed", 31),
                          ("epochs", 5), ("batch", 2), ("rank", 16), ("alpha", 16), ("threads", 1), ("workers", 1), ("jobs", 1)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--keep-weight", type=float, default=0.6, help="see `medmax train lora --help`")
    parser.add_argument("--weight", type=float, default=1.0, help="share of the adapter when merging")
    arguments = parser.parse_args(given)
    out, begin = arguments.out, time.monotonic()
    out.mkdir(parents=True)
    trained = _mend(arguments) if arguments.mended is None else None
    models = {
        "full": arguments.full,
        "broken": arguments.broken,
        "mended": arguments.mended or out / "mended",
    }
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        asked = {name: pool.submit(measure, name, models[name], arguments) for name in models}
        scores = {name: future.result() for name, future in asked.items()}
    result = compare(arguments.slice, **scores)
    settings = {name: str(value) for name, value in vars(arguments).items() if name != "slice"}
    result |= {"settings": settings, "training": trained, "seconds": round(time.monotonic() - begin, 1)}
    (out / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "results.md").write_text(markdown(result) + f"\n{result['seconds']} s in all.\n")
    print(markdown(result))
    return result


if __name__ == "__main__":
    main()
