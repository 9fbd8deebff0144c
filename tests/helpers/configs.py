"""The project's configs by kind, read once, and their networks."""

import copy
import functools
import json
import re
from pathlib import Path

import mmengine.config.utils
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch.nn.modules.module import register_module_parameter_registration_hook

from tests.helpers.runs import ROOT

CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
)
DETECTORS = [path for path in CONFIGS if 'rcnn' in path]
COCO_CONFIGS = [path for path in DETECTORS if path.endswith('_coco.py')]
IMAGENET = [path for path in CONFIGS if path.startswith('configs/imagenet/')]


def build_model(cfg):
    """Build the model, without the pretrained weights that this test has none of."""
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg', None)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(cfg.model)


_metafile = functools.cache(mmengine.config.utils.load)


@functools.cache
def _read(path):
    with pytest.MonkeyPatch.context() as patch:
        # mmengine reads all of MMPretrain's metafiles for every base that comes from there.
        patch.setattr(mmengine.config.utils, 'load', _metafile)
        return Config.fromfile(ROOT / path)


def load(path):
    return copy.deepcopy(_read(path))


def outline(path):
    """The model of a config on the meta device: parameters without storage take no time to fill."""
    keys = ('default_scope', 'model', 'data_preprocessor')
    return _outline(json.dumps({key: value for key, value in load(path).items() if key in keys}))


@functools.cache
def _outline(text):
    without_storage = register_module_parameter_registration_hook(
        lambda module, name, p: torch.nn.Parameter(p.to('meta'), p.requires_grad)
    )
    with without_storage:
        return build_model(Config(json.loads(text))).eval().to('meta')


def count_parameters(path):
    return sum(p.numel() for p in outline(path).parameters())


def pretraining(path):
    """Path of the config that makes the checkpoint a detector starts from."""
    checkpoint = Path(load(path).model.backbone.init_cfg.checkpoint)
    (source,) = [p for p in CONFIGS if Path(p).stem == checkpoint.parent.name]
    assert checkpoint.name == f'epoch_{load(source).train_cfg.max_epochs}.pth'
    return source


def name_of(path):
    """Family of networks, GPUs, images on each and schedule, out of a config's name."""
    pattern = r'([a-z]+)[^_]*_(\d+)xb(\d+)-([a-z-]+)_in1k\.py'
    family, gpus, batch, schedule = re.fullmatch(pattern, Path(path).name).groups()
    return family, int(gpus), int(batch), schedule
