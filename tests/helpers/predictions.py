"""What a classifier says of images, through its test pipeline and MMPretrain alone."""

import pytest
import torch
from mmengine.dataset import Compose, default_collate
from mmengine.registry import TRANSFORMS, DefaultScope

from gcp_mm import get_model


def expected_samples(config, weights, files):
    """What the network says of images that its test pipeline loads."""
    model = get_model(config, weights)
    steps = model._config.test_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.no_grad():
        pipeline = Compose([TRANSFORMS.build(step) for step in steps])
        batches = [default_collate([pipeline(dict(img_path=str(file)))]) for file in files]
        return [model.test_step(batch)[0] for batch in batches]


def expect_classes(records, files, config, weights):
    """Compare records with what the network says of files."""
    classes = get_model(config, weights)._dataset_meta['classes']
    for record, sample in zip(records, expected_samples(config, weights, files), strict=True):
        best = sample.pred_score.argsort(descending=True)[:5].tolist()
        assert [one['label'] for one in record['top5']] == best
        for one in (record, record['top5'][0]):
            assert (one['label'], one['class']) == (sample.pred_label.item(), classes[best[0]])
            assert one['score'] == pytest.approx(sample.pred_score.max().item(), rel=1e-4)
