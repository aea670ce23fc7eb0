"""Structure of a reply: tags that stand in it once each and in order, around a plan that is hidden and a message that is sent."""

from __future__ import annotations

import re
from collections.abc import Sequence


def well_formed(text: str, tags: Sequence[str]) -> bool:
    """Whether every tag stands in a reply exactly once, and in this order; true where there are no tags."""
    places = [text.find(tag) for tag in tags]
    return all(text.count(tag) == 1 for tag in tags) and places == sorted(places)


def message_of(text: str, tags: Sequence[str]) -> str | None:
    """What stands between the last two tags, without blanks around it; None in a reply that is malformed."""
    if not well_formed(text, tags):
        return None
    opening, closing = map(re.escape, tags[-2:])
    found = re.search(f"{opening}(.*){closing}", text, re.DOTALL)
    return found[1].strip() if found else None
