"""The database of this server, opened once for all pages and sessions."""

import logging

import streamlit as st
from sqlalchemy import Engine

from db.store import default_database, open_existing

logger = logging.getLogger("huejury.database")


@st.cache_resource(show_spinner=False)
def database() -> Engine:
    """Raises StoreError, also if there is none; then the next call tries again."""
    return open_existing(default_database(), say=logger.warning)
