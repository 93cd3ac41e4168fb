"""What participants meet: `streamlit run survey_app/app.py`, or `make survey`. Nothing of the dashboard is in here."""

import sys
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
from survey_app.settings import check_settings  # noqa: E402

st.set_page_config(page_title=survey.TITLE, page_icon="🎨", layout="centered", initial_sidebar_state="collapsed")
check_settings(CHECKOUT / "survey_app")
pages = [
    st.Page(survey.survey_page, title=survey.TITLE, default=True),
    st.Page(survey.withdrawal_page, title="Withdraw", url_path="withdraw"),
]
st.navigation(pages, position="hidden").run()
