#!/usr/bin/env bash
# A Debian package in target/deb/: the program, man pages, completions, documents and the files of contrib/. Needs dpkg-deb.
#   KMODLD_PROFILE=release   instead of dist: built in a third of the time
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
profile=${KMODLD_PROFILE:-dist}
folder=${CARGO_TARGET_DIR:-target}
maintainer=${DEBFULLNAME:-The kmodld authors}\ \<${DEBEMAIL:-maintainers@kmodld.example}\>

cargo build --locked --profile "$profile" --bin kmodld
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)-1
arch=$(dpkg --print-architecture)
root=$folder/deb/kmodld_${version}_$arch
rm -rf "$root"
umask 022
share=$root/usr/share
mkdir -p "$root/DEBIAN" "$root/usr/bin" "$share/man/man1" "$share/doc/kmodld" "$share/kmodld" \
    "$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"

program=$root/usr/bin/kmodld
install -m 755 "$folder/$profile/kmodld" "$program"
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$program"
"$program" man "$share/man/man1"
gzip -9n "$share"/man/man1/*.1
"$program" completions bash >"$share/bash-completion/completions/kmodld"
"$program" completions zsh >"$share/zsh/vendor-completions/_kmodld"
"$program" completions fish >"$share/fish/vendor_completions.d/kmodld.fish"
install -m 755 contrib/dkms-post-build contrib/initramfs-hook contrib/apt-pre-install contrib/kernel-install "$share/kmodld/"
install -m 644 README.md docs/fleet.md contrib/slurm-array.sh contrib/kubernetes-job.yaml contrib/ci-matrix.yml "$share/doc/kmodld/"
date=$(date -u -R -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}")
cat >"$share/doc/kmodld/changelog.Debian" <<END
kmodld ($version) unstable; urgency=medium

  * Made by scripts/deb.sh; changelog.gz says what is new.

 -- $maintainer  $date
END
cp CHANGELOG.md "$share/doc/kmodld/changelog"
gzip -9n "$share/doc/kmodld/changelog.Debian" "$share/doc/kmodld/changelog"
cat >"$share/doc/kmodld/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: kmodld

Files: *
Copyright: the kmodld authors
License: Expat or Apache-2.0

License: Expat
$(sed -e '1,/^$/d' -e '/^Copyright/d' -e 's/^$/./' -e 's/^/ /' LICENSE-MIT)

License: Apache-2.0
 /usr/share/common-licenses/Apache-2.0 has the text.
END
# The newest version of the C library that a symbol asks for.
glibc=$(objdump -T "$program" | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' | sort -V | tail -n 1)
cat >"$root/DEBIAN/control" <<END
Package: kmodld
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -ks --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= $glibc), libgcc-s1
Section: kernel
Priority: optional
Description: tell whether a kernel would load a module, and why not
 kmodld does in user space what Linux's load_module does with a kernel
 module, up to the call of its init function. It tells whether a kernel
 would take it, with every reason why not in the kernel's own words, and
 which bytes the module would have in memory.
END
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group --build "$root" "$folder/deb" >/dev/null
ls -l "$root.deb"
