"""Everything that touches the database; imports neither torch, ray nor streamlit."""
