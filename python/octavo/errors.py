"""The exceptions of Octavo, defined by the engine so that C++ and Python raise the same classes."""

from __future__ import annotations

from typing import Any

from octavo._core import (
    InternalError,
    ModelLoadError,
    NotSupportedError,
    OctavoError,
    OutOfMemoryError,
    ValidationError,
)

__all__ = [
    "InternalError",
    "ModelLoadError",
    "NotSupportedError",
    "OctavoError",
    "OutOfMemoryError",
    "ValidationError",
    "validation_error",
]


def validation_error(
    message: str, *, parameter: str | None = None, value: Any = None
) -> ValidationError:
    """Builds a ValidationError; the parameter and its value are put behind the message.

    They can also be read from the exception, as ``.parameter`` and ``.value``.
    """
    extras = []
    if parameter is not None:
        extras.append(f"parameter={parameter}")
    if value is not None:
        extras.append(f"value={value}")
    error = ValidationError(f"{message} ({', '.join(extras)})" if extras else message)
    error.parameter = parameter  # type: ignore[attr-defined]
    error.value = value  # type: ignore[attr-defined]
    return error
