"""Train what claims.yml declares, from several seeds, and judge its claims: `make reproduce`.

Every run is a training by tools/train.py in a folder of its own. A second start skips what is done
and resumes what is not. Results: claims.json and claims.md in docs/, and a plot of each part.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arguments import run, run_script

import yaml
from tqdm import tqdm

from gcp_mm._io import check_writable, read_json, write_atomically
from gcp_mm.hub import resolve_config
from gcp_mm.studies import claims as judged
from gcp_mm.studies.curves import first_reaching, validation_curve

ROOT = Path(__file__).resolve().parent.parent


def network_of(table, name):
    """Config and options of a network, those of the one that it is `like` first."""
    network = table['networks'][name]
    config, options = network_of(table, network['like']) if 'like' in network else (None, {})
    return network.get('config', config), options | network['options']


class Run:
    """One training: a network on a set, at a learning rate, from a seed."""

    def __init__(self, table, out, place, network, rate, seed, name='', **options):
        self.config, of_network = network_of(table, network)
        data = table['sets'][place]
        self.options = {
            **data['options'],
            **of_network,
            'train_dataloader.dataset.data_root': data['folder'],
            'val_dataloader.dataset.data_root': data['folder'],
            'optim_wrapper.optimizer.lr': rate,
            'randomness.seed': seed,
            **options,
        }
        name = '_'.join([place, network, f'lr{rate}', name or f'seed{seed}'])
        self.folder = out / name.replace(' ', '-')
        cfg = resolve_config(self.config)
        cfg.merge_from_dict(self.options)
        self.last = f'epoch_{cfg.train_cfg.max_epochs}.pth'

    def claim_folder(self):
        """Note the options in the folder.

        Raises:
            ValueError: if the folder holds a run with other options.
        """
        made_with = {'config': self.config, 'options': self.options}
        file = self.folder / 'made-with.json'
        if not file.exists():
            write_atomically(file, json.dumps(made_with, indent=2).encode())
        elif read_json(file) != made_with:
            raise ValueError(
                f'--out: {str(self.folder)!r} holds a run with other options; remove that folder'
            )

    def done(self):
        """Whether the last epoch is complete."""
        latest = self.folder / 'last_checkpoint'  # written when that checkpoint is complete
        return latest.exists() and Path(latest.read_text()).name == self.last

    def train(self):
        """Train, or resume; the output goes to a file of the folder.

        Raises:
            ValueError: if the training fails.
        """
        options = [f'{key}={value}' for key, value in self.options.items()]
        command = ['tools/train.py', self.config, '--resume', '--work-dir', self.folder]
        output = self.folder / 'output.txt'
        with output.open('ab') as file:
            status = subprocess.run(
                [sys.executable, *map(str, command), '--cfg-options', *options],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {'OMP_NUM_THREADS': '1'},
            ).returncode
        if status or not self.done():
            raise ValueError(f'a training has failed: see {str(output)!r}')


def train_all(runs, processes):
    """Train what is not done, as many at a time; the first failure ends it."""
    for each in runs:
        each.claim_folder()
    left = [each for each in runs if not each.done()]
    print(f'{len(runs)} runs, {len(left)} to train', flush=True)
    with ThreadPoolExecutor(processes) as pool, tqdm(total=len(left)) as progress:
        try:
            for _ in pool.map(Run.train, left):
                progress.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def trials(table, out, place, network):
    """Runs that choose the learning rate, {rate: run}: on four fifths of the training images."""
    lists = hold_out(Path(table['sets'][place]['folder']), out / place.replace(' ', '-'))
    options = {
        f'{loader}.dataset.{key}': value
        for loader, file in zip(('train_dataloader', 'val_dataloader'), lists, strict=True)
        for key, value in (('ann_file', str(file.absolute())), ('data_prefix', 'train'))
    }
    tune = table['tune']
    return {
        rate: Run(table, out, place, network, rate, tune['seed'], 'held-out', **options)
        for rate in tune['rates']
    }


def final(curve):
    """Value behind the last epoch."""
    return curve[max(curve)]


def hold_out(folder, prefix):
    """Write lists of the training images, every fifth of a class held out; returns both files."""
    files = [Path(f'{prefix}_{name}.txt') for name in ('kept', 'held-out')]
    lines = [[], []]
    for label, place in enumerate(sorted((folder / 'train').iterdir())):
        for number, image in enumerate(sorted(place.iterdir())):
            lines[number % 5 == 4].append(f'{place.name}/{image.name} {label}\n')
    for file, content in zip(files, lines, strict=True):
        write_atomically(file, ''.join(content).encode())
    return files


def networks_in(part):
    """Networks that a part compares, those of `below` first, and those of its target."""
    named = [claim[side] for claim in part['claims'] for side in ('below', 'above')]
    return list(dict.fromkeys([*named, *part.get('target', ())]))


def judge(table, name, runs, rates):
    """The claims of a part, from its runs."""
    part = table['parts'][name]
    found = []
    for place in part['sets']:
        curves = {
            network: [validation_curve(run.folder) for run in runs[place, network]]
            for network in networks_in(part)
        }
        metric, values = measure(curves, part.get('target'))
        for claim in part['claims']:
            of_claim = {network: values[network] for network in (claim['above'], claim['below'])}
            low, high = judged.paired_interval(*of_claim.values())
            found.append(
                judged.Claim(
                    part=name,
                    claim=claim['claim'],
                    metric=metric,
                    set=place,
                    rates={network: rates[place, network] for network in of_claim},
                    runs=of_claim,
                    difference=[round(low, 2), round(high, 2)],
                    verdict=judged.verdict(low, high),
                )
            )
    return found


def measure(curves, target=None):
    """Name and values of the metric of a part, {network: [value of each seed]}.

    Args:
        curves: {network: [{epoch: top-1 accuracy in percent} of each seed]}.
        target: networks, the best of which gives the accuracy to be reached. None: the metric is
            the final accuracy.
    """
    accuracy = {name: [final(curve) for curve in each] for name, each in curves.items()}
    if target is None:
        return 'top-1 accuracy (%)', accuracy
    level = max(statistics.fmean(accuracy[name]) for name in target)
    epochs = {
        name: [first_reaching(curve, level) or max(curve) + 1 for curve in each]
        for name, each in curves.items()
    }
    return 'epochs to the target', epochs


def write_results(table, docs, claims):
    """claims.json, claims.md and the plots, of all parts that were measured at any time."""
    write_atomically(docs / 'claims.json', (json.dumps(claims, indent=1) + '\n').encode())
    write_atomically(docs / 'claims.md', judged.page(claims, table['parts']).encode())
    for name in dict.fromkeys(claim['part'] for claim in claims):
        of_part = [claim for claim in claims if claim['part'] == name]
        judged.draw_runs(docs / f'images/claims_{name}.png', of_part)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('parts', nargs='*', metavar='PART', help='of the table, all by default')
    parser.add_argument(
        '--table', type=Path, default=Path('tools/claims.yml'), help='what is declared'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/claims'), help='folder of the runs'
    )
    parser.add_argument('--docs', type=Path, default=Path('docs'), help='folder of the results')
    parser.add_argument(
        '--processes', type=int, default=os.cpu_count(), help='trainings at a time, one thread each'
    )
    args = parser.parse_args()
    if Path.cwd() != ROOT:
        raise ValueError(f'run this in the root of the project: cd {ROOT}')
    table = yaml.safe_load(args.table.read_text())
    unknown = set(args.parts) - set(table['parts'])
    if unknown:
        raise ValueError(f'PART: expected some of {[*table["parts"]]}, got {sorted(unknown)}')
    file = args.docs / 'claims.json'
    check_writable(file)
    parts = args.parts or [*table['parts']]
    earlier = json.loads(file.read_text()) if file.exists() else []
    unknown = {claim['part'] for claim in earlier} - set(table['parts'])
    if unknown:
        raise ValueError(f'{str(file)!r}: the table has no {sorted(unknown)}; remove the file')

    for command in table['prepare']:
        run_script(*command)
    needed = dict.fromkeys(
        (place, network)
        for part in (table['parts'][name] for name in parts)
        for place, network in itertools.product(part['sets'], networks_in(part))
    )
    rates = dict.fromkeys(needed, table['tune']['rates'][0])
    if len(table['tune']['rates']) > 1:
        tried = {each: trials(table, args.out, *each) for each in needed}
        train_all([run for runs in tried.values() for run in runs.values()], args.processes)
        rates = {
            each: max(runs, key=lambda rate: final(validation_curve(runs[rate].folder)))
            for each, runs in tried.items()
        }
    runs = {
        each: [Run(table, args.out, *each, rate, seed) for seed in table['seeds']]
        for each, rate in rates.items()
    }
    train_all([run for of_seeds in runs.values() for run in of_seeds], args.processes)

    claims = [claim for claim in earlier if claim['part'] not in parts]
    for name in parts:
        claims += judge(table, name, runs, rates)
    write_results(table, args.docs, claims)
    print(judged.claims_table([claim for claim in claims if claim['part'] in parts]))
    print(f'written: {args.docs / "claims.md"}')


if __name__ == '__main__':
    run(main)
