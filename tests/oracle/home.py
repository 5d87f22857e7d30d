#!/usr/bin/env python3
"""kmodld on a booted machine: a guest with a small userland runs it as root and as another user.

    tests/oracle/home.py --kernel KERNELS/6.12.117+deb12-amd64 --kmodld target/release/kmodld

In the guest, with nothing said of the kernel:
- `kmodld check` of modules by name, first with nothing loaded, then with some of what they need;
- for one module after the other: where `kmodld link NAME` says that its sections go, then `modprobe NAME`, then
  /sys/module/NAME/sections, which has to be the same;
- the same questions as a user who may not read addresses.
Exit status 0 says that every verdict is that of modprobe, and every section where it was said to be. Needs qemu, kmod, util-linux.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import initramfs  # noqa: E402

PROGRAMS = ["dash", "mount", "cat", "ls", "modprobe", "setpriv", "sleep", "uname", "grep", "date", "mkdir", "chmod"]
MODULE = "ext4"
# With what modprobe loads before it, in its order, one after the other: where several are loaded at once depends on when the
# kernel gets to free what was needed for their init.
MODULES = []
INIT = r"""#!/bin/dash
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security
mkdir -p /root /tmp
say() { echo "@@ $*"; }
# With 0, as the kernel starts, /proc/vmallocinfo has hashes instead of addresses, also for root.
echo 1 >/proc/sys/kernel/kptr_restrict
quiet() { "$@" 2>/tmp/said; code=$?; cat /tmp/said; say exit $code; }
user() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
say begin
say check-root; quiet kmodld check $MODULES --jsonl
say check-user; quiet user kmodld check $MODULES --jsonl
say inspect-user; quiet user kmodld inspect nf-conntrack --json
for module in $MODULES; do
    say link $module; quiet kmodld link $module --json
    modprobe $module; say modprobe $module $?
    sleep 1
    for section in /sys/module/$module/sections/* /sys/module/$module/sections/.[a-z_]*; do
        [ -f $section ] && echo "$section $(cat $section)"
    done
    say loaded $module
done
cat /proc/modules
say check-loaded; quiet kmodld check $MODULES --jsonl
say check-loaded-user; quiet user kmodld check $MODULES --jsonl
say insmod; quiet kmodld check $MODULE --no-deps --jsonl
say end
while :; do sleep 100; done
"""


def name_of(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def libraries(program):
    """The program and the libraries that it is linked with."""
    files = {os.path.realpath(program)}
    for line in subprocess.run(["ldd", program], capture_output=True, text=True).stdout.splitlines():
        found = re.search(r"(/\S+) \(0x", line)
        if found:
            files.add(found[1])
    return files


def build(tree, kmodld, folder):
    """The initramfs and the release."""
    (release,) = os.listdir(f"{tree}/lib/modules")
    files, programs = {}, set()

    def add(path, source, is_program=False):
        with open(source, "rb") as file:
            files[path.lstrip("/")] = file.read()
        if is_program:
            programs.add(path.lstrip("/"))

    for name in PROGRAMS + [kmodld]:
        program = name if "/" in name else shutil.which(name, path="/bin:/sbin:/usr/bin:/usr/sbin")
        for library in libraries(program):
            if library != os.path.realpath(program):
                add(library, library, True)
        add("bin/kmodld" if name == kmodld else f"bin/{name}", program, True)
    # modprobe needs what depmod makes of the whole tree, and only some of the files.
    root = f"{folder}/root"
    shutil.copytree(f"{tree}/lib/modules", f"{root}/lib/modules", symlinks=True, ignore=shutil.ignore_patterns("build", "source"))
    subprocess.run(["depmod", "-b", root, release], check=True)
    modules = f"{root}/lib/modules/{release}"
    wanted = set()
    for module in [MODULE, "nf_conntrack"]:
        command = ["modprobe", "-D", "-C", "/dev/null", "-d", root, "-S", release, module]
        files_of = re.findall(r"insmod (\S+)", subprocess.run(command, capture_output=True, text=True).stdout)
        wanted |= set(files_of)
        if module == MODULE:
            MODULES.extend(dict.fromkeys(name_of(path) for path in files_of))
    with open(f"{modules}/modules.dep") as file:
        dep = dict(line.rstrip("\n").split(":") for line in file)
    for path, needs in dep.items():
        if name_of(path) in (*MODULES, "nf_conntrack") or f"{modules}/{path}" in wanted:
            wanted |= {f"{modules}/{p}" for p in [path, *needs.split()]}
    for path in wanted:
        add(path[len(root) :], path)
    for table in os.listdir(modules):
        if table.startswith("modules."):
            add(f"lib/modules/{release}/{table}", f"{modules}/{table}")
    image = f"boot/vmlinuz-{release}"
    if not os.path.exists(f"{tree}/{image}"):
        image = f"lib/modules/{release}/vmlinuz"
    add(image, f"{tree}/{image}")
    config = f"boot/config-{release}"
    if not os.path.exists(f"{tree}/{config}"):
        config = f"lib/modules/{release}/config"
    add(config, f"{tree}/{config}")
    init = INIT.replace("$MODULES", " ".join(MODULES)).replace("check $MODULE ", f"check {MODULE} ").encode()
    files["bin/sh"] = files["bin/dash"]
    with open(f"{folder}/initrd", "wb") as file:
        file.write(initramfs.archive(init, files, programs | {"bin/sh"}))
    return release, f"{tree}/{image}"


def boot(image, folder, append, limit):
    """What the guest writes to its console, up to the end."""
    command = ["timeout", str(limit), "qemu-system-x86_64", "-m", "2048", "-cpu", "max", "-nographic", "-no-reboot", "-net", "none"]
    command += ["-kernel", image, "-initrd", f"{folder}/initrd"]
    command += ["-append", f"console=ttyS0 no_timer_check quiet loglevel=0 panic=-1 {append}"]
    guest = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace")
    lines = []
    for line in guest.stdout:
        lines.append(line.rstrip("\r\n"))
        if lines[-1].endswith("@@ end"):
            break
    # timeout passes this on to the guest; it could not pass on SIGKILL.
    guest.terminate()
    guest.wait()
    return lines


def parts(lines):
    """By heading: the lines behind it."""
    all_parts, heading = {}, None
    for line in lines:
        if line.startswith("@@ "):
            heading = line[3:]
            all_parts[heading] = [] if heading not in all_parts else all_parts[heading]
        elif heading:
            all_parts[heading].append(line)
    return all_parts


def documents(lines):
    return [json.loads(line) for line in lines if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--kmodld", default="target/release/kmodld")
    parser.add_argument("--append", default="nokaslr", help="more of the kernel's command line")
    parser.add_argument("--limit", type=int, default=1200)
    parser.add_argument("--log", help="write what the guest said to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        release, image = build(args.kernel, args.kmodld, folder)
        lines = boot(image, folder, args.append, args.limit)
    if args.log:
        with open(args.log, "w") as file:
            file.write("\n".join(lines))
    said = parts(lines)
    wrong = []
    if "end" not in said:
        print("\n".join(lines[-30:]))
        wrong.append("the guest did not come to its end")
    loads = {h.split()[1] for h in said if h.startswith("modprobe ") and h.endswith(" 0")}
    for heading in ("check-root", "check-user", "check-loaded", "check-loaded-user"):
        verdicts = {d["module"]: d["verdict"] for d in documents(said.get(heading, []))}
        for module in MODULES:
            want = "loads" if module in loads else "refused"
            if verdicts.get(module) != want:
                wrong.append(f"{heading}: {module}: {verdicts.get(module)}, and modprobe: {want}")
    insmod = documents(said.get("insmod", []))
    if [d["errno"] for d in insmod] != ["EEXIST"]:
        wrong.append(f"insmod {MODULE}, which is loaded: {insmod}")
    if [d["module"] for d in documents(said.get("inspect-user", []))] != ["nf_conntrack"]:
        wrong.append("inspect nf-conntrack says nothing")
    same = places = 0
    # Where modules begin is random with KASLR, which kmodld has to say of the first (LAYOUT-51).
    first = MODULES[:1] if "nokaslr" not in args.append else []
    for module in first:
        if not any("no module was loaded since KASLR" in line for line in said.get(f"link {module}", [])):
            wrong.append(f"link {module}: it does not say that nobody can know where the first module goes")
    for module in [module for module in MODULES if module not in first]:
        linked = documents(said.get(f"link {module}", []))
        if not linked:
            wrong.append(f"link {module}: no document")
            continue
        predicted = {s["name"]: int(s["addr"], 16) for s in linked[0]["sections"] if s.get("addr")}
        for line in said.get(f"modprobe {module} 0", []):
            found = re.match(r"/sys/module/[^/]+/sections/(\S+) (0x[0-9a-f]+)", line)
            if not found:
                continue
            name, address = found[1], int(found[2], 16)
            places += 1
            if predicted.get(name) == address:
                same += 1
            else:
                told = predicted.get(name)
                wrong.append(f"{module} {name}: at {address:#x}, said {told if told is None else hex(told)}")
    print(f"{release} ({args.append}): {len(MODULES)} modules; {same} of {places} sections where they were said to be")
    for what in wrong[:40]:
        print("WRONG", what)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
