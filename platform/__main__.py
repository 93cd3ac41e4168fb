"""`python -m platform` prints the system's description, as it does everywhere else."""

from platform import _standard_code

exec(_standard_code(), {"__name__": "__main__"})
