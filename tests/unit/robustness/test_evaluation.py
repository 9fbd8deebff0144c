"""The parts that the folders of a benchmark hold."""

import pytest

from gcp_mm.robustness.errors import CORRUPTIONS, EXTRA_CORRUPTIONS
from gcp_mm.robustness.evaluation import find_parts, part_config
from gcp_mm.robustness.stability import PERTURBATIONS

FOG = [f'c/fog/{severity}/cat' for severity in range(1, 6)]


def roots(root, folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return {'clean': root / 'clean', 'imagenet-c': root / 'c', 'imagenet-p': root / 'p'}


def test_parts_are_those_of_the_benchmarks(tmp_path):
    corruptions = [f'{c}/{s}' for c in CORRUPTIONS + EXTRA_CORRUPTIONS for s in range(1, 6)]
    folders = ['clean/cat', 'c/other/1', 'p/shear/cat', *(f'c/{each}/cat' for each in corruptions)]
    folders += [f'p/{each}/cat' for each in PERTURBATIONS]
    parts = find_parts(roots(tmp_path, folders))
    c = {f'imagenet-c/{each}': tmp_path / 'c' / each for each in corruptions}
    p = {f'imagenet-p/{each}': tmp_path / 'p' / each for each in PERTURBATIONS}
    expected = {'clean': tmp_path / 'clean'} | c | p
    assert list(parts.items()) == list(expected.items())


def test_datasets_and_batches_of_the_parts(tmp_path):
    found = {}
    for key in ('clean', 'imagenet-c/fog/3', 'imagenet-p/tilt'):
        loader, metric = part_config(key, tmp_path, 64, 2, crop_size=32, resize=36, skip_bad=True)
        found[key] = loader['batch_size'], metric['type'], loader['dataset']
        assert metric['skip_bad']
    common = dict(data_root=str(tmp_path), crop_size=32, skip_bad=True)
    assert found == {
        'clean': (64, 'CorruptionError', dict(common, type='ImageNetC', resize=36)),
        'imagenet-c/fog/3': (64, 'CorruptionError', dict(common, type='ImageNetC')),
        'imagenet-p/tilt': (2, 'PerturbationStability', dict(common, type='ImageNetP')),
    }


@pytest.mark.parametrize(
    ('folders', 'error', 'message'),
    [
        (['c/fog/2/cat'], FileNotFoundError, 'c/fog/1'),  # a severity
        ([*FOG, 'p/tilt'], FileNotFoundError, 'p/tilt'),  # the class folders
        (['c/mist/1/cat'], ValueError, '/c. holds mist; expected .*gaussian_noise'),
        ([*FOG, 'p/group/tilt/cat'], ValueError, '/p. holds group; expected .*gaussian'),
        ([*FOG, 'p'], ValueError, '/p. holds nothing; expected .*gaussian'),
        (FOG, FileNotFoundError, '/p'),
    ],
)
def test_other_layouts_are_refused(tmp_path, folders, error, message):
    with pytest.raises(error, match=message):
        find_parts(roots(tmp_path, ['clean/cat', *folders]))
