"""Trainings and measurements of tools/reproduce.py, each with a record of what it was made with."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from gcp_mm._io import check_made_with, read_json, sha256, write_atomically
from gcp_mm.hub import resolve_config
from gcp_mm.studies.curves import validation_curve

ACCURACY = 'accuracy/top1'


def network_of(table, name):
    """Config, options and backbone of a network, on top of those of the one it is `like`."""
    network = table['networks'][name]
    base = network_of(table, network['like']) if 'like' in network else {'options': {}}
    return {**base, **network, 'options': base['options'] | network.get('options', {})}


@functools.cache
def config_of(source):
    """Length of the training of a config, and the hash of all its settings."""
    cfg = resolve_config(source)
    return cfg.train_cfg.max_epochs, hashlib.sha256(cfg.pretty_text.encode()).hexdigest()


class Run:
    """One training: a network on a set, at a learning rate, from a seed.

    Attributes:
        folder: its work dir.
        config: file of its whole config, in the folder once the training has begun.
        checkpoint: of the last epoch.
    """

    def __init__(self, table, out, dataset, network, rate, seed, name='', **options):
        declared, data = network_of(table, network), table['sets'][dataset]
        self.source, self.metric = declared['config'], data.get('metric', ACCURACY)
        self.options = {
            **data['options'],
            **declared['options'],
            'train_dataloader.dataset.data_root': data['folder'],
            'val_dataloader.dataset.data_root': data['folder'],
            'optim_wrapper.optimizer.lr': rate,
            'randomness.seed': seed,
            **options,
        }
        stamp = Path(data['folder']) / 'made-with.json'  # of the script that made the set
        epochs, digest = config_of(self.source)
        self.made_with = {
            'config': self.source,
            'config_sha256': digest,
            'options': self.options,
            'data_sha256': sha256(stamp) if stamp.exists() else None,
        }
        name = '_'.join([dataset, network, f'lr{rate}', name or f'seed{seed}'])
        self.folder = out / name.replace(',', '').replace(' ', '-')
        self.config = self.folder / Path(self.source).name
        self.epochs = self.options.get('train_cfg.max_epochs') or epochs
        self.checkpoint = self.folder / f'epoch_{self.epochs}.pth'

    def check_folder(self):
        """Note what the run is made with in its folder.

        Raises:
            ValueError: if the folder holds a run made with something else.
        """
        file = self.folder / 'made-with.json'
        if file.exists():
            check_made_with(self.folder, read_json(file), self.made_with)
        else:
            write_atomically(file, json.dumps(self.made_with, indent=2).encode())

    def trained(self):
        """Number of epochs that have a complete checkpoint."""
        latest = self.folder / 'last_checkpoint'  # written when that checkpoint is complete
        return int(Path(latest.read_text()).stem.split('_')[1]) if latest.exists() else 0

    def validated(self):
        """Whether every epoch that was trained was validated, which follows its checkpoint."""
        if not self.trained():
            return True
        try:
            curve = validation_curve(self.folder, self.metric)
        except (FileNotFoundError, ValueError):  # no line of it was written
            return False
        return set(range(1, self.trained() + 1)) <= curve.keys()

    def done(self):
        """Whether the last epoch is complete."""
        return self.trained() == self.epochs and self.validated()

    def train(self):
        """Train, or resume; from the start if it was stopped between an epoch and its validation.

        Raises:
            ValueError: if the training fails.
        """
        if not self.validated():
            shutil.rmtree(self.folder)
            self.check_folder()
        options = [f'{key}={value}' for key, value in self.options.items()]
        command = ['tools/train.py', self.source, '--resume', '--work-dir', self.folder]
        self.call('output.txt', *command, '--cfg-options', *options)

    def call(self, output, *command):
        """Run a script with one thread; its output goes to a file of the folder.

        Raises:
            ValueError: if it fails.
        """
        with (self.folder / output).open('ab') as file:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {'OMP_NUM_THREADS': '1'},
            )
            PROCESSES.add(process)
            status = process.wait()
            PROCESSES.remove(process)
        if status:
            raise ValueError(f'{command[0]} has failed: see {str(self.folder / output)!r}')


PROCESSES = set()  # that run now


class Measurement:
    """The command of a part, run on the last checkpoint of a training."""

    def __init__(self, run, part, command):
        self.run, self.part = run, part
        names = dict(config=run.config, checkpoint=run.checkpoint, folder=run.folder)
        self.command = [str(word).format(**names) for word in command]
        self.file = run.folder / f'{part}.done.json'

    def _made_with(self):
        return {'command': self.command, 'checkpoint_sha256': sha256(self.run.checkpoint)}

    def done(self):
        """Whether this command has ended, on this checkpoint."""
        return self.file.exists() and read_json(self.file) == self._made_with()

    def measure(self):
        self.run.call(f'{self.part}.txt', *self.command)
        write_atomically(self.file, json.dumps(self._made_with()).encode())


def do_all(work, kind, processes):
    """Do what is not done, as many at a time; the first failure ends it.

    Args:
        work: runs or measurements.
        kind: method that does one.
        processes: how many at a time.
    """
    left = [each for each in work if not each.done()]
    print(f'{kind.__name__}: {len(work)}, of which {len(left)} are to do', flush=True)
    with ThreadPoolExecutor(processes) as pool, tqdm(total=len(left)) as progress:
        try:
            for each in as_completed([pool.submit(kind, each) for each in left]):
                each.result()
                progress.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(PROCESSES):
                process.terminate()
            raise


def train_all(runs, processes):
    for each in runs:
        each.check_folder()
    do_all(runs, Run.train, processes)
