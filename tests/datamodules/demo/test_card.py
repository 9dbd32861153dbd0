"""The data-set card of the demo corpus, as read by the Hub."""

from __future__ import annotations

import json
from typing import Any

from huggingface_hub import DatasetCard


def test_the_hub_can_parse_the_card_which_lists_rows_and_ceilings(corpus: Any) -> None:
    card = DatasetCard.load(corpus.root / "README.md")
    assert card.data.task_categories == ["token-classification", "text-classification"]
    assert (card.data.license, card.data.size_categories) == ("apache-2.0", ["n<1K"])
    test = json.loads((corpus.root / "demo.json").read_text())["splits"]["test"]["mner"]
    ceilings = " | ".join(f"{100 * test['ceiling'][view]:.1f}" for view in ("text", "multimodal"))
    assert f"| entity recognition | test | {test['rows']} | {test['images']} | {ceilings} |" in card.text
    assert "| missing | 0.1 |" in card.text
