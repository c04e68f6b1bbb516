"""spin_test: a Catch2 test of one file."""

load("@rules_cc//cc:defs.bzl", "cc_test")

def spin_test(name, deps, srcs = None, size = "small", **kwargs):
    """A cc_test whose source is NAME.cc, run by the project's Catch2 runner.

    Args:
      name: target and, unless `srcs` says otherwise, stem of the source file.
      deps: what the file includes, without Catch2.
      srcs: sources, default [NAME.cc].
      size: Bazel's test size.
      **kwargs: passed on (data, tags, ...).
    """
    cc_test(
        name = name,
        size = size,
        srcs = srcs or [name + ".cc"],
        deps = deps + [
            "//tests/testing:catch_main",
            "@system//:catch2",
        ],
        **kwargs
    )
