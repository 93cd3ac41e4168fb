"""What participants meet: `streamlit run survey_app/participants/app.py`, or `make survey`. Nothing of the dashboard
is in here.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CHECKOUT = str(FOLDER.parent.parent)
if CHECKOUT not in sys.path:  # Streamlit was started in another folder; appended, the path moves under nobody's import
    sys.path.append(CHECKOUT)

import streamlit as st  # noqa: E402

from survey_app.participants import pages  # noqa: E402
from survey_app.settings import check_settings  # noqa: E402

st.set_page_config(page_title=pages.TITLE, page_icon="🎨", layout="centered", initial_sidebar_state="collapsed")
check_settings(FOLDER)
st.navigation(
    [
        st.Page(pages.survey_page, title=pages.TITLE, default=True),
        st.Page(pages.withdrawal_page, title="Withdraw", url_path="withdraw"),
    ],
    position="hidden",
).run()
