// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Part of init.c: does what a plan of lkm.py says, and writes down what comes of it. lkm.py has made numbers of everything that
// has names, so that a line is little more than a system call. Words are parted by blanks:
//
//     #HEX        a number                        $HEX       the address of these bytes
//     &HEX        the same; they are shown then   @HEX       the address of so many zeroes; as many as the result says are shown
//     %           the file that is open for it
//
//     s NUMBER ARGUMENT...        a system call
//     p $PATH #FLAGS s ...        opens a file, makes the call, and closes the file
//     c $PATH                     everything in a file
//     m $PATH $NAME #MINOR        mknod of a device whose major number is that of NAME in /proc/devices
//     l $FILE $PARAMETERS         init_module
//
// For each line "r RESULT" comes out, and "o HEX" if something is shown.

static struct {
	char *out;
	ulong length;
	char *arena;
	ulong used;
	char *shown; // what a call is to show, or 0
	ulong shown_length;
	int shows_result; // as many bytes as the result says
	long fd;
} acts;

enum { ACTS_OUT = 8 << 20, ACTS_ARENA = 4 << 20, CAT_MAX = 1 << 20 };

static void out_text(const char *text)
{
	while (*text && acts.length < ACTS_OUT - 1)
		acts.out[acts.length++] = *text++;
	acts.out[acts.length] = 0;
}

static void out_result(long result)
{
	out_text("r ");
	out_text((append_number(0, result), message));
	out_text("\n");
}

static void out_bytes(const char *bytes, ulong length)
{
	static const char digits[] = "0123456789abcdef";

	out_text("o ");
	for (ulong i = 0; i < length && acts.length < ACTS_OUT - 4; i++) {
		acts.out[acts.length++] = digits[bytes[i] >> 4 & 15];
		acts.out[acts.length++] = digits[bytes[i] & 15];
	}
	out_text("\n");
}

static ulong digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

static ulong hex(const char *text)
{
	ulong value = 0;

	while (*text)
		value = value << 4 | digit(*text++);
	return value;
}

// Room for bytes; they are apart from one another, and begin at a multiple of 64.
static char *room(ulong size)
{
	char *at = acts.arena + acts.used;

	acts.used = (acts.used + size + 64) & ~63UL;
	for (ulong i = 0; i <= size; i++)
		at[i] = 0;
	return at;
}

static long argument(const char *word)
{
	ulong length = 0;
	char *at;

	switch (*word++) {
	case '#':
		return hex(word);
	case '%':
		return acts.fd;
	case '@':
		acts.shown = at = room(hex(word));
		acts.shown_length = hex(word);
		acts.shows_result = 1;
		return (long)at;
	case '$':
	case '&':
		while (word[length])
			length++;
		at = room(length / 2);
		for (ulong i = 0; i < length / 2; i++)
			at[i] = digit(word[2 * i]) << 4 | digit(word[2 * i + 1]);
		if (word[-1] == '&') {
			acts.shown = at;
			acts.shown_length = length / 2;
			acts.shows_result = 0;
		}
		return (long)at;
	}
	return 0;
}

static void act_call(char *line)
{
	long arguments[7] = { 0 }, result;

	acts.shown = 0;
	for (int i = 0; i < 7 && *line; i++) {
		char *rest = rest_of(line);

		arguments[i] = argument(line);
		line = rest;
	}
	result = call(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5], arguments[6]);
	out_result(result);
	if (acts.shown && acts.shows_result)
		acts.shown_length = result < 0 ? 0 : (ulong)result < acts.shown_length ? (ulong)result : acts.shown_length;
	if (acts.shown)
		out_bytes(acts.shown, acts.shown_length);
}

static void act_cat(const char *path)
{
	long fd = CALL3(OPENAT, AT_FDCWD, path, 0), got = 0;
	char *into = acts.arena + ACTS_ARENA / 2;
	ulong length = 0;

	if (fd < 0) {
		out_result(fd);
		return;
	}
	while (length < CAT_MAX && (got = CALL3(READ, fd, into + length, 65536)) > 0)
		length += got;
	CALL3(CLOSE, fd, 0, 0);
	out_result(got < 0 ? got : (long)length);
	out_bytes(into, length);
}

static long major_of(const char *name)
{
	char *list = acts.arena + ACTS_ARENA / 2;
	long length = slurp(AT_FDCWD, "/proc/devices", list, 65535);

	list[length < 0 ? 0 : length] = 0;
	// Lines of a number, right-justified, a blank and a name.
	for (char *at = list; *at;) {
		long number = 0;
		const char *c = name;

		while (*at == ' ')
			at++;
		while (*at >= '0' && *at <= '9')
			number = 10 * number + *at++ - '0';
		if (*at == ' ')
			at++;
		while (*c && *at == *c)
			at++, c++;
		if (!*c && *at == '\n')
			return number;
		while (*at && *at != '\n')
			at++;
		if (*at)
			at++;
	}
	return -1;
}

static void act(char *line, char *buffer, ulong size)
{
	char *first = rest_of(line), *second;
	long number;

	acts.used = 0;
	acts.fd = -1;
	switch (*line) {
	case 's':
		act_call(first);
		return;
	case 'c':
		rest_of(first);
		act_cat((const char *)argument(first));
		return;
	case 'p':
		second = rest_of(first);
		line = rest_of(second);
		number = argument(first);
		acts.fd = CALL3(OPENAT, AT_FDCWD, number, argument(second));
		if (acts.fd < 0) {
			out_result(acts.fd);
			return;
		}
		act_call(rest_of(line));
		CALL3(CLOSE, acts.fd, 0, 0);
		return;
	case 'm':
		second = rest_of(first);
		line = rest_of(second);
		rest_of(line);
		number = major_of((const char *)argument(second));
		if (number < 0) {
			out_text("r none\n");
			return;
		}
		// new_encode_dev
		size = argument(line);
		number = (size & 0xff) | number << 8 | (size & ~0xffUL) << 12;
		out_result(call(MKNODAT, AT_FDCWD, argument(first), 0020666, number, 0, 0));
		return;
	case 'l':
		second = rest_of(first);
		rest_of(second);
		number = slurp(AT_FDCWD, (const char *)argument(first), buffer, size);
		out_result(number < 0 ? number : CALL3(INIT_MODULE, buffer, number, argument(second)));
		return;
	}
	out_text("r unknown\n");
}

// Where the host sees "next" it writes the name of a plan to `order`; what came of it follows at "acted": lines, then the log.
static void acting(char *buffer, ulong size)
{
	enum { READ_ALL = 3, CLEAR = 5, LOG = 1 << 18, PLAN = 1 << 18 };
	static const long pause[2] = { 0, 300000000 };
	char *plan = memory(PLAN), *end;
	long length;

	CALL3(MKDIRAT, AT_FDCWD, "/tmp", 0755);
	call(MKNODAT, AT_FDCWD, (long)"/kmsg", 0020600 /* a character device */, 1 << 8 | 11, 0, 0);
	put("/proc/sys/kernel/printk_devkmsg", "on", 2);
	call(MOUNT, (long)"devtmpfs", (long)"/dev", (long)"devtmpfs", 0, 0, 0);
	call(MOUNT, (long)"debugfs", (long)"/sys/kernel/debug", (long)"debugfs", 0, 0, 0);
	// A program without open files, as the machine's is one.
	for (int fd = 0; fd < 3; fd++)
		CALL3(CLOSE, fd, 0, 0);
	acts.out = memory(ACTS_OUT);
	acts.arena = memory(ACTS_ARENA);
	order.length = 1;
	for (;;) {
		say("next", "", buffer, size);
		if (!order.length) {
			CALL3(NANOSLEEP, pause, 0, 0);
			continue;
		}
		CALL3(SYSLOG, CLEAR, 0, 0);
		acts.length = 0;
		length = slurp(AT_FDCWD, order.params, plan, PLAN - 1);
		for (char *line = plan; length > 0 && line < plan + length; line = end + 1) {
			for (end = line; *end && *end != '\n'; end++)
				;
			*end = 0;
			act(line, buffer, size);
		}
		put("/kmsg", "acted\n", 6); // a line without an end is seen once another one follows
		out_text("d\n");
		length = CALL3(SYSLOG, READ_ALL, acts.out + acts.length, LOG);
		say("acted", "", acts.out, acts.length + (length < 0 ? 0 : length));
	}
}
