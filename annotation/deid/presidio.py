"""Presidio's recognisers beside the rules, where presidio-analyzer is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from annotation.deid.core import Category, Span
from annotation.deid.tokens import Words
from services.errors import ConfigurationError

MIN_SCORE = 0.5
CATEGORIES = {
    "PERSON": Category.NAME,
    "LOCATION": Category.PLACE,
    "PHONE_NUMBER": Category.PHONE,
    "EMAIL_ADDRESS": Category.EMAIL,
    "URL": Category.URL,
    "IP_ADDRESS": Category.IP,
    "MAC_ADDRESS": Category.DEVICE,
    "CREDIT_CARD": Category.ACCOUNT,
    "IBAN_CODE": Category.ACCOUNT,
    "CRYPTO": Category.ACCOUNT,
    "US_BANK_NUMBER": Category.ACCOUNT,
    "US_SSN": Category.SSN,
    "US_ITIN": Category.SSN,
    "UK_NINO": Category.SSN,
    "UK_NHS": Category.RECORD,
    "US_PASSPORT": Category.LICENCE,
    "US_DRIVER_LICENSE": Category.LICENCE,
    "MEDICAL_LICENSE": Category.LICENCE,
    "US_MBI": Category.HEALTH_PLAN,
}
"""Presidio's dates are left to the rules: they take "3 days" for one."""


class PresidioRecogniser:
    """Presidio's patterns; and its names and places where `model`, a spaCy model, is installed. Downloads nothing.

    Args:
        model: name of an installed spaCy package, such as `en_core_web_lg`; None for patterns alone.

    Raises:
        ConfigurationError: presidio-analyzer or the model is not installed.
    """

    def __init__(self, model: str | None = None) -> None:
        try:
            from presidio_analyzer import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
                AnalyzerEngine,
                PatternRecognizer,
                RecognizerRegistry,
            )
            from presidio_analyzer.nlp_engine import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
                SpacyNlpEngine,
            )
        except ModuleNotFoundError:
            raise ConfigurationError("needs the package presidio-analyzer", field="recogniser") from None
        registry = RecognizerRegistry()
        registry.load_predefined_recognizers(languages=["en"])
        self._patterns: list[Any] = [r for r in registry.recognizers if isinstance(r, PatternRecognizer)]
        self._engine: Any = None
        if model is not None:
            from spacy.util import is_package  # type: ignore[import-not-found, import-untyped, unused-ignore]

            if not is_package(model):  # Presidio would download it
                raise ConfigurationError(
                    "the spaCy model of this name is not installed", field="recogniser.model"
                )
            nlp = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": model}])
            self._engine = AnalyzerEngine(registry=registry, nlp_engine=nlp)

    def find(self, text: str) -> Iterator[Span]:
        every = Words(text)
        for found in self._analyse(text):
            category = CATEGORIES.get(found.entity_type)
            if category is None or found.score < MIN_SCORE:
                continue
            inside = [i for i, word in every if found.start <= word.start < found.end]
            if category in (Category.NAME, Category.PLACE) and all(every.known(i) for i in inside):
                continue  # an eponym, or English
            yield Span(category, found.start, found.end)

    def _analyse(self, text: str) -> list[Any]:
        if self._engine is not None:
            return list(self._engine.analyze(text, language="en", entities=list(CATEGORIES)))
        found: list[Any] = []
        for recogniser in self._patterns:
            wanted = [entity for entity in recogniser.supported_entities if entity in CATEGORIES]
            if wanted:
                found += recogniser.analyze(text, wanted, None)
        return found
