"""Who reviews what: the policy that Label Studio's community edition lacks."""

from annotation.assign.crew import Annotator, Crew
from annotation.assign.desk import Desk, Reservation
from annotation.assign.policy import AssignPolicy

__all__ = ["Annotator", "AssignPolicy", "Crew", "Desk", "Reservation"]
