#!/usr/bin/env bash
# Run the tests:   scripts/test.sh fast|all
set -euo pipefail
cd "$(dirname "$0")/.."
workers=$(env -u OMP_NUM_THREADS nproc)  # which would heed it
[ "$workers" -gt 4 ] && workers=4
export OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0 TOKENIZERS_PARALLELISM=false
case ${1:-all} in
  fast) exec .venv/bin/python -m pytest tests/unit -n "$workers" -q ;;
  all)
    .venv/bin/python -m pytest tests/unit -n "$workers" -q
    # Real servers, one after another: they share the machine's cores.
    .venv/bin/python -m pytest tests/integration tests/e2e -q
    ;;
  *) echo "usage: scripts/test.sh fast|all" >&2; exit 2 ;;
esac
