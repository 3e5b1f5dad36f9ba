# Python runs this at the start of every process under `tellmeter run`: the folder is first on PYTHONPATH.
# Any Python may come by here, old ones too, so this file is written for all of them and never raises by itself.
import os
import sys

_this = sys.modules.get("sitecustomize")  # Python 2 empties a module that nobody holds


def _without_this_folder():
    # The program is to find sys.path as it would be without us.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or os.curdir) != here]


def _run_the_one_that_this_hides():
    sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError:
        if getattr(sys.exc_info()[1], "name", "sitecustomize") != "sitecustomize":
            raise  # it is there, and misses something
    finally:
        # The import system wants to find one under this name.
        if _this is not None:
            sys.modules.setdefault("sitecustomize", _this)


def _attach():
    try:
        from tellmeter.cli.attach import attach
    except Exception:
        _say_once(sys.exc_info()[1])
        return
    try:
        attach()
    except Exception:
        pass


def _say_once(error):
    # Once for each Python of a run: a build tool may start a hundred processes.
    folder = os.environ.get("TELLMETER_RUN_DIR")
    if not folder or not sys.executable:
        return
    name = "unmetered" + sys.executable.replace(os.sep, "-").replace("\\", "-")[-200:]
    try:
        os.close(os.open(os.path.join(folder, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        if sys.version_info < (3, 11):
            cure = "it is Python %d.%d, and tellmeter needs 3.11 or later" % sys.version_info[:2]
        else:
            cure = "%s -m pip install tellmeter (%s)" % (sys.executable, str(error).partition("\n")[0])
        sys.stderr.write("tellmeter: %s is not metered: %s\n" % (sys.executable, cure))
        sys.stderr.flush()
    except Exception:
        pass


try:
    _without_this_folder()
    _run_the_one_that_this_hides()  # what it raises is for Python to report, as it would without us
finally:
    _attach()
