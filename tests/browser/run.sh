#!/usr/bin/env bash
# The pages of `kmodld trace --html` in headless Chromium: opened from disk, stepped through, followed, looked at by axe-core,
# in both languages. Screenshots are kept in tests/browser/artefacts.
#
# Needs Debian's chromium, node and npm (or CHROMIUM=path), and what tests/browser/package-lock.json pins. Screenshots in Chinese
# need a font that has its characters, such as fonts-wqy-microhei.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

kmodld=${KMODLD:-target/debug/kmodld}
here=tests/browser
[ -x "$kmodld" ] || { echo "no $kmodld: build it, or set KMODLD" >&2; exit 2; }
command -v "${CHROMIUM:-chromium}" >/dev/null || { echo 'no chromium' >&2; exit 2; }
[ -d $here/node_modules ] || (cd $here && npm ci --no-audit --no-fund)

pages=$(mktemp -d)
trap 'rm -rf "$pages"' EXIT
# A story of a fixture: NAME KERNEL MODULE [OPTION]...
page() {
    local name=$1 kernel=$2 module=$3
    shift 3
    local folder=fixtures/$kernel
    "$kmodld" trace "$folder/$module.ko" --release "$(cat "$folder/release")" --symtab "$folder/kallsyms" \
        --symvers "$folder/Module.symvers" --config "$folder/config" --html "$pages/$name.html" "$@" || case $? in
        # Refused, or undecided for want of the image: both have a story.
        1 | 4) ;;
        *) return 1 ;;
    esac
}
page hello 6.12-amd64 hello --unload
page importer-zh 6.12-amd64 importer --lang zh
page patching-6.1 6.1-amd64 patching
page relocs-arm64 6.12-arm64 relocs --unload
page refused 6.12-amd64 proprietary_gpl
for page in "$pages"/*.html "$@"; do
    node $here/page.mjs "$page" $here/artefacts
done
