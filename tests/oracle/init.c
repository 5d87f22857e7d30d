// SPDX-License-Identifier: MIT OR Apache-2.0
//
// PID 1 of the oracle's guest. It needs no C library, so that a bare cross compiler is enough.
//
// Whatever the host is to see passes through hook(): the host has a breakpoint on it, reads `message`, and takes the bytes
// out of guest memory. The guest needs no driver for that. The file /plan says what to do, one command a line:
//
//     load FILE PARAMETERS...     init_module(2)
//     export FILE NAME            the contents of a file
//     folder FOLDER NAME          the contents of every file in it, as "name<TAB>contents" lines
//     judge                       loads what the host writes into memory, again and again, and hands it errno and kernel log
//     act                         does what plans say that the host names, again and again, and hands it results and kernel log

typedef unsigned long ulong;

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, MMAP = 9, NANOSLEEP = 35, MOUNT = 165, REBOOT = 169, SYSLOG = 103, INIT_MODULE = 175, GETDENTS64 = 217, OPENAT = 257, MKDIRAT = 258, MKNODAT = 259 };
__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call run\n");

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}
#elif defined(__aarch64__)
enum { MKNODAT = 33, MKDIRAT = 34, MOUNT = 40, OPENAT = 56, CLOSE = 57, GETDENTS64 = 61, READ = 63, WRITE = 64, NANOSLEEP = 101, INIT_MODULE = 105, SYSLOG = 116, REBOOT = 142, MMAP = 222 };
__asm__(".globl _start\n_start: mov x29, #0\n mov x30, #0\n bl run\n");

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#else
#error "no system calls for this architecture"
#endif

#define CALL3(n, a, b, c) call(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)

enum { AT_FDCWD = -100, O_WRONLY = 1, O_DIRECTORY_X86 = 0200000, O_DIRECTORY_ARM64 = 040000 };

char message[512] __attribute__((aligned(512))); // never across a page that is not there yet

__attribute__((noinline, noclone, used)) void hook(const void *data, ulong length)
{
	__asm__ volatile("" : : "r"(data), "r"(length) : "memory");
}

static ulong append(ulong at, const char *text)
{
	while (*text && at < sizeof message - 1)
		message[at++] = *text++;
	message[at] = 0;
	return at;
}

static void say(const char *what, const char *name, const void *data, ulong length)
{
	append(append(append(0, what), " "), name);
	hook(data, length);
}

static ulong append_number(ulong at, long value)
{
	char digits[24];
	ulong n = sizeof digits - 1, left = value < 0 ? -(ulong)value : (ulong)value;

	digits[n] = 0;
	do
		digits[--n] = '0' + left % 10;
	while ((left /= 10));
	if (value < 0)
		digits[--n] = '-';
	return append(at, digits + n);
}

static char *memory(ulong size)
{
	long p = call(MMAP, 0, size, 3 /* read, write */, 0x4022 /* private, anonymous, no reserve */, -1, 0);

	return p < 0 && p > -4096 ? 0 : (char *)p;
}

// Reads all of a file; its length, or a negative errno.
static long slurp(long folder, const char *path, char *into, ulong size)
{
	long fd = CALL3(OPENAT, folder, path, 0), got;
	ulong length = 0;

	if (fd < 0)
		return fd;
	while (length < size && (got = CALL3(READ, fd, into + length, size - length)) > 0)
		length += got;
	CALL3(CLOSE, fd, 0, 0);
	return length;
}

static void put(const char *path, const char *text, ulong length)
{
	long fd = CALL3(OPENAT, AT_FDCWD, path, O_WRONLY);

	if (fd >= 0) {
		CALL3(WRITE, fd, text, length);
		CALL3(CLOSE, fd, 0, 0);
	}
}

static ulong export_folder(const char *path, char *out, ulong size)
{
	static char entries[8192];
#if defined(__x86_64__)
	long fd = CALL3(OPENAT, AT_FDCWD, path, O_DIRECTORY_X86), got;
#else
	long fd = CALL3(OPENAT, AT_FDCWD, path, O_DIRECTORY_ARM64), got;
#endif
	ulong length = 0;

	if (fd < 0)
		return 0;
	while ((got = CALL3(GETDENTS64, fd, entries, sizeof entries)) > 0) {
		for (long at = 0; at < got; at += *(unsigned short *)(entries + at + 16)) {
			const char *name = entries + at + 19;
			ulong start = length;
			long n;

			if (name[0] == '.')
				continue;
			for (const char *c = name; *c; c++)
				out[length++] = *c;
			out[length++] = '\t';
			n = slurp(fd, name, out + length, size - length - 1);
			if (n < 0) {
				length = start;
				continue;
			}
			length += n;
			if (out[length - 1] != '\n')
				out[length++] = '\n';
		}
	}
	CALL3(CLOSE, fd, 0, 0);
	return length;
}

// Cuts the first word off: ends it with 0, and returns what follows it.
static char *rest_of(char *line)
{
	while (*line && *line != ' ')
		line++;
	if (*line)
		*line++ = 0;
	return line;
}

// The host writes a module to the buffer at each hook "next", its length and its parameters to `order`, and reads what came of it.
// Without a module the kernel gets time for what it has put off.
struct {
	ulong length;
	char params[1016];
} order __attribute__((aligned(1024)));

static void judge(char *module, ulong size)
{
	enum { READ_ALL = 3, CLEAR = 5, LOG = 1 << 18 };
	static const long pause[2] = { 0, 300000000 };
	char *log = memory(LOG);
	long result;

	call(MKNODAT, AT_FDCWD, (long)"/kmsg", 0020600 /* a character device */, 1 << 8 | 11, 0, 0);
	put("/proc/sys/kernel/printk_devkmsg", "on", 2);
	order.length = 1; // the page is there, and is our own
	for (ulong at = 0; at < size; at += 4096)
		module[at] = 0;
	for (;;) {
		say("next", "", module, size);
		if (!order.length) {
			CALL3(NANOSLEEP, pause, 0, 0);
			continue;
		}
		CALL3(SYSLOG, CLEAR, 0, 0);
		result = CALL3(INIT_MODULE, module, order.length, order.params);
		append_number(append(append(0, "judged"), " "), result);
		put("/kmsg", "judged\n", 7); // a line without an end is seen once another one follows
		hook(log, CALL3(SYSLOG, READ_ALL, log, LOG));
	}
}

#include "actions.h"

static void execute(char *line, char *buffer, ulong size)
{
	char *file = rest_of(line), *rest = rest_of(file);
	long n;

	if (line[0] == 'l') {
		n = slurp(AT_FDCWD, file, buffer, size);
		say("loading", file, buffer, n < 0 ? 0 : n);
		if (n >= 0)
			n = CALL3(INIT_MODULE, buffer, n, rest);
		append_number(append(append(append(0, "loaded "), file), " "), n);
		hook(0, 0);
	} else if (line[0] == 'e') {
		n = slurp(AT_FDCWD, file, buffer, size);
		if (n >= 0)
			say("export", rest, buffer, n);
	} else if (line[0] == 'f') {
		say("export", rest, buffer, export_folder(file, buffer, size));
	} else if (line[0] == 'j') {
		judge(buffer, 1 << 20);
	} else if (line[0] == 'a') {
		acting(buffer, 1 << 20);
	}
}

__attribute__((noreturn, used)) void run(void)
{
	enum { PLAN = 1 << 20, BUFFER = 192 << 20 };
	char *plan = memory(PLAN), *buffer = memory(BUFFER), *end;

	call(MOUNT, (long)"proc", (long)"/proc", (long)"proc", 0, 0, 0);
	call(MOUNT, (long)"sysfs", (long)"/sys", (long)"sysfs", 0, 0, 0);
	put("/proc/sys/kernel/kptr_restrict", "0", 1);
	if (plan && buffer) {
		long length = slurp(AT_FDCWD, "/plan", plan, PLAN - 1);

		for (char *line = plan; length > 0 && line < plan + length; line = end + 1) {
			for (end = line; *end && *end != '\n'; end++)
				;
			*end = 0;
			execute(line, buffer, BUFFER);
		}
	}
	say("done", "", 0, 0);
	call(REBOOT, (int)0xfee1dead, 672274793, 0x4321fedc /* power off */, 0, 0, 0);
	for (;;)
		;
}
