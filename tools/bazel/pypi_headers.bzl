"""Header-only C++ packages that come in wheels on PyPI, pinned by hash.

Fetched when a target that needs the headers is built, not before. pip keeps the wheel in .cache/pypi/ of the
checkout: from then on it is read from there, and no network is needed.
"""

_BUILD = '''
package(default_visibility = ["//visibility:public"])

# `includes` makes them system headers: their warnings are not ours.
cc_library(
    name = "headers",
    hdrs = glob(["include/**"]),
    includes = ["include"],
)
'''

def _python_with_pip(ctx, checkout):
    """The Python of tools/install where it ran, else the machine's."""
    candidates = [checkout.get_child(".cache").get_child("venv").get_child("bin").get_child("python3")]
    if ctx.which("python3"):
        candidates.append(ctx.which("python3"))
    for python in candidates:
        if python.exists and ctx.execute([python, "-m", "pip", "--version"]).return_code == 0:
            return python
    fail("%s: no Python with pip was found. Run tools/install, or apt-get install python3-pip; %s" %
         (ctx.name, ctx.attr.without))

def _download(ctx, python, folder):
    """The wheel in `folder`, from there or else from PyPI; pip checks the hash either way."""
    ctx.file("requirements.txt", "%s==%s --hash=sha256:%s\n" % (ctx.attr.package, ctx.attr.version, ctx.attr.sha256))
    command = [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]

    # One wheel on every machine: the headers in all of them are the same.
    command += ["--only-binary=:all:", "--implementation=cp", "--python-version=" + ctx.attr.python]
    command += ["--abi=cp" + ctx.attr.python.replace(".", "")]
    command += ["--platform=" + platform for platform in ctx.attr.platforms]
    command += ["--require-hashes", "-r", ctx.path("requirements.txt"), "-d", folder]
    if ctx.execute(command + ["--no-index", "--find-links", folder]).return_code != 0:
        ctx.report_progress("Downloading %s %s from PyPI" % (ctx.attr.package, ctx.attr.version))
        result = ctx.execute(command)
        if result.return_code != 0:
            fail("%s: pip could not download %s %s into %s (%s). Where PyPI cannot be reached, put the wheel there; %s" %
                 (ctx.name, ctx.attr.package, ctx.attr.version, folder, result.stderr.strip(), ctx.attr.without))
    prefix = "%s-%s-" % (ctx.attr.package.replace("-", "_"), ctx.attr.version)
    for path in folder.readdir():
        if path.basename.startswith(prefix) and path.basename.endswith(".whl"):
            return path
    fail("%s: pip left no %s*.whl in %s" % (ctx.name, prefix, folder))

def _pypi_headers_impl(ctx):
    checkout = ctx.path(Label("//:WORKSPACE")).dirname
    folder = checkout.get_child(".cache").get_child("pypi")
    wheel = _download(ctx, _python_with_pip(ctx, checkout), folder)
    ctx.symlink(wheel, "wheel.zip")
    ctx.extract("wheel.zip", "include", ctx.attr.include)
    ctx.delete("wheel.zip")
    ctx.file("BUILD.bazel", _BUILD)

pypi_headers = repository_rule(
    implementation = _pypi_headers_impl,
    attrs = {
        "include": attr.string(default = "include", doc = "folder of the wheel that becomes the include path"),
        "package": attr.string(mandatory = True),
        "platforms": attr.string_list(default = ["manylinux_2_27_x86_64", "manylinux_2_28_x86_64"]),
        "python": attr.string(default = "3.11", doc = "which of the package's wheels, not what runs here"),
        "sha256": attr.string(mandatory = True, doc = "of the wheel"),
        "version": attr.string(mandatory = True),
        "without": attr.string(mandatory = True, doc = "how to build without the package, for error messages"),
    },
)
