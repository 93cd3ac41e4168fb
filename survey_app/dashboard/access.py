"""Who may see the dashboard."""


def admitted() -> bool:
    """Whether this reader may see the dashboard; if not, what they can do about it has been drawn."""
    return True
