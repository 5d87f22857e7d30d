#!/usr/bin/env python3
"""Is what kmodld loads before a module what modprobe loads, and in the same order?

    tests/modprobe/compare.py --kmodld target/release/kmodld --tree KERNELS/6.12.117+deb12-amd64 [--count 300]

Copies the modules of a tree into a folder of its own (links where that is possible), runs depmod there, writes a modprobe.d with
softdeps, options, aliases, a blacklist and install commands, and compares `kmodld check NAME... --jsonl` with
`modprobe --show --verbose NAME` for every so many modules of the tree, for aliases, and for a file outside of the tree. Needs kmod.
Exit status 0 says that nothing differs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

CONF = """
alias my-sound snd-hda-intel
alias my-dummy dummy
blacklist dummy
softdep ext4 pre: dummy post: udf
softdep udf pre: isofs
softdep snd-hda-intel pre: snd-seq
options ext4 nonsense=1
options udf a=3
options udf b=64
install mbcache /bin/true
install raid6_pq modprobe --ignore-install raid6_pq && true
"""


def name_of(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def copy(source, target):
    """Links where that is possible."""
    try:
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True)


def tree(source, root):
    """Modules of a tree with tables of depmod; the release."""
    (release,) = os.listdir(f"{source}/lib/modules")
    target = f"{root}/lib/modules/{release}"
    for place in ("lib", "boot", "usr"):
        if os.path.isdir(f"{source}/{place}"):
            copy(f"{source}/{place}", f"{root}/{place}")
    for table in os.listdir(target):
        # What depmod writes must not be written into the source.
        path = f"{target}/{table}"
        if table.startswith("modules.") and os.path.isfile(path):
            with open(path, "rb") as file:
                content = file.read()
            os.unlink(path)
            with open(path, "wb") as file:
                file.write(content)
    for link in ("build", "source"):
        if os.path.islink(f"{target}/{link}"):
            os.unlink(f"{target}/{link}")
    os.makedirs(f"{root}/etc/modprobe.d")
    with open(f"{root}/etc/modprobe.d/test.conf", "w") as file:
        file.write(CONF)
    subprocess.run(["depmod", "-b", root, release], check=True)
    return release


def modprobe(root, release, name):
    """What modprobe says it would load: [(module, options)], or None if it knows no such module."""
    command = ["modprobe", "-n", "-v", "-C", f"{root}/etc/modprobe.d", "-d", root, "-S", release, name]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        return None
    steps = []
    for line in ran.stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word == "insmod":
            path, _, options = rest.partition(" ")
            step = (name_of(path), " ".join(options.split()))
        elif word == "install":
            step = ("install", rest.strip())
        else:
            raise SystemExit(f"modprobe {name}: {line}")
        # libkmod lists a module twice that is both a dependency and a softdep; it is loaded once.
        if step not in steps:
            steps.append(step)
    return steps


def kmodld(program, root, release, names):
    """The documents of check, by module, and what was said."""
    kernel = ["--root", root, "--kernel", release]
    ran = subprocess.run([program, "check", *names, *kernel, "--jsonl"], capture_output=True, text=True)
    documents = [json.loads(line) for line in ran.stdout.splitlines()]
    return {document["module"]: document for document in documents}, ran.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kmodld", default="target/release/kmodld")
    parser.add_argument("--tree", required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--scratch", default="target", help="on the file system of the tree, links will do for a copy")
    args = parser.parse_args()
    os.makedirs(args.scratch, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.scratch) as root:
        root = os.path.abspath(root)
        release = tree(args.tree, root)
        with open(f"{root}/lib/modules/{release}/modules.dep") as file:
            names = sorted(name_of(line.split(":")[0]) for line in file)
        step = max(1, len(names) // args.count)
        sample = sorted(set(names[::step]) | {n for n in ("ext4", "udf", "btrfs", "snd_hda_intel", "dummy") if n in names})
        documents, said = kmodld(args.kmodld, root, release, sample)
        # What is loaded behind the module is of no matter to it.
        differs, softdeps_after, commands = [], 0, 0
        for name in sample:
            want = modprobe(root, release, name)
            if want is None or name not in documents:
                differs.append((name, want, documents.get(name)))
                continue
            installs = [rest for word, rest in want if word == "install"]
            commands += len(installs)
            loaded = [module for module, _ in want if module != "install"]
            if name in loaded:
                softdeps_after += len(loaded) - loaded.index(name) - 1
                loaded = loaded[: loaded.index(name)]
            got = [m for m in documents[name].get("with", [])]
            # A command that loads the module counts as if it did.
            by_command = {"raid6_pq"} if any("raid6_pq" in rest for rest in installs) else set()
            if [m for m in got if m not in by_command] != loaded:
                differs.append((name, loaded, got))
        # Aliases: one that is blacklisted means nothing to modprobe.
        for alias, module in (("my-sound", "snd_hda_intel"), ("fs-btrfs", "btrfs")):
            if module in names:
                by_alias, _ = kmodld(args.kmodld, root, release, [alias])
                want = [m for m, _ in modprobe(root, release, alias) if m != "install"]
                if want[-1:] != [module] or module not in by_alias:
                    differs.append((alias, want, list(by_alias)))
        by_alias, note = kmodld(args.kmodld, root, release, ["my-dummy"])
        if "dummy" in names and (modprobe(root, release, "my-dummy") != [] or by_alias or "blacklist dummy" not in note):
            differs.append(("my-dummy", modprobe(root, release, "my-dummy"), by_alias))
        # A file outside of the tree gets what its twin in the tree gets, in some order in which each has what it needs.
        for name in ("btrfs", "nf_conntrack"):
            if name in names:
                (path,) = [p for p, n in files(f"{root}/lib/modules/{release}") if n == name]
                twin = shutil.copy(path, f"{root}/{os.path.basename(path)}")
                own, _ = kmodld(args.kmodld, root, release, [twin])
                inside = kmodld(args.kmodld, root, release, [name])[0][name]
                if set(own[name].get("with", [])) != set(inside["with"]) or own[name]["verdict"] != inside["verdict"]:
                    differs.append((twin, inside, own[name]))
        for row in differs:
            print("DIFFERS", *row, sep="\n  ")
        refused = sorted(n for n, d in documents.items() if d["verdict"] != "loads")
        print(f"{release}: {len(sample)} modules, {len(differs)} differ; {commands} install commands, {softdeps_after} softdeps behind a module")
        print(f"  {len(refused)} do not load: {' '.join(refused)}" if refused else "  all of them load")
        return 1 if differs else 0


def files(folder):
    for where, _, names in os.walk(folder):
        for name in names:
            if ".ko" in name:
                yield os.path.join(where, name), name_of(name)


if __name__ == "__main__":
    sys.exit(main())
