"""Logs of runs, as mmengine writes them."""

import json


def write_log(work_dir, timestamp, *scalars):
    """Write the log of one start of a run."""
    folder = work_dir / timestamp / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(line) + '\n' for line in scalars))


def validations(*accuracies, first=1):
    """Lines of the validations of epochs from `first` on."""
    return [{'accuracy/top1': a, 'step': e} for e, a in enumerate(accuracies, first)]
