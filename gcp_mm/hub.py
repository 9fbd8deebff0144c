"""The networks of this project by name, for its own tools and for those of the frameworks."""

import copy
import difflib
import fnmatch
import functools
import warnings
from pathlib import Path

from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn
from torch.nn.modules.conv import _ConvNd

from ._io import near_paths
from .checkpoints import load_pretrained

# In an installed package the configs lie in it, in a checkout beside it.
_PACKAGE = Path(__file__).parent
CONFIGS = next(
    folder for folder in (_PACKAGE / 'configs', _PACKAGE.parent / 'configs') if folder.is_dir()
)


def list_models(pattern: str = '*') -> list[str]:
    """Names of this project's configs, as :func:`get_model` takes them.

    Args:
        pattern: with wildcards, such as ``'resnet50-gcp*in1k'``.
    """
    return fnmatch.filter(sorted(_config_files()), pattern)


def config_file(name: str) -> Path:
    """Path of one of this project's configs, for whatever takes a config file.

    Args:
        name: of the config, such as ``'faster-rcnn_r50-gcp-m_fpn_1x_coco'``.

    Raises:
        ValueError: if there is none of that name.
    """
    files = _config_files()
    if name not in files:
        close = difflib.get_close_matches(Path(name).name, sorted(files))
        raise ValueError(
            f'model {name!r}: there is no config of that name; '
            f'{"near it: " + ", ".join(close) if close else "gcp_mm.list_models() names them"}'
        )
    return files[name]


def resolve_config(config: str | Path | Config) -> Config:
    """Read a config from wherever there is one.

    Args:
        config: a file (``.py``), one that comes with a package (``gcp_mm::...``,
            ``mmpretrain::...``, ``mmdet::...``), the name of one of this project's, or a Config,
            which is copied.

    Raises:
        FileNotFoundError: if the file does not exist.
        TypeError: if it is none of these.
        ValueError: for an unknown name, a file that is no Python, or another package, which
            mmengine would try to install.
    """
    if isinstance(config, Config):
        return config.copy()
    if not isinstance(config, str | Path):
        raise TypeError(f'config: expected a file, a name or a Config, got {config!r}')
    package, separator, _ = str(config).partition('::')
    if separator:
        if package not in ('gcp_mm', 'mmpretrain', 'mmdet') or Path(config).suffix != '.py':
            raise ValueError(
                "config: expected a file, a name, or a config (.py) of 'gcp_mm::', 'mmpretrain::' "
                f"or 'mmdet::', got {str(config)!r}"
            )
        if package != 'gcp_mm':
            return get_config(str(config))
        config = CONFIGS / str(config).removeprefix('gcp_mm::')
    if Path(config).suffix != '.py':
        config = config_file(str(config))
    elif not Path(config).is_file():
        near = near_paths(config)
        own = sorted(_config_files().keys() - {Path(path).stem for path in near})
        near += difflib.get_close_matches(Path(config).stem, own)
        raise FileNotFoundError(
            f'config: the file {str(config)!r} does not exist'
            f'{"; near it: " if near else ""}{", ".join(near[:3])}'
        )
    try:
        return Config.fromfile(config)
    except SyntaxError as error:  # which mmengine raises without the file's name
        text = f'line {error.lineno}: {error.msg}'
        raise ValueError(f'config: {str(config)!r}, or a base of it, {text}') from error


def get_model(
    model: str | Path | Config,
    pretrained: str | Path | None = None,
    device: str = 'cpu',
    trust: bool = False,
    **kwargs,
) -> nn.Module:
    """Build a classifier or a detector, and fill it with weights that are checked to fit.

    Args:
        model: a config, in any form that :func:`resolve_config` takes.
        pretrained: checkpoint, a path or an address; a download is checked against the hash in
            its name. None: random weights.
        device: to put the network on.
        trust: read a checkpoint that holds Python objects, which executes what is in it.
        **kwargs: override settings of the config's `model`.

    Returns:
        The network in evaluation mode, as mmpretrain's `get_model` or mmdet's `init_detector`
        makes it: for :class:`mmpretrain.ImageClassificationInferencer` or
        :func:`mmdet.apis.inference_detector`. `_config` is its config.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the config or the checkpoint is unknown or cannot be read, or they do not
            belong together; the message says in which respect.
    """
    cfg = resolve_config(model)
    cfg.merge_from_dict(dict(model=copy.deepcopy(kwargs)))  # it takes `_delete_` out
    if cfg.model.get('backbone'):
        cfg.model.backbone.init_cfg = None  # the weights its training starts from are not needed
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.apis import init_detector

        with warnings.catch_warnings(record=True) as caught:  # it sets a filter of its own
            network = init_detector(cfg, device=device)
        for warning in caught:
            if 'checkpoint is None' not in str(warning.message):  # its weights are read below
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        network._config = cfg
    else:
        from mmpretrain.apis import get_model as get_classifier

        network = get_classifier(cfg, device=device)
    if pretrained is not None:
        meta = load_pretrained(network, pretrained, map_location=device, trust=trust)
        _set_classes(network, cfg, meta)
    return network


def input_channels(network: nn.Module) -> int:
    """Number of channels of the images that a network takes, from its first convolution.

    Of a network without one it is 3.
    """
    for module in network.modules():
        if type(module).__name__ == 'Focus':  # MMDetection's, which turns 2x2 pixels into channels
            return module.conv.conv.in_channels // 4
        if isinstance(module, _ConvNd):
            return module.in_channels
    return 3


@functools.cache
def register_models() -> None:
    """Make this project's classifiers known to mmpretrain's `list_models` and `get_model`."""
    from mmpretrain.apis import ModelHub

    for folder in ('imagenet', 'second_order'):
        ModelHub.register_model_index(
            CONFIGS / folder / 'metafile.yml', config_prefix=CONFIGS.parent
        )


def _set_classes(network, cfg, meta):
    """Give a network the names of its classes: the checkpoint's or, without any, the config's."""
    dataset_meta = meta.get('dataset_meta')
    if not dataset_meta and 'CLASSES' in meta:  # before MMPretrain 1 and MMDetection 3
        dataset_meta = dict(classes=meta['CLASSES'])
    if not dataset_meta:
        dataset_meta = cfg.get('test_dataloader', {}).get('dataset', {}).get('metainfo')
    if dataset_meta:
        name = 'dataset_meta' if cfg.get('default_scope') == 'mmdet' else '_dataset_meta'
        setattr(network, name, dict(dataset_meta))


def _config_files():
    """Path of each config by its name, but for those that only serve as a base."""
    return {path.stem: path for path in CONFIGS.glob('[!_]*/*.py')}
