#!/bin/bash
# Collects in .gpu/ what bench/gpu_check.sh needs on a machine with a GPU and without network: headers,
# xgrammar's source, and wheels for CPython 3.12. Run it where there is network; carry .gpu/ along
# with the tree. It is no larger than 10 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=.gpu
# For tests/python beyond torch, transformers, numpy, tokenizers, pytest and hypothesis, and for the build.
wheels=(nanobind==3.1.0 gguf jsonschema jsonschema-specifications referencing rpds-py
        prompt_toolkit wcwidth)

rm -rf "$out"
mkdir -p "$out"/{include,cmake,wheels}
for library in nlohmann doctest; do
  [ -d "/usr/include/$library" ] || { echo "gpu_bundle: /usr/include/$library is missing" >&2; exit 1; }
  cp -r "/usr/include/$library" "$out/include/"
done
# What find_package() looks for; the paths are those of the folder itself.
cat > "$out/cmake/nlohmann_jsonConfig.cmake" <<'CMAKE'
if(NOT TARGET nlohmann_json::nlohmann_json)
  add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED GLOBAL)
  set_target_properties(nlohmann_json::nlohmann_json PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES ${CMAKE_CURRENT_LIST_DIR}/../include)
endif()
CMAKE
cat > "$out/cmake/doctestConfig.cmake" <<'CMAKE'
if(NOT TARGET doctest::doctest)
  add_library(doctest::doctest INTERFACE IMPORTED GLOBAL)
  set_target_properties(doctest::doctest PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES ${CMAKE_CURRENT_LIST_DIR}/../include)
endif()
CMAKE
for name in nlohmann_json:3.11.2 doctest:2.4.9; do
  cat > "$out/cmake/${name%:*}ConfigVersion.cmake" <<CMAKE
set(PACKAGE_VERSION ${name#*:})
if(NOT PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
CMAKE
done
cp -r "$("$python" tools/fetch_xgrammar.py)" "$out/xgrammar"
cp -r "$("$python" tools/fetch_cublas_headers.py)" "$out/cublas"
platforms=()
for glibc in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
"$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version 3.12 --implementation cp "${platforms[@]}" -d "$out/wheels" "${wheels[@]}"
commit=$(git rev-parse --short=10 HEAD)
git diff --quiet HEAD || commit+=-changed
echo "$commit" > "$out/commit"
du -sh "$out"
