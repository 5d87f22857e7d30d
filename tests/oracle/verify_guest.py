"""A guest with many modules loaded and at work, and what its memory is written to: for verify.py."""

import os
import shutil
import subprocess
import time

from guest import Monitor
from home import libraries
from initramfs import archive
from kernel_tree import KernelTree

# What is loaded, with all that it needs. Names that a kernel does not have are left out.
MODULES = """
ext4 xfs vfat nls_ascii nls_cp437 isofs squashfs fuse overlay loop dummy veth bridge br_netfilter tun
nf_tables nft_ct nft_limit nft_log nf_conntrack nf_nat nft_nat nft_reject_inet ip_tables iptable_filter iptable_nat
xt_conntrack xt_tcpudp xt_LOG ip6_tables ip6table_filter sctp tcp_bbr sch_fq sch_htb cls_u32 act_mirred wireguard
dm_mod dm_crypt dm_snapshot raid1 md_mod zram null_blk brd nvme e1000e virtio_net virtio_blk virtio_scsi sd_mod cdrom sr_mod
usbcore xhci_pci usb_storage hid_generic snd_pcm snd_hrtimer snd_seq configfs dlm ceph nfs nfsd cifs
kvm irqbypass vsock vmw_vsock_virtio_transport 9p 9pnet_virtio kheaders qemu_fw_cfg binfmt_misc msr cpuid
crc32c_generic xxhash_generic aes_generic sha512_generic ecdh_generic algif_hash algif_skcipher vxlan geneve ipvlan macvlan bonding
team openvswitch can can_raw btrfs udf nbd pktcdvd parport ppdev i2c_dev softdog rtc_cmos psmouse evdev
""".split()

INIT = r"""#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tracefs trace /sys/kernel/tracing
for m in $(cat /order); do insmod /m/$m.ko $(cat /m/$m.args 2>/dev/null) 2>/dev/null || echo "@@ not loaded: $m"; done
mkdir -p /mnt/e /mnt/v /mnt/o /mnt/x /tmp
dd if=/dev/zero of=/tmp/e bs=1M count=8 2>/dev/null; mke2fs -F /tmp/e >/dev/null 2>&1; mount -o loop -t ext4 /tmp/e /mnt/e && echo "@@ ext4"
dd if=/dev/zero of=/tmp/v bs=1M count=8 2>/dev/null; mkdosfs /tmp/v >/dev/null 2>&1; mount -o loop -t vfat /tmp/v /mnt/v && echo "@@ vfat"
mkdir -p /mnt/e/up /mnt/e/work /mnt/e/low
mount -t overlay -o lowerdir=/mnt/e/low,upperdir=/mnt/e/up,workdir=/mnt/e/work o /mnt/o && echo "@@ overlay"
for i in 1 2 3 4; do cp /bin/busybox /mnt/e/$i; cp /bin/busybox /mnt/v/$i; echo $i > /mnt/o/$i; done; sync; rm /mnt/e/1 /mnt/o/2
ip link add v0 type veth peer name v1; ip link add name br0 type bridge; ip link set v0 master br0
for i in lo v0 v1 br0 dummy0; do ip link set $i up; done; ip addr add 10.0.0.1/24 dev br0; ip addr add 10.0.1.1/24 dev dummy0
ping -c 2 -W 1 10.0.0.1 >/dev/null && echo "@@ ping"
T=/sys/kernel/tracing
CHANGES
echo "@@ ready"
while :; do sleep 1; ls /mnt/e /mnt/o > /dev/null; ping -c 1 -W 1 10.0.0.1 > /dev/null; done
"""
# What changes sites in legal ways, and stays on. A probe whose place is not the beginning of an instruction is refused.
ON = r"""
echo ':mod:ext4' > $T/set_ftrace_filter; echo function > $T/current_tracer && echo "@@ function tracer"
echo 1 > $T/events/ext4/enable && echo "@@ events"; echo 1 > $T/events/block/enable
echo 'p:one ext4_readdir+15' > $T/kprobe_events; echo 'p:four ext4_readdir+16' >> $T/kprobe_events; echo 'p:two ext4:ext4_find_entry' >> $T/kprobe_events; echo 'r:three fat_alloc_inode' >> $T/kprobe_events
for p in one two three four; do echo 1 > $T/events/kprobes/$p/enable && echo "@@ kprobe $p"; done
grep -q live_patched /proc/mounts && grep -q 'live patched' /proc/cmdline && echo "@@ live patch"
echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null
ls /mnt/e /mnt/v >/dev/null; mount -o remount,ro /mnt/v; sleep 3
"""
# The same, on and off again.
OFF = ON + r"""
for p in one two three four; do echo 0 > $T/events/kprobes/$p/enable; done; echo > $T/kprobe_events
[ ! -e /sys/kernel/livepatch/live_patch ] || echo 0 > /sys/kernel/livepatch/live_patch/enabled
echo 0 > $T/events/enable; echo nop > $T/current_tracer; echo > $T/set_ftrace_filter; sleep 3
"""


# What attack_write does: how, a symbol, bytes behind it. None of this is code that runs in the guest.
ATTACKS = r"""
cat /proc/sys/kernel/tainted > /dev/null
a() { at=$(awk -v n="$2" '$3 == n { print $1; exit }' /proc/kallsyms); at=$(printf %x $((0x$at + $3)));
    echo "$1 0x$at" > /sys/module/attack_write/parameters/attack || echo "@@ failed: $1"; }
a byte ext4_resize_fs 32; a byte xfs_growfs_data 64; a jump ext4_move_extents 0
a pointer victim_data_fops MEMBER; a pointer victim_rodata_fops MEMBER
a return ext4_group_add 0; a ftrace btrfs_defrag_file 0; MORE
sleep 4
"""
# An architecture's own.
MORE_ATTACKS = {
    "x86_64": "a static_call STATIC_CALL; a alternative ALTERNATIVE",
    "aarch64": "a alternative ALTERNATIVE",
}


# The guest verifies itself: by what it shows of its own kernel, and /proc/kcore.
ITSELF = r"""
echo 1 > /proc/sys/kernel/printk; echo 1 > /proc/sys/kernel/kptr_restrict
kmodld verify --json -q > /tmp/report 2> /tmp/said; echo "@@ verified $?"; cat /tmp/said
echo "@@ report"; cat /tmp/report; echo; echo "@@ end of report"
"""


def with_kmodld(kernel, program):
    """Files by which a guest can verify itself: the program with its libraries, its kernel, and the modules that it loads."""
    files = {"bin/kmodld": program}
    files |= {path.lstrip("/"): path for path in libraries(program) if path != os.path.realpath(program)}
    programs = set(files)
    for name in kernel.load_order(known_modules(kernel)):
        files[f"lib/modules/{kernel.release}/kernel/{name}.ko"] = kernel.module(name)
    files[f"boot/vmlinuz-{kernel.release}"] = kernel.image
    for path, source in files.items():
        if isinstance(source, str):
            with open(source, "rb") as file:
                files[path] = file.read()
    return files, programs


def known_modules(kernel):
    known = set(kernel.names())
    return [name for name in MODULES if name in known]


def build(tree, folder, busybox, extra=(), changes=ON, more=({}, set()), names=None):
    """Writes the initramfs; gives its path and the names of what is loaded: many modules, or those of `names` and what they need.
    `extra` are module files, loaded last; `more` files by path, and which of them are programs."""
    kernel = KernelTree(tree)
    order = kernel.load_order(names or known_modules(kernel))
    with open(busybox, "rb") as file:
        files = {"bin/busybox": file.read()}
    programs = {"bin/busybox"}
    for name in "sh mount insmod cat echo mkdir dd mke2fs mkdosfs sync cp rm ip ping ls sleep umount awk printf grep".split():
        files[f"bin/{name}"] = b"#!/bin/busybox sh\n"  # replaced below: links would need another kind of entry
        files[f"bin/{name}"] = files["bin/busybox"]
        programs.add(f"bin/{name}")
    for name in order:
        files[f"m/{name}.ko"] = kernel.module(name)
    files["m/dummy.args"] = b"numdummies=1"
    files["m/brd.args"] = b"rd_nr=1"
    for path, args in extra:
        name = os.path.basename(path).split(".ko")[0]
        with open(path, "rb") as file:
            files[f"m/{name}.ko"] = file.read()
        files[f"m/{name}.args"] = args.encode()
        order.append(name)
    files |= more[0]
    programs |= more[1]
    files["order"] = "\n".join(order).encode()
    init = INIT.replace("CHANGES", changes).encode()
    path = os.path.join(folder, "initrd")
    with open(path, "wb") as file:
        file.write(archive(init, files, programs))
    return path, order


class Running:
    """A guest that has said that it is ready."""

    def __init__(self, machine, tree, initrd, folder, memory=1024, smp=1, append="", limit=1500, cpu=None, more=()):
        kernel = KernelTree(tree)
        self._machine = machine
        qmp = os.path.join(folder, "qmp")
        self.console = os.path.join(folder, "console")
        argv = ["timeout", "--foreground", "--kill-after=5", str(limit), shutil.which(machine.qemu)]
        argv += ["-accel", "tcg", "-M", machine.board, "-cpu", cpu or machine.cpu, "-smp", str(smp), "-m", str(memory)]
        argv += ["-kernel", kernel.image, "-initrd", initrd, "-append", f"{machine.boot} panic=-1 {append}"]
        argv += ["-nodefaults", "-nographic", "-nic", "none", "-no-reboot", "-serial", f"file:{self.console}"]
        argv += ["-device", "vmcoreinfo", "-qmp", f"unix:{qmp},server=on,wait=off", *more]
        with open(os.path.join(folder, "qemu"), "wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
        self.monitor = Monitor(qmp, time.monotonic() + 30)

    def wait(self, word, seconds):
        """Waits for a line of the console."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.path.exists(self.console):
                with open(self.console, "rb") as file:
                    if word.encode() in file.read():
                        return
            if self._process.poll() is not None:
                break
            time.sleep(1)
        raise SystemExit(f"the guest does not say {word!r}: see {self.console}")

    def dump(self, path, paging=False, format=None):
        arguments = {"paging": paging, "protocol": f"file:{path}"}
        if format:
            arguments["format"] = format
        self.monitor.run("stop")
        self.monitor.run("dump-guest-memory", **arguments)

    def raw(self, path, size):
        """Physical memory, each byte at its address: below the first there is a hole in the file."""
        self.monitor.run("stop")
        piece, start = f"{path}.piece", self._machine.ram
        self.monitor.run("pmemsave", **{"val": start, "size": size, "filename": piece})
        if not start:
            return os.replace(piece, path)
        with open(piece, "rb") as source, open(path, "wb") as out:
            out.seek(start)
            shutil.copyfileobj(source, out, 1 << 20)
        os.remove(piece)

    def close(self):
        try:
            self.monitor.run("quit")
        except Exception:
            self._process.terminate()
        self._process.wait(20)
