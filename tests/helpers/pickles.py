"""A pickle that runs code when it is read."""

import os


class Creates:
    """Pickled, a call that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
