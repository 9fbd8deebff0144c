"""Networks on pictures: what they find, drawn and recorded."""

from collections import defaultdict
from dataclasses import asdict
from typing import NamedTuple

import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.dataset import Compose, pseudo_collate
from torch import nn
from torch.nn.functional import interpolate

from ..models import GlobalCovariancePooling
from .covariance_view import draw_covariance, view_covariance

SHORT_SIDE = 320  # pixels of a drawing, at least: on less, text cannot be read


class Found(NamedTuple):
    """What a network found in a picture.

    Attributes:
        drawing: the picture with it drawn, (H, W, 3) uint8 RGB.
        record: of it, for JSON.
        covariance: figure of :mod:`gcp_mm.studies.covariance_view`, if it was asked for.
    """

    drawing: np.ndarray
    record: dict
    covariance: Figure | None = None


class Classifier:
    """Classifies pictures as :class:`mmpretrain.ImageClassificationInferencer` does.

    Args:
        model: a classifier, see :func:`gcp_mm.get_model`.
        covariance: whether to show what decided each class.

    Raises:
        ValueError: if the model is another network, or has no layer to show.
    """

    def __init__(self, model: nn.Module, covariance: bool = False):
        from mmpretrain.apis import ImageClassificationInferencer
        from mmpretrain.models import BaseClassifier
        from mmpretrain.visualization import UniversalVisualizer

        if not isinstance(model, BaseClassifier):
            raise ValueError(f'config: expected a classifier, got a {type(model).__name__}')
        if 'pipeline' not in model._config.test_dataloader.dataset:
            raise ValueError(
                'config: its test data set has no pipeline, so that it is not known how pictures '
                'are prepared; name the config that it inherits from'
            )
        self.inferencer = ImageClassificationInferencer(model)
        self.visualizer = UniversalVisualizer()
        self.covariance = covariance
        if covariance:
            neck, head = getattr(model, 'neck', None), getattr(model, 'head', None)
            self.fc = getattr(head, 'fc', None)
            if not isinstance(neck, GlobalCovariancePooling) or not isinstance(self.fc, nn.Linear):
                raise ValueError(
                    '--covariance: expected a classifier with the neck GlobalCovariancePooling '
                    'and a linear head, got the neck '
                    f'{type(neck).__name__} and the head {type(head).__name__}'
                )
            # What the last feature map is reduced to, (B, D, h, w), and what the head is given.
            neck.reduction.register_forward_hook(self._keep_maps)
            neck.register_forward_hook(self._keep_vectors)

    def __call__(self, images: list[np.ndarray]) -> list[Found]:
        """Classify pictures, (H, W, 3) uint8 BGR."""
        found = {}
        batches = defaultdict(list)  # some pipelines leave pictures of different sizes
        for number, image in enumerate(images):
            (data,) = self.inferencer.preprocess([image])
            batches[data['inputs'].shape].append((number, data))
        for batch in batches.values():
            inputs = torch.cat([data['inputs'] for _, data in batch])
            samples = [data['data_samples'][0] for _, data in batch]
            samples = self.inferencer.forward(dict(inputs=inputs, data_samples=samples))
            for place, ((number, _), sample) in enumerate(zip(batch, samples, strict=True)):
                drawing, record = self._draw(images[number], sample), self._record(sample)
                figure = None
                if self.covariance:
                    picture = inputs[place].permute(1, 2, 0).flip(2).numpy()
                    figure, record['covariance'] = self._explain(place, picture, record['score'])
                found[number] = Found(drawing, record, figure)
        return [found[number] for number in range(len(images))]

    def _draw(self, image, sample):
        size = max(SHORT_SIDE, min(image.shape[:2]))
        return self.visualizer.visualize_cls(
            *(image[..., ::-1], sample, self.inferencer.classes), draw_gt=False, resize=size
        )

    def _record(self, sample):
        scores, labels = sample.pred_score.topk(min(5, len(sample.pred_score)))
        ranking = [
            {'label': label, 'class': self._name(label), 'score': score}
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
        ]
        return dict(ranking[0], top5=ranking)

    def _explain(self, place, picture, score):
        view = view_covariance(self.vectors[place], self.fc.weight, self.fc.bias)
        names = self._name(view.label), self._name(view.runner_up)
        figure = draw_covariance(view, picture, self.maps[place], names, score)
        record = asdict(view)
        del record['root']
        return figure, dict(record, order=view.order.tolist())

    def _name(self, label):
        return str(label) if self.inferencer.classes is None else self.inferencer.classes[label]

    def _keep_maps(self, _module, _inputs, maps):
        self.maps = maps

    def _keep_vectors(self, _module, _inputs, vectors):
        self.vectors = vectors[-1]


class Detector:
    """Detects objects as :func:`mmdet.apis.inference_detector` does, but by batches.

    Args:
        model: a detector, see :func:`gcp_mm.get_model`.
        score_thr: objects with a lower score, or this one, are left out.
    """

    def __init__(self, model: nn.Module, score_thr: float = 0.3):
        # mmdet takes seconds to import: not for classifiers.
        from mmdet.structures import DetDataSample
        from mmdet.structures.mask import encode_mask_results, mask2bbox
        from mmdet.utils import get_test_pipeline_cfg
        from mmdet.visualization import DetLocalVisualizer

        pipeline = get_test_pipeline_cfg(model.cfg.copy())
        pipeline[0].type = 'mmdet.LoadImageFromNDArray'
        self.pipeline = Compose(pipeline)
        self.model, self.score_thr = model, score_thr
        self.sample_type = DetDataSample
        self.encode_masks, self.mask_boxes = encode_mask_results, mask2bbox
        self.visualizer = DetLocalVisualizer()
        self.visualizer.dataset_meta = model.dataset_meta

    @torch.no_grad()
    def __call__(self, images: list[np.ndarray]) -> list[Found]:
        """Find objects in pictures, (H, W, 3) uint8 BGR."""
        data = pseudo_collate([self.pipeline(dict(img=image, img_id=0)) for image in images])
        found = []
        for image, sample in zip(images, self.model.test_step(data), strict=True):
            if 'pred_instances' not in sample:
                raise ValueError(
                    'config: expected a detector of objects, but it predicts '
                    f'{", ".join(sample.keys())}'
                )
            objects = sample.pred_instances.cpu()
            objects = objects[objects.scores > self.score_thr]
            found.append(Found(self._draw(image, objects), self._record(objects)))
        return found

    def _draw(self, image, objects):
        scale = SHORT_SIDE / min(image.shape[:2])
        if scale > 1:
            image, objects = mmcv.imrescale(image, scale), objects.clone()
            objects.bboxes = objects.bboxes * scale  # clones share their tensors
            if 'masks' in objects and len(objects):
                masks = objects.masks[:, None].float()
                objects.masks = interpolate(masks, image.shape[:2], mode='bilinear')[:, 0] > 0.5
            elif 'masks' in objects:
                objects.masks = objects.masks.new_zeros(0, *image.shape[:2])
        sample = self.sample_type(pred_instances=objects)
        self.visualizer.add_datasample(
            *('', image[..., ::-1], sample), draw_gt=False, pred_score_thr=self.score_thr
        )
        return self.visualizer.get_image()

    def _record(self, objects):
        names = self.model.dataset_meta['classes']
        boxes = objects.bboxes
        if 'masks' in objects and not boxes.any():
            boxes = self.mask_boxes(objects.masks)  # of those who segment without boxes
        records = [
            {'label': label, 'class': names[label], 'score': score, 'bbox': box}
            for label, score, box in zip(
                *(objects.labels.tolist(), objects.scores.tolist(), boxes.tolist()),
                strict=True,
            )
        ]
        if 'masks' in objects:
            masks = self.encode_masks(objects.masks.numpy())
            for record, mask in zip(records, masks, strict=True):
                record['mask'] = dict(size=mask['size'], counts=mask['counts'].decode('ascii'))
        return dict(objects=records)
