#!/usr/bin/env bash
# Create what the review loop's tests and `make serve-review` need besides .venv:   scripts/setup_review.sh [server|browser]
# server: Label Studio in .venv-labelstudio (it pins other versions than ours); browser: that and Chromium, for tests.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-browser}
venv=${MEDMAX_LABELSTUDIO_VENV:-.venv-labelstudio}
say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

browser() {
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing Chromium, in which the tests review"
    apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >&2
  else
    die "the browser test needs Chromium: sudo apt-get install chromium (or set MEDMAX_CHROMIUM=)"
  fi
}

stamp=$(cat scripts/labelstudio-constraints.txt "$0" | sha256sum | cut -c1-16)
if ! { [ -f "$venv/.medmax-review" ] && [ "$(cat "$venv/.medmax-review")" = "$stamp" ]; }; then
  base=${PYTHON:-.venv/bin/python}
  [ -x "$base" ] || command -v "$base" >/dev/null || die "make setup first"
  say "1/3 creating $venv"
  "$base" -m venv --clear "$venv"
  say "2/3 installing Label Studio; takes some minutes and 1 GB of disk"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    -r scripts/labelstudio-constraints.txt || die "pip could not install the packages (see above)"
  say "3/3 checking the installation"
  "$venv/bin/label-studio" version >/dev/null 2>&1 || die "$venv/bin/label-studio does not start"
  echo "$stamp" > "$venv/.medmax-review"
  say "done"
fi
if [ "$what" = browser ] && [ -z "${MEDMAX_CHROMIUM:-}" ]; then browser; fi
