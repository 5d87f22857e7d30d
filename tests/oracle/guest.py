"""A QEMU guest: registers and breakpoints through its gdb stub, memory through its QMP monitor, both on unix sockets."""

import json
import os
import shutil
import socket
import struct
import subprocess
import time


class GuestError(Exception):
    """The guest is gone, or does not do what it is told."""


class Silence(GuestError):
    """Nothing came in the time there was."""


def _connect(path, deadline):
    connection = socket.socket(socket.AF_UNIX)
    while True:
        try:
            connection.connect(path)
            return connection
        except OSError:
            if time.monotonic() > deadline:
                raise GuestError(f"QEMU does not listen on {path}") from None
            time.sleep(0.05)


class Monitor:
    """QMP: commands and answers in JSON, a line each."""

    def __init__(self, path, deadline):
        self._socket = _connect(path, deadline)
        self._socket.settimeout(60)
        self._file = self._socket.makefile("rw")
        self._file.readline()
        self.run("qmp_capabilities")

    def run(self, command, **arguments):
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while line := self._file.readline():
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise GuestError(f"{command}: {answer['error']['desc']}")
        raise GuestError("QEMU closed its monitor")

    def slow(self):
        """From here on commands may take minutes: dumps do."""
        self._socket.settimeout(600)

    def job(self, command, **arguments):
        """A command that goes on by itself; waits for its end."""
        self.run(command, **{"job-id": "job", **arguments})
        while True:
            (job,) = self.run("query-jobs")
            if job["status"] == "concluded":
                break
            time.sleep(0.01)
        self.run("job-dismiss", id="job")
        if "error" in job:
            raise GuestError(f"{command}: {job['error']}")

    def ask(self, line):
        """A command of the human monitor: what has no other form. It answers nothing if all is well."""
        if answer := self.run("human-monitor-command", **{"command-line": line}):
            raise GuestError(f"{line}: {answer.strip()}")


class Stub:
    """The remote serial protocol of gdb, as far as it is needed here."""

    def __init__(self, path, deadline):
        self._socket = _connect(path, deadline)
        self._received = b""
        self.run("qSupported:", 60)
        self.run("qXfer:features:read:target.xml:0,100", 60)  # without that, single registers cannot be set

    def _receive(self, timeout):
        deadline = time.monotonic() + timeout
        while True:
            start = self._received.find(b"$")
            end = self._received.find(b"#", start + 1)
            if start >= 0 and end >= 0 and len(self._received) >= end + 3:
                packet = self._received[start + 1 : end]
                self._received = self._received[end + 3 :]
                self._send(b"+")
                return packet.decode("latin1")
            left = deadline - time.monotonic()
            if left <= 0:
                raise Silence(f"nothing happened in the guest for {timeout:.0f} s")
            self._socket.settimeout(left)
            try:
                more = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise GuestError(f"the gdb stub is gone: {error}") from None
            if not more:
                raise GuestError("the guest ended")
            self._received += more

    def _send(self, data):
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise GuestError(f"the gdb stub is gone: {error}") from None

    def run(self, command, timeout):
        packet = command.encode()
        self._send(b"$" + packet + b"#%02x" % (sum(packet) & 0xFF))
        return self._receive(timeout)

    def resume(self, command, timeout):
        """Lets the guest run until it stops; the thread that stopped."""
        return self.stopped(self.run(command, timeout), timeout)

    def interrupt(self):
        """Stops a guest that runs."""
        self._send(b"\3")
        return self.stopped("", 60)

    def stopped(self, reply, timeout):
        while not reply or reply[0] not in "TSWX":
            reply = self._receive(timeout)
        if reply[0] in "WX":
            raise GuestError("the guest ended")
        thread = reply.partition("thread:")[2].partition(";")[0]
        return int(thread.rpartition(".")[2], 16) if thread else 1


class Guest:
    """A guest that stands at its first instruction."""

    PACKET = 1024  # bytes of memory in a packet: the stub takes 4096 characters

    def __init__(self, machine, image, initrd, folder, options):
        qemu = shutil.which(machine.qemu)
        if qemu is None:
            raise SystemExit(f"{machine.qemu} is missing: apt-get install {machine.qemu_package}")
        self._machine = machine
        self._folder = folder
        self._breakpoint_kind = machine.breakpoint_kind
        self.cmdline = f"{machine.boot} panic=-1 {options.append}".strip()
        qmp, gdb = os.path.join(folder, "qmp"), os.path.join(folder, "gdb")
        # `timeout`: should this script be killed, its guest does not live on for ever.
        argv = ["timeout", "--foreground", "--kill-after=5", str(options.limit), qemu]
        argv += ["-accel", "tcg", "-M", machine.board, "-cpu", options.cpu, "-smp", str(options.smp)]
        argv += ["-m", str(options.memory), "-kernel", image, "-initrd", initrd, "-append", self.cmdline]
        argv += ["-nodefaults", "-nographic", "-nic", "none", "-no-reboot", "-S"]
        argv += ["-serial", f"file:{folder}/console", "-qmp", f"unix:{qmp},server=on,wait=off"]
        argv += ["-chardev", f"socket,id=gdb,path={gdb},server=on,wait=off", "-gdb", "chardev:gdb"]
        # What QEMU itself has to say goes there too: its emulation lacks features of most CPU models.
        with open(os.path.join(folder, "qemu"), "wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
        self._thread = 1
        try:
            deadline = time.monotonic() + 30
            self._monitor = Monitor(qmp, deadline)
            self._stub = Stub(gdb, deadline)
        except BaseException:
            self.close()
            raise

    def breakpoint(self, address, on=True):
        reply = self._stub.run(f"{'Z' if on else 'z'}0,{address:x},{self._breakpoint_kind}", 60)
        if reply != "OK":
            raise GuestError(f"breakpoint at {address:#x}: {reply}")

    def resume(self, timeout):
        """Runs to the next breakpoint; its registers."""
        self._thread = self._stub.resume("c", timeout)
        return self.registers()

    def step_over(self, address):
        """Leaves a breakpoint that stays."""
        self.breakpoint(address, False)
        for _ in range(100):  # an interrupt can come instead of the step
            self._thread = self._stub.resume("s", 60)
            if self.registers()["pc"] != address:
                break
        self.breakpoint(address)

    def registers(self):
        self._stub.run(f"Hg{self._thread:x}", 60)
        names = self._machine.registers
        raw = bytes.fromhex(self._stub.run("g", 60)[: 16 * len(names)])
        return dict(zip(names, struct.unpack(f"<{len(names)}Q", raw)))

    def memory(self, address, size):
        """Bytes at a virtual address, as the CPU sees it that stopped."""
        if size == 0:
            return b""
        path = os.path.join(self._folder, "memory")
        signed = address - (1 << 64) if address >> 63 else address
        arguments = {"val": signed, "size": size, "filename": path, "cpu-index": self._thread - 1}
        self._monitor.run("memsave", **arguments)
        with open(path, "rb") as file:
            return file.read()

    def set_register(self, name, value):
        number = self._machine.registers.index(name)
        reply = self._stub.run(f"P{number:x}={value.to_bytes(8, 'little').hex()}", 60)
        if reply != "OK":
            raise GuestError(f"register {name}: {reply}")

    def read(self, address, size):
        """As `memory`, for what is small."""
        data = b""
        while len(data) < size:
            reply = self._stub.run(f"m{address + len(data):x},{min(size - len(data), self.PACKET):x}", 60)
            if not reply or reply[0] == "E":
                raise GuestError(f"memory at {address + len(data):#x} cannot be read")
            data += bytes.fromhex(reply)
        return data

    def write(self, address, data):
        for at in range(0, len(data), self.PACKET):
            part = data[at : at + self.PACKET]
            reply = self._stub.run(f"M{address + at:x},{len(part):x}:{part.hex()}", 60)
            if reply != "OK":
                raise GuestError(f"memory at {address + at:#x} cannot be written")

    def resume_within(self, work, wait):
        """Runs to the next breakpoint, for so many seconds of QEMU's CPU time and as many on the clock as `wait` says.

        A guest that is still at it then is stopped, wherever it is: None.
        """
        worked, deadline = self._cpu_time() + work, time.monotonic() + wait
        try:
            self._thread = self._stub.resume("c", 0.5)
            return self.registers()
        except Silence:
            pass
        while self._cpu_time() < worked and time.monotonic() < deadline:
            try:
                self._thread = self._stub.stopped("", 0.5)
                return self.registers()
            except Silence:
                pass
        self._thread = self._stub.interrupt()
        return None

    def _cpu_time(self):
        """Seconds that QEMU has computed: on a busy machine they are fewer than have passed."""
        timeout = self._process.pid
        try:
            with open(f"/proc/{timeout}/task/{timeout}/children", encoding="ascii") as file:
                qemu = file.read().split()[0]
            with open(f"/proc/{qemu}/stat", encoding="ascii") as file:
                fields = file.read().rpartition(")")[2].split()
        except (OSError, IndexError):
            raise GuestError("QEMU is gone") from None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def keep_snapshots(self):
        """Snapshots go to an image of their own. It is no disk of the guest."""
        path = os.path.join(self._folder, "snapshots")
        self._monitor.job("blockdev-create", options={"driver": "file", "filename": path, "size": 0})
        self._monitor.run("blockdev-add", **{"driver": "file", "filename": path, "node-name": "file"})
        self._monitor.job("blockdev-create", options={"driver": "qcow2", "file": "file", "size": 1 << 20})
        self._monitor.run("blockdev-add", **{"driver": "qcow2", "file": "file", "node-name": "snapshots"})

    def save(self, snapshot):
        self._monitor.ask(f"savevm {snapshot}")

    def restore(self, snapshot):
        self._monitor.ask(f"loadvm {snapshot}")

    def last_words(self):
        """The ends of what QEMU and its guest said."""
        said = ""
        for name in ("qemu", "console"):
            path = os.path.join(self._folder, name)
            if os.path.exists(path):
                with open(path, "rb") as file:
                    said += file.read()[-2000:].decode("latin1") + "\n"
        return said

    def close(self):
        """Ends the guest, whatever state it is in."""
        try:
            self._monitor.run("quit")
        except (AttributeError, GuestError, OSError):  # no monitor, or no QEMU any more
            self._process.terminate()  # timeout passes it on
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
