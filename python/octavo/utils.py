"""Small things that programs written for vLLM import from there."""

from __future__ import annotations

import uuid


def random_uuid() -> str:
    """32 random hexadecimal digits, for the id of a request."""
    return uuid.uuid4().hex
