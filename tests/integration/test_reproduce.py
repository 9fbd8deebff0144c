"""tools/reproduce.py: trainings, metrics, verdicts, a second start, a table that has changed."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from gcp_mm._io import append_jsonl
from gcp_mm.hub import resolve_config
from gcp_mm.robustness.errors import CORRUPTIONS, SEVERITIES
from tests.helpers.run_logs import write_log
from tests.helpers.runs import ROOT

GAP = {
    'config': 'configs/digits/resnet18_1xb64-5e_digits.py',
    'options': {
        'model.backbone.stem_channels': 8,
        'model.backbone.base_channels': 8,
        'model.head.in_channels': 64,
        'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.indices': 64,
        'default_hooks.landscape.type': 'LandscapeHook',
        'default_hooks.landscape.eta_range': [0.1, 1],
        'default_hooks.landscape.num_points': 2,
        'default_hooks.landscape.interval': 1,
    },
}
DETECTOR = {
    'config': 'configs/digits/faster-rcnn_r18_fpn_4e_digits.py',
    'from': ['digits', 'GAP'],
    'options': {
        'model.backbone.stem_channels': 8,
        'model.backbone.base_channels': 8,
        'model.neck.in_channels': [8, 16, 32, 64],
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'train_dataloader.dataset.indices': 4,
    },
}


NETWORKS = {'GAP': GAP, 'twin': {'like': 'GAP'}, 'detector': DETECTOR, 'twin detector': DETECTOR}


@dataclass(eq=False)
class Folder:
    """A run that was made by hand."""

    folder: Path


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    from claim_metrics import measure

    return measure


@pytest.fixture
def made(tmp_path):
    """Make a run from its validations, {epoch: top1}, and from the content of its files."""

    def make(name, curve=None, **files):
        folder = tmp_path / name
        folder.mkdir()
        if curve:
            write_log(folder, '0', *({'step': k, 'top1': value} for k, value in curve.items()))
        for file, content in files.items():
            (folder / file).write_text(json.dumps(content) + '\n')
        return Folder(folder)

    return make


def test_final_values_and_epochs_to_the_target(measure, made):
    """The target is the better backbone's mean final accuracy: 80 of b, not 70 of a."""
    curves = {
        'a': [{1: 10, 2: 60}, {1: 20, 2: 80}],
        'b': [{1: 75, 2: 79}, {1: 80, 2: 81}],
        'c': [{1: 80, 2: 70}, {1: 79.9, 2: 90}],
    }
    runs = {
        name: [made(f'{name}{seed}', curve) for seed, curve in enumerate(of_seeds)]
        for name, of_seeds in curves.items()
    }
    values = measure({'curve': 'top1'}, runs)
    assert values == {'a': [60, 80], 'b': [79, 81], 'c': [70, 90]}
    assert measure({'curve': 'top1', 'scale': 10}, runs)['a'] == [600, 800]
    epochs = measure({'curve': 'top1', 'target': ['a', 'b']}, runs)
    assert epochs == {'a': [3, 2], 'b': [3, 1], 'c': [1, 2]}


def test_bands_are_averaged_over_the_training(measure, made):
    """A resumed run has measured step 5 twice: the later line counts."""
    run = made('a')
    for step, band in (0, [1, 2.0, 4]), (5, [0, 9.0, 9]), (5, [1, 1.5, 1]):
        append_jsonl(run.folder / 'landscape.jsonl', {'iter': step, 'losses': band})
    assert measure({'bands': 'losses'}, {'a': [run]}) == {'a': [(3 + 0.5) / 2]}


def test_a_number_of_a_file(measure, made):
    run = made('a', **{'x.json': {'trace': 7.5}})
    assert measure({'file': 'x.json', 'key': 'trace'}, {'a': [run]}) == {'a': [7.5]}


def results_of_classifier(error):
    parts = {
        f'imagenet-c/{name}/{severity}': {'error': error, 'skipped': []}
        for name in CORRUPTIONS
        for severity in SEVERITIES
    }
    identity = {'checkpoint_sha256': '0'}
    common = {'name': 'A', 'checkpoint': 'a.pth', 'roots': {}, 'regenerated': []}
    return {**common, 'identity': identity, 'parts': parts}


def test_errors_are_normalized_by_the_mean_of_the_baseline(measure, made):
    runs = {
        name: [
            made(f'{name}{k}', **{'robustness.json': results_of_classifier(error)})
            for k, error in enumerate(errors)
        ]
        for name, errors in {'GAP': [0.3, 0.5], 'GCP': [0.2, 0.1]}.items()
    }
    values = measure({'classifier': 'mCE', 'baseline': 'GAP'}, runs)
    assert values['GAP'] == pytest.approx([75, 125])
    assert values['GCP'] == pytest.approx([50, 25])


def test_a_detector_on_corrupted_images(measure, made):
    keys = ['clean', *(f'{name}/{severity}' for name in CORRUPTIONS for severity in SEVERITIES)]
    parts = {key: {'coco/bbox_mAP': 0.6 if key == 'clean' else 0.45} for key in keys}
    results = {'name': 'D', 'checkpoint': 'd.pth', 'identity': {}, 'roots': {}, 'regenerated': []}
    results |= {'parts': parts, 'images': 5, 'skipped': []}
    runs = {'D': [made('d', **{'robustness.json': results})]}
    assert measure({'detector': 'mPC'}, runs)['D'] == pytest.approx([45])
    assert measure({'detector': 'rPC'}, runs)['D'] == pytest.approx([75])


@pytest.fixture
def reproduce(digits, scenes, tmp_path, run_tool):
    """Run the tool with the same network in both roles; arguments are changes to the table."""

    def call(*arguments, **changes):
        command = ['tools/landscape.py', '{config}', '{checkpoint}', '--out', '{folder}/landscape']
        command += ['--images', 8, '--products', 2, '--tolerance', 0.5, '--grid', 3]
        measured = 'landscape/landscape.json'
        twins = {
            **{'title': 'Twins', 'text': 'The same network twice.', 'sets': ['digits']},
            **{'command': command, 'curves': ['GAP'], 'densities': measured},
            'claims': [{'claim': 'GAP is better than GAP', 'better': 'twin', 'worse': 'GAP'}],
            'metrics': {
                'accuracy': {'curve': 'accuracy/top1'},
                'epochs': {'curve': 'accuracy/top1', 'target': ['GAP'], 'lower': True},
                'range': {'bands': 'losses', 'lower': True},
                'trace': {'file': measured, 'key': 'trace', 'lower': True},
            },
        }
        claim = {'claim': 'Detectors are equal', 'better': 'twin detector', 'worse': 'detector'}
        detectors = {
            **{'title': 'Detectors', 'text': 'Twice, too.', 'sets': ['scenes']},
            **{'metrics': {'AP': {'curve': 'coco/bbox_mAP'}}, 'claims': [claim]},
        }
        ann_file = str(scenes / 'annotations/instances_val.json')
        table = {
            **{'tune': {'rates': [0.05, 0.1], 'seed': 100}, 'seeds': [0, 1]},
            'text': 'Small networks.',
            'sets': {
                'digits': {'prepare': [], 'folder': str(digits), 'options': {}},
                'scenes': {
                    **{'prepare': [], 'rates': [0.01], 'metric': 'coco/bbox_mAP'},
                    **{'folder': str(scenes), 'options': {'val_evaluator.ann_file': ann_file}},
                },
            },
            'networks': NETWORKS,
            'parts': {'twins': twins, 'detectors': detectors},
        }
        file = tmp_path / 'claims.yml'
        file.write_text(yaml.safe_dump(table | changes, sort_keys=False))
        out = tmp_path / 'runs', tmp_path / 'docs'
        options = ('--table', file, '--out', out[0], '--docs', out[1], '--processes', 2)
        return run_tool('tools/reproduce.py', *arguments, *options)

    return call


@pytest.mark.slow
def test_the_same_network_in_both_roles_is_undecided(reproduce, tmp_path):
    """By each metric. A second start trains nothing; a changed network is not taken for the old."""
    done = reproduce('twins').stdout
    assert 'train: 4, of which 4 are to do' in done  # once for the rates, once for the seeds
    assert 'measure: 4, of which 4 are to do' in done
    docs = tmp_path / 'docs'
    claims = json.loads((docs / 'claims.json').read_text())
    assert [claim['metric'] for claim in claims] == ['accuracy', 'epochs', 'range', 'trace']
    for claim in claims:
        assert claim['verdict'] == 'undecided'
        assert claim['difference'] == [0, 0]
        assert claim['runs']['GAP'] == claim['runs']['twin']
        assert claim['rates']['GAP'] == claim['rates']['twin']
    kept, held_out = (
        (tmp_path / f'runs/digits_{name}.txt').read_text().splitlines()
        for name in ('kept', 'held-out')
    )
    assert len(kept) + len(held_out) == 1437
    assert not set(kept) & set(held_out)
    assert {line.split()[1] for line in held_out} == set('0123456789')
    page = (docs / 'claims.md').read_text()
    for metric in ('accuracy', 'trace'):
        assert f'| GAP is better than GAP | {metric} | digits | +0 to +0 | undecided |' in page
    assert 'not measured yet:\n\n- Detectors\n' in page
    for name in ('twins', 'twins_curves', 'twins_densities'):
        assert f'claims_{name}.png' in page
        assert (docs / f'images/claims_{name}.png').stat().st_size

    again = reproduce('twins').stdout
    assert 'train: 4, of which 0 are to do' in again
    assert 'measure: 4, of which 0 are to do' in again

    # A run that was stopped between its last epoch and the validation of it.
    (log,) = tmp_path.glob('runs/digits_twin_*_seed1/*/vis_data/scalars.json')
    lines = [line for line in log.read_text().splitlines() if 'accuracy/top1' not in line]
    log.write_text('\n'.join(lines) + '\n')
    again = reproduce('twins').stdout
    assert 'train: 4, of which 1 are to do' in again
    assert json.loads((docs / 'claims.json').read_text()) == claims

    detected = reproduce('detectors').stdout
    assert 'train: 2, of which 0 are to do' in detected  # the backbones
    assert 'train: 4, of which 4 are to do' in detected
    claims = json.loads((docs / 'claims.json').read_text())
    assert claims[-1]['verdict'] == 'undecided'
    assert {claim['part'] for claim in claims} == {'twins', 'detectors'}
    (detector,) = tmp_path.glob('runs/scenes_detector_*_seed1/made-with.json')
    options = json.loads(detector.read_text())['options']
    checkpoint = Path(options['model.backbone.init_cfg.checkpoint'])
    assert checkpoint.exists()
    assert checkpoint.parent.name.startswith('digits_GAP_')
    assert checkpoint.parent.name.endswith('_seed1')

    wider = {'like': 'GAP', 'options': {'model.head.topk': '(1,)'}}
    changed = reproduce('twins', networks=NETWORKS | {'twin': wider})
    assert changed.returncode == 2
    assert 'digits_twin_lr0.05_held-out' in changed.stdout


@pytest.mark.slow
def test_a_training_that_fails_is_named(reproduce):
    broken = {'like': 'GAP', 'options': {'model.head.in_channels': 3}}
    failed = reproduce('twins', networks=NETWORKS | {'twin': broken})
    assert failed.returncode == 2
    assert 'output.txt' in failed.stdout


def test_the_seconds_of_an_epoch_are_timed_together(measure, made, digits):
    """Of two runs of one network, though those of the second are there already; and then kept."""
    cfg = resolve_config(GAP['config'])
    cfg.merge_from_dict(GAP['options'] | {'train_dataloader.dataset.data_root': str(digits)})
    curve = {1: 1, 2: 2}
    runs = [made('a', curve), made('b', curve, **{'seconds.json': {'seconds': 7}})]
    for run in runs:
        run.config = run.folder / 'config.py'
        cfg.dump(run.config)
    metric = {'curve': 'top1', 'target': ['a'], 'seconds': True}
    values = measure(metric, {'a': runs})['a']
    assert all(0 < value < 2 * 7 for value in values)
    assert measure(metric, {'a': runs})['a'] == values
    for run in runs:
        (run.folder / 'seconds.json').write_text('{"seconds": 7}')
    # epoch 2 is the first with the mean final accuracy, 2
    assert measure(metric, {'a': runs})['a'] == [14, 14]


def test_runs_that_do_not_reach_the_target_take_as_long_as_each_other(measure, made):
    """Of seed 0 only b reaches 50; of seed 1 neither, and the slower one has no more time."""
    curves = {'a': [40, 45], 'b': [55, 30], 'target': [60, 40]}
    seconds = {'a': 3, 'b': 5, 'target': 4}
    runs = {
        name: [
            made(f'{name}{seed}', {1: top1}, **{'seconds.json': {'seconds': seconds[name]}})
            for seed, top1 in enumerate(of_seeds)
        ]
        for name, of_seeds in curves.items()
    }
    values = measure({'curve': 'top1', 'target': ['target'], 'seconds': True}, runs)
    assert values == {'a': [6, 6], 'b': [5, 6], 'target': [4, 6]}
