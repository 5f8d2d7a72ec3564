"""Builds that are killed, builds of many judgements, and training on what was built."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from annotation.core import Decision, Kind, Turn, Verdict
from annotation.dataset.build import STAGES
from annotation.dataset.policy import Policy
from annotation.dataset.tokenizer import CheckpointTokenizer
from annotation.dataset.versions import list_versions, verify
from tests.support.judgements import builder, item, judge, picture
from tests.unit.cli.medmax import medmax

REPOSITORY = Path(__file__).parents[2]

KILLED = """
import sys, time
from pathlib import Path
from tests.support.judgements import builder, item, judge

stop = sys.argv[2]

def progress(stage, done, of):
    if stage == stop:
        print("reached", flush=True)
        time.sleep(600)

judgements = [judge(item(f"int_{n}", question=f"What is number {n}?", shows=n % 30)) for n in range(100)]
print("built", builder(Path(sys.argv[1]), progress=progress).run(judgements).digest)
"""


@pytest.mark.slow
def test_a_build_killed_anywhere_leaves_nothing_or_the_whole_version(tmp_path: Path) -> None:
    seen = {}
    for stage in STAGES:
        if stage == "decontaminate":  # nothing to compare with in this build
            continue
        root = tmp_path / stage
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root), stage], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "reached\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        left = list_versions(root)
        assert [verify(version) for version in left] == [[]] * len(left)
        seen[stage] = len(left)
        judgements = [
            judge(item(f"int_{n}", question=f"What is number {n}?", shows=n % 30)) for n in range(100)
        ]
        again = builder(root).run(judgements)  # no lock and no rest of the dead one is in the way
        assert verify(again) == []
        assert [version.digest for version in list_versions(root)] == [again.digest]
        assert sorted(path.name for path in root.iterdir()) == [".lock", again.id]
    assert seen == {stage: int(stage == "published") for stage in STAGES if stage != "decontaminate"}


@pytest.fixture(scope="module")
def phantom() -> Path:
    return REPOSITORY / "models" / "phantom"


@pytest.mark.slow
def test_a_version_trains_without_a_skipped_row(tmp_path: Path, phantom: Path) -> None:
    turns = (
        Turn("user", (picture(1), "What is abnormal in this picture?")),
        Turn("assistant", ("a mass",)),
        Turn("user", ("Which side is it on?",)),
    )
    marked = item("report", shows=2, kind=Kind.REPORT, question="Describe this image.", answer=("Normal.",))
    ranked = item("ranked", shows=3, kind=Kind.PREFERENCE, alternatives=(("left",), ("right",)))
    judgements = [
        judge(item("dialogue", dialogue=turns, answer=("left",)), Verdict(Decision.EDIT, text="right")),
        judge(marked, Verdict(Decision.ACCEPT, missing=("effusion",))),
        judge(item("drawn", question="chest x-ray", shows=None, kind=Kind.PICTURE, answer=(picture(4, synthetic=True),))),
        judge(ranked, Verdict(ranking=(1, 0))),
    ]  # fmt: skip
    version = builder(tmp_path / "root", policy=Policy(validation_share=0.0)).run(judgements)
    common = ("--base", str(phantom), "--epochs", "1", "--batch", "2", "--holdout", "0", "--rank", "2",
              "--device", "cpu", "--json")  # fmt: skip
    for option, name, count in (("--data", "rows.jsonl", 4), ("--preferences", "preferences.jsonl", 2)):
        done = medmax(
            tmp_path, "train", "lora", option, str(version.path / name), "--out", name, *common, timeout=280
        )
        assert done.status == 0, done.err
        assert done.document["rows"] == {"read": count, "learnt": count, "left_out": 0, "held_out": 0}
        assert done.document["steps"] >= 1
        assert (tmp_path / name / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_tokens_of_a_checkpoint_are_what_training_makes_of_the_text(tmp_path: Path, phantom: Path) -> None:
    tokenizer = CheckpointTokenizer(phantom)
    try:
        judgements = [
            judge(item("a", shows=1), Verdict(Decision.EDIT, text="no")),
            judge(item("long", shows=2, answer=("word " * 2000,))),
        ]
        version = builder(tmp_path, policy=Policy(validation_share=0.0), tokenizer=tokenizer).run(judgements)
        (row,) = version.records("rows")
        assert tokenizer.tokens({**row, "tokens": None}, version.path) == row["tokens"]
        assert [entry["reason"] for entry in version.dropped()] == ["unusable_too_long"]
    finally:
        tokenizer.close()


MANY = """
import hashlib, json, resource, sys, time
from pathlib import Path
from annotation.core import Decision, Verdict
from tests.support.judgements import builder, item, judge

count = int(sys.argv[2])

letters = str.maketrans("0123456789", "ghijklmnop")

def judgements():
    for n in range(count):
        word = hashlib.sha256(b"%d" % n).hexdigest()[:24].translate(letters)
        asked = item(f"int_{n}", question=f"What does {word} mean in this case?", shows=n % 50 if n % 2 else None)
        yield judge(asked, Verdict(Decision.EDIT, text=f"It means {word}."), minutes=n % 1000)

start = time.time()
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
version = builder(Path(sys.argv[1])).run(judgements())
print(json.dumps({"MiB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024, "base_MiB": base / 1024,
                  "seconds": time.time() - start, "rows": version.manifest["counts"]["rows.jsonl"]}))
"""


@pytest.mark.slow
def test_memory_grows_little_with_the_judgements(tmp_path: Path) -> None:
    grown = []
    for count in (1000, 6000):
        done = subprocess.run(
            [sys.executable, "-c", MANY, str(tmp_path / str(count)), str(count)], cwd=REPOSITORY, capture_output=True,
            text=True, check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        grown.append(json.loads(done.stdout)["MiB"])
    assert grown[1] - grown[0] < 5000 * 4 / 1024  # 4 KiB a judgement: 400 MB for 100,000
