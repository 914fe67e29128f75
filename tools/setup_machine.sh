#!/usr/bin/env bash
# Makes sure that the machine has what pip cannot install: a C++ compiler, Python's headers and venv,
# and the two C++ header libraries. Does nothing, quietly, when all is there.
# Usage: tools/setup_machine.sh [python]
set -euo pipefail
python=${1:-python3}

has_header() { echo "#include <$1>" | g++ -E -x c++ - >/dev/null 2>&1; }
python_header() { "$python" -c 'import sysconfig; print(sysconfig.get_path("include"))'; }

# `required` packages stop the build when they are missing; CMake can fetch the `wanted` ones itself
# from GitHub.
required=()
wanted=()
command -v g++ >/dev/null || required+=(g++)
"$python" -c 'import ensurepip' 2>/dev/null || required+=(python3-venv)
[[ -e $(python_header)/Python.h ]] || required+=(python3-dev)
has_header nlohmann/json.hpp || wanted+=(nlohmann-json3-dev)
has_header doctest/doctest.h || wanted+=(doctest-dev)
packages=("${required[@]}" "${wanted[@]}")
[[ ${#packages[@]} -gt 0 ]] || exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  as_root=(sudo)
fi
apt_install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
    --no-install-recommends "${packages[@]}"
}

if command -v apt-get >/dev/null && { [[ $(id -u) -eq 0 ]] || command -v sudo >/dev/null; }; then
  echo "Installing by apt-get: ${packages[*]}"
  # A new machine has no package lists yet; one that has them needs no update.
  if apt_install || { "${as_root[@]}" apt-get update -q && apt_install; }; then
    exit 0
  fi
fi

echo "Please install (names as in Debian): ${packages[*]}" >&2
if [[ ${#required[@]} -gt 0 ]]; then
  exit 1
fi
echo "Going on without: CMake will try to download them." >&2
