"""Print the packages of pyproject.toml, with those of the extras that are named: an image's layer without sources."""

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def main(extras: list[str]) -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    optional = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in optional]:
        raise SystemExit(f"no extra of pyproject.toml: {', '.join(unknown)}")
    print(*project["dependencies"], *(each for extra in extras for each in optional[extra]), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
