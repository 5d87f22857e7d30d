#!/usr/bin/env bash
# The scripts of contrib/tools, each run on linked fixtures where its tool can be had: gdb of the system, the others from PyPI. Those
# whose tool cannot are checked for syntax, and said so.
#
#   KMODLD           the program (default: target/debug/kmodld, built if need be)
#   PYTHON           the interpreter (default python3)
#   KMODLD_ANGR      1: angr and Volatility too, which are large
#   KMODLD_VENV      an environment that has the tools, instead of a new one
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
if [ -z "${KMODLD:-}" ]; then
    cargo build --quiet --locked --bin kmodld
    KMODLD=$target/debug/kmodld
fi
export KMODLD
python=${PYTHON:-python3}
spec=$target/tmp/examples.spec
# The kernel of the fixtures as one file; a test makes it.
[ -f "$spec" ] || cargo test --quiet --locked --test examples -- batch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

venv=${KMODLD_VENV:-}
if [ -z "$venv" ]; then
    venv=$work/venv
    "$python" -m venv "$venv"
    packages=(pyelftools lief drgn)
    # The newest bitstring and pycparser break angr 9.2.
    [ -z "${KMODLD_ANGR:-}" ] || packages+=(angr "bitstring<5" pycparser==3.0 volatility3 jsonschema)
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
fi

for module in hello chardev; do
    "$KMODLD" -q link fixtures/6.12-amd64/$module.ko --kernel "$spec" --no-deps -o "$work/$module.elf" >/dev/null
done

says() {
    local what=$1 wanted=$2
    grep -qE "$wanted" "$work/out" || { echo "$what does not say $wanted:" >&2; cat "$work/out" >&2; exit 1; }
    echo "$what: good"
}

"$venv/bin/python" contrib/tools/elftools_kmodld.py "$work/hello.elf" >"$work/out"
says pyelftools '^0xffffffff[0-9a-f]+ STT_FUNC _printk of vmlinux$'
says 'the note' '^stage: final$'

"$venv/bin/python" contrib/tools/lief_kmodld.py "$work/hello.elf" >"$work/out"
says lief '^0xffffffff[0-9a-f]+ _printk of vmlinux$'

"$venv/bin/python" contrib/tools/isf_kmodld.py "$work/modules.json" "$work/hello.elf" "$work/chardev.elf" >"$work/out"
says 'Volatility ISF' '^[0-9]{2,} symbols$'
if "$venv/bin/python" -c 'import volatility3, jsonschema' 2>/dev/null; then
    "$venv/bin/python" - "$work/modules.json" >"$work/out" <<'EOF'
import json, sys
from volatility3 import schemas
print("valid", schemas.validate(json.load(open(sys.argv[1])), use_cache=False))
EOF
    says 'the schema of Volatility 3' '^valid True$'
else
    echo 'skipped: Volatility 3 is not installed: nobody looked at the ISF file by its schema'
fi

if command -v gdb >/dev/null; then
    # As a guest shows it, at another place than the first.
    printf 'hello 16384 0 - Live 0xffffffffc1230000 (OE)\n' >"$work/proc_modules"
    mkdir -p "$work/modules"
    cp fixtures/6.12-amd64/hello.ko "$work/modules/"
    gdb -nx -batch -ex 'source contrib/tools/gdb_kmodld.py' \
        -ex "kmodld-module $spec $work/modules/hello.ko 0xffffffffc1230000" \
        -ex 'info symbol 0xffffffffc1230010' -ex 'info address init_module' -ex 'info address _printk' >"$work/out" 2>&1
    says gdb '^Symbol "init_module" is at 0xffffffffc12[0-9a-f]+ in a file compiled without debugging'
    says 'gdb, imports' '^Symbol "_printk" is at 0xffffffff8[0-9a-f]+ '
else
    echo 'skipped: gdb is not installed'
fi

if "$venv/bin/python" -c 'import drgn' 2>/dev/null; then
    # Without a kernel's memory: a module at an address has names both ways.
    PYTHONPATH=contrib/tools "$venv/bin/python" - "$spec" fixtures/6.12-amd64/hello.ko >"$work/out" <<'EOF'
import sys
import drgn, drgn_kmodld
prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
drgn_kmodld.add_module(prog, *sys.argv[1:], 0xffffffffc1230000)
init = prog.symbol("init_module")
print(f"{init.address:#x} {prog.symbol(init.address + 2).name} {prog.symbol('_printk').address:#x}")
EOF
    says drgn '^0xffffffffc12[0-9a-f]+ (init_module|hello_init) 0xffffffff8[0-9a-f]+$'
else
    echo 'skipped: drgn is not installed'
fi

# As `mod` of crash prints it.
printf '     MODULE       NAME     BASE           SIZE  OBJECT FILE\nffffffffc1232040  hello  ffffffffc1230000  16384  (not loaded)\n' >"$work/mod"
"$python" contrib/tools/crash_kmodld.py "$spec" "$work/mod" "$work/crash" fixtures/6.12-amd64/hello.ko >"$work/out"
says crash '^gdb add-symbol-file .*/hello\.elf$'
if command -v gdb >/dev/null; then
    sed 's/^gdb //' "$work/out" >"$work/commands"
    gdb -nx -batch -x "$work/commands" -ex 'info address init_module' >"$work/out" 2>&1
    says 'the commands for crash, in gdb' '^Symbol "init_module" is at 0xffffffffc12[0-9a-f]+ '
fi

if "$venv/bin/python" -c 'import angr' 2>/dev/null; then
    "$venv/bin/python" contrib/tools/angr_kmodld.py "$work/chardev.elf" chardev_write >"$work/out" 2>/dev/null
    says angr "mutex_unlock\\(&lock\\)"
else
    echo 'skipped: angr is not installed (KMODLD_ANGR=1)'
fi

for script in r2 ghidra binja; do
    "$python" -m py_compile "contrib/tools/${script}_kmodld.py"
    echo "${script}_kmodld.py: syntax only"
done
rm -rf contrib/tools/__pycache__
