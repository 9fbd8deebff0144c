"""Configs outside the checkout inherit this package's by name."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config

import gcp_mm
from gcp_mm.hub import resolve_config
from tests.helpers.runs import ROOT

BASE = 'gcp_mm::imagenet/resnet50-gcp_8xb32-lrnorm_in1k.py'


def test_a_config_inherits_by_name(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(f"_base_ = '{BASE}'\nmodel = dict(head=dict(num_classes=3))\n")
    cfg = Config.fromfile(path)
    expected = Config.fromfile(gcp_mm.config_file('resnet50-gcp_8xb32-lrnorm_in1k'))
    expected.model.head.num_classes = 3
    assert cfg.to_dict() == expected.to_dict()
    # Modules of gcp_mm are in the root registries: a scope of that name would find none.
    assert "'_scope_': 'gcp_mm'" not in str(cfg.to_dict())


def test_mmengine_does_not_know_the_package():
    with pytest.raises(AssertionError, match='gcp_mm'):
        Config._get_cfg_path.__wrapped__(BASE, 'own.py')


def bases():
    """Names of other packages' configs that those of this one inherit."""
    text = '\n'.join(path.read_text() for path in (ROOT / 'configs').rglob('*.py'))
    return sorted(set(re.findall(r"'((?:mmpretrain|mmdet)::[^']+)'", text)))


@pytest.mark.parametrize('base', bases())
def test_other_packages_are_found_where_mmengine_finds_them(base):
    found, scope = Config._get_cfg_path(base, 'own.py')
    expected, expected_scope = Config._get_cfg_path.__wrapped__(base, 'own.py')
    assert scope == expected_scope
    assert Path(found).samefile(expected)


@pytest.mark.parametrize(
    'base', ['mmdet::faster_rcnn/nothing.py', 'package_of_nowhere::a/b.py', 'mmdet::nothing']
)
def test_bases_that_are_not_there_are_mmengines_to_refuse(base):
    with pytest.raises((AssertionError, FileNotFoundError, ValueError)) as expected:
        Config._get_cfg_path.__wrapped__(base, 'own.py')
    with pytest.raises(type(expected.value), match=re.escape(str(expected.value))):
        Config._get_cfg_path(base, 'own.py')


def test_an_absent_base_is_named(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text("_base_ = 'gcp_mm::imagenet/nothing.py'\n")
    with pytest.raises(FileNotFoundError, match=r'own\.py.*gcp_mm::imagenet/nothing\.py'):
        resolve_config(path)
