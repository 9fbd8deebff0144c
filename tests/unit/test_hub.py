"""This project's networks by name, for its own functions and for those of the frameworks."""

import numpy as np
import pytest
import torch
import yaml
from mmengine.registry import MODELS, DefaultScope

import gcp_mm
from gcp_mm.hub import CONFIGS, input_channels, resolve_config

CLS = 'resnet18-gcp_1xb64-5e_digits'
GAP = 'resnet18_1xb64-5e_digits'
DET = 'mask-rcnn_r18-gcp-m_fpn_4e_digits'
CLASSES = tuple('abcdefghij')


def weights_of(name, path, **kwargs):
    """A checkpoint as the Runner of a config saves it, with random weights."""
    cfg = resolve_config(name)
    cfg.merge_from_dict(dict(model=kwargs))
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=CLASSES))), path)
    return state


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    for name in (CLS, GAP, DET):
        weights_of(name, folder / f'{name}.pth')
    return {name: folder / f'{name}.pth' for name in (CLS, GAP, DET)}


def test_every_published_config_has_a_name():
    names = [
        model['Name']
        for metafile in CONFIGS.glob('*/metafile.yml')
        for model in yaml.safe_load(metafile.read_text())['Models']
    ]
    assert len(names) > 50
    assert set(names) <= set(gcp_mm.list_models())
    assert len({path.stem for path in CONFIGS.glob('[!_]*/*.py')}) == len(
        list(CONFIGS.glob('[!_]*/*.py'))
    )


def test_pattern():
    names = gcp_mm.list_models('resnet50-gcp_*-lr????_in1k')
    assert names == [f'resnet50-gcp_8xb32-lr{lr}_in1k' for lr in ('adju', 'fast', 'norm')]


def test_config_of_this_package():
    name = 'gcp_mm::digits/resnet18-gcp_1xb64-5e_digits.py'
    assert resolve_config(name).model == resolve_config('resnet18-gcp_1xb64-5e_digits').model
    with pytest.raises(FileNotFoundError, match='resnet18-gcp_1xb64-5e_digits'):
        resolve_config(name.replace('18-gcp', '18-gpc'))


def test_unknown_name():
    with pytest.raises(ValueError, match=r'near it: .*resnet50-gcp_8xb32-lradju_in1k'):
        gcp_mm.get_model('resnet50-gcp_8xb32-lradj_in1k')
    with pytest.raises(ValueError, match=r'near it: resnet50-gcp_8xb32-lradju_in1k'):
        gcp_mm.get_model('configs/imagenet/resnet50-gcp_8xb32-lradju_in1k')
    with pytest.raises(ValueError, match=r'list_models\(\) names them'):
        gcp_mm.get_model('vit')
    for name in ('mmaction::a.py', 'mmpretrain::../a.yaml', 'a.yaml', 'a.json', 'mmdet::a'):
        with pytest.raises(ValueError, match=name):  # mmengine would read the file, or install
            resolve_config(name)


def test_misspelt_path(tmp_path):
    (tmp_path / 'mine_resnet18.py').write_text('a = 1\n')
    with pytest.raises(FileNotFoundError, match=r"e_resnet\.py' does .* it: .*/mine_resnet18\.py$"):
        resolve_config(tmp_path / 'mine_resnet.py')
    with pytest.raises(FileNotFoundError, match=r'near it: resnet18-gcp_1xb64-5e_digits, '):
        resolve_config(tmp_path / 'resnet18_gcp_1xb64_5e_digits.py')
    with pytest.raises(FileNotFoundError, match=r"/zzz\.py' does not exist$"):
        resolve_config(tmp_path / 'zzz.py')


@pytest.mark.parametrize('name', [CLS, DET])
def test_model_has_the_weights_of_the_file(name, files):
    model = gcp_mm.get_model(name, files[name])
    expected = torch.load(files[name])['state_dict']
    assert not model.training
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_settings_can_be_overridden_and_are_not_changed(files):
    model = gcp_mm.get_model(CLS, files[CLS], neck=dict(method='newton_schulz'))
    assert model.neck.method == 'newton_schulz'
    neck = dict(_delete_=True, type='GlobalAveragePooling')
    for _ in range(2):
        model = gcp_mm.get_model(CLS, neck=neck, head=dict(in_channels=512))
        assert type(model.neck).__name__ == neck['type']
    assert neck == dict(_delete_=True, type='GlobalAveragePooling')


@pytest.mark.parametrize(
    ('config', 'file', 'settings', 'message'),
    [
        (CLS, GAP, {}, 'with global covariance pooling, the file of one with none'),
        (GAP, CLS, {}, 'with none .*, the file of one with global covariance pooling'),
        (DET, CLS, {}, 'config is of a detector, the file of a classifier'),
        (CLS, DET, {}, 'config is of a classifier, the file of a detector'),
        (CLS, CLS, dict(head=dict(num_classes=7)), r'10 classes and the config 7: set num_classes'),
        (
            DET,
            DET,
            dict(roi_head=dict(bbox_head=dict(num_classes=3))),
            '10 classes and the config 3',
        ),
        (
            CLS,
            CLS,
            dict(neck=dict(reduction=(64,)), head=dict(in_channels=2080)),
            r'model\.neck\.reduction=\(128,\) and model\.head\.in_channels=8256',
        ),
    ],
)
def test_weights_that_do_not_fit(config, file, settings, message, files):
    with pytest.raises(ValueError, match=message):
        gcp_mm.get_model(config, files[file], **settings)


def test_foreign_names_point_to_the_converter(tmp_path):
    torch.save({'conv1.weight': torch.zeros(64, 3, 7, 7)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'convert_checkpoint\.py'):
        gcp_mm.get_model(CLS, tmp_path / 'a.pth')


def test_vectors_of_another_layout(tmp_path):
    state = weights_of(CLS, tmp_path / 'a.pth')
    torch.save(dict(state_dict=state, meta=dict(vector_layout='columns')), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r"layout 'columns'.*'row-major upper triangle'"):
        gcp_mm.get_model(CLS, tmp_path / 'a.pth')


def image():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_mmpretrain_knows_the_names(files):
    import mmpretrain

    gcp_mm.register_models()
    gcp_mm.register_models()  # once more does no harm
    assert 'resnet50-gcp_8xb32-lradju_in1k' in mmpretrain.list_models('resnet50-gcp')
    assert 'sot-tiny_8xb128_in1k' in mmpretrain.list_models('sot')
    model = mmpretrain.get_model('resnet18-gcp_8xb32-lradju_in1k')
    assert model.neck.out_channels == 32896


def test_inferencer_of_mmpretrain(files):
    import mmpretrain

    model = gcp_mm.get_model(CLS, files[CLS])
    (ours,) = mmpretrain.ImageClassificationInferencer(model)(image())
    assert ours['pred_class'] in CLASSES
    by_path = mmpretrain.ImageClassificationInferencer(
        str(gcp_mm.config_file(CLS)), str(files[CLS])
    )
    np.testing.assert_allclose(by_path(image())[0]['pred_scores'], ours['pred_scores'])


def test_inferencers_of_mmdet(files):
    from mmdet.apis import DetInferencer, inference_detector

    model = gcp_mm.get_model(DET, files[DET])
    assert model.dataset_meta['classes'] == CLASSES
    ours = inference_detector(model, image()).pred_instances
    inferencer = DetInferencer(
        str(gcp_mm.config_file(DET)), str(files[DET]), device='cpu', show_progress=False
    )
    (theirs,) = inferencer(image())['predictions']
    assert len(ours) > 0
    np.testing.assert_allclose(theirs['scores'], ours.scores, rtol=1e-5)
    np.testing.assert_allclose(theirs['bboxes'], ours.bboxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('channels', [1, 3, 5])
def test_channels_of_a_network(channels):
    assert input_channels(gcp_mm.get_model(GAP, backbone=dict(in_channels=channels))) == channels


def test_channels_of_other_networks():
    assert input_channels(torch.nn.Linear(7, 2)) == 3
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert input_channels(MODELS.build(dict(type='LeNet5', num_classes=10))) == 1
        vit = dict(type='VisionTransformer', arch='deit-tiny', in_channels=4)
        assert input_channels(MODELS.build(vit)) == 4
    pytest.importorskip('mmdet')
    with DefaultScope.overwrite_default_scope('mmdet'):  # its first convolution takes 2x2 pixels
        yolox = dict(type='CSPDarknet', deepen_factor=0.33, widen_factor=0.125)
        assert input_channels(MODELS.build(yolox)) == 3
