"""Lets tests import HueJury's `platform` even where pytest has imported Python's own module of that name first."""

from pathlib import Path

import platform

if not hasattr(platform, "__path__"):
    platform.__path__ = [str(Path(__file__).parent / "platform")]
