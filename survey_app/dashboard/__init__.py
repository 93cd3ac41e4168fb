"""The dashboard: people's votes beside the scores, for researchers. Participants' pages never import it."""
