"""The robustness tools as a user runs them, on small trees in the official layouts."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from scipy.stats import rankdata

from gcp_mm.robustness.baseline import ALEXNET
from gcp_mm.robustness.benchmarks import ImageNetP
from gcp_mm.robustness.errors import CORRUPTIONS
from gcp_mm.robustness.results import read_baseline
from tests.helpers.benchmark_trees import LABELS, WNIDS, write_image, write_trees, write_video
from tests.helpers.runs import ROOT

NET = ROOT / 'configs/imagenet/resnet18_8xb32-lradju_in1k.py'
PARTS = [
    *('clean', *(f'imagenet-c/fog/{s}' for s in (1, 2, 3, 4, 5))),
    *(f'imagenet-c/spatter/{s}' for s in (1, 2, 3, 4, 5)),
    *('imagenet-p/shot_noise', 'imagenet-p/tilt'),
]


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    """Checkpoint of a network that hesitates between the two classes of the trees."""
    cfg = Config.fromfile(NET)
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    weight, bias = model.head.fc.weight.data, model.head.fc.bias.data
    for index in LABELS:
        weight[index] += 0.02 * torch.randn_like(weight[index])
        bias[index] += 3
    path = tmp_path_factory.mktemp('network') / 'net.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp('trees')
    # Not a multiple of two files, so that of two processes' samples one is a repetition.
    write_trees(root, ['fog', 'spatter'], ['shot_noise', 'tilt'], images=(3, 2))
    return root


def arguments(network, trees, work_dir, *options, config=NET):
    return [
        *('tools/test_robustness.py', config, network, '--work-dir', work_dir),
        *('--imagenet-c', trees / 'c', '--imagenet-p', trees / 'p', '--clean', trees / 'clean'),
        *('--crop-size', '32', '--resize', '36', *options),
        *('--cfg-options', 'test_dataloader.num_workers=0'),
    ]


def results_in(folder):
    return json.loads((folder / 'robustness.json').read_text())


@pytest.fixture(scope='module')
def evaluated(call_tool, network, trees, tmp_path_factory):
    """Work dir of an evaluation by one process."""
    work_dir = tmp_path_factory.mktemp('one')
    call_tool(*arguments(network, trees, work_dir))
    return work_dir


def scores(model, images):
    """Logits by hand: RGB, ImageNet's normalization."""
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    images = (torch.from_numpy(np.stack(images)).float() - mean) / std
    with torch.no_grad():
        return model(images.permute(0, 3, 1, 2)).numpy()


def test_results_are_those_of_a_direct_evaluation(evaluated, network, trees):
    """torchvision's network, PIL's images and scipy's ranks give the same numbers."""
    model = torchvision.models.resnet18().eval()
    weights = torch.load(network)['state_dict']
    model.load_state_dict(
        {key.removeprefix('backbone.').removeprefix('head.'): w for key, w in weights.items()}
    )
    results = results_in(evaluated)
    assert list(results['parts']) == PARTS
    seen = set()
    for severity in (1, 2, 3, 4, 5):
        folder = trees / f'c/fog/{severity}'
        files = [
            (file, label)
            for wnid, label in zip(WNIDS, LABELS, strict=True)
            for file in (folder / wnid).iterdir()
        ]
        logits = scores(model, [np.asarray(Image.open(file)) for file, _ in files])
        wrong = logits.argmax(1) != [label for _, label in files]
        seen |= set(logits.argmax(1))
        part = results['parts'][f'imagenet-c/fog/{severity}']
        assert part == dict(error=wrong.mean(), files=5, skipped=[])
    assert seen == set(LABELS)  # or the labels would not have mattered
    read = read_baseline([evaluated / 'robustness.json'])
    parts = [results['parts'][f'imagenet-c/fog/{severity}'] for severity in (1, 2, 3, 4, 5)]
    assert read.corruption_error['fog'] == [part['error'] for part in parts]
    for name, reference in (('shot_noise', lambda j: 0), ('tilt', lambda j: j - 1)):
        flips, distances = [], []
        for item in ImageNetP(data_root=str(trees / f'p/{name}'), crop_size=32):
            logits = scores(model, item['inputs'].permute(0, 2, 3, 1).flip(-1).numpy())
            ranks = [rankdata(-x, method='ordinal') for x in logits]
            pairs = [(reference(j), j) for j in range(1, len(logits))]
            flips.append(np.mean([logits[i].argmax() != logits[j].argmax() for i, j in pairs]))
            moved = [ranks[j][np.argsort(ranks[i])[:5]].clip(max=6) for i, j in pairs]
            distances.append(np.abs(np.array(moved) - [1, 2, 3, 4, 5]).sum(axis=1).mean())
        part = results['parts'][f'imagenet-p/{name}']
        assert part['flip_probability'] == pytest.approx(np.mean(flips))
        assert part['top5_distance'] == pytest.approx(np.mean(distances))
        for key, values in dict(flip_probability=flips, top5_distance=distances).items():
            assert sorted(part['groups'][key]) == pytest.approx(sorted(values))
        assert part['top5_distance'] > 0
        assert read.flip_probability[name] == part['flip_probability']
        assert read.top5_distance[name] == part['top5_distance']


def test_report_names_what_is_missing_and_gives_no_mean(evaluated):
    page = (evaluated / 'robustness.md').read_text()
    assert f'# Robustness of {NET.stem}' in page
    assert '| network | mCE | Rel. mCE | mFR | mT5D |' in page
    assert f'| {NET.stem} | - | - | - | - |' in page
    missing = ', '.join(name for name in CORRUPTIONS if name != 'fog')
    assert f'no mCE: corruption error: {missing} missing' in page
    assert '| spatter (not in mCE) |' in page
    parts = results_in(evaluated)['parts']
    error = np.mean([parts[f'imagenet-c/fog/{s}']['error'] for s in range(1, 6)])
    row = next(line for line in page.splitlines() if line.startswith('| fog |'))
    assert float(row.split('|')[-3]) == pytest.approx(100 * error / 0.819324, abs=0.01)
    assert page.count(f'- {NET.stem}: no ') == 4


@pytest.mark.slow
def test_killed_run_goes_on_with_two_processes(evaluated, run_tool, network, trees, tmp_path):
    """It does not repeat what was finished, and ends as the run by one process did."""
    tool, config, checkpoint, *options = arguments(network, trees, tmp_path)
    process = subprocess.Popen(
        [sys.executable, *map(str, (tool, config, checkpoint, *options))],
        **dict(cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
    )
    while process.poll() is None and not (tmp_path / 'robustness.json').exists():
        time.sleep(0.02)
    process.kill()
    process.wait()
    finished = list(results_in(tmp_path)['parts'])
    assert 1 <= len(finished) < len(PARTS)
    done = run_tool(*('tools/dist_test_robustness.sh', config, checkpoint, 2, *options))
    assert done.returncode == 0, done.stdout
    started = [part for part in PARTS if f'{part} (' in done.stdout]
    assert started == PARTS[len(finished) :]
    assert results_in(tmp_path) == results_in(evaluated)
    assert (tmp_path / 'robustness.md').read_text() in done.stdout


@pytest.fixture
def resumable(evaluated, tmp_path):
    return shutil.copytree(evaluated, tmp_path / 'resumed')


def test_finished_results_are_not_computed_again(call_tool, network, trees, resumable, capsys):
    results = results_in(resumable)
    results['parts']['clean']['error'] = 0.125
    (resumable / 'robustness.json').write_text(json.dumps(results))
    call_tool(*arguments(network, trees, resumable))
    out = capsys.readouterr().out
    assert (resumable / 'robustness.md').read_text() in out
    assert f'| {NET.stem} | 12.50 |' in out
    assert 'imagenet-c' not in out


@pytest.mark.parametrize(
    ('options', 'key'),
    [
        ([], 'checkpoint_sha256'),
        (['--crop-size', '30'], 'crop_size'),
        (['--clean', '{}/c/fog/1'], 'clean'),
    ],
)
def test_results_of_another_evaluation_are_refused(
    call_tool, network, trees, resumable, tmp_path, options, key
):
    before = (resumable / 'robustness.json').read_bytes()
    if not options:
        weights = torch.load(network)
        weights['state_dict']['head.fc.bias'] += 1
        network = tmp_path / 'other.pth'
        torch.save(weights, network)
    options = [option.format(trees) for option in options]
    with pytest.raises(ValueError, match=f"made with .'{key}'"):
        call_tool(*arguments(network, trees, resumable, *options))
    assert (resumable / 'robustness.json').read_bytes() == before


@pytest.mark.slow
def test_bad_files_stop_the_run_or_are_listed(call_tool, network, trees, tmp_path):
    """And the report says what is regenerated."""
    trees = shutil.copytree(trees, tmp_path / 'trees')
    (trees / 'p/GENERATED.json').write_text('{}')
    image = trees / 'c/fog/2' / WNIDS[0] / 'ILSVRC2012_val_00000001.JPEG'
    image.write_bytes(image.read_bytes()[:-300])
    video = next((trees / 'p/tilt' / WNIDS[1]).glob('*.npy'))
    write_video(video, np.random.default_rng(0), frames=1)
    with pytest.raises(ValueError, match=f'{image}: .*skip_bad leaves such files out'):
        call_tool(*arguments(network, trees, tmp_path / 'w'))
    call_tool(*arguments(network, trees, tmp_path / 'w', '--skip-bad'))
    page = (tmp_path / 'w/robustness.md').read_text()
    parts = results_in(tmp_path / 'w')['parts']
    assert list(parts) == PARTS
    assert parts['imagenet-c/fog/2']['files'] == 4
    assert [item['file'] for item in parts['imagenet-c/fog/2']['skipped']] == [str(image)]
    assert parts['imagenet-p/tilt']['files'] == 4
    assert [item['file'] for item in parts['imagenet-p/tilt']['skipped']] == [str(video)]
    assert ': imagenet-p regenerated, not official' in page
    assert '## 2 files left out' in page
    assert f'- {video}: 1 frame, and stability needs at least 2' in page


def test_network_of_one_channel_is_refused(call_tool, network, trees, tmp_path):
    with pytest.raises(ValueError, match='takes 1 channels, the images have 3'):
        call_tool(*arguments(network, trees, tmp_path), 'model.backbone.in_channels=1')


def test_comparison_of_runs(call_tool, evaluated, tmp_path, capsys):
    results = evaluated / 'robustness.json'
    call_tool(
        *('tools/compare_robustness.py', f'A={results}', f'A={results}', results),
        *('--baseline', results, '--baseline', results, '--out', tmp_path / 'out/report'),
    )
    out = capsys.readouterr().out
    assert 'In percent of the mean of 2 networks;' in out
    assert f'- A, {NET.stem}: no mCE: corruption error: gaussian_noise' in out
    assert '| A |' in out
    assert f'| {NET.stem} |' in out
    assert (tmp_path / 'out/report.png').read_bytes()[:4] == b'\x89PNG'
    assert '![robustness](report.png)' in (tmp_path / 'out/report.md').read_text()
    with pytest.raises(ValueError, match='holds no results'):
        call_tool('tools/compare_robustness.py', ALEXNET)


def test_results_of_alexnet_are_those_of_torchvisions_network(call_tool, tmp_path):
    """The documented way to measure the baseline anew."""
    torch.manual_seed(0)
    model = torchvision.models.alexnet().eval()
    model.classifier[6].bias.data[list(LABELS)] += 0.1
    weights = {f'backbone.{key}': value for key, value in model.state_dict().items()}
    torch.save(weights, tmp_path / 'alexnet.pth')
    rng, images = np.random.default_rng(0), []
    for wnid in WNIDS:
        for i in range(3):
            path = tmp_path / f'clean/{wnid}/{i}.png'
            write_image(path, rng, (224, 256))
            images.append(np.asarray(Image.open(path))[16:240])
    wrong = scores(model, images).argmax(1) != np.repeat(LABELS, 3)
    config = ROOT / 'configs/robustness/alexnet_in1k.py'
    call_tool(
        *('tools/test_robustness.py', config, tmp_path / 'alexnet.pth', '--resize', 0),
        *('--clean', tmp_path / 'clean', '--work-dir', tmp_path, '--out', tmp_path / 'results'),
        *('--cfg-options', 'test_dataloader.num_workers=0'),
    )
    measured = read_baseline([tmp_path / 'results'])
    assert measured.name == 'alexnet_in1k'
    assert measured.clean_error == wrong.mean()


@pytest.mark.parametrize('kind', ['c', 'p'])
def test_configs_of_one_part_run_with_the_stock_tool(call_tool, tmp_path, kind):
    digits = tuple('0123456789')
    write_trees(tmp_path, ['gaussian_noise'], ['gaussian_noise'], images=[1] * 10, wnids=digits)
    config = ROOT / f'configs/digits/resnet18-gcp_digits-{kind}.py'
    cfg = Config.fromfile(config)
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'net.pth')
    call_tool(
        *('tools/test.py', config, tmp_path / 'net.pth', '--work-dir', tmp_path / 'w'),
        *('--out', tmp_path / 'metrics.json', '--cfg-options', 'test_dataloader.num_workers=0'),
        f'test_dataloader.dataset.data_root={tmp_path / kind}',
        'test_dataloader.dataset.crop_size=32',
    )
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    name = dict(c='corruption', p='perturbation')[kind]
    assert metrics[f'{name}/files'] == 10
    assert 0 <= metrics[dict(c='corruption/error', p='perturbation/flip_probability')[kind]] <= 1
