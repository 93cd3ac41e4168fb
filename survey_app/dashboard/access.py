"""Who may see the dashboard: whoever has its address with the token that `python -m survey_app.serve` prints."""

import hmac
import os

import streamlit as st

from survey_app.settings import TOKEN_PARAMETER, TOKEN_VARIABLE

WHERE_IT_IS = (
    "This dashboard opens at its whole address, which ends in a token. The command that serves it, `make survey` or "
    "`python -m survey_app.serve`, printed that address when it started: copy it from there, or ask whoever started it."
)


def reader_may_see() -> bool:
    """Whether this reader may see the dashboard; if not, where to find the token has been drawn.

    A reader who came with the token stays, whatever becomes of the address later. A server without the variable, which
    `survey_app.serve` did not start, lets nobody in.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token == "" or st.session_state.get("came with the token"):
        return True
    given = st.query_params.get(TOKEN_PARAMETER, "")
    if token is not None and hmac.compare_digest(given.encode(), token.encode()):
        st.session_state["came with the token"] = True
        return True
    st.title("HueJury")
    st.write(WHERE_IT_IS)
    return False
