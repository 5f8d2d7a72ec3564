"""Generate `services/pb` from `protos/`; with `--check`, compare instead and fail on drift."""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "services" / "pb"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
# The stubs live below `services.pb`, which protoc's own import lines do not know.
IMPORT = re.compile(r"^(from|import) (medmax\.|inference\b)", re.MULTILINE)
# Nor do the message classes, which then could not be pickled.
MODULE = re.compile(r"(BuildTopDescriptorsAndMessages\(DESCRIPTOR, ')(medmax|inference)\.")
# tritonclient brings `inference.*` as well, and the process's own pool of descriptors takes every name once.
POOL = ("_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()")


def generate(target: Path) -> None:
    """Write the stubs and their type files below `target`."""
    sources = sorted(str(path) for path in PROTOS.rglob("*.proto"))
    arguments = [
        "protoc",
        f"-I{PROTOS}",
        f"-I{WELL_KNOWN}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out={target}",
        f"--mypy_grpc_out={target}",
        *sources,
    ]
    # protoc finds the mypy plugins beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    for path in target.rglob("*.py*"):
        text = MODULE.sub(r"\1services.pb.\2.", IMPORT.sub(r"\1 services.pb.\2", path.read_text()))
        path.write_text(text.replace(*POOL) if path.parent.name == "inference" else text)
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text('"""Generated from protos/ by scripts/generate_stubs.py."""\n')


def differing(left: Path, right: Path) -> list[str]:
    """Relative paths that are not the same below both folders."""
    names = {
        str(path.relative_to(base))
        for base in (left, right)
        for path in base.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(
        name
        for name in names
        if not ((left / name).exists() and (right / name).exists())
        or not filecmp.cmp(left / name, right / name, shallow=False)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        drift = differing(fresh, STUBS)
        if check and drift:
            print("services/pb differs from protos/; run `make stubs`:", *drift, sep="\n  ")
            return 1
        if not check:
            shutil.rmtree(STUBS, ignore_errors=True)
            shutil.copytree(fresh, STUBS)
    print("stubs: in step with protos/" if check else f"stubs: written, {len(drift)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
