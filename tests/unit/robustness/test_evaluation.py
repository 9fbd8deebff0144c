"""The parts that the folders of a benchmark hold."""

import pytest

from gcp_mm.robustness.errors import CORRUPTIONS, EXTRA_CORRUPTIONS
from gcp_mm.robustness.evaluation import find_parts
from gcp_mm.robustness.stability import PERTURBATIONS

SETTINGS = dict(resize=36, crop_size=32, classes='names.txt', skip_bad=False)
SEVERITIES = [f'c/fog/{severity}/cat' for severity in range(1, 6)]


def roots(root, folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return {'clean': root / 'clean', 'imagenet-c': root / 'c', 'imagenet-p': root / 'p'}


def test_parts_are_those_of_the_benchmarks(tmp_path):
    corruptions = [f'{c}/{s}' for c in CORRUPTIONS + EXTRA_CORRUPTIONS for s in range(1, 6)]
    folders = ['clean/cat', 'c/other/1', 'p/shear/cat', *(f'c/{each}/cat' for each in corruptions)]
    folders += [f'p/{each}/cat' for each in PERTURBATIONS]
    parts = find_parts(roots(tmp_path, folders), **SETTINGS)
    names = [*(f'imagenet-c/{c}' for c in corruptions), *(f'imagenet-p/{p}' for p in PERTURBATIONS)]
    assert list(parts) == ['clean', *names]
    common = dict(crop_size=32, skip_bad=False)
    clean = dict(type='ImageNetC', data_root=f'{tmp_path}/clean', data_prefix='', resize=36)
    assert parts['clean'] == common | clean | dict(classes='names.txt')
    fog = dict(type='ImageNetC', data_root=f'{tmp_path}/c', data_prefix='fog/3')
    assert parts['imagenet-c/fog/3'] == common | fog | dict(classes='names.txt')
    tilt = dict(type='ImageNetP', data_root=f'{tmp_path}/p', data_prefix='tilt')
    assert parts['imagenet-p/tilt'] == common | tilt


@pytest.mark.parametrize(
    ('folders', 'error', 'message'),
    [
        (['c/mist/1/cat'], ValueError, '/c. holds mist; expected .*gaussian_noise'),
        (SEVERITIES[:3], FileNotFoundError, 'imagenet-c: .*/c/fog/4'),
        ([*SEVERITIES, 'p/group/tilt/cat'], ValueError, '/p. holds group; expected .*gaussian'),
        ([*SEVERITIES, 'p'], ValueError, '/p. holds nothing; expected .*gaussian'),
        (SEVERITIES, FileNotFoundError, '/p'),
    ],
)
def test_other_layouts_are_refused(tmp_path, folders, error, message):
    with pytest.raises(error, match=message):
        find_parts(roots(tmp_path, ['clean/cat', *folders]), **SETTINGS)
