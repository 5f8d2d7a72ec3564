"""The review loop's state, in the database of the interactions."""

from annotation.store.annotations import Recorded
from annotation.store.candidates import Candidate
from annotation.store.entries import Entry, Routed, item_key
from annotation.store.inbox import Event
from annotation.store.states import Because, NotAllowed, State
from annotation.store.store import REVIEW, ReviewStore
from annotation.store.versions import Status, Version, What

__all__ = [
    "REVIEW",
    "Because",
    "Candidate",
    "Entry",
    "Event",
    "NotAllowed",
    "Recorded",
    "ReviewStore",
    "Routed",
    "State",
    "Status",
    "Version",
    "What",
    "item_key",
]
