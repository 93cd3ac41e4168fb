"""What readers meet: `streamlit run survey_app/dashboard/app.py`, or `make survey`.

A server of its own, on this machine alone unless told otherwise: whatever readers do, no participant waits for it.
"""

import gc
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CHECKOUT = str(FOLDER.parent.parent)
if CHECKOUT not in sys.path:  # as in survey_app/participants/app.py
    sys.path.append(CHECKOUT)

import streamlit as st  # noqa: E402

from survey_app.dashboard.page import dashboard_page  # noqa: E402
from survey_app.settings import check_settings  # noqa: E402

# After every run, of a fragment too, Streamlit has all objects searched for garbage. Among those that come with the
# imports, torch's above all, there is none, and searching them took 150 ms, while which nobody's page changed.
if not gc.get_freeze_count():
    gc.freeze()

st.set_page_config(page_title="HueJury", page_icon="🎨", layout="wide", initial_sidebar_state="collapsed")
check_settings(FOLDER)
dashboard_page()
