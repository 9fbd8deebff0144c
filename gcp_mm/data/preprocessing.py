"""What happens to an image before a classifier's network, in plain values that a file can carry.

A reader without this package can follow them, see docs/guides/export.md.
"""

import inspect
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from .load_image import LoadCheckedImage

# Steps of a test pipeline that are described. What a file says is built from no others: a `type`
# may be the name of any function.
STEPS = ('Resize', 'ResizeEdge', 'CenterCrop', 'EfficientNetCenterCrop', 'Pad')
LOADING = dict(to_float32=False, color_type='color', imdecode_backend='cv2')


def image_size(cfg: Config, channels: int = 3) -> tuple[int, int]:
    """Height and width of a classifier's test images.

    It runs the config's test pipeline on two blank images of different sizes.

    Args:
        cfg: config of a classifier of MMPretrain.
        channels: number of channels of the images.

    Raises:
        ValueError: if the pipeline returns images of different sizes, or the config has none.
    """
    sizes = sizes_of(_pipeline_of(cfg), channels)
    if len(sizes) > 1:
        raise ValueError(
            f"size: the config's test pipeline gives images of different sizes, {sorted(sizes)}; "
            'give the size (--size)'
        )
    return sizes.pop()


def sizes_of(
    pipeline: Sequence[Mapping],
    channels: int = 3,
    shapes: Sequence[tuple[int, int]] = ((1200, 1600), (1800, 1000)),
) -> set[tuple[int, int]]:
    """Heights and widths of blank images after the pipeline of a classifier.

    Args:
        pipeline: configs of its transforms; loading is left out.
        channels: number of channels of the images.
        shapes: heights and widths of the images, in pixels.
    """
    from mmpretrain.registry import TRANSFORMS

    transforms = map(TRANSFORMS.build, pipeline)
    transforms = Compose([t for t in transforms if not type(t).__name__.startswith('Load')])
    sizes = set()
    for shape in shapes:
        image = np.zeros(shape if channels == 1 else (*shape, channels), np.uint8)  # as loaded
        result = transforms(dict(img=image, img_shape=shape, ori_shape=shape))
        sizes.add(tuple(result['inputs'].shape[-2:]) if 'inputs' in result else shape)
    return sizes


def describe_preprocessing(
    model: nn.Module, channels: int, size: tuple[int, int], inside: bool
) -> dict:
    """Describe the preprocessing of an exported classifier's images, as values for JSON.

    Args:
        model: classifier of MMPretrain from :func:`gcp_mm.get_model`, with its `_config`.
        channels: number of channels of the images.
        size: height and width of the images, in pixels.
        inside: whether the exported file normalizes the images, and takes three channels as RGB.

    Returns:
        The keys of docs/guides/export.md, without the unknown ones: those of a preprocessor or a
        transform of another kind.
    """
    from mmpretrain.models import ClsDataPreprocessor

    found, preprocessor = dict(channels=channels, size=list(size)), model.data_preprocessor
    if type(preprocessor) is not ClsDataPreprocessor:
        return found
    if channels == 3:
        found['channel_order'] = 'RGB' if inside or preprocessor.to_rgb else 'BGR'
    found['normalization'] = None
    if getattr(preprocessor, 'mean', None) is not None:
        both = [each.flatten() for each in (preprocessor.mean, preprocessor.std)]
        if found.get('channel_order') == 'RGB' and not preprocessor.to_rgb:
            both = [each.flip(0) for each in both]
        mean, std = (each.tolist() for each in both)
        found['normalization'] = dict(mean=mean, std=std, inside=inside)
    steps = _describe_steps(_pipeline_of(getattr(model, '_config', {})))
    if steps and not any(side % preprocessor.pad_size_divisor for side in size):
        found['pipeline'] = steps
    return found


def _describe_steps(pipeline: Sequence[Mapping]) -> list[dict]:
    """The steps from a file to the image, all arguments named; none if one cannot be described."""
    from mmpretrain.registry import TRANSFORMS

    steps = []
    for step in pipeline:
        name = str(step.get('type')).split('.')[-1]
        if name == 'PackInputs':
            break
        if name in ('LoadImageFromFile', 'LoadCheckedImage'):
            options = {key: step.get(key, value) for key, value in LOADING.items()}
            steps.append(dict(type='LoadImageFromFile', **options))
        elif name in STEPS:
            parameters = inspect.signature(TRANSFORMS.get(name)).parameters.values()
            given = [each for each in parameters if each.default is not each.empty]
            steps.append({each.name: each.default for each in given} | {**step, 'type': name})
        else:
            return []
    return steps if steps and steps[0]['type'] == 'LoadImageFromFile' else []


def _with_tuples(value):
    """Sizes and colors, of which JSON makes lists, as the transforms take them."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


class Preprocessing:
    """Turn images, as `loader` loads them, into the input of an exported classifier.

    Args:
        described: result of :func:`describe_preprocessing`, read from JSON.

    Raises:
        ValueError: if a key is missing, or a transform is of another kind.
    """

    def __init__(self, described: Mapping):
        from mmpretrain.registry import TRANSFORMS

        for key in ('channels', 'size', 'normalization', 'pipeline'):
            if key not in described:
                raise ValueError(f'it does not say {key!r}; export the network again')
        self.channels, self.size = described['channels'], tuple(described['size'])
        self.order = described.get('channel_order')
        self.normalization = described['normalization']
        loading, *steps = described['pipeline']
        self.loader = LoadCheckedImage(**{key: loading[key] for key in LOADING})
        for step in steps:
            if step['type'] not in STEPS or step.get('pad_cfg', {}).get('type', 'Pad') != 'Pad':
                raise ValueError(f'pipeline: expected steps of {", ".join(STEPS)}, got {step}')
        steps = map(_with_tuples, (*steps, dict(type='PackInputs')))
        self.transforms = Compose([TRANSFORMS.build(step) for step in steps])

    def __call__(self, image: np.ndarray) -> Tensor:
        """(H, W) or (H, W, C), BGR if C is 3, to (1, C, *size) float32.

        Raises:
            ValueError: for an image of other channels, or whose size the steps do not make `size`.
        """
        shape = image.shape[:2]
        results = dict(img=self.loader.convert(image), img_shape=shape, ori_shape=shape)
        inputs = self.transforms(results)['inputs']
        if tuple(inputs.shape) != (self.channels, *self.size):
            expected, got = (
                'x'.join(map(str, each)) for each in ((self.channels, *self.size), inputs.shape)
            )
            raise ValueError(
                f'the file takes images of {expected} (channels, height, width), and its test '
                f'pipeline gives {got}: resize the image, or export with another --size'
            )
        images = inputs[None].float()
        if self.order == 'RGB':
            images = images.flip(1)
        if self.normalization and not self.normalization['inside']:
            mean, std = (torch.tensor(self.normalization[key]) for key in ('mean', 'std'))
            images = (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        return images


def _pipeline_of(cfg):
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    return loader.get('dataset', {}).get('pipeline', [])
