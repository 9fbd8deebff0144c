"""Batches, the metrics and a training step of a config, tried before a run."""

import copy
import inspect
import io
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial

import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..data import sizes_of
from ..ops import GlobalCovariancePool2d
from .context import Context, Finding, is_first_process, name_of, walk
from .data import find_datasets, is_remote
from .keys import class_of

IMAGES = 2  # batch normalization of a 1x1 map wants more than one
# What a Runner keeps of its progress, and some modules read: YOLOX of its batches' size
STARTED = dict(iter=0, max_iters=1, epoch=0, max_epochs=1)
BLANKS = ((24, 40), (600, 400))  # sizes of images, smaller and larger than crops are
NAME = 'trial of gcp_mm.checks'  # of what mmengine keeps for the whole process
# Keys of metrics that write files
WRITING = re.compile(r'out|_dir$|^format_only$')


@contextmanager
def own_message_hub() -> Iterator[None]:
    """Context in which the current message hub is one of a run that has just begun."""
    hubs, before = MessageHub._instance_dict, MessageHub._instance_dict.copy()
    for key, value in STARTED.items():
        MessageHub.get_instance(NAME).update_info(key, value)
    try:
        yield
    finally:
        hubs.clear()
        hubs.update(before)


def small_loader(dataloader: dict, **settings) -> DataLoader:
    """Build a dataloader of a config, but of few images at a time, loaded in this process.

    Args:
        dataloader: the config.
        **settings: that it has besides; with the config's own `batch_size`, whole batches.
    """
    config = copy.deepcopy(dataloader)
    config.update(batch_size=IMAGES, num_workers=0, persistent_workers=False, pin_memory=False)
    config.pop('prefetch_factor', None)
    config.update(settings)
    return Runner.build_dataloader(config, seed=0)


def check_collation(context: Context) -> list[Finding]:
    """Make a whole batch of the training and of the validation, where images of a size are needed.

    A training would find it in its first step, but in validation only after an epoch. At level
    'fast' that is done where the transforms do not give one size whatever the files are: others
    need no image to be decoded.
    """
    found, tried = [], []
    for name in ('train_dataloader', 'val_dataloader'):
        loader = context.cfg.get(name) or {}
        batch = loader.get('batch_size')
        if not batch or name_of(loader.get('collate_fn') or {}) != 'default_collate':
            continue  # such as a detector's, which takes images of any sizes
        if any(map(context.has_failed, ('data', 'annotations'))):
            continue
        if context.level == 'fast' and _needs_no_trial(context, loader):
            continue
        tried.append(name)
        try:
            next(iter(small_loader(loader, batch_size=batch, drop_last=False)))
        except Exception as error:
            several = 'equal size' in str(error)
            if not several and context.level == 'fast':  # the run itself stops, or skips an image
                continue
            text = f'{name}: {batch} images make no batch: {type(error).__name__}: {error}'
            if several:
                text += (
                    f'. They have several sizes: add a step to {name}.dataset.pipeline that gives '
                    "one, such as dict(type='Resize', scale=(224, 224))"
                )
            found.append(Finding('collation', 'error', text))
    if found or not tried:
        text = 'batches need no trial, or cannot be made without the data'
        return found or [Finding('collation', 'skipped', text)]
    return [Finding('collation', 'ok', f'a batch can be made of {", ".join(tried)}')]


def _needs_no_trial(context, loader):
    """Whether the transforms of a dataloader give one size, or its data are not to be read here."""
    datasets = [*find_datasets(loader)]
    if not is_first_process(context.cfg) or any(map(is_remote, datasets)):
        return True
    try:
        sizes = [sizes_of(each.get('pipeline', ()), shapes=BLANKS) for each in datasets]
    except Exception:  # of images of other channels, or labels that are not there
        return False
    return len(set().union(*sizes)) == 1


def _no_trial(context, name):
    """Why no batch of a dataloader can go through the network, '' if one can."""
    if context.model is None:
        return 'there is no network to try'
    if context.has_failed('head'):
        return 'the head does not take what the neck gives'
    if any(map(context.has_failed, ('data', 'annotations'))):
        return 'there are no data to try it on'
    return 'the images make no batch' if context.has_failed('collation', name) else ''


def check_metrics(context: Context) -> list[Finding]:
    """Predict a batch as the validation does, and evaluate it by the metrics of a config."""
    cfg, model = context.cfg, context.model
    evaluator = copy.deepcopy(cfg.get('val_evaluator'))
    if not evaluator or not cfg.get('val_dataloader'):
        return [Finding('metrics', 'skipped', 'there is no validation')]
    if reason := _no_trial(context, 'val_dataloader'):
        return [Finding('metrics', 'skipped', reason)]
    if 'dataset_prefixes' in evaluator or hasattr(model, 'prototype_inited'):
        return [Finding('metrics', 'skipped', 'they need whole datasets')]
    settings = [setting for _, node in walk(evaluator) for setting in node.items()]
    if any(WRITING.search(key) and value for key, value in settings):
        return [Finding('metrics', 'skipped', 'they write files')]
    tried = 'val_dataloader'
    try:
        loader = small_loader(cfg.val_dataloader)
        data = next(iter(loader))
        tried = 'model.val_step'
        with own_message_hub(), torch.no_grad():
            outputs = model.eval().val_step(copy.deepcopy(data))
        tried = 'val_evaluator'
        evaluator = Runner.build_evaluator(None, evaluator)
        evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', {})
        evaluator.process(data_samples=outputs, data_batch=data)
        with redirect_stdout(io.StringIO()):  # pycocotools prints a table, here of no meaning
            values = evaluator.evaluate(len(outputs))
    except Exception as error:
        return [Finding('metrics', 'error', f'{tried}: {type(error).__name__}: {error}')]
    return [Finding('metrics', 'ok', f'of {len(outputs)} images: {", ".join(values)}')]


def check_step(context: Context) -> list[Finding]:
    """Take a step of the optimizer as training does: its loss, and the parts that it trains."""
    cfg, model = context.cfg, context.model
    if reason := _no_trial(context, 'train_dataloader'):
        return [Finding('step', 'skipped', reason)]
    if context.has_failed('metrics', 'model.val_step'):
        return [Finding('step', 'skipped', 'the network takes no batch')]
    config = copy.deepcopy(cfg.optim_wrapper)
    if name_of(config) in ('AmpOptimWrapper', 'ApexOptimWrapper'):  # they need an accelerator
        own = inspect.signature(class_of(config['type'], OPTIM_WRAPPERS)).parameters
        own = own.keys() - inspect.signature(OptimWrapper).parameters.keys() | {'type'}
        config = {key: value for key, value in config.items() if key not in own}
    trained = {name: p for name, p in model.train().named_parameters() if p.requires_grad}
    parts, reached = dict.fromkeys(name.split('.')[0] for name in trained), set()
    if not parts:
        text = 'model: no parameter is trained, and there is no gradient: leave some of it unfrozen'
        return [Finding('step', 'error', text)]
    maps, losses, tried = {}, {}, 'train_dataloader'
    try:
        batch = next(iter(small_loader(cfg.train_dataloader)))
        tried = f'optim_wrapper={dict(cfg.optim_wrapper)}'
        wrapper = build_optim_wrapper(model, config)
        tried = f'model.train_step of {IMAGES} images'
        with own_message_hub(), ExitStack() as hooks:
            for name, module in model.named_modules():
                if isinstance(module, GlobalCovariancePool2d):
                    note = partial(_note_maps, maps, name)
                    hooks.callback(module.register_forward_pre_hook(note).remove)
            for name, parameter in trained.items():
                note = partial(_note, reached, name.split('.')[0])
                hooks.callback(parameter.register_hook(note).remove)
            for _ in range(2):  # a layer that starts at zero lets nothing through at first
                wrapper.initialize_count_status(model, 0, 1)  # to step, whatever it accumulates
                values = model.train_step(copy.deepcopy(batch), wrapper)
                losses = losses or {key: torch.as_tensor(x).item() for key, x in values.items()}
                if reached == parts.keys():
                    break
    except Exception as error:
        return [Finding('step', 'error', f'{tried}: {type(error).__name__}: {error}')]
    single = [f'{name} pools a map of 1x1' for name, sizes in maps.items() if (1, 1) in sizes]
    if single:
        size = 'x'.join(map(str, batch['inputs'][0].shape[-2:]))
        text = (
            f'model.{", model.".join(single)}, of images of {size} pixels: the covariance '
            'of one position is zero, and the backbone would learn nothing: use larger images, or '
            "a smaller stride, such as conv5='none' of GCPResNet"
        )
        return [Finding('step', 'error', text)]
    text = ', '.join(f'{name} {value:.4g}' for name, value in losses.items())
    if not all(math.isfinite(value) for name, value in losses.items() if 'loss' in name):
        text = f'the loss of {IMAGES} images of train_dataloader is not finite: {text}'
        return [Finding('step', 'error', text)]
    return [
        Finding(
            'step',
            'warning',
            f'model.{part}: no gradient reaches it, and it would learn nothing: look for what cuts '
            'it off from the loss, or freeze it',
        )
        for part in parts
        if part not in reached
    ] or [Finding('step', 'ok', f'{text}; {type(wrapper).__name__} trains {", ".join(parts)}')]


def _note_maps(maps, name, module, inputs):
    features = inputs[0] if isinstance(inputs[0], tuple | list) else inputs[:1]
    maps.setdefault(name, set()).update(tuple(x.shape[-2:]) for x in features)


def _note(reached, part, gradient):
    if part not in reached and gradient.any():
        reached.add(part)
