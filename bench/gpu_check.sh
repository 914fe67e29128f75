#!/bin/bash
# Builds, tests and measures Octavo on a machine with an NVIDIA GPU, in under nine minutes on 16 cores
# and without network. Usage: bench/gpu_check.sh [PHASE...]
#
#   build     the libraries, the op tests and the Python package, for this machine's GPU
#   ops       tests/cpp/ops on CUDA against the reference
#   parity    the logits and greedy tokens of tiny models against transformers
#   bench     the workloads of bench/gpu, against vLLM's figures
#   suite     all of tests/python on CUDA (not by default)
#   sanitize  op tests under compute-sanitizer (not by default)
#
# A phase that fails or runs out of its time does not end the others. Logs and tables go to $OUT
# (default ./gpu_results). What is not on the machine comes from .gpu/ (bench/gpu_bundle.sh) or from
# the system. LIMIT is the number of seconds of all phases together.
set -uo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
OUT=$(realpath -m "${OUT:-gpu_results}")
BUILD=$(realpath -m "${BUILD:-build/gpu}")
LIMIT=${LIMIT:-530}
JOBS=${JOBS:-$(nproc)}
python=${PYTHON:-python3}
site=$BUILD/site
op_tests=(backend pack embed linear integer_linear norm gate gated_mlp rope_store_attention copy_blocks
          gather sample sample_rows replay model_shapes long_attention)
LOGS=$OUT/logs
rm -rf "$LOGS" && mkdir -p "$LOGS" "$BUILD"
phases=("$@")
[ ${#phases[@]} -eq 0 ] && phases=(build ops parity bench)
summary=$OUT/summary.txt
: > "$summary"

say() { echo "$*" | tee -a "$summary"; }
# Seconds that a phase of at most $1 may take now.
limit() {
  local left=$((LIMIT - SECONDS))
  [ "$left" -lt 1 ] && left=1
  echo $(($1 < left ? $1 : left))
}
# phase NAME SECONDS: runs phase_NAME with its output in a log.
phase() {
  local start=$SECONDS seconds status=PASS rc=0
  seconds=$(limit "$2")
  timeout --kill-after=5 "$seconds" bash -c "set -uo pipefail; $(declare -f); $(declare -p ROOT OUT LOGS BUILD JOBS python site op_tests architecture seconds); phase_$1" \
    > "$LOGS/$1.log" 2>&1 || rc=$?
  [ $rc -ne 0 ] && status=FAIL
  [ $rc -eq 124 ] || [ $rc -eq 137 ] && status="FAIL (its $seconds s were up)"
  say "$1: $status in $((SECONDS - start)) s"
  # Of the op tests a line each says enough.
  if [ $rc -ne 0 ] && [ "$1" != ops ]; then
    grep -aE "error|ERROR|FAILED|Error|assert" "$LOGS/$1.log" | head -10 | cut -c1-200 |
      sed 's/^/    /' | tee -a "$summary"
  fi
}

architecture=${ARCHITECTURE:-}
if [ -z "$architecture" ]; then
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
  case "$capability" in
    90) architecture=90a-real ;;
    "") architecture=90a-real ;;
    *) architecture=$capability-real ;;
  esac
fi
for place in /usr/local/cuda/bin /opt/cuda/bin; do
  [ -x "$place/nvcc" ] && ! command -v nvcc >/dev/null && PATH=$PATH:$place
done
export PATH

# Wheels that the machine lacks; what it has already is left as it is.
if compgen -G ".gpu/wheels/*.whl" >/dev/null && [ ! -d "$BUILD/wheels" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$BUILD/wheels" .gpu/wheels/*.whl || say "wheels: FAIL"
fi
export PYTHONPATH=$site:$BUILD/wheels${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
export PIP_RETRIES=0 PIP_DEFAULT_TIMEOUT=3  # a test that wants the network is not to wait for it
export OCTAVO_CUDA_LIBRARY=$site/octavo/lib/liboctavo_cuda.so
export OCTAVO_CUBLAS_DIR=${OCTAVO_CUBLAS_DIR:-$("$python" - <<'PYTHON'
import importlib.util
import pathlib

spec = importlib.util.find_spec("nvidia")
for place in spec.submodule_search_locations if spec else ():
    directory = pathlib.Path(place) / "cu13" / "lib"
    if any(directory.glob("libcublasLt.so*")):
        print(directory)
        break
PYTHON
)}
[ -f .gpu/commit ] && [ -z "${OCTAVO_COMMIT:-}" ] && OCTAVO_COMMIT=$(cat .gpu/commit) && export OCTAVO_COMMIT

phase_build() {
  local options=(-DCMAKE_BUILD_TYPE=Release -DOCTAVO_BUILD_CUDA=ON -DOCTAVO_BUILD_PYTHON=ON
                 -DOCTAVO_BUILD_TESTS=ON -DOCTAVO_INSTALL_PREFIX=octavo
                 "-DCMAKE_CUDA_ARCHITECTURES=$architecture"
                 "-DPython_EXECUTABLE=$(command -v "$python")"
                 "-DFETCHCONTENT_FULLY_DISCONNECTED=ON")
  if [ -d .gpu ]; then
    options+=("-DCMAKE_PREFIX_PATH=$ROOT/.gpu/cmake"
              "-DOCTAVO_XGRAMMAR_SOURCE=$ROOT/.gpu/xgrammar"
              "-DOCTAVO_CUBLAS_INCLUDE=$ROOT/.gpu/cublas")
  fi
  cmake -S "$ROOT" -B "$BUILD" -G Ninja "${options[@]}" || return 1
  local targets=(octavo octavo_cuda _core "${op_tests[@]/%/_test}")
  # All that can be built is, so that one broken test does not hide the others.
  cmake --build "$BUILD" -j "$JOBS" --target ${TARGETS:-"${targets[@]}"} -- -k 0
  local rc=$?
  rm -rf "$site" && mkdir -p "$site"
  cp -r "$ROOT/python/octavo" "$site/"
  cmake --install "$BUILD" --prefix "$site" && return $rc
}

# One op test, or those of its cases that a filter names: prints a line, keeps its log.
run_op_test() {
  local name=$1 filter=${2:-} log rc=0 start=$SECONDS
  log=$LOGS/ops/$name${filter:+-${filter//[^a-z0-9_]/-}}.log
  timeout "$OP_LIMIT" "$BUILD/tests/cpp/${name}_test" ${filter:+"-tc=$filter*"} > "$log" 2>&1 || rc=$?
  local counts
  counts=$(grep -a "test cases:" "$log" | tail -1 | sed 's/.*test cases: *//')
  echo "$([ $rc -eq 0 ] && echo PASS || echo "FAIL rc=$rc") $name${filter:+ $filter} $((SECONDS - start)) s: $counts"
  if [ $rc -ne 0 ]; then grep -aE "ERROR|THREW|TEST CASE|logged" "$log" | head -8 | cut -c1-200; fi
  return $rc
}

phase_ops() {
  mkdir -p "$LOGS/ops"
  export LOGS BUILD OCTAVO_TEST_DEVICE=cuda OP_LIMIT=$((seconds - 3))
  export -f run_op_test
  # The long ones come first, a process for each dtype and kind of step.
  local jobs=() dtype name
  for dtype in float32 bfloat16 float16; do
    for name in decode prompts batches mixed; do jobs+=("long_attention $dtype:*$name"); done
    jobs+=("model_shapes $dtype")
  done
  jobs+=("model_shapes gated_mlp")
  for name in "${op_tests[@]}"; do
    case $name in long_attention | model_shapes) ;; *) jobs+=("$name") ;; esac
  done
  printf '%s\n' "${jobs[@]}" |
    xargs -P "$JOBS" -I{} bash -c "set -f; run_op_test {}"
}

run_pytest() {
  local workers=$((JOBS < 8 ? JOBS : 8))
  "$python" -c "import xdist" 2>/dev/null && set -- -n "$workers" "$@"
  OCTAVO_TEST_DEVICE=cuda "$python" -m pytest -q -p no:cacheprovider --no-header "$@"
}

phase_parity() {
  # The reference back end is slow, and the real model is not there.
  run_pytest -k "not ref and not smollm2" tests/python/test_parity.py tests/python/test_beam_parity.py \
    tests/python/test_logprobs_parity.py
}
phase_suite() { run_pytest tests/python; }

phase_bench() {
  nvidia-smi
  "$python" bench/gpu/workloads.py --out "$OUT" ${BENCH_OPTIONS:-}
}

# Races and accesses out of bounds. Slow: the smaller tests.
phase_sanitize() {
  export OCTAVO_TEST_DEVICE=cuda
  local rc=0 tool name
  for tool in memcheck racecheck; do
    for name in norm gate embed gather copy_blocks sample linear rope_store_attention replay; do
      timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 9 --launch-timeout 0 \
        "$BUILD/tests/cpp/${name}_test" > "$LOGS/sanitize-$tool-$name.log" 2>&1
      local status=$?
      echo "$tool $name: status $status, $(grep -a 'ERROR SUMMARY\|RACECHECK SUMMARY' "$LOGS/sanitize-$tool-$name.log" | tail -1)"
      if [ $status -eq 0 ]; then rm "$LOGS/sanitize-$tool-$name.log"; else rc=1; fi
    done
  done
  return $rc
}

say "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo 'no GPU'), $JOBS cores, commit ${OCTAVO_COMMIT:-$(git rev-parse --short=10 HEAD 2>/dev/null)}"
for name in "${phases[@]}"; do
  case $name in
    build) phase build 260 ;;
    ops) phase ops 150 ;;
    parity) phase parity 120 ;;
    bench) phase bench 300 ;;
    suite) phase suite 420 ;;
    sanitize) phase sanitize 420 ;;
    *) say "$name: FAIL, there is no such phase" ;;
  esac
done
# What failed first, and then the rest, in at most a hundred lines.
{
  [ -f "$LOGS/ops.log" ] && {
    grep -a -A4 "^FAIL" "$LOGS/ops.log" | grep -av "^PASS\|^--" | cut -c1-180 | head -40
    echo "op tests: $(grep -ac ^PASS "$LOGS/ops.log") pass, $(grep -ac ^FAIL "$LOGS/ops.log") fail"
  }
  for name in parity suite; do
    [ -f "$LOGS/$name.log" ] && grep -aE "^(FAILED|ERROR) | passed| failed" "$LOGS/$name.log" |
      cut -c1-160 | tail -12
  done
  [ -f "$LOGS/sanitize.log" ] && grep -a "status" "$LOGS/sanitize.log"
  [ -f "$OUT/gpu.md" ] && sed 1,2d "$OUT/gpu.md"
} > "$LOGS/details.txt"
head -70 "$LOGS/details.txt" | tee -a "$summary"
echo "--- all in $SECONDS s; logs in $OUT"
grep -E "^[a-z]+: (PASS|FAIL)" "$summary"
tar czf "$OUT/logs.tgz" -C "$OUT" logs && rm -rf "$LOGS"
! grep -qE "^[a-z]+: FAIL" "$summary"
