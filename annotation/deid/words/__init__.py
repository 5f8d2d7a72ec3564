"""Words by kind, one list a file, and names of people from Faker where that is installed."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module, resources
from itertools import chain
from typing import Any

from annotation.deid.view import view


@cache
def words(kind: str) -> frozenset[str]:
    """The lower-case words of `kind`.txt."""
    lines = resources.files(__name__).joinpath(f"{kind}.txt").read_text("utf-8").splitlines()
    return frozenset(chain.from_iterable(line.split() for line in lines if not line.startswith("#")))


@cache
def medicine() -> frozenset[str]:
    """Words that are no names, whatever their first letter: English, medicine, drugs, countries."""
    return words("general") | words("eponyms") | words("drugs") | words("places")


@cache
def people() -> tuple[frozenset[str], frozenset[str]]:
    """Given and family names of some eighty countries, lower case, from Faker's lists; both empty without Faker."""
    try:
        import faker.providers.person as person
    except ModuleNotFoundError:
        return frozenset(), frozenset()
    given: set[str] = set()
    family: set[str] = set()
    for module in pkgutil.iter_modules(person.__path__):
        provider = import_module(f"{person.__name__}.{module.name}").Provider
        for attribute in dir(provider):
            if "name" not in attribute or attribute.startswith("_"):
                continue
            found = family if "last" in attribute or "surname" in attribute else given
            found.update(_parts(getattr(provider, attribute)))
    return frozenset(given), frozenset(family)


def _parts(value: Any) -> set[str]:
    if not isinstance(value, (list, tuple, dict, set)):
        return set()
    entries = (entry for entry in value if isinstance(entry, str) and len(entry) < 40)
    plain = (part for entry in entries for part in view(entry).text.replace("-", " ").lower().split())
    return {part for part in plain if len(part) > 1 and part.replace("'", "").isalpha() and part.isascii()}
