"""The configs of this project, each read once, and their networks without storage."""

import copy
import functools
import json
import re
from pathlib import Path

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
COCO = [path for path in DETECTORS if path.endswith('_coco.py')]
IMAGENET = [path for path in CONFIGS if path.startswith('configs/imagenet/')]


@functools.cache
def _read(path):
    return Config.fromfile(ROOT / path)


def load(path):
    """A config, to be changed as one likes.

    Args:
        path: relative to the project's root.
    """
    return copy.deepcopy(_read(path))


def build_model(cfg):
    """Build the model without pretrained weights."""
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg', None)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(cfg.model)


def outline(path):
    """The model of a config on the meta device: parameters without storage take no time to fill."""
    return _outline(network_of(load(path)))


def network_of(cfg):
    """A text that two configs share where :func:`build_model` makes the same of them."""
    cfg.model.backbone.pop('init_cfg', None)
    keys = ('default_scope', 'model', 'data_preprocessor')
    return json.dumps({key: value for key, value in cfg.items() if key in keys})


@functools.cache
def _outline(text):
    without_storage = register_module_parameter_registration_hook(
        lambda module, name, p: torch.nn.Parameter(p.to('meta'), p.requires_grad)
    )
    with without_storage:
        return build_model(Config(json.loads(text))).eval().to('meta')


def count_parameters(path):
    return sum(p.numel() for p in outline(path).parameters())


def name_of(path):
    """Family of networks, GPUs, images on each and schedule, out of an ImageNet config's name."""
    pattern = r'([a-z]+)[^_]*_(\d+)xb(\d+)-([a-z-]+)_in1k\.py'
    family, gpus, batch, schedule = re.fullmatch(pattern, Path(path).name).groups()
    return family, int(gpus), int(batch), schedule


def pretraining(path):
    """Path of the config that makes the checkpoint a detector starts from."""
    checkpoint = Path(load(path).model.backbone.init_cfg.checkpoint)
    (source,) = [p for p in CONFIGS if Path(p).stem == checkpoint.parent.name]
    assert checkpoint.name == f'epoch_{load(source).train_cfg.max_epochs}.pth'
    return source
