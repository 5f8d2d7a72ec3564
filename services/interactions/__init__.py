"""What was asked and answered: a database for the records, an object store for the pictures."""

from services.interactions.ids import new_feedback_id, new_interaction_id
from services.interactions.purge import PurgeReport
from services.interactions.store import InteractionStore

__all__ = ["InteractionStore", "PurgeReport", "new_feedback_id", "new_interaction_id"]
