"""Train what claims.yml declares, from several seeds, and judge its claims: `make reproduce`.

Every run is a training by tools/train.py in a folder of its own. A second start skips what is done
and resumes what is not. Results: claims.json and claims.md in docs/, and plots of each part.
"""

import argparse
import functools
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arguments import run, run_script

import yaml
from claim_metrics import final, measure
from tqdm import tqdm

from gcp_mm._io import check_writable, read_json, write_atomically
from gcp_mm.hub import resolve_config
from gcp_mm.studies import claims as judged
from gcp_mm.studies.curves import plot_ranges, validation_curve

ROOT = Path(__file__).resolve().parent.parent


def network_of(table, name):
    """Config and options of a network, those of the one that it is `like` first."""
    network = table['networks'][name]
    config, options = network_of(table, network['like']) if 'like' in network else (None, {})
    return network.get('config', config), options | network['options']


@functools.cache
def epochs_of(config):
    """Length of the training of a config."""
    return resolve_config(config).train_cfg.max_epochs


class Run:
    """One training: a network on a set, at a learning rate, from a seed.

    Attributes:
        folder: its work dir.
        config: file of its whole config, in the folder once the training has begun.
        checkpoint: of the last epoch.
    """

    def __init__(self, table, out, place, network, rate, seed, name='', **options):
        self.source, of_network = network_of(table, network)
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
        self.config = self.folder / Path(self.source).name
        epochs = self.options.get('train_cfg.max_epochs') or epochs_of(self.source)
        self.checkpoint = self.folder / f'epoch_{epochs}.pth'

    def claim_folder(self):
        """Note the options in the folder.

        Raises:
            ValueError: if the folder holds a run with other options.
        """
        made_with = {'config': self.source, 'options': self.options}
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
        return latest.exists() and Path(latest.read_text()).name == self.checkpoint.name

    def train(self):
        """Train, or resume.

        Raises:
            ValueError: if the training fails.
        """
        options = [f'{key}={value}' for key, value in self.options.items()]
        command = ['tools/train.py', self.source, '--resume', '--work-dir', self.folder]
        self.call('output.txt', *command, '--cfg-options', *options)

    def call(self, output, *command):
        """Run a script with one thread; its output goes to a file of the folder.

        Raises:
            ValueError: if it fails.
        """
        with (self.folder / output).open('ab') as file:
            status = subprocess.run(
                [sys.executable, *map(str, command)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {'OMP_NUM_THREADS': '1'},
            ).returncode
        if status:
            raise ValueError(f'{command[0]} has failed: see {str(self.folder / output)!r}')


class Measurement:
    """The command of a part, run on the last checkpoint of a training."""

    def __init__(self, run, part, command):
        self.run, self.part = run, part
        places = dict(config=run.config, checkpoint=run.checkpoint, folder=run.folder)
        self.command = [str(word).format(**places) for word in command]
        self.file = run.folder / f'{part}.done.json'

    def done(self):
        """Whether this command has ended."""
        return self.file.exists() and json.loads(self.file.read_text()) == self.command

    def measure(self):
        self.run.call(f'{self.part}.txt', *self.command)
        write_atomically(self.file, json.dumps(self.command).encode())


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
            for _ in pool.map(kind, left):
                progress.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def train_all(runs, processes):
    for each in runs:
        each.claim_folder()
    do_all(runs, Run.train, processes)


def trials(table, out, place, network):
    """Runs that choose the learning rate, {rate: run}: on four fifths of the training images."""
    lists = hold_out(Path(table['sets'][place]['folder']), out / place.replace(' ', '-'))
    options = {
        f'{loader}.dataset.{key}': value
        for loader, file in zip(('train_dataloader', 'val_dataloader'), lists, strict=True)
        for key, value in (('ann_file', str(file.absolute())), ('data_prefix', 'train'))
    }
    return {
        rate: Run(table, out, place, network, rate, table['tune']['seed'], 'held-out', **options)
        for rate in rates_of(table, place)
    }


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


def rates_of(table, place):
    """Learning rates to choose from for a set."""
    return table['sets'][place].get('rates', table['tune']['rates'])


def networks_in(part):
    """Networks that a part compares, those of `worse` first, and those it needs for a metric."""
    named = [claim[side] for claim in part['claims'] for side in ('worse', 'better')]
    for metric in part['metrics'].values():
        named += metric.get('target', [])
    return list(dict.fromkeys([*named, *part.get('curves', [])]))


def needed_for(table, parts):
    """(set, network) pairs that parts train, a trunk before the detectors that start from it."""
    needed = []
    for part in parts:
        for place, network in itertools.product(part['sets'], networks_in(part)):
            trunk = table['networks'][network].get('from')
            needed += [tuple(trunk)] if trunk else []
            needed.append((place, network))
    return list(dict.fromkeys(needed))


def commands_of(table, parts):
    """Commands that make the sets of parts, each once."""
    commands = []
    for part in (table['parts'][name] for name in parts):
        trunks = [table['networks'][name].get('from', [None])[0] for name in networks_in(part)]
        for place in filter(None, [*trunks, *part['sets']]):
            commands += table['sets'][place]['prepare']
        commands += part.get('prepare', [])
    return list(dict.fromkeys(map(tuple, commands)))


def train_seeds(table, out, needed, rates, processes):
    """{(set, network): runs, one for each seed}, all trained."""
    runs = {}
    trunks = [each for each in needed if 'from' not in table['networks'][each[1]]]
    for phase in (trunks, [each for each in needed if each not in trunks]):
        for place, network in phase:
            trunk = table['networks'][network].get('from')
            runs[place, network] = [
                Run(
                    *(table, out, place, network, rates[place, network], seed),
                    **{'model.backbone.init_cfg.checkpoint': str(runs[tuple(trunk)][k].checkpoint)}
                    if trunk
                    else {},
                )
                for k, seed in enumerate(table['seeds'])
            ]
        train_all([run for each in phase for run in runs[each]], processes)
    return runs


def judge(table, name, runs, rates):
    """The claims of a part, from its runs."""
    part = table['parts'][name]
    found = []
    for place, (metric, spec) in itertools.product(part['sets'], part['metrics'].items()):
        values = measure(spec, {network: runs[place, network] for network in networks_in(part)})
        for claim in part['claims']:
            better, worse = claim['better'], claim['worse']
            of_claim = {network: values[network] for network in (better, worse)}
            higher, lower = (worse, better) if spec.get('lower') else (better, worse)
            low, high = judged.paired_interval(values[higher], values[lower])
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


def draw_parts(table, parts, docs, runs):
    """The plots of parts that show more than the values of the claims."""
    for name in parts:
        part = table['parts'][name]
        of_place = {
            place: {network: runs[place, network] for network in networks_in(part)}
            for place in part['sets']
        }
        if 'curves' in part:
            curves = {
                place: {
                    network: [validation_curve(run.folder) for run in networks[network]]
                    for network in part['curves']
                }
                for place, networks in of_place.items()
            }
            plot_ranges(docs / f'images/claims_{name}_curves.png', curves, 'top-1 accuracy (%)')
        if 'densities' in part:
            densities = {
                place: {
                    network: [read_json(run.folder / part['densities'])['density'] for run in each]
                    for network, each in networks.items()
                }
                for place, networks in of_place.items()
            }
            judged.draw_densities(docs / f'images/claims_{name}_densities.png', densities)


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

    for command in commands_of(table, parts):
        run_script(*command)
    needed = needed_for(table, [table['parts'][name] for name in parts])
    rates = {(place, network): rates_of(table, place)[0] for place, network in needed}
    tried = {
        each: trials(table, args.out, *each) for each in needed if len(rates_of(table, each[0])) > 1
    }
    train_all([run for runs in tried.values() for run in runs.values()], args.processes)
    for each, runs in tried.items():
        rates[each] = max(runs, key=lambda rate: final(validation_curve(runs[rate].folder)))
    runs = train_seeds(table, args.out, needed, rates, args.processes)
    measurements = [
        Measurement(run, name, table['parts'][name]['command'])
        for name in parts
        if 'command' in table['parts'][name]
        for place in table['parts'][name]['sets']
        for network in networks_in(table['parts'][name])
        for run in runs[place, network]
    ]
    do_all(measurements, Measurement.measure, args.processes)

    claims = [claim for claim in earlier if claim['part'] not in parts]
    for name in parts:
        claims += judge(table, name, runs, rates)
    write_results(table, args.docs, claims)
    draw_parts(table, parts, args.docs, runs)
    print(judged.claims_table([claim for claim in claims if claim['part'] in parts]))
    print(f'written: {args.docs / "claims.md"}')


if __name__ == '__main__':
    run(main)
