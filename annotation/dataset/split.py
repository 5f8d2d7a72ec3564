"""Which judgements are kept for validation: by patient where known, else by picture, else by the item itself.

Judgements that share a patient or a picture, directly or through others, are one group and lie on one side. A hash of the
group's first patient (first picture, where no patient is known) decides, so that a group stays where it is when data is added,
unless the new data join it to another group or bring a patient or picture that comes before its first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

Member = tuple[int, int]
"""Rank of its sort (patients first), and a hash."""


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Groups:
    """Connected groups of patients, pictures and items. Some 200 bytes a patient or picture."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._parent: dict[Member, Member] = {}

    def join(self, patient: str, pictures: Iterable[str], item: str) -> None:
        """An item, its patient (empty where unknown) and its pictures belong together."""
        first, *others = self._members(patient, pictures, item)
        for other in others:
            a, b = sorted((self._root(first), self._root(other)))
            self._parent[b] = a  # the smallest member is the root: it follows from the members alone

    def held(self, patient: str, pictures: Iterable[str], item: str, share: float) -> bool:
        """Whether the group of this item is for validation."""
        root = self._root(self._members(patient, pictures, item)[0])
        return _hash(f"{self._salt} {root[1]}") < share * 2**64

    def _members(self, patient: str, pictures: Iterable[str], item: str) -> Sequence[Member]:
        found = [(0, _hash(patient))] if patient else []
        found += [(1, _hash(picture)) for picture in pictures]
        return found or [(2, _hash(item))]

    def _root(self, member: Member) -> Member:
        root = member
        while (above := self._parent.get(root, root)) != root:
            root = above
        while member != root:
            self._parent[member], member = root, self._parent.get(member, root)
        return root
