"""The survey, the dashboard and the report."""

from pathlib import Path

import platform

if not hasattr(platform, "__path__"):  # Streamlit has imported Python's own module of that name first
    platform.__path__ = [str(Path(__file__).parent.parent / "platform")]
