"""Train what claims.yml declares, from several seeds, and judge its claims: `make reproduce`.

Every run is a training by tools/train.py in a folder of its own. A second start skips what is done
and resumes what is not. Results: claims.json and claims.md in docs/, and plots of each part.
"""

import argparse
import functools
import itertools
import json
import math
import os
import signal
import sys
from pathlib import Path

from arguments import run, run_script

import yaml
from claim_metrics import check_metric, final, measure
from claim_runs import Measurement, Run, do_all, network_of, train_all

from gcp_mm._io import check_writable, read_json, write_atomically
from gcp_mm.studies import claims as judged
from gcp_mm.studies.curves import plot_curves, validation_curve

ROOT = Path(__file__).resolve().parent.parent


def rates_of(table, dataset):
    """Learning rates to choose from for a set."""
    return table['sets'][dataset].get('rates', table['tune']['rates'])


def choose_rates(table, out, needed, processes):
    """The learning rate of each (set, network), by trials where there is more than one."""
    tried = {
        each: trials(table, out, *each) for each in needed if len(rates_of(table, each[0])) > 1
    }
    train_all([run for runs in tried.values() for run in runs.values()], processes)
    rates = {each: rates_of(table, each[0])[0] for each in needed}
    for each, runs in tried.items():
        rates[each] = max(runs, key=lambda rate: final(validation_curve(runs[rate].folder)))
    return rates


def trials(table, out, dataset, network):
    """Runs that choose the learning rate, {rate: run}: on four fifths of the training images."""
    lists = hold_out(Path(table['sets'][dataset]['folder']), out / dataset.replace(' ', '-'))
    options = {
        f'{loader}.dataset.{key}': value
        for loader, file in zip(('train_dataloader', 'val_dataloader'), lists, strict=True)
        for key, value in (('ann_file', str(file.absolute())), ('data_prefix', 'train'))
    }
    return {
        rate: Run(table, out, dataset, network, rate, table['tune']['seed'], 'held-out', **options)
        for rate in rates_of(table, dataset)
    }


@functools.cache  # for all networks of a set
def hold_out(folder, prefix):
    """Write lists of the training images, every fifth of a class held out; returns both files."""
    files = [Path(f'{prefix}_{name}.txt') for name in ('kept', 'held-out')]
    lines = [[], []]
    for label, of_class in enumerate(sorted((folder / 'train').iterdir())):
        for number, image in enumerate(sorted(of_class.iterdir())):
            lines[number % 5 == 4].append(f'{of_class.name}/{image.name} {label}\n')
    for file, content in zip(files, lines, strict=True):
        write_atomically(file, ''.join(content).encode())
    return files


def train_seeds(table, out, needed, rates, processes):
    """{(set, network): runs, one for each seed}, all trained, backbones before their detectors."""
    runs = {}
    backbones = {each: network_of(table, each[1]).get('from') for each in needed}
    for phase in (False, True):
        now = [each for each in needed if bool(backbones[each]) == phase]
        for dataset, network in now:
            of_seeds = []
            for k, seed in enumerate(table['seeds']):
                options = {}
                if backbone := backbones[dataset, network]:
                    checkpoint = str(runs[tuple(backbone)][k].checkpoint)
                    options['model.backbone.init_cfg.checkpoint'] = checkpoint
                rate = rates[dataset, network]
                of_seeds.append(Run(table, out, dataset, network, rate, seed, **options))
            runs[dataset, network] = of_seeds
        train_all([run for each in now for run in runs[each]], processes)
    return runs


def networks_in(part):
    """Networks that a part compares, those of `worse` first, and those it needs for a metric."""
    named = [claim[side] for claim in part['claims'] for side in ('worse', 'better')]
    for metric in part['metrics'].values():
        named += [*metric.get('target', []), *filter(None, [metric.get('baseline')])]
    return list(dict.fromkeys([*named, *part.get('curves', [])]))


def needed_for(table, part):
    """(set, network) pairs that a part trains, backbones before the detectors of them."""
    needed = []
    for dataset, network in itertools.product(part['sets'], networks_in(part)):
        backbone = network_of(table, network).get('from')
        needed += [tuple(backbone)] if backbone else []
        needed.append((dataset, network))
    return list(dict.fromkeys(needed))


def check_table(table):
    """Raise ValueError for a name that the table does not declare, a wrong metric or one seed."""
    if len(table['seeds']) < 2:
        raise ValueError(f'--table: seeds: expected at least 2, got {table["seeds"]}')
    known = {kind: table[kind].keys() for kind in ('networks', 'sets')}

    def check(kind, name, where):
        if name not in known[kind]:
            raise ValueError(f'--table: {where}: {kind} has no {name!r}')

    for name, network in table['networks'].items():
        if 'like' in network:
            check('networks', network['like'], name)
        for kind, each in zip(('sets', 'networks'), network.get('from', ()), strict=False):
            check(kind, each, name)
    for name, part in table['parts'].items():
        for each in part['sets']:
            check('sets', each, name)
        for metric, declared in part['metrics'].items():
            check_metric(declared, f'--table: {name}: {metric}')
        for each in networks_in(part):
            check('networks', each, name)


def judge(table, name, runs, rates):
    """The claims of a part, from its runs."""
    part = table['parts'][name]
    found = []
    for dataset, (metric, declared) in itertools.product(part['sets'], part['metrics'].items()):
        values = measure(declared, {each: runs[dataset, each] for each in networks_in(part)})
        if wrong := [each for each in values if not all(map(math.isfinite, values[each]))]:
            raise ValueError(
                f'{name}: {metric} of {wrong} on {dataset} is not finite; take it from --table'
            )
        for claim in part['claims']:
            better, worse = claim['better'], claim['worse']
            higher, lower = (worse, better) if declared.get('lower') else (better, worse)
            interval = judged.paired_interval(values[higher], values[lower])
            found.append(
                judged.Claim(
                    part=name,
                    claim=claim['claim'],
                    metric=metric,
                    set=dataset,
                    rates={network: rates[dataset, network] for network in (better, worse)},
                    runs={network: values[network] for network in (better, worse)},
                    difference=interval,
                    verdict=judged.verdict(*interval),
                )
            )
    return found


def draw_part(table, name, docs, runs):
    """The plots of a part that show more than the values of the claims."""
    part = table['parts'][name]
    networks = networks_in(part)
    if 'curves' in part:
        curves = {
            dataset: {
                network: [validation_curve(run.folder) for run in runs[dataset, network]]
                for network in part['curves']
            }
            for dataset in part['sets']
        }
        plot_curves(docs / f'images/claims_{name}_curves.png', curves, 'top-1 accuracy (%)')
    if file := part.get('densities'):
        densities = {
            dataset: {
                each: [read_json(run.folder / file)['density'] for run in runs[dataset, each]]
                for each in networks
            }
            for dataset in part['sets']
        }
        judged.draw_densities(docs / f'images/claims_{name}_densities.png', densities)


def write_results(table, docs, claims):
    """claims.json, claims.md and the plots, of all parts that were measured at any time."""
    order = [*table['parts']]
    claims = sorted(claims, key=lambda claim: order.index(claim['part']))
    write_atomically(docs / 'claims.json', (json.dumps(claims, indent=1) + '\n').encode())
    write_atomically(docs / 'claims.md', judged.page(claims, table).encode())
    for name in dict.fromkeys(claim['part'] for claim in claims):
        of_part = [claim for claim in claims if claim['part'] == name]
        judged.draw_runs(docs / f'images/claims_{name}.png', of_part)


def reproduce(table, name, out, docs, processes):
    """Make the sets of a part, train, measure, and write its claims beside the earlier ones."""
    part = table['parts'][name]
    needed = needed_for(table, part)
    commands = [c for dataset, _ in needed for c in table['sets'][dataset]['prepare']]
    for command in dict.fromkeys(map(tuple, [*commands, *part.get('prepare', [])])):
        run_script(*command)
    rates = choose_rates(table, out, needed, processes)
    runs = train_seeds(table, out, needed, rates, processes)
    if 'command' in part:
        measured = [runs[pair] for pair in itertools.product(part['sets'], networks_in(part))]
        do_all(
            [Measurement(run, name, part['command']) for each in measured for run in each],
            Measurement.measure,
            processes,
        )
    claims = judge(table, name, runs, rates)
    file = docs / 'claims.json'
    earlier = json.loads(file.read_text()) if file.exists() else []
    write_results(table, docs, [c for c in earlier if c['part'] != name] + claims)
    draw_part(table, name, docs, runs)
    print(judged.claims_table(claims))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('parts', nargs='*', metavar='PART', help='parts to run; default: all')
    parser.add_argument(
        '--table',
        type=Path,
        default=Path('tools/claims.yml'),
        help='YAML file of the networks, datasets and claims',
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/claims'), help='folder of the runs'
    )
    parser.add_argument('--docs', type=Path, default=Path('docs'), help='folder of the results')
    parser.add_argument(
        '--processes', type=int, default=os.cpu_count(), help='trainings at a time, one thread each'
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C does, ends the trainings
    if Path.cwd() != ROOT:
        raise ValueError(f'run this in the root of the project: cd {ROOT}')
    if set(' ,') & set(str(args.out.absolute())):
        raise ValueError(
            f'--out: {str(args.out.absolute())!r} has a blank or a comma; name another'
        )
    table = yaml.safe_load(args.table.read_text())
    check_table(table)
    unknown = set(args.parts) - set(table['parts'])
    if unknown:
        raise ValueError(f'PART: expected some of {[*table["parts"]]}, got {sorted(unknown)}')
    file = args.docs / 'claims.json'
    check_writable(file)
    earlier = json.loads(file.read_text()) if file.exists() else []
    unknown = {claim['part'] for claim in earlier} - set(table['parts'])
    if unknown:
        raise ValueError(f'{str(file)!r}: the table has no {sorted(unknown)}; remove the file')
    parts = args.parts or [*table['parts']]
    for number, name in enumerate(parts, 1):
        print(f'{name}: part {number} of {len(parts)}', flush=True)
        reproduce(table, name, args.out, args.docs, args.processes)
    print(f'written: {args.docs / "claims.md"}')


if __name__ == '__main__':
    run(main)
