#!/usr/bin/env bash
# Runs the tests that depend on the versions of Python and NumPy with every interpreter named
# (PYTHONS="python3.8 python3.13 ..."), or found on PATH and under pyenv: once as `make` installs
# (the newest NumPy) and, up to Python 3.12, once as requirements.txt does (NumPy 1; 1.21 on 3.8).
set -euo pipefail
cd "$(dirname "$0")/.."
TESTS=${TESTS:-tests/network/test_compat.py tests/network/test_layers.py tests/engine/test_mxnet_engine.py tests/test_predict_new_data.py tests/reader}
if [ -z "${PYTHONS:-}" ]; then
    for minor in 8 9 10 11 12 13; do
        for found in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.$minor.*/bin/python "$(command -v python3.$minor || true)"; do
            if [ -x "$found" ] && "$found" --version >/dev/null 2>&1; then
                PYTHONS="${PYTHONS:-} $found"
                break
            fi
        done
    done
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0
check() { # the environment in $folder/venv
    local versions result
    versions=$("$folder/venv/bin/python" -c "import sys, numpy, cv2; print('Python', sys.version.split()[0], 'NumPy', numpy.__version__, 'OpenCV', cv2.__version__)")
    # shellcheck disable=SC2086
    if result=$("$folder/venv/bin/python" -m pytest -q -p no:cacheprovider $TESTS 2>&1); then
        echo "passed  $versions: $(tail -n 1 <<<"$result")"
    else
        echo "FAILED  $versions"
        tail -n 60 <<<"$result"
        failed=1
    fi
    rm -rf "$folder/venv"
}
for python in $PYTHONS; do
    make --silent VENV="$folder/venv" PYTHON="$python" "$folder/venv/.tested" >/dev/null
    check
    case $("$python" -c "import sys; print(sys.version_info[1])") in
        8) numpy=numpy==1.21.6 ;;
        13) continue ;;
        *) numpy="numpy<2" ;;
    esac
    "$python" -m venv "$folder/venv"
    "$folder/venv/bin/python" -m pip install --quiet -r requirements.txt -r requirements-dev.txt "$numpy"
    check
done
exit $failed
