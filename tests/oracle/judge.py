"""A booted kernel as judge of modules: each is loaded from a snapshot, so that none knows of another."""

import errno
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from types import SimpleNamespace

from btf import Btf
from capture import RunningKernel
from elf import Elf
from guest import Guest, GuestError
from initramfs import archive

# Some that are the kernel's own come out as well.
ERRNO = {**errno.errorcode, 524: "ENOTSUPP"}
# Seconds: the boot; what QEMU may compute for one module; what may pass for it.
BOOT, WORK, WAIT = 300, 8, 60
# So many crashes within crashes are waited for.
CRASHES_MAX = 8
PREFIX = re.compile(r"^(<\d+>)?\[ *\d+\.\d+\] ?")
# What a kernel says at any time, of itself.
CHATTER = re.compile(r"^(clocksource|TSC|tsc|sched_clock|random|hrtimer|workqueue|input|perf|rcu)\b|judged$")


@dataclass
class Answer:
    """What a kernel made of a module.

    `end`: "init" (init would have run), "loaded" (it has none), "refused", "oops", "hang", "reset";
    "oops after init" and "hang after init" when the kernel had got that far.
    `crash` is the kernel's report of an oops, in short.
    """

    end: str
    errno: str | None
    log: list[str]
    crash: list[str] = field(default_factory=list)

    @property
    def verdict(self):
        if self.end in ("init", "loaded") or self.end.endswith(" after init"):
            return "loads"
        return self.errno if self.end == "refused" else self.end


# The report of a warning, a stack, or the state of memory: where it begins, and where it ends.
SPLAT, SPLAT_END = "[ cut here ]", "[ end trace"
STACK = re.compile(r"^CPU: \d+ (UID: \d+ )?PID: \d+ Comm: ")
STACK_LINE = re.compile(r"^( |Tainted: |Hardware name: |Call [Tt]race:|RIP: |[A-Z][A-Z0-9]{2}: |R\d\d: |Code: |FS: |CS: |PKRU: |Mem-Info:)")
MEMORY = re.compile(
    r"^(Mem-Info:|active_anon:| |Node \d|DMA|Normal |lowmem_reserve|\d+ total pagecache|\d+ pages|Free swap|Total swap|hwpoisoned)"
)
# Where the kernel's report of a crash begins: what it says before is the loader's.
CRASH = re.compile(
    r"BUG: |Oops|detected buffer overflow|general protection fault|invalid opcode|Unable to handle|kernel BUG at|Kernel panic"
    r"|Unexpected kernel|Internal error|#PF: |int3: |stack segment|double fault|divide error|traps: |PANIC: |KERNEL OOPS"
    r"|Insufficient stack space|Bad mode|Undefined"
)
# What it says of the cause and of the place.
REPORT = re.compile(r"^(BUG: |Oops|RIP: 0010|kernel BUG|Unable to handle|Internal error|pc : |int3|Kernel panic|PANIC)")
# Before the message of a warning, which is a line of its own in the log.
WARNED = "[warned] "


def lines(text):
    """Lines of a kernel log without levels and times, and without what only describes where the kernel is."""
    out, inside = [], None
    for line in text.split("\n"):
        line = PREFIX.sub("", line.rstrip("\r"))
        if not line or CHATTER.match(line):
            continue
        if SPLAT in line:
            inside = "message"
        elif inside in ("message", "splat"):
            if SPLAT_END in line:
                inside = None
            elif line.startswith("WARNING: "):
                inside = "splat"
            elif inside == "message":
                out.append(WARNED + line)
        elif STACK.match(line):
            inside = "stack"
        elif inside == "stack" and STACK_LINE.match(line):
            inside = "memory" if MEMORY.match(line) and line.startswith("Mem-Info") else "stack"
        elif inside == "memory" and MEMORY.match(line):
            pass
        else:
            inside = None
            out.append(line)
    return out


def place_of_snapshots():
    """A folder in memory, if there is room for snapshots (100 MiB each); containers may have little."""
    try:
        free = os.statvfs("/dev/shm")
    except OSError:
        return None
    return "/dev/shm" if free.f_bavail * free.f_frsize > 2 << 30 else None


class Judge:
    """A running kernel. `close` ends it."""

    # A crash is seen where it begins.
    CRASHES = ("panic", "oops_enter")

    def __init__(self, tree, machine, append, memory):
        self.tree, self.machine, self.append, self.memory = tree, machine, append, memory
        self.guest, self.capabilities = None, None
        self.command, self.files = "judge", {}
        self.init = machine.init()
        self.symbols = {s.name: s.value for s in Elf(self.init).symbols()}

    def boot(self):
        self.close()
        self.folder = tempfile.mkdtemp(prefix="judge", dir=place_of_snapshots())
        self.snapshots = set()
        self.module_init = None  # where init is, once load_module is over
        initrd = os.path.join(self.folder, "initrd")
        with open(initrd, "wb") as file:
            file.write(archive(self.init, {"plan": f"export /proc/kallsyms kallsyms\nexport /sys/kernel/btf/vmlinux btf\n{self.command}\n".encode(), **self.files}))
        options = SimpleNamespace(append=self.append, limit=24 * 3600, cpu=self.machine.cpu, smp=1, memory=self.memory)
        self.guest = Guest(self.machine, self.tree.image, initrd, self.folder, options)
        try:
            self.guest.keep_snapshots()
            self.hook = self.symbols["hook"]
            self.guest.breakpoint(self.hook)
            exports = []
            for _ in range(2):
                exports.append(self.guest.memory(*self.at_hook("export")))
                self.guest.step_over(self.hook)
            kernel = RunningKernel(self.tree, self.guest, exports[0], Btf(exports[1]))
            self.crashes = {kernel.symbol(n) for n in self.CRASHES}
            self.panic = kernel.symbol("panic")
            self.initcall = kernel.symbol("do_one_initcall")
            self.kernel = kernel
            self.module, self.room = self.at_hook("next")
            self.rest()
            for address in self.stops():
                self.guest.breakpoint(address)
            self.guest.save("boot")
        except GuestError as error:
            raise SystemExit(f"{error}\n{self.guest.last_words()}") from None

    def stops(self):
        """Where the guest stops on its way, beside the hook."""
        return (*self.crashes, self.initcall)

    def at_hook(self, wanted):
        registers = self.guest.resume(BOOT)
        if registers["pc"] != self.hook or not self.message().startswith(wanted):
            raise GuestError(f"the guest is at {registers['pc']:#x}, not at {wanted}")
        return [registers[r] for r in self.machine.arguments[:2]]

    def message(self):
        return self.guest.read(self.symbols["message"], 64).split(b"\0")[0].decode()

    def close(self):
        if self.guest is not None:
            self.guest.close()
            self.guest = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def stand(self, needs):
        """Restores the state in which the modules of `needs` (name and bytes) are loaded."""
        key = "boot" + "".join(f"-{name}" for name, _ in needs)
        if self.guest is None:
            self.boot()
        if key in self.snapshots or key == "boot":
            self.guest.restore(key)
            return
        self.guest.restore("boot")
        for name, data in needs:
            answer = self.load(data, run_init=True)
            if answer.end != "loaded":
                raise SystemExit(f"{self.tree.release}: {name}, which others need, does not load: {answer}")
            self.guest.step_over(self.hook)
            self.at_hook("next")
        self.rest()
        self.guest.save(key)
        self.snapshots.add(key)

    def stir(self):
        """Leaves other things in the memory that the kernel hands out next, and frees it in another order."""
        for size in (100, 4000, 9000, 30000, 70000, 200000, 500):
            self.load(b"\xa5" * size)
            self.guest.step_over(self.hook)
            self.at_hook("next")
        self.rest()

    def judge(self, data, needs=(), stirred=False):
        """Loads a module where those of `needs` are loaded."""
        for _ in range(2):
            try:
                self.stand(needs)
                if stirred:
                    self.stir()
                return self.load(data)
            except GuestError as error:
                # A module can do this to its kernel, but then it does it again; else it was QEMU.
                words = self.guest.last_words().splitlines()[-4:] if self.guest else []
                said = [str(error), *words]
                print(f"{self.tree.release}: {said}; booting anew", file=sys.stderr)
                self.close()
        return Answer("reset", None, said)

    def console(self, start):
        with open(os.path.join(self.folder, "console"), "rb") as file:
            file.seek(start)
            return file.read().decode("latin1")

    def report(self, at, start):
        """Lets the kernel say what happened: init does not survive it, so that it ends in panic(). What it logged before comes out too."""
        for _ in range(CRASHES_MAX):  # a kernel that has overwritten its own stack may crash in each report
            if at not in self.crashes or at == self.panic:
                break
            self.guest.step_over(at)
            registers = self.guest.resume_within(WORK, WAIT)
            at = registers["pc"] if registers else None
        said = (PREFIX.sub("", line.rstrip("\r")) for line in self.console(start).split("\n"))
        return list(dict.fromkeys(line for line in said if REPORT.match(line)))[:4]

    def rest(self):
        """Lets the guest do what it has put off: lines may reach the console late."""
        self.guest.write(self.symbols["order"], bytes(8))
        self.guest.step_over(self.hook)
        self.at_hook("next")

    def forget_init(self):
        if self.module_init is not None:
            self.guest.breakpoint(self.module_init, False)
            self.module_init = None

    def load(self, data, run_init=False):
        if len(data) > self.room:
            raise SystemExit(f"a module of {len(data)} bytes: the guest has room for {self.room}")
        self.guest.write(self.module, data)
        self.guest.write(self.symbols["order"], len(data).to_bytes(8, "little") + b"\0")
        console = os.path.getsize(os.path.join(self.folder, "console"))
        self.guest.step_over(self.hook)
        self.forget_init()
        while True:
            registers = self.guest.resume_within(WORK, WAIT)
            at = registers["pc"] if registers else None
            if at == self.hook:
                break
            if at == self.initcall:
                # load_module is over. do_one_initcall may still refuse; else this is where the verdict ends.
                self.guest.step_over(self.initcall)
                if not run_init:
                    self.module_init = registers[self.machine.arguments[0]]
                    self.guest.breakpoint(self.module_init)
            elif at is not None and at == self.module_init:
                # Where the kernel stands in a module, its own memory can be read.
                self.capabilities = self.capabilities or self.machine.capabilities(self.kernel)
                # Init does not run: it seems to have succeeded.
                self.machine.leave(self.guest, registers, 0)
            elif at is None or at in self.crashes:
                end = ("hang" if at is None else "oops") + ("" if self.module_init is None else " after init")
                report = self.report(at, console)
                log = lines(self.console(console))
                said = next((i for i, line in enumerate(log) if CRASH.search(line)), len(log))
                return Answer(end, None, log[:said], report)
            else:
                raise GuestError(f"the guest stands at {at:#x}")
        said = self.message()
        if not re.fullmatch(r"judged -?\d+", said):
            raise GuestError(f"the guest says {said!r}")
        result = int(said.split()[1])
        log = lines(self.guest.read(*(registers[r] for r in self.machine.arguments[:2])).decode("latin1"))
        if result == 0:
            return Answer("loaded" if self.module_init is None else "init", None, log)
        return Answer("refused", ERRNO.get(-result, str(result)), log)
