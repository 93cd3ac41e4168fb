"""What our servers promise by Streamlit's settings: `.streamlit/config.toml` beside each app's script.

Streamlit reads that file whatever folder it is started in. But variables of the environment and flags go before it.
"""

import logging
import tomllib
from pathlib import Path

logger = logging.getLogger("huejury.settings")

TOKEN_VARIABLE = "HUEJURY_DASHBOARD_TOKEN"  # of the dashboard's environment; empty where nobody is asked for a token
TOKEN_PARAMETER = "token"  # of the dashboard's address

MAY_DIFFER = ("server.address", "server.port", "server.allowedHosts")  # and the theme: whoever deploys it decides


def settings(folder: Path) -> dict[str, object]:
    """The settings of the app in this folder, by Streamlit's names of them, but for its theme."""
    sections = tomllib.loads((folder / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    return {
        f"{section}.{name}": value
        for section, values in sections.items()
        if section != "theme"
        for name, value in values.items()
    }


def check_settings(folder: Path) -> None:
    """Stop the page, with one sentence, if the server was started with other settings than are promised."""
    import streamlit as st  # takes a second; whoever only reads settings need not wait

    for name, promised in settings(folder).items():
        actual = st.get_option(name)
        if actual != promised and name not in MAY_DIFFER:
            logger.error("The server runs with %s = %s; it has to be %s: start it so.", name, actual, promised)
            st.error(f"This server was not started with the settings that it promises ({name}); its log says more.")
            st.stop()
