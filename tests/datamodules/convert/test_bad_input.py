"""Any file content is either converted or refused in one sentence."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmib.datamodules.convert.command import run
from mmib.schema import MMIBError

LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"text": "Acme makes Zip", "image": "a.jpg"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    {"id": "a", "type": "labels", "to_name": "text", "value": {"start": 0, "end": 4, "labels": ["T"]}},
                    {
                        "id": "b",
                        "type": "labels",
                        "to_name": "text",
                        "value": {"start": 11, "end": 14, "labels": ["P"]},
                    },
                    {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right", "labels": ["makes"]},
                ],
            }
        ],
    }
]
DOCCANO = {
    "id": 1,
    "text": "Acme makes Zip",
    "entities": [
        {"id": 4, "label": "T", "start_offset": 0, "end_offset": 4},
        {"id": 5, "label": "P", "start_offset": 11, "end_offset": 14},
    ],
    "relations": [{"from_id": 4, "to_id": 5, "type": "makes"}],
}
MMIB = {
    "id": 1,
    "text": "Acme makes Zip",
    "image": "a.jpg",
    "entities": [
        {"start": 0, "end": 4, "type": "T", "confidence": 0.5},
        {"id": 1, "start": 11, "end": 14, "type": "P"},
    ],
    "relations": [{"head": 0, "tail": 1, "type": "makes"}],
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 20) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=4), values, max_size=3),
    max_leaves=6,
)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all values of a structure."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, inner in below for place in places(inner, (*above, key)))]


def replaced(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    """A copy in which the value at a path is replaced."""
    if not place:
        return other
    result = copy.deepcopy(value)
    inner = result
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = other
    return result


@pytest.mark.parametrize(("name", "good"), [("label-studio", LABEL_STUDIO), ("doccano", DOCCANO), ("mmib", MMIB)])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_place_is_converted_or_refused(name: str, good: Any, data: st.DataObject) -> None:
    bad = replaced(good, data.draw(st.sampled_from(places(good))), data.draw(ANYTHING))
    target = data.draw(st.sampled_from(["mmib", "label-studio", "doccano"]))
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.json", Path(folder) / "out.json"
        source.write_text(json.dumps(bad), encoding="utf-8")
        refusal = ""
        try:
            run([str(source), "--from", name, "--to", target, "-o", str(output)])
        except MMIBError as error:
            refusal = str(error)
        assert output.exists() == (not refusal)
        assert not refusal or ("in.json" in refusal and "\n" not in refusal)
