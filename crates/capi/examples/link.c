/* link KERNEL MODULE OUTPUT: links a module, lists what it imports, and writes an ELF file that debuggers open. */
#include <inttypes.h>
#include <kmodld.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned char *read_file(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	unsigned char *bytes = NULL;

	if (!file)
		return NULL;
	if (!fseek(file, 0, SEEK_END)) {
		*size = (size_t)ftell(file);
		rewind(file);
		bytes = malloc(*size ? *size : 1);
		if (bytes && fread(bytes, 1, *size, file) != *size) {
			free(bytes);
			bytes = NULL;
		}
	}
	fclose(file);
	return bytes;
}

static int print_import(const kmodld_import *import, void *context)
{
	(void)context;
	printf("%#" PRIx64 " %s of %s\n", import->address, import->name, import->owner);
	return 0;
}

static int print_finding(const kmodld_finding *finding, void *context)
{
	(void)context;
	fprintf(stderr, "%s[%s]: %s\n", finding->severity, finding->code, finding->explanation);
	return 0;
}

int main(int argc, char **argv)
{
	kmodld_kernel *kernel = NULL;
	kmodld_module *module = NULL;
	kmodld_error *error = NULL;
	unsigned char *file = NULL;
	size_t size = 0;
	int result = 2;

	if (argc == 4)
		file = read_file(argv[2], &size);
	if (!file) {
		fprintf(stderr, "link KERNEL MODULE OUTPUT\n");
		return result;
	}
	result = kmodld_kernel_open(argv[1], NULL, &kernel, &error);
	if (!result)
		result = kmodld_kernel_load(kernel, file, size, NULL, &module, &error);
	if (!result) {
		printf("%s: init at %#" PRIx64 "\n", kmodld_module_name(module), kmodld_module_init(module));
		kmodld_module_each_import(module, print_import, NULL);
		result = kmodld_module_write_elf(module, argv[3], &error);
	}
	if (result) {
		fprintf(stderr, "%d: %s\n", result, error ? kmodld_error_message(error) : "-");
		kmodld_error_each_finding(error, print_finding, NULL);
	}
	kmodld_error_free(error);
	kmodld_module_free(module);
	kmodld_kernel_free(kernel);
	free(file);
	return result ? 1 : 0;
}
