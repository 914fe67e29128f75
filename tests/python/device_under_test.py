"""The device that the end-to-end tests run on: OCTAVO_TEST_DEVICE, or the CPU. Tests of what only a
CPU has (its instruction sets, its threads) name it."""

from __future__ import annotations

import os

DEVICE = os.environ.get("OCTAVO_TEST_DEVICE") or "cpu"
