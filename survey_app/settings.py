"""What our servers promise by Streamlit's settings: `.streamlit/config.toml` beside each app's script.

Streamlit reads that file whatever folder it is started in. But variables of the environment and flags go before it.
"""

import logging
import tomllib
from pathlib import Path

logger = logging.getLogger("huejury.settings")

MAY_DIFFER = ("server.address", "server.port")  # and the theme: whoever deploys it decides


def settings(folder: Path) -> dict[str, object]:
    """The settings of the app in this folder, by Streamlit's names of them."""
    tables = tomllib.loads((folder / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    return _flat("", tables)


def check_settings(folder: Path) -> None:
    """Stop the page, with one sentence, if the server was started with other settings than are promised."""
    import streamlit as st  # takes a second; whoever only reads settings need not wait

    for name, promised in settings(folder).items():
        if name in MAY_DIFFER or name.startswith("theme."):
            continue
        actual = st.get_option(name)
        if actual != promised:
            logger.error("The server runs with %s = %s; it has to be %s: start it so.", name, actual, promised)
            st.error(f"This server was not started with the settings that it promises ({name}); its log says more.")
            st.stop()


def _flat(prefix: str, table: dict[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        flat.update(_flat(f"{prefix}{key}.", value) if isinstance(value, dict) else {prefix + key: value})
    return flat
