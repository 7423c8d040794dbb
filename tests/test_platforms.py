"""Every module can be imported on a system that lacks what only some systems have."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.test_imports import ROOT, modules_of

HIDDEN = ("fcntl", "termios", "tty", "pty", "resource", "pwd", "grp", "curses", "readline", "syslog", "textual.drivers.linux_driver")
"""Modules that Windows does not have, and one that needs them."""
LACKING = {
    "signal": ("SIGHUP", "SIGKILL", "SIGTSTP", "SIGCONT", "SIGUSR1"),
    "os": ("nice", "getuid", "geteuid", "fork", "uname", "statvfs", "O_CLOEXEC"),
    "select": ("poll", "epoll"),
}
"""Names of modules that are there and hold less."""

SCRIPT = """
import builtins, importlib, json, sys

hidden, lacking, names = json.loads(sys.argv[1])
ours, real = ("storage", "learners", "tamer_tui"), builtins.__import__
lenders = {name: real(name) for name in lacking}


class Without:
    def __init__(self, module, names):
        self.module, self.names = module, names

    def __getattr__(self, name):
        if name in self.names:
            raise AttributeError(name)
        return getattr(self.module, name)


poorer = {name: Without(module, lacking[name]) for name, module in lenders.items()}


def without(name, globals=None, locals=None, fromlist=(), level=0):
    asking = (globals or {}).get("__name__", "").split(".")[0]
    if asking not in ours or level:
        return real(name, globals, locals, fromlist, level)
    if name in hidden:
        raise ImportError(name)
    return poorer.get(name) or real(name, globals, locals, fromlist, level)


builtins.__import__ = without
failed = {}
for name in names:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)
print(json.dumps(failed))
"""


def test_every_module_is_imported_where_the_modules_of_one_platform_are_hidden() -> None:
    names = [name for package in ("storage", "tamer_tui", "learners") for name in modules_of(package)]
    asked = json.dumps([HIDDEN, LACKING, names])
    done = subprocess.run([sys.executable, "-c", SCRIPT, asked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}
