"""Where the C++ library of this package is installed."""

from __future__ import annotations

from pathlib import Path

from octavo import _core

# Beside the compiled module: in an editable installation the sources lie elsewhere.
_PACKAGE = Path(_core.__file__).resolve().parent


def get_include() -> str:
    """The directory of the public headers (``#include "octavo/engine.h"``)."""
    return str(_PACKAGE / "include")


def get_cmake_dir() -> str:
    """The directory to name as ``octavo_DIR`` for CMake's ``find_package(octavo)``."""
    return str(_PACKAGE / "lib" / "cmake" / "octavo")
