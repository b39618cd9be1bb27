/*
 * What a file of weights has no business with. Nothing would be run anyway: the list makes the
 * message plain, and stops people from opening such a file elsewhere. Names after the actions of
 * public pickle scanners and of the modules' own documentation.
 */
#include "io/pickle.h"

#include <string.h>

/* Modules of which every name is refused, also their submodules. */
static const char *const modules[] = {
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "shutil",
    "socket",
    "pty",
    "commands",
    "importlib",
    "runpy",
    "code",
    "codeop",
    "ctypes",
    "_ctypes",
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "webbrowser",
    "asyncio",
    "bdb",
    "pdb",
    "timeit",
    "cProfile",
    "profile",
    "trace",
    "pip",
    "pkgutil",
    "zipimport",
    "imp",
    "_posixsubprocess",
    "multiprocessing",
    "threading",
    "_thread",
    "signal",
    "pathlib",
    "io",
    "_io",
    "fileinput",
    "urllib",
    "urllib2",
    "requests",
    "httplib",
    "http",
    "ftplib",
    "telnetlib",
    "smtplib",
    "ssl",
    "xmlrpc",
    "aiohttp",
    "idlelib",
    "doctest",
    "distutils",
    "setuptools",
    "cffi",
    "cloudpickle",
    "dill",
    "joblib",
    "_testcapi",
    "venv",
    "ensurepip",
    "lib2to3",
    "sqlite3",
    "linecache",
    "operator",
    "_operator",
    "functools",
    "_aix_support",
    "_osx_support",
    "_pyrepl",
    "readline",
};

/* Of the builtins everything is refused but these types, which hold data. */
static const char *const plain_builtins[] = {
    "set", "frozenset", "dict",  "list",  "tuple",  "int",  "float",   "complex", "bool",
    "str", "bytes",     "slice", "range", "object", "long", "unicode", "xrange",  "bytearray",
};

/* Single names of modules that are fine otherwise. */
static const char *const functions[] = {
    "torch.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.serialization.load",

    "torch.jit.load",
    "torch.compile",
    "torch.utils.cpp_extension.load",
    "torch.utils.cpp_extension.load_inline",
    "torch.package.PackageImporter",
    "torch._dynamo.guards.GuardBuilder.get",
    "torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression",
    "torch.utils.collect_env.run",
    "torch.utils._config_module.load_config",
    "torch.distributed.rpc.rpc_sync",
    "numpy.load",
    "numpy.testing._private.utils.runstring",
    "numpy.f2py.crackfortran.getlincoef",
    "numpy.distutils.exec_command.exec_command",
    "collections.namedtuple",
    "pandas.eval",
};

/* Parts of dotted names ("torch", "os.system") that lead out of a harmless module. */
static const char *const parts[] = {
    "os",           "posix",          "subprocess", "sys",        "builtins",
    "__builtins__", "__builtin__",    "eval",       "exec",       "system",
    "popen",        "Popen",          "getattr",    "__import__", "compile",
    "__globals__",  "__subclasses__", "shutil",     "importlib",  "import_module",
};

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static bool is_one_of(const char *text, size_t n, const char *const *list, size_t n_list)
{
    for (size_t i = 0; i < n_list; i++) {
        if (strlen(list[i]) == n && memcmp(list[i], text, n) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_function(const char *module, const char *name)
{
    const size_t n = strlen(module);
    for (size_t i = 0; i < COUNT(functions); i++) {
        const char *f = functions[i];
        if (strncmp(f, module, n) == 0 && f[n] == '.' && strcmp(f + n + 1, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_bad_part(const char *name)
{
    while (*name != '\0') {
        const size_t n = strcspn(name, ".");
        if (is_one_of(name, n, parts, COUNT(parts))) {
            return true;
        }
        name += n + (name[n] == '.' ? 1 : 0);
    }
    return false;
}

bool dr_pickle_is_dangerous(const char *module, const char *name)
{
    const size_t top = strcspn(module, ".");
    if (strcmp(module, "builtins") == 0 || strcmp(module, "__builtin__") == 0) {
        return !is_one_of(name, strlen(name), plain_builtins, COUNT(plain_builtins));
    }
    if (strcmp(module, "pathlib") == 0 && strchr(name, '.') == NULL) {
        return false; /* training settings hold paths: PosixPath('...') */
    }
    return is_one_of(module, top, modules, COUNT(modules)) || is_function(module, name) ||
           has_bad_part(module) || has_bad_part(name);
}
