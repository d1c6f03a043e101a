"""What can go wrong, with the exit code that tells callers which it was."""


class ClusterError(Exception):
    """A command failed; the message names what, and the next step."""

    exit_code = 1


class CannotRunHereError(ClusterError):
    """This machine lacks something that no retry will bring."""

    exit_code = 3
