"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Something in the user's files or config is wrong.

    The message names the file or key, says what was expected, and how to mend it; the command line
    prints it without a traceback.
    """
