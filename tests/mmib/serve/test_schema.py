"""The API compared with its own description: schemathesis generates valid and invalid requests."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from mmib.extract.extractor import Extractor
from mmib.serve.app import create_app

GOOD, BAD = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
# A request without content cannot be invalid.
CASES = (
    *((mode, "post", path) for path in ("/api/extract", "/api/extract-batch") for mode in (GOOD, BAD)),
    *((GOOD, "get", path) for path in ("/api/health", "/api/model", "/api/examples")),
)
EXAMPLES = 10


@pytest.mark.parametrize(("mode", "method", "path"), CASES, ids=lambda value: getattr(value, "value", value))
def test_answers_match_the_description(
    extractor: Extractor, mode: schemathesis.GenerationMode, method: str, path: str
) -> None:
    schema: Any = schemathesis.openapi.from_asgi("/api/openapi.json", create_app(extractor))
    operation = schema[path][method]

    # The same requests each time. What a schema cannot express, such as which bytes are an image, is refused as well.
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()
