#!/bin/bash
# One small archive of what runs need beside PyTorch, for Linux x86-64 machines that reach no package index:
# Ray without dashboard, Serve and Java, MuJoCo, dm_control's suite, Gymnasium. See docs/deploy.md.
#
#   tests/gpu/make_pack.sh pack.tar.xz [PYTHON]      PYTHON: of that machine, 3.12 where nothing is said
#
# NumPy, SciPy, pandas, pyarrow and lxml are taken from there, as PyTorch is. What is left out: MLflow, Meta-World,
# the command line and the simulators' own tests.
set -euo pipefail
out=$(realpath -m "$1")
python=${2:-3.12}
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Versions are those of constraints.txt where it names them.
names="ray gymnasium mujoco dm-control dm-env dm-tree farama-notifications glfw pyopengl lz4 ormsgpack jsonschema
 jsonschema-specifications referencing rpds-py cloudpickle msgpack filelock pyyaml click requests urllib3 idna
 charset-normalizer certifi packaging protobuf typing-extensions attrs absl-py wrapt pyparsing etils
 importlib-resources zipp pydantic pydantic-core typing-inspection annotated-types psutil tensorboardx nvidia-ml-py"
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux_2_12 manylinux_2_5 \
    manylinux2014 manylinux2010 manylinux1; do
    platforms+=(--platform "${tag}_x86_64")
done
wheels=()
for name in $names; do
    pinned=$(grep -iE "^${name//[-_]/[-_]}==" "$here/constraints.txt" || true)
    wheels+=("${pinned:-$name}")
done
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "$python" --implementation cp \
    --abi "cp${python/./}" --abi abi3 --abi none "${platforms[@]}" --dest "$work/wheels" "${wheels[@]}"

mkdir "$work/site"
cd "$work/site"
for wheel in "$work"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" .
done
for data in *.data; do # what a wheel keeps apart from its packages
    [ -d "$data" ] || continue
    for part in purelib platlib; do
        [ ! -d "$data/$part" ] || cp -r "$data/$part/." .
    done
    rm -rf "$data"
done
rm -rf ray/jars ray/dashboard/client ray/cpp ray/include ray/serve ray/llm ray/rllib/{examples,tuned_examples,benchmarks} \
    dm_control/{locomotion,entities,viewer,manipulation} mujoco/{include,mjx,sample}
find . -name '*.map' -delete
find . -type d \( -name tests -o -name testing_assets \) -prune -exec rm -rf {} +
chmod +x ray/core/src/ray/raylet/raylet ray/core/src/ray/gcs/gcs_server
find . -type f \( -name '*.so' -o -name '*.so.*' -o -name raylet -o -name gcs_server \) -size +200k \
    -exec strip --strip-unneeded {} + 2>/dev/null || true
# dm_control 1.0.28 asks for a function that NumPy 2.4 dropped.
printf 'import numpy\nif not hasattr(numpy, "in1d"):\n    numpy.in1d = numpy.isin\n' >sitecustomize.py
tar --create . | xz -6 --threads=0 >"$out"
ls -l "$out"
