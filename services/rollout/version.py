"""What a roll-out changes: the model version, and for a RayService images and environment of its pods."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from services.errors import InvalidInput

MAX_PATH_CHARS = 1024
_MODEL_ID = re.compile(r"[A-Za-z0-9._/-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
_GROUP = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62})")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


@dataclass(frozen=True)
class Version:
    """A model as the application's arguments name it.

    Attributes:
        checkpoint: directory, as the serving processes see it.
        model_id: name under which clients ask for it.
        vqgan: published vqgan.ckpt, where the checkpoint lacks the VQ-GAN's decoder; empty = none.
        digest: SHA-256 over the weights, hex; empty = not known.
    """

    checkpoint: str
    model_id: str
    vqgan: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        _check("checkpoint", self.checkpoint, _PATH, "a path without control characters", MAX_PATH_CHARS)
        _check("model_id", self.model_id, _MODEL_ID, "1 to 64 characters of A-Z a-z 0-9 . _ / -")
        if self.vqgan:
            _check("vqgan", self.vqgan, _PATH, "a path without control characters", MAX_PATH_CHARS)
        if self.digest:
            _check("digest", self.digest, _DIGEST, "64 hexadecimal digits in lower case")

    @property
    def settings(self) -> dict[str, str]:
        """The settings of `services.config` that make this version."""
        named = {"model_id": self.model_id, "checkpoint": self.checkpoint}
        return {**named, "vqgan": self.vqgan} if self.vqgan else named

    def serves_as(self, other: Version) -> bool:
        """Whether both make the same settings; digests do not count, since settings hold none."""
        return self.settings == other.settings

    def __str__(self) -> str:
        return f"{self.model_id} from {self.checkpoint}"


@dataclass(frozen=True)
class Change:
    """A version and what comes with it.

    Attributes:
        images: image of the pods of a worker group, or of `head`, by its name.
        env: variables of every worker group's Ray container; None takes one away.
    """

    version: Version
    images: dict[str, str] = field(default_factory=dict)
    env: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group, image in self.images.items():
            _check("image", group, _GROUP, "NAME=IMAGE with the name of a worker group, or head")
            _check("image", image, _IMAGE, "NAME=IMAGE with an image's name, up to 512 characters")
        for name, value in self.env.items():
            _check("env", name, _VARIABLE, "NAME=VALUE with a name of A-Z a-z 0-9 _")
            if value is not None and len(value) > 32_768:
                raise InvalidInput(f"the value of {name} has more than 32,768 characters", field="env")

    @property
    def new_cluster(self) -> bool:
        """Whether pods change, so that KubeRay starts a Ray cluster beside the old one."""
        return bool(self.images or self.env)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(Version(**value["version"]), value["images"], value["env"])


def _check(name: str, value: str, pattern: re.Pattern[str], form: str, most: int | None = None) -> None:
    if not pattern.fullmatch(value) or (most and len(value) > most):
        limit = f", at most {most:,} characters" if most else ""
        raise InvalidInput(f"must be {form}{limit}", field=name)
