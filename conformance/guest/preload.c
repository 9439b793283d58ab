/*
 * Loaded into ndctl's test programs with LD_PRELOAD. They ask libkmod whether the NVDIMM modules are the mocked ones and
 * load the mock's own module; here the firmware under test is real and the modules are the kernel's. So, for those names
 * only, libkmod answers as it would with the mock installed, and loading or removing it succeeds without doing anything.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

struct kmod_module;
const char *kmod_module_get_name(const struct kmod_module *mod);

#define MODULE_COMING 2

/* While libkmod loads a module for real, it hears the truth about all of them. */
static int loading;

static int is_mock(const struct kmod_module *mod)
{
	return strcmp(kmod_module_get_name(mod), "nfit_test") == 0;
}

static int is_mocked(const struct kmod_module *mod)
{
	static const char *const names[] = {
		"nfit", "device_dax", "dax_pmem", "dax_pmem_compat", "libnvdimm", "nd_btt", "nd_e820", "nd_pmem",
	};
	const char *name = kmod_module_get_name(mod);

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0)
			return 1;
	return 0;
}

const char *kmod_module_get_path(const struct kmod_module *mod)
{
	const char *(*real)(const struct kmod_module *) = dlsym(RTLD_NEXT, "kmod_module_get_path");

	return is_mocked(mod) && !loading ? "/lib/modules/extra/mocked.ko" : real(mod);
}

int kmod_module_get_initstate(const struct kmod_module *mod)
{
	int (*real)(const struct kmod_module *) = dlsym(RTLD_NEXT, "kmod_module_get_initstate");

	return is_mocked(mod) && !loading ? MODULE_COMING : real(mod);
}

int kmod_module_probe_insert_module(struct kmod_module *mod, unsigned int flags, const char *options, void *run,
				    const void *data, void *print)
{
	int (*real)(struct kmod_module *, unsigned int, const char *, void *, const void *, void *) =
		dlsym(RTLD_NEXT, "kmod_module_probe_insert_module");
	int rc;

	if (is_mock(mod))
		return 0;
	loading++;
	rc = real(mod, flags, options, run, data, print);
	loading--;
	return rc;
}

int kmod_module_remove_module(struct kmod_module *mod, unsigned int flags)
{
	int (*real)(struct kmod_module *, unsigned int) = dlsym(RTLD_NEXT, "kmod_module_remove_module");

	if (!mod || is_mock(mod))
		return 0;
	return real(mod, flags);
}
