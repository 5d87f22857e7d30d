/* compare KERNEL MODULE: loads a module, changes one byte of a copy of its memory, and asks what differs. Also calls every function
 * with NULL, which is refused. */
#include <assert.h>
#include <inttypes.h>
#include <kmodld.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct copy {
	uint64_t base;
	unsigned char *bytes;
	size_t size;
};

static int first_region(const kmodld_region *region, void *context)
{
	struct copy *copy = context;

	copy->base = region->base;
	copy->size = region->size;
	copy->bytes = malloc(region->size);
	assert(copy->bytes && region->executable && !strcmp(region->name, "text"));
	memcpy(copy->bytes, region->bytes, region->size);
	return 7;
}

static int print_difference(const kmodld_difference *difference, void *context)
{
	++*(int *)context;
	printf("%#" PRIx64 ": %zu bytes, %s: %s\n", difference->address, difference->size,
	       difference->sound ? "sound" : "ALARM", difference->cause);
	return 0;
}

static int count_symbol(const kmodld_symbol *symbol, void *context)
{
	*(int *)context += symbol->kind == 2 && !symbol->undefined;
	return 0;
}

static void refuses_null(void)
{
	kmodld_kernel *kernel = NULL;
	kmodld_module *module = NULL;
	uint64_t address = 0;

	assert(kmodld_kernel_open(NULL, NULL, &kernel, NULL) == -22);
	assert(kmodld_kernel_open("/no/such/file", NULL, NULL, NULL) == -22);
	assert(kmodld_kernel_open("/no/such/file", NULL, &kernel, NULL) == KMODLD_ERROR);
	assert(kmodld_kernel_load(NULL, NULL, 0, NULL, &module, NULL) == -22);
	assert(kmodld_kernel_insmod(NULL, NULL, 0, NULL, NULL) == -22);
	assert(kmodld_kernel_rmmod(NULL, "x", NULL) == -22);
	assert(kmodld_module_symbol(NULL, "x", &address) == -22);
	assert(kmodld_module_each_region(NULL, first_region, NULL) == -22);
	assert(kmodld_module_read(NULL, 0, NULL, 0) == -22);
	assert(!kmodld_module_name(NULL) && !kmodld_module_init(NULL) && !kmodld_error_message(NULL));
	kmodld_error_free(NULL);
	kmodld_module_free(NULL);
	kmodld_kernel_free(NULL);
}

int main(int argc, char **argv)
{
	kmodld_options options = { .base = 0xffffffffc1000000, .stage = 1 };
	kmodld_kernel *kernel = NULL;
	kmodld_module *module = NULL;
	kmodld_error *error = NULL;
	struct copy copy = { 0 };
	unsigned char byte = 0;
	static unsigned char file[1 << 22];
	uint64_t init = 0;
	int count = 0, functions = 0;
	FILE *stream;
	size_t size;

	assert(argc == 3);
	refuses_null();
	stream = fopen(argv[2], "rb");
	assert(stream);
	size = fread(file, 1, sizeof(file), stream);
	fclose(stream);
	assert(!kmodld_kernel_open(argv[1], "", &kernel, &error));
	/* What is no module is refused as the kernel does it, and the findings say why. */
	assert(kmodld_kernel_load(kernel, (const unsigned char *)"no module", 9, NULL, &module, &error) == -8);
	assert(error && strstr(kmodld_error_message(error), "ENOEXEC") && !module);
	kmodld_error_free(error);
	error = NULL;
	assert(!kmodld_kernel_load(kernel, file, size, &options, &module, &error));
	assert(!kmodld_kernel_insmod(kernel, file, size, NULL, &error));
	assert(kmodld_kernel_insmod(kernel, file, size, NULL, NULL) == -17);
	assert(!kmodld_kernel_rmmod(kernel, kmodld_module_name(module), &error));
	/* A module lives on. */
	kmodld_kernel_free(kernel);
	assert(kmodld_module_each_region(module, first_region, &copy) == 7);
	assert(copy.base == options.base);
	assert(!kmodld_module_each_symbol(module, count_symbol, &functions) && functions > 0);
	assert(!kmodld_module_symbol(module, "init_module", &init) && init == kmodld_module_init(module));
	assert(kmodld_module_symbol(module, "no such symbol", &init) == KMODLD_NONE);
	assert(!kmodld_module_read(module, copy.base, &byte, 1) && byte == copy.bytes[0]);
	assert(kmodld_module_read(module, 0, &byte, 1) == KMODLD_NONE);
	assert(!kmodld_module_compare(module, copy.base, copy.bytes, copy.size, print_difference, &count) && !count);
	copy.bytes[0] ^= 0xff;
	assert(!kmodld_module_compare(module, copy.base, copy.bytes, copy.size, print_difference, &count) && count == 1);
	assert(kmodld_module_compare(module, 0, copy.bytes, 1, print_difference, &count) == KMODLD_NONE);
	free(copy.bytes);
	kmodld_module_free(module);
	return 0;
}
