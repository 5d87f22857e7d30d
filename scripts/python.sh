#!/usr/bin/env bash
# The Python package: builds a wheel, installs it into a clean environment, and runs its tests, mypy included. Needs Python 3.9 or
# later with venv, and PyPI for maturin, pytest and mypy (and distributed and ray, if they are asked for).
#
#   PYTHON           the interpreter (default python3)
#   KMODLD_PROFILE   dev (default), release
#   KMODLD_DASK      1: the tests on dask.distributed too
#   KMODLD_RAY       1: those on Ray too, which is large
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
spec=$target/tmp/examples.spec
# The kernel of the fixtures as one file; a test makes it.
[ -f "$spec" ] || cargo test --quiet --locked --test examples -- batch

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.7,<2'
export CARGO_TARGET_DIR=$target/python
"$work/tools/bin/maturin" build --quiet --locked --manifest-path crates/python/Cargo.toml \
    --profile "${KMODLD_PROFILE:-dev}" --out "$work/wheels"
ls "$work/wheels"

"$python" -m venv "$work/clean"
"$work/clean/bin/pip" install --quiet --disable-pip-version-check "$work"/wheels/kmodld-*.whl pytest mypy \
    ${KMODLD_DASK:+distributed} ${KMODLD_RAY:+ray}
cp -r crates/python/tests crates/python/pyproject.toml "$work/"
cd "$work"
KMODLD_FIXTURES=$OLDPWD/fixtures KMODLD_FIXTURE_SPEC=$spec "$work/clean/bin/python" -m pytest -q tests
"$work/clean/bin/mypy" --strict --no-error-summary "$OLDPWD/crates/python/kmodld"
mkdir -p "$target/wheels"
cp "$work"/wheels/*.whl "$target/wheels/"
echo "the wheel is in $target/wheels"
