"""Kinds of networks: of other channels, of several labels, in exported files."""

import cv2
import numpy as np
import pytest

from gcp_mm import get_model
from gcp_mm.export import export_classifier
from tests.helpers.predictions import expect_classes, expected_samples
from tests.helpers.runs import CLS

GAP = CLS.replace('-gcp', '')


def of_channels(channels, *loader):
    """Settings of a network of so many channels, and of what loads its pictures."""
    settings = dict(
        model=dict(backbone=dict(in_channels=channels)),
        data_preprocessor=dict(mean=[120] * channels, std=[60] * channels, to_rgb=False),
    )
    pipeline = [*loader, dict(type='PackInputs')]
    return settings | dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))


@pytest.mark.parametrize('covariance', [[], ['--covariance']])
def test_network_of_one_channel(predict, other, checkpoint, pictures, tmp_path, covariance):
    """Of gray pictures it is given what the test pipeline loads, and of colors their gray."""
    colors = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(pictures / 'colors.jpg'), colors)
    config = other(**of_channels(1, dict(type='LoadImageFromFile', color_type='grayscale')))
    files = [pictures / name for name in ('a.png', 'colors.jpg')]
    records = predict(config, *files, *covariance)
    expect_classes(records, files, config, checkpoint(config))
    for record in records:
        assert ('covariance' in record) == bool(covariance)
        drawn = cv2.imread(str(tmp_path / 'out' / record['drawing']))
        assert (drawn[60:, :, 0] == drawn[60:, :, 1]).all()  # gray


@pytest.mark.parametrize('channels', [1, 5])
def test_pictures_of_other_channels_fail(demo, other, pictures, channels):
    config = other(**of_channels(channels, dict(type='LoadImageFromFile')))
    found = demo(config, pictures / 'a.png', fails='1 of 1 files failed')
    (reason,) = found['failed'].values()
    assert f'{channels} channels, and the test pipeline gives 3' in reason


def test_pictures_of_five_channels(predict, other, checkpoint, tmp_path):
    """As a TIFF has them."""
    tifffile = pytest.importorskip('tifffile')
    path = tmp_path / 'a.tiff'
    image = np.random.default_rng(0).integers(256, size=(32, 32, 5), dtype=np.uint8)
    tifffile.imwrite(path, image, photometric='minisblack')
    loader = dict(type='LoadImageFromFile', color_type='unchanged', imdecode_backend='tifffile')
    config = other(**of_channels(5, loader))
    (record,) = predict(config, path)
    expect_classes([record], [path], config, checkpoint(config))
    drawn = cv2.imread(str(tmp_path / 'out' / record['drawing']))
    np.testing.assert_array_equal(drawn[60:], cv2.resize(image[..., :3], (320, 320))[60:])


MANY = dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=8256, _delete_=True)
ONE = dict(type='LinearClsHead', num_classes=3, in_channels=8256)


@pytest.mark.parametrize('thr', [0.2, 0.5, 1])
def test_several_labels(predict, other, checkpoint, pictures, thr):
    config = other(model=dict(head=dict(MANY, thr=thr)))
    (record,) = predict(config, pictures / 'a.png', '--covariance')
    (sample,) = expected_samples(config, checkpoint(config), [pictures / 'a.png'])
    assert [one['label'] for one in record['labels']] == sample.pred_label.tolist()
    scores = sample.pred_score[sample.pred_label].tolist()
    assert [one['score'] for one in record['labels']] == pytest.approx(scores, rel=1e-4)
    assert [one['class'] for one in record['labels']] == list(map(str, sample.pred_label.tolist()))
    assert record['top5'][0]['label'] == sample.pred_score.argmax()
    assert not record.keys() & {'label', 'class', 'score'}
    assert record['covariance']['label'] == record['top5'][0]['label']


def test_several_tasks_are_refused(demo, other, pictures):
    tasks = dict(type='MultiTaskHead', task_heads=dict(a=ONE), _delete_=True)
    with pytest.raises(TypeError, match=r'model: .*MultiTaskHead.*get_model'):
        demo(other(model=dict(head=tasks)), pictures / 'a.png')


@pytest.mark.parametrize(
    'name',
    [
        *('inside.pt', 'outside.pt'),
        pytest.param('inside.pt2', marks=pytest.mark.slow),
        pytest.param('inside.onnx', marks=pytest.mark.slow),
    ],
)
def test_exported_file_gives_what_the_network_gives(
    demo, predict, other, checkpoint, pictures, tmp_path, name
):
    """Pictures of several sizes, resized and cropped; classes that the network was trained with."""
    if name.endswith('onnx'):
        pytest.importorskip('onnxscript')
    steps = [
        dict(type='ResizeEdge', scale=36, backend='pillow'),
        dict(type='CenterCrop', crop_size=32),
    ]
    pipeline = [dict(type='LoadImageFromFile'), *steps, dict(type='PackInputs')]
    norm = dict(mean=[100, 120, 140], std=[60, 50, 40], to_rgb=False)
    config = other(test_dataloader=dict(dataset=dict(pipeline=pipeline)), data_preprocessor=norm)
    expected = predict(config, pictures)
    path, model = tmp_path / name, get_model(config, checkpoint(config))
    export_classifier(model, path, (32, 32), with_normalization='inside' in name)
    found = demo(path, pictures / 'a.png', pictures, out='exported')
    assert found['exported'] == str(path)
    for one, right in zip(found['predictions'], expected, strict=True):
        drawings = [tmp_path / out / one['drawing'] for out in ('exported', 'out')]
        np.testing.assert_array_equal(*(cv2.imread(str(drawing)) for drawing in drawings))
        for each, that in zip([one, *one['top5']], [right, *right['top5']], strict=True):
            assert each.pop('score') == pytest.approx(that.pop('score'), abs=1e-5)
        classes = [[each['class'] for each in record.pop('top5')] for record in (one, right)]
        assert classes[0] == classes[1]
        assert one == right


@pytest.fixture
def export(tmp_path):
    """Export a network of 32x32 images."""

    def write(model):
        export_classifier(model, tmp_path / 'network.pt', (32, 32))
        return tmp_path / 'network.pt'

    return write


def test_exported_file_of_several_labels(predict, other, export, checkpoint, pictures):
    config = other(model=dict(head=dict(MANY, thr=0.5)))
    (expected,) = predict(config, pictures / 'a.png')
    path = export(get_model(config, checkpoint(config)))
    (found,) = predict(path, pictures / 'a.png', out='exported')
    for key in ('labels', 'top5'):
        assert [one['label'] for one in found[key]] == [one['label'] for one in expected[key]]


def test_exported_file_takes_pictures_of_its_size(demo, export, pictures):
    files = pictures / 'a.png', pictures / 'large.png'
    found = demo(export(get_model(GAP)), *files, fails='1 of 2 files failed')
    assert 'gives 3x48x40' in found['failed'][str(pictures / 'large.png')]
    assert found['predictions'][0]['class'].isdecimal()


def test_exported_file_that_says_too_little(demo, export, pictures, tmp_path):
    model = get_model(GAP)
    del model._config
    with pytest.raises(ValueError, match=r"network\.pt.*'pipeline'.*CONFIG CHECKPOINT"):
        demo(export(model), pictures)
    assert not (tmp_path / 'out').exists()


def test_network_without_covariance(demo, other, pictures, tmp_path):
    with pytest.raises(ValueError, match='GlobalCovariancePooling of maps'):
        demo(other(model=dict(neck=dict(class_tokens=0))), pictures, '--covariance')
    with pytest.raises(ValueError, match=r'GlobalCovariancePooling .*GlobalAveragePooling'):
        demo(GAP, pictures, '--covariance')
    assert not (tmp_path / 'out').exists()
