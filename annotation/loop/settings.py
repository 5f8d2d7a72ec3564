"""Every setting of the review loop: a YAML file (`--config`), and `MEDMAX_REVIEW_*`, which wins over the file.

A name with dots is written with two underscores: `labelstudio.url` is `MEDMAX_REVIEW_LABELSTUDIO__URL`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from annotation.assign import AssignPolicy
from annotation.dataset.policy import Policy
from annotation.judge.policy import JudgePolicy
from annotation.routing.features import MAX_RESAMPLES
from annotation.routing.policy import RoutingPolicy
from services.errors import ConfigurationError, MedMaxError

MAX_FILE_BYTES = 1 << 20
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Part(BaseModel):
    """A section of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelStudioSettings(Part):
    url: str = Field("", description="http(s)://host[:port]; empty = nothing is published or collected")
    token: SecretStr = Field(SecretStr(""), description="personal access token or legacy token")
    public_url: str = Field(
        "",
        description="where Label Studio and the experts' browsers find `medmax review run`; empty = its own address",
    )
    hook_url: str = Field(
        "", description="where Label Studio finds it, for webhooks and drafts; empty = public_url"
    )
    webhook_secret: SecretStr | None = Field(None, description="16 characters or more; default: of `secret`")
    configs: Path | None = Field(None, description="folder of labelling configurations; default: ours")
    timeout_s: float = Field(30, gt=0, le=600)
    reconcile_minutes: float = Field(10, gt=0, le=24 * 60, description="between looks at all annotations")
    picture_days: int = Field(30, ge=1, le=3650, description="how long a picture's address works")

    @field_validator("webhook_secret")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("must have at least 16 characters")
        return value


class Speciality(Part):
    """Items of these modalities and tasks go to its experts; an empty list means any."""

    name: Name
    modalities: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def fits(self, modality: str, task: str) -> bool:
        return (not self.modalities or modality in self.modalities) and (not self.tasks or task in self.tasks)


class Expert(Part):
    """id: Label Studio's user id as text. An adjudicator decides conflicts and gets nothing else."""

    id: Name
    specialities: tuple[Name, ...] = ("general",)
    adjudicator: bool = False
    active: bool = True
    max_open: int = Field(1, ge=1, le=1000)
    max_daily: int = Field(200, ge=0, le=100_000)


class EvaluationSet(Part):
    """What the model is measured on, and never trained on: a folder or file of medmax_eval_data's form, or phantoms."""

    data: Path | None = None
    phantom_seed: int | None = Field(None, ge=0, le=999_999)
    phantom_count: int = Field(50, ge=1, le=10_000, description="rows of each task")

    @model_validator(mode="after")
    def _one(self) -> EvaluationSet:
        if (self.data is None) == (self.phantom_seed is None):
            raise ValueError("give either data or phantom_seed")
        return self


class DatasetSettings(Part):
    root: Path | None = Field(None, description="folder of versions; default: datasets below MEDMAX_DATA_DIR")
    min_judged: int = Field(50, ge=1, description="newly judged items for which a version is built")
    name: str = "medmax-review"
    licence: str = "not stated"
    consent: str = "Interactions with consent to use as training data alone."
    validation_share: float = Field(0.05, ge=0, le=0.5)
    similar: float = Field(0.9, ge=0.5, le=1)
    ngram: int = Field(13, ge=2, le=100)

    @property
    def policy(self) -> Policy:
        return Policy(**self.model_dump(exclude={"root", "min_judged"}))


class TrainSettings(Part):
    """Options of `medmax train lora` and `merge`."""

    enabled: bool = Field(False, description="train when a new version is there")
    min_rows: int = Field(50, ge=1, description="fewer rows are not trained on")
    epochs: int = Field(3, ge=1, le=1000)
    rate: float = Field(1e-4, ge=1e-8, le=1)
    rank: int = Field(16, ge=1, le=1024)
    batch: int = Field(8, ge=1, le=65536)
    threads: int = Field(1, ge=1, le=256)
    weight: float = Field(1.0, ge=0, le=2, description="share of the adapter that is merged")
    extra: tuple[str, ...] = Field((), description="further arguments of `medmax train lora`")
    preferences: int = Field(
        0, ge=0, description="pairs from which DPO on them follows, on what the rows gave; 0 = never"
    )
    preference_rate: float = Field(2e-5, ge=1e-8, le=1)
    preference_epochs: int = Field(1, ge=1, le=1000)


class EvaluateSettings(Part):
    """Options of `medmax eval suite`."""

    tasks: tuple[str, ...] = Field((), description="default: all that the data hold")
    limit: int | None = Field(None, ge=1, description="examples of each task; default: all")
    parallel: int = Field(8, ge=1, le=512)
    extra: tuple[str, ...] = Field((), description="further arguments of `medmax eval suite`")


class PromoteSettings(Part):
    """When a candidate takes the place of the model in service. Scores are differences of shares, 0.02 = two points."""

    target: tuple[str, ...] = Field(
        (), description="tasks that must improve, with * and ?; empty = the mean of all"
    )
    min_gain: float = Field(
        0.0, ge=0, le=1, description="the interval of the target's gain must lie above this"
    )
    budget: float = Field(0.02, ge=0, le=1, description="by which any other task may get worse")
    budgets: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="of tasks, with * and ?; the first that fits, in place of `budget`"
    )
    rule: Literal["proven", "plausible"] = Field(
        "proven",
        description="proven: a task's whole interval lies above −budget; plausible: some of it does",
    )
    min_examples: int = Field(20, ge=1, description="tasks with fewer examples decide nothing")
    roll_out: tuple[str, ...] = Field(
        (), description="command that restarts or patches what serves `current`"
    )


class StepSettings(Part):
    lease_s: float = Field(30, ge=1, le=3600, description="how long a killed controller blocks a step")
    interval_s: float = Field(
        5, gt=0, le=3600, description="between passes of a step that found nothing to do"
    )
    route_interval_s: float = Field(60, gt=0, le=24 * 3600)
    batch: int = Field(50, ge=1, le=10_000, description="items of one pass of a step")
    backoff_s: float = Field(300, gt=0, le=24 * 3600, description="longest wait after failures")


class AssistantSettings(Part):
    """Who writes drafts and alternatives."""

    url: str = Field(
        "", description="http(s)://host:port of `medmax serve`; `local` = in this process; empty = nobody"
    )
    key: SecretStr = SecretStr("")
    temperature: float = Field(0.9, gt=0, le=2)


class ResampleSettings(Part):
    """Short answers asked for again before routing: an answer that is not repeated is a doubtful one."""

    draws: int = Field(0, ge=0, le=MAX_RESAMPLES, description="of an answer; 0 = none are drawn")
    characters: int = Field(80, ge=1, le=2000, description="longest answer for which they are drawn")
    per_pass: int = Field(20, ge=1, le=1000, description="answers, the newest first, before each routing")


class ReviewSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="MEDMAX_REVIEW_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    host: str = Field("127.0.0.1", description="of the webhook, the pictures and the status page")
    port: int = Field(8010, ge=0, le=65535, description="0 = any free one")
    secret: SecretStr | None = Field(
        None, description="the installation's, 16 to 64 bytes; default: made once, kept below MEDMAX_DATA_DIR"
    )
    labelstudio: LabelStudioSettings = LabelStudioSettings()
    routing: RoutingPolicy = RoutingPolicy()
    resample: ResampleSettings = ResampleSettings()
    judge: JudgePolicy = JudgePolicy()
    assign: AssignPolicy = AssignPolicy()
    dataset: DatasetSettings = DatasetSettings()
    specialities: tuple[Speciality, ...] = ()
    experts: tuple[Expert, ...] = ()
    allowed_words: tuple[str, ...] = Field((), description="drugs and products that are no names, lower case")
    preference_share: float = Field(
        0, ge=0, le=1, description="of sent texts, an alternative is drawn and ranked"
    )
    calibrate_every: int = Field(50, ge=1, description="new verdicts of the random share")
    evaluation: tuple[EvaluationSet, ...] = ()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    promote: PromoteSettings = PromoteSettings()
    assistant: AssistantSettings = AssistantSettings()
    steps: StepSettings = StepSettings()

    @field_validator("secret")
    @classmethod
    def _size(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not 16 <= len(value.get_secret_value().encode()) <= 64:
            raise ValueError("must have 16 to 64 bytes")
        return value

    @property
    def loopback(self) -> bool:
        return self.host in {"127.0.0.1", "::1", "localhost"}

    def speciality(self, modality: str, task: str) -> str:
        """The first that fits; `general` where none does."""
        return next((each.name for each in self.specialities if each.fits(modality, task)), "general")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def load_review(config: Path | None = None) -> ReviewSettings:
    """The settings of a file, if one is given, and of the environment.

    Raises:
        ConfigurationError: no such file, no YAML, or a wrong value; the message names the field and the limit, never
            the value.
    """
    values = _read(config) if config is not None else {}
    try:
        return ReviewSettings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(first["msg"], field=f"review.{name}") from None
    except MedMaxError as error:
        raise ConfigurationError(error.message, field=f"review.dataset.{error.field}") from None


def _read(config: Path) -> dict[str, Any]:
    try:
        if config.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError("must not exceed 1 MiB", field="--config")
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {type(error).__name__}", field="--config") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise ConfigurationError(f"is no YAML{where}", field="--config") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigurationError("must hold names and values", field="--config")
    return values
