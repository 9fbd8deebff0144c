"""What tests of bad data have in common: what came of an input, and its row of the table."""

import gc
import multiprocessing

REFUSED = 'ValueError before the first step'


def outcome(function, *args, **kwargs):
    """What a function gives, or its error's type and last line, where workers put the original."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return f'{type(error).__name__}: {str(error).strip().splitlines()[-1]}'


def row(input, expected, observed):
    """A row of the table that `make faults` prints, with the first words of long messages."""
    observed = observed if len(observed) < 120 else f'{observed[:116]} ...'
    return 'Bad data', dict(input=input, expected=expected, observed=observed)


def no_worker_is_left():
    """Once nothing holds the dataloader; a process that was told to end gets a while for it."""
    gc.collect()
    for process in multiprocessing.active_children():
        process.join(timeout=60)
    return not multiprocessing.active_children()
