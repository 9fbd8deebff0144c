"""What a killed run left, and from where the next one continued."""

import re

import torch

TABLE = 'Faults: what was injected, and what was lost'


def newest(work_dir):
    """Number of the newest checkpoint that PyTorch can read, 0 for none: not by our own check."""
    numbers = [0]
    for path in work_dir.glob('epoch_*.pth'):
        torch.load(path, weights_only=False)  # each of them is intact
        numbers.append(int(path.stem[6:]))
    return max(numbers)


def trained(output):
    """Epochs of a run that were complete: their checkpoint was begun."""
    return max(map(int, re.findall(r'Saving checkpoint at (\d+) epochs', output)), default=0)


def resumed(output):
    """After which epoch a run went on, 0 if it started anew."""
    found = re.search(r'(?m)^weights +from .*, after (\d+) epoch', output)
    return int(found[1]) if found else 0


def note_resumption(row, output):
    """After which epoch the next run went on, and how many it repeats that had been saved."""
    row['continued after epoch'] = resumed(output)
    lost = row['newest checkpoint'] - resumed(output)
    row['lost'] = f'{lost} epochs' if lost else 'nothing'
