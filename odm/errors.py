"""The one exception a user's mistake ends in; the command line prints it as one line."""


class OdmError(Exception):
    """What is wrong, where (file or key), and what to do: one line, no traceback."""
