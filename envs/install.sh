#!/usr/bin/env bash
# Install the packages of envs/requirements.txt into .venv, if they changed, and make the library of
# this folder importable there. `make env` calls it in the repository's folder.
#
# The new environment is built in .venv.new and replaces the old one when it is complete, so an
# interrupted or failed installation changes nothing. The stamp is a hash of the lock file, not a
# time, so `git checkout` and `touch` install nothing.
set -euo pipefail

lock=envs/requirements.txt
python=${PYTHON:-python3}
uv_version=0.13.9
stamp=.installed

fail() {
    echo "$1" >&2
    exit 1
}

sha256() { # macOS has only shasum
    if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}

wanted=$( { cat "$lock" && echo "uv $uv_version, link to the library"; } | sha256)
if [[ -f .venv/$stamp && $(< ".venv/$stamp") == "$wanted" ]]; then
    exit 0
fi

if [[ -L .venv ]]; then
    fail ".venv is a symbolic link to $(readlink .venv), which does not have the packages of $lock. \
Another study may use it, so nothing was changed. Remove the link (rm .venv), then run this command \
again: it creates an environment in this folder."
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    || fail "'$python' is not Python 3.11 or newer. Install one, or choose it: \
make env PYTHON=python3.12"
"$python" -c 'import ensurepip, venv' 2>/dev/null \
    || fail "'$python' lacks venv or ensurepip. Install them (Debian, Ubuntu: python3-venv), or choose \
another Python: make env PYTHON=…"

# uv has its own environment inside the new one, because `uv pip sync` removes packages that the lock
# file does not list. The environment is relocatable, because its folder is renamed at the end.
rm -rf .venv.new
"$python" -m venv .venv.new/uv
.venv.new/uv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: "uv==$uv_version"
.venv.new/uv/bin/uv venv --quiet --relocatable --allow-existing --python "$python" .venv.new
.venv.new/uv/bin/uv pip sync --quiet --compile-bytecode --python .venv.new/bin/python --require-hashes "$lock"

# A path file, because an editable installation would also make the entries in workflow/scripts
# importable. The link is not in site-packages itself, where `uv pip install .` would follow it, and
# `uv pip uninstall plasticity` would then delete the library. Both are relative, because the folder
# may be moved.
mkdir .venv.new/library
ln -s ../../workflow/scripts/plasticity .venv.new/library/plasticity
for packages in .venv.new/lib/python*/site-packages; do
    echo ../../../library > "$packages/plasticity.pth"
done
echo "$wanted" > ".venv.new/$stamp"

rm -rf .venv.old
[[ ! -e .venv ]] || mv .venv .venv.old
mv .venv.new .venv
rm -rf .venv.old
