"""Where kmodld puts the modules of a captured boot if nothing is told of it but their order, against where they were."""

import errno
import json
import os
import subprocess
from dataclasses import dataclass


# Of names with one number Python takes the one that the kernel does not.
NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK"}


@dataclass
class Placement:
    """How many modules lie where kmodld puts them. `last`: all regions of the last one do."""

    modules: int = 0
    right: int = 0
    last: bool = False
    first_wrong: str = ""

    @property
    def exact(self):
        return self.modules > 0 and self.right == self.modules and self.last

    def __str__(self):
        return "right" if self.exact else f"{self.right} of {self.modules}" + ("" if self.last else ", not the last")


def is_predictable(captured):
    """With KASLR the module area is random."""
    return "nokaslr" in captured.facts["cmdline"].split()


def placement(captured, kmodld):
    """Repeats the boot: the first region of each module by /proc/modules, and all regions of the last one."""
    results = {load["name"]: load["result"] for load in captured.facts["loads"]}
    order = captured.modules()
    steps = []
    for name in order:
        step = f"insmod {os.path.join(captured.folder, name, 'module.ko')}"
        if params := captured.metas[name]["params"]:
            step += f" {params}"
        if results.get(name, 0) < 0:
            step += f" --init=-{NAMES[-results[name]]}"
        steps.append(step)
    live = ["--cmdline", captured.facts["cmdline"], "--cpus", str(captured.facts["smp"])]
    command = [kmodld, "simulate", "--kernel", captured.image, *live, *steps, "lsmod", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    found = Placement()
    if ran.returncode not in (0, 1, 4):
        found.first_wrong = ran.stderr.strip()[-300:]
        return found
    listed = json.loads(ran.stdout)["steps"][-1]["output"]
    lines = listed.splitlines() if isinstance(listed, str) else listed
    bases = {words[0]: words[5] for words in map(str.split, lines) if len(words) > 5}
    loaded = [name for name in order if results.get(name, 0) >= 0]
    for name in loaded:
        want = captured.metas[name]["regions"][0]["base"]
        found.modules += 1
        if bases.get(name) == want:
            found.right += 1
        else:
            found.first_wrong = found.first_wrong or f"{name} is at {want}, kmodld has {bases.get(name)}"
    found.last = _last(captured, kmodld, loaded, live, found)
    return found


def _last(captured, kmodld, loaded, live, found):
    *before, last = loaded
    meta = captured.metas[last]
    module = [os.path.join(captured.folder, last, "module.ko"), *meta["params"].split()]
    command = [kmodld, "link", *module, "--kernel", captured.image, *live, "--no-deps", "--json", "-o", os.devnull]
    for name in before:
        command += ["--with", os.path.join(captured.folder, name, "module.ko")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if ran.returncode not in (0, 1, 4) or not ran.stdout:
        found.first_wrong = found.first_wrong or ran.stderr.strip()[-300:]
        return False
    regions = {r["name"]: r["base"] for r in json.loads(ran.stdout)["regions"] if r["size"]}
    for region in meta["regions"]:
        if int(regions.get(region["name"], "0"), 16) != int(region["base"], 16):
            where = f"{region['name']} of {last} is at {region['base']}, kmodld has {regions.get(region['name'])}"
            found.first_wrong = found.first_wrong or where
            return False
    return True
