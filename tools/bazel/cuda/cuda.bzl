"""cuda_library: .cu files through nvcc, the rest of the link through g++."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@local_cuda//:defs.bzl", "CUDA_ROOT")
load(":flags.bzl", "BuildSettingInfo")

# For target_compatible_with of everything that cannot exist without CUDA.
CUDA_ONLY = select({
    "//tools/bazel/cuda:enabled": [],
    "//conditions:default": ["//tools/bazel/cuda:cuda_present"],
})

def _gencode(archs):
    flags = []
    for arch in archs.split(","):
        arch = arch.strip()
        if arch.endswith("+ptx"):
            v = arch[:-len("+ptx")]
            flags.append("-gencode=arch=compute_%s,code=compute_%s" % (v, v))
        elif arch:
            flags.append("-gencode=arch=compute_%s,code=sm_%s" % (arch, arch))
    return flags

def _cuda_library_impl(ctx):
    if not CUDA_ROOT:
        fail("no CUDA toolkit: set CUDA_HOME or install one in /usr/local/cuda")
    cc_toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = cc_toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    dep_infos = [d[CcInfo] for d in ctx.attr.deps]
    merged = cc_common.merge_cc_infos(cc_infos = dep_infos)
    cctx = merged.compilation_context
    mode = ctx.var["COMPILATION_MODE"]

    objects = []
    for src in ctx.files.srcs:
        obj = ctx.actions.declare_file("_cuda/%s/%s.o" % (ctx.label.name, src.basename))
        args = ctx.actions.args()
        args.add_all(["-x", "cu", "-c", "-std=c++20", "--expt-relaxed-constexpr", "--extended-lambda"])
        args.add_all(["-ccbin", cc_toolchain.compiler_executable])
        args.add_all(_gencode(ctx.attr._archs[BuildSettingInfo].value))
        args.add("-lineinfo")
        args.add_all({"opt": ["-O3", "-DNDEBUG"], "dbg": ["-O0", "-g"]}.get(mode, ["-O2"]))
        args.add_all(["-Xcompiler", "-fPIC,-Wall,-Wno-unused-function"])
        args.add_all(["-Xptxas", "--warn-on-spills"])  # an error, as every warning, of ptxas too
        args.add_all(["-Werror", "all-warnings"])
        args.add_all(ctx.attr.copts)
        args.add_all(cctx.defines, before_each = "-D")
        args.add("-I.")
        args.add("-I" + ctx.bin_dir.path)
        args.add_all(cctx.quote_includes, before_each = "-I")
        args.add_all(cctx.includes, before_each = "-I")
        args.add_all(cctx.system_includes, before_each = "-isystem")
        args.add(src)
        args.add("-o", obj)
        ctx.actions.run(
            executable = CUDA_ROOT + "/bin/nvcc",
            arguments = [args],
            inputs = depset(ctx.files.srcs + ctx.files.hdrs, transitive = [cctx.headers, cc_toolchain.all_files]),
            outputs = [obj],
            mnemonic = "CudaCompile",
            progress_message = "Compiling CUDA %s" % src.short_path,
            use_default_shell_env = True,
        )
        objects.append(obj)

    outputs = cc_common.create_compilation_outputs(
        objects = depset(objects),
        pic_objects = depset(objects),
    )
    linking_context, linking_outputs = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        name = ctx.label.name,
        feature_configuration = features,
        cc_toolchain = cc_toolchain,
        compilation_outputs = outputs,
        linking_contexts = [i.linking_context for i in dep_infos],
        disallow_dynamic_library = True,
    )
    own = cc_common.create_compilation_context(headers = depset(ctx.files.hdrs))
    compilation_context = cc_common.merge_cc_infos(cc_infos = [
        CcInfo(compilation_context = own),
        CcInfo(compilation_context = cctx),
    ]).compilation_context
    library = linking_outputs.library_to_link
    archive = library.pic_static_library or library.static_library
    return [
        DefaultInfo(files = depset([archive])),
        CcInfo(compilation_context = compilation_context, linking_context = linking_context),
    ]

_cuda_library = rule(
    implementation = _cuda_library_impl,
    attrs = {
        "copts": attr.string_list(),
        "deps": attr.label_list(providers = [CcInfo]),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh", ".hpp"]),
        "srcs": attr.label_list(allow_files = [".cu"]),
        "_archs": attr.label(default = "//tools/bazel/cuda:archs"),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def cuda_library(name, deps = [], target_compatible_with = CUDA_ONLY, **kwargs):
    _cuda_library(
        name = name,
        deps = deps + ["@local_cuda//:cudart_static"],
        target_compatible_with = target_compatible_with,
        **kwargs
    )
