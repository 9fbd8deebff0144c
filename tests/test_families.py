"""A mixture of OpenMMLab's packages and their fork is named."""

import pytest

from gcp_mm.families import FAMILIES, check_families


@pytest.mark.parametrize('family', FAMILIES)
def test_one_family_passes(family):
    check_families(list(FAMILIES[family]))


def test_this_environment_passes():
    check_families()


def test_mixture_is_named():
    with pytest.raises(ImportError, match=r'mmcv \(openmmlab\) and onedl-mmcv, onedl-mmengine'):
        check_families(['mmcv', 'onedl-mmcv', 'onedl-mmengine'])


def test_nothing_installed():
    with pytest.raises(ImportError, match='make install'):
        check_families([])
