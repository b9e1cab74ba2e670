import sys

if "google.colab" in sys.modules:  # installs what Colab lacks; anywhere else this cell does nothing
    from importlib.metadata import distributions, requires
    from subprocess import check_call

    from packaging.requirements import Requirement

    pip, here = [sys.executable, "-m", "pip", "install", "-q"], {d.name.lower(): d.version for d in distributions()}
    if "twotower" not in here:
        check_call([*pip, "--no-deps", "git+https://github.com/OWNER/twotower"])
    for one in map(Requirement, [*requires("twotower"), "ipywidgets>=7"]):  # Colab's own ipywidgets is a 7: leave it
        if not one.marker and here.get(one.name, "0") not in one.specifier:
            check_call([*pip, str(one)])
            print(one, "replaced: now Runtime > Restart session" if one.name in here else "added")
