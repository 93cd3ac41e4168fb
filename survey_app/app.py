"""The pages that HueJury serves: `streamlit run survey_app/app.py`, or `make survey`.

Participants' pages show no way to any other.
"""

import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

# `streamlit run` puts this file's folder first on the path, where our statistics.py would hide Python's own; what is to
# be found is the checkout's packages. The folder stays, at the end: were it missing, Streamlit would insert it before
# every run and remove it after, and an import that another session does meanwhile would overlook what moves under it.
# The path becomes a new list for the same reason.
folder = str(CHECKOUT / "survey_app")
if sys.path[0] != str(CHECKOUT) or sys.path[-1] != folder:
    sys.path = [str(CHECKOUT), *(entry for entry in sys.path if entry not in (str(CHECKOUT), folder)), folder]

import streamlit as st  # noqa: E402

from survey_app import survey  # noqa: E402

# Participants' browsers are told of their own pages only, and the dashboard is loaded when somebody asks for it.
at_dashboard = (st.context.url or "").rstrip("/").endswith("/dashboard")
# Streamlit brings whoever has just signed in with an identity provider to the first page, not back to the dashboard.
signed_in_at = st.user.get("iat")
just_signed_in = not at_dashboard and isinstance(signed_in_at, int) and signed_in_at > time.time() - 60
dashboard_asked_for = at_dashboard or just_signed_in

st.set_page_config(
    page_title="HueJury" if dashboard_asked_for else survey.TITLE,
    page_icon="🎨",
    layout="wide" if dashboard_asked_for else "centered",
    initial_sidebar_state="collapsed",
)
pages = [
    st.Page(survey.survey_page, title=survey.TITLE, default=True),
    st.Page(survey.withdrawal_page, title="Withdraw", url_path="withdraw"),
]
if dashboard_asked_for:
    from survey_app.dashboard.page import dashboard_page

    pages.append(st.Page(dashboard_page, title="HueJury", url_path="dashboard"))
page = st.navigation(pages, position="hidden")
if just_signed_in:
    st.switch_page(pages[-1])
page.run()
