"""Debian's installed libraries as one external repository, without downloads."""

def _split(spec):
    return [part.strip() for part in spec.split("|")]

def _words(text):
    return [w for w in text.replace("\n", " ").split(" ") if w]

def _run(ctx, args):
    result = ctx.execute(args)
    if result.return_code != 0:
        return None
    return result.stdout.strip()

def _need(target, what, package):
    fail("system library '%s': %s not found. Install it with: apt-get install %s" % (target, what, package))

def _archive(ctx, name, cache):
    """Absolute path of libNAME.a as the C compiler would find it, or None."""
    if name not in cache:
        path = _run(ctx, [ctx.which("gcc"), "-print-file-name=lib%s.a" % name])
        cache[name] = path if path and path.startswith("/") else None
    return cache[name]

def _unique_last(items):
    """Drops repeats, keeping the last one: link order stays right, line short."""
    seen = {}
    out = []
    for item in reversed(items):
        if item not in seen:
            seen[item] = True
            out.append(item)
    return reversed(out)

# Parts of glibc: these stay dynamic in every mode.
_NEVER_STATIC = ["pthread", "dl", "rt", "m"]

def _system_libraries_impl(ctx):
    pkg_config = ctx.which("pkg-config")
    if not pkg_config:
        fail("pkg-config not found. Install it with: apt-get install pkg-config")
    cache = {}

    # System headers are no inputs of Bazel's. Declared by every library below,
    # this file puts the installed versions into the keys of a shared disk cache.
    packages = []
    for spec in ctx.attr.pkg_config.values() + ctx.attr.headers.values():
        packages += _words(_split(spec)[1])
    versions = _run(ctx, ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n"] + packages + ["g++", "libc6-dev"])
    ctx.file("system_versions.h", "/*\n%s\n*/\n" % versions)

    build = ['package(default_visibility = ["//visibility:public"])', ""]

    for target, spec in ctx.attr.pkg_config.items():
        modules, package = _split(spec)
        extra = [w for w in _words(modules) if w.startswith("-l")]
        modules = [w for w in _words(modules) if not w.startswith("-l")]

        # Some libraries have no .pc file: then `-lNAME` alone is the whole answer.
        cflags = _run(ctx, [pkg_config, "--cflags"] + modules) if modules else ""
        shared = _run(ctx, [pkg_config, "--libs"] + modules) if modules else ""
        static = _run(ctx, [pkg_config, "--libs", "--static"] + modules) if modules else ""
        if cflags == None or shared == None or static == None:
            _need(target, "pkg-config module of " + " ".join(modules), package)
        defines = [f[2:] for f in _words(cflags) if f.startswith("-D")]
        shared_libs = _unique_last(extra + [f for f in _words(shared) if f.startswith("-l")])
        archives = []
        dynamic = []
        for flag in _unique_last(extra + [f for f in _words(static) if f.startswith("-l")]):
            name = flag[2:]
            path = None if name in _NEVER_STATIC else _archive(ctx, name, cache)
            if path:
                archives.append(path)
            else:
                dynamic.append(flag)
        static_opts = ["-Wl,--start-group"] + archives + ["-Wl,--end-group"] + dynamic if archives else dynamic
        build += [
            "cc_library(",
            "    name = %r," % target,
            "    hdrs = [\"system_versions.h\"],",
            "    defines = %r," % defines,
            "    linkopts = select({",
            '        "@//tools/bazel/system:static": %r,' % static_opts,
            '        "//conditions:default": %r,' % shared_libs,
            '    }) + ["-pthread"],',
            ")",
            "",
        ]

    for target, spec in ctx.attr.headers.items():
        header, package, defines = _split(spec)
        if not ctx.path("/usr/include/" + header).exists:
            _need(target, "/usr/include/" + header, package)
        build += [
            "cc_library(",
            "    name = %r," % target,
            "    hdrs = [\"system_versions.h\"],",
            "    defines = %r," % _words(defines),
            '    linkopts = ["-pthread"],',
            ")",
            "",
        ]

    for target, spec in ctx.attr.tools.items():
        tool, package = _split(spec)
        path = ctx.which(tool)
        if not path:
            _need(target, tool, package)
        ctx.symlink(path, "bin/" + tool)
        build += ["exports_files([%r])" % ("bin/" + tool), ""]

    ctx.file("BUILD.bazel", "\n".join(build))

system_libraries = repository_rule(
    implementation = _system_libraries_impl,
    attrs = {
        "headers": attr.string_dict(),
        "pkg_config": attr.string_dict(),
        "tools": attr.string_dict(),
    },
    environ = ["PKG_CONFIG_PATH"],
    local = True,
    configure = True,
)
