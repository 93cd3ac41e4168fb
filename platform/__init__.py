"""HueJury's experiment side, and still Python's own `platform`.

The checkout's folder hides the standard module of the same name from every process that is started
here, so the standard module's code is executed in this namespace: `platform.system()` and the rest
answer as ever for torch, ray and pip. Nothing outside the standard library is imported here.
"""

import os
from importlib.machinery import PathFinder, SourceFileLoader
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # a type checker cannot see what the standard module's code defines


def _standard_code() -> CodeType:
    spec = PathFinder.find_spec("platform", [os.path.dirname(os.__file__)])
    if spec is None or not isinstance(spec.loader, SourceFileLoader):
        raise ImportError("Python's own platform module was not found beside os.py: repair the Python installation.")
    code = spec.loader.get_code("platform")
    assert code is not None  # only extension modules have no code
    return code


exec(_standard_code(), globals())
