/* kmodld for C: what Linux's load_module makes of a kernel module, in user space.
 *
 * Functions give 0, or a negative errno: that with which the kernel refuses the module, or -EINVAL for a NULL pointer and text that is not
 * UTF-8. Other outcomes are positive: enum kmodld_outcome. With `error`, which may be NULL, they give an object that tells more; free it
 * with kmodld_error_free.
 *
 * A pointer is NULL, or leads to what its type and the next parameter say: an object that was made here and is not freed yet, a text that
 * ends with NUL, `size` bytes, a variable that a result goes to.
 *
 * Who makes an object frees it, with the function that ends in _free; NULL is freed to nothing. Strings that are returned belong to the
 * object and live as long as it does. Strings and structs that callbacks get live until the callback returns; a callback that returns
 * anything but 0 ends the iteration, which returns that number. Kernels and modules may be used by several threads at once; who calls
 * kmodld_kernel_insmod or kmodld_kernel_rmmod must be alone with that kernel.
 */

#ifndef KMODLD_H
#define KMODLD_H

/* Made by cbindgen (scripts/capi.sh) of crates/capi/src. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 What is no errno of the kernel.
 */
typedef enum kmodld_outcome {
  /*
   It is done.
   */
  KMODLD_OK = 0,
  /*
   It hangs on facts of the kernel that are not known.
   */
  KMODLD_UNDECIDED = 1,
  /*
   The kernel takes the module, but addresses of symbols are not known.
   */
  KMODLD_INCOMPLETE = 2,
  /*
   The kernel crashes.
   */
  KMODLD_OOPS = 3,
  /*
   A file cannot be used, or what was asked for does not fit together.
   */
  KMODLD_ERROR = 4,
  /*
   There is none of that name, or at that address.
   */
  KMODLD_NONE = 5,
} kmodld_outcome;

/*
 Why something was not done.
 */
typedef struct kmodld_error kmodld_error;

/*
 A kernel with the modules loaded so far.
 */
typedef struct kmodld_kernel kmodld_kernel;

/*
 A module in memory.
 */
typedef struct kmodld_module kmodld_module;

/*
 How a module is loaded. All zero: where the kernel would put it, with all steps and no parameters.
 */
typedef struct kmodld_options {
  /*
   Address of its first region; 0: where the kernel would put it.
   */
  uint64_t base;
  /*
   `A=1 B=2`; NULL: none.
   */
  const char *params;
  /*
   0: up to the call of its init function; 1: relocated; 2: with the kernel's symbol table.
   */
  int stage;
  /*
   Not 0: also if rules were not judged for want of facts of the kernel.
   */
  int accept_undecided;
} kmodld_options;

/*
 A region of a module's memory.
 */
typedef struct kmodld_region {
  /*
   `text`, `data`...
   */
  const char *name;
  /*
   Address of its first byte.
   */
  uint64_t base;
  /*
   Its bytes.
   */
  const uint8_t *bytes;
  /*
   How many.
   */
  size_t size;
  /*
   Not 0: it may be written to while init runs.
   */
  int writable;
  /*
   Not 0: it may be executed.
   */
  int executable;
} kmodld_region;

/*
 A symbol of a module.
 */
typedef struct kmodld_symbol {
  /*
   Its name.
   */
  const char *name;
  /*
   Its address, 0 if that is not known.
   */
  uint64_t address;
  /*
   Bytes, 0 if not told.
   */
  uint64_t size;
  /*
   Its type as in ELF: STT_FUNC is 2.
   */
  uint8_t kind;
  /*
   Not 0: other files see it.
   */
  int global;
  /*
   Not 0: it is taken from elsewhere.
   */
  int undefined;
} kmodld_symbol;

/*
 What a module takes from the kernel or from another module.
 */
typedef struct kmodld_import {
  /*
   Its name.
   */
  const char *name;
  /*
   Its address.
   */
  uint64_t address;
  /*
   `vmlinux`, or a module.
   */
  const char *owner;
} kmodld_import;

/*
 Bytes that differ from what should be there.
 */
typedef struct kmodld_difference {
  /*
   Address of the first one.
   */
  uint64_t address;
  /*
   What should be there.
   */
  const uint8_t *expected;
  /*
   What is there.
   */
  const uint8_t *found;
  /*
   How many.
   */
  size_t size;
  /*
   Not 0: a sound kernel does that.
   */
  int sound;
  /*
   Why, in words.
   */
  const char *cause;
} kmodld_difference;

/*
 What the kernel says of a module.
 */
typedef struct kmodld_finding {
  /*
   The rule of the specification, as `kmodld explain` takes it.
   */
  const char *code;
  /*
   error, oops, warning or note.
   */
  const char *severity;
  /*
   What the system call returns because of it, 0 if nothing.
   */
  int number;
  /*
   What is wrong.
   */
  const char *explanation;
  /*
   Not 0: the kernel stops here.
   */
  int stops_here;
} kmodld_finding;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Reads what describes a kernel: an image (vmlinuz, vmlinux, Image), a SPEC or a tree. `cmdline` is its command line, NULL if
 none is known.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_kernel_open(const char *image,
                       const char *cmdline,
                       struct kmodld_kernel **kernel,
                       struct kmodld_error **error);

/*
 Frees a kernel. Modules that were loaded into it live on.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
void kmodld_kernel_free(struct kmodld_kernel *kernel);

/*
 Loads a module and keeps it in the kernel; its init function returns 0.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_kernel_insmod(struct kmodld_kernel *kernel,
                         const uint8_t *file,
                         size_t size,
                         const char *params,
                         struct kmodld_error **error);

/*
 Removes a module from the kernel.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_kernel_rmmod(struct kmodld_kernel *kernel, const char *name, struct kmodld_error **error);

/*
 Loads a module without adding it to the kernel; `file` may be compressed. `options` may be NULL.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_kernel_load(const struct kmodld_kernel *kernel,
                       const uint8_t *file,
                       size_t size,
                       const struct kmodld_options *options,
                       struct kmodld_module **module,
                       struct kmodld_error **error);

/*
 Frees a module.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
void kmodld_module_free(struct kmodld_module *module);

/*
 Its name, NULL of NULL.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
const char *kmodld_module_name(const struct kmodld_module *module);

/*
 Address of its init function; 0 if it has none.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
uint64_t kmodld_module_init(const struct kmodld_module *module);

/*
 Copies `size` bytes at an address of the module; KMODLD_NONE if not all of them are in one region.

 # Safety

 The pointers are as the top of `kmodld.h` says; `to` has room for `size` bytes.
 */
int kmodld_module_read(const struct kmodld_module *module, uint64_t address, uint8_t *to, size_t size);

/*
 Address of a symbol by its name; KMODLD_NONE if there is none.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_module_symbol(const struct kmodld_module *module, const char *name, uint64_t *address);

/*
 All regions, in the order of allocation.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_module_each_region(const struct kmodld_module *module,
                              int (*callback)(const struct kmodld_region *region, void *context),
                              void *context);

/*
 All symbols in the order of the file, imported ones too.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_module_each_symbol(const struct kmodld_module *module,
                              int (*callback)(const struct kmodld_symbol *symbol, void *context),
                              void *context);

/*
 All that it takes from the kernel and from other modules.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_module_each_import(const struct kmodld_module *module,
                              int (*callback)(const struct kmodld_import *import, void *context),
                              void *context);

/*
 Compares `size` bytes of memory at an address of the module with what should be there: each differing range, with its
 cause. KMODLD_NONE if not all of them are in one region.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_module_compare(const struct kmodld_module *module,
                          uint64_t address,
                          const uint8_t *found,
                          size_t size,
                          int (*callback)(const struct kmodld_difference *difference, void *context),
                          void *context);

/*
 Writes one ELF file of the module, as debuggers and decompilers open it.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_module_write_elf(const struct kmodld_module *module, const char *path, struct kmodld_error **error);

/*
 What went wrong, in words; NULL of NULL.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
const char *kmodld_error_message(const struct kmodld_error *error);

/*
 All that the kernel says of the module.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
int kmodld_error_each_finding(const struct kmodld_error *error,
                              int (*callback)(const struct kmodld_finding *finding, void *context),
                              void *context);

/*
 Frees what tells of a failure.

 # Safety

 The pointers are as the top of `kmodld.h` says.
 */
void kmodld_error_free(struct kmodld_error *error);

#ifdef __cplusplus
} // extern "C"
#endif // __cplusplus

#endif /* KMODLD_H */
