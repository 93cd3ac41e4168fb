"""What readers meet: `streamlit run survey_app/dashboard/app.py`, or `make survey`.

A server of its own, on this machine alone unless told otherwise: whatever readers do, no participant waits for it.
"""

import gc
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent

# As in survey_app/app.py: the checkout's packages are to be found, and no module of this folder in their place.
folder = str(CHECKOUT / "survey_app" / "dashboard")
if sys.path[0] != str(CHECKOUT) or sys.path[-1] != folder:
    sys.path = [str(CHECKOUT), *(entry for entry in sys.path if entry not in (str(CHECKOUT), folder)), folder]

import streamlit as st  # noqa: E402

from survey_app.dashboard.page import dashboard_page  # noqa: E402
from survey_app.settings import check_settings  # noqa: E402

# After every run, of a fragment too, Streamlit has all objects searched for garbage. Among those that come with the
# imports, torch's above all, there is none, and searching them took 150 ms, while which nobody's page changed.
if not gc.get_freeze_count():
    gc.freeze()

st.set_page_config(page_title="HueJury", page_icon="🎨", layout="wide", initial_sidebar_state="collapsed")
check_settings(CHECKOUT / "survey_app" / "dashboard")
dashboard_page()
