"""tools/test.py: augmented images, and results that are not lost."""

import json
import pickle

import pytest
import torch

from gcp_mm import get_model
from gcp_mm.checks import check_config
from gcp_mm.hub import resolve_config
from gcp_mm.runtime import set_tta
from gcp_mm.runtime.launch import META_KEYS
from tests.helpers.runs import CLS, ROOT

TOOL = 'tools/test.py'
FASTER = 'configs/digits/faster-rcnn_r18-gcp-m_fpn_4e_digits.py'
METRICS = "[dict(type='Accuracy'), dict(type='ConfusionMatrix'), {}]"
OF_CLASSES = "dict(type='SingleLabelMetric', average=None)"
NMS = "dict(type='nms', iou_threshold=0.5)"
SCORES = "dict(type='AverageClsScoreTTA')"


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'a.pth'
    torch.save(dict(state_dict=get_model(str(ROOT / CLS)).state_dict()), path)
    return path


@pytest.fixture
def evaluate(call_tool, checkpoint, short_cls, tmp_path):
    """Evaluate a config that changes a few things; returns what is in the file of results."""

    def run(*words, out='out.json', base=CLS, checkpoint=checkpoint, options=short_cls, **parts):
        config = tmp_path / f'config{len(list(tmp_path.iterdir()))}.py'
        lines = [f'{name} = {value}' for name, value in parts.items()]
        config.write_text('\n'.join([f"_base_ = '{ROOT / base}'", *lines]))
        path = tmp_path / out
        call_tool(
            *(TOOL, config, checkpoint, '--work-dir', tmp_path / 'w', '--out', path, *words),
            *('--cfg-options', *options),
        )
        content = path.read_bytes()
        return pickle.loads(content) if out.endswith('.pkl') else json.loads(content)

    return run


def test_metrics_that_are_tensors(evaluate):
    found = evaluate(test_evaluator=METRICS.format(OF_CLASSES))
    matrix = torch.tensor(found['confusion_matrix/result'])
    assert matrix.shape == (10, 10)
    assert matrix.sum() == 16
    assert len(found['single-label/precision_classwise']) == 10
    assert 0 <= found['accuracy/top1'] <= 100


def test_file_that_cannot_be_written_is_said_before_the_evaluation(evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.Runner.test', lambda _: pytest.fail('was evaluated'))
    (tmp_path / 'a.json').mkdir()
    with pytest.raises(IsADirectoryError, match=r"a folder is there.*a\.json'"):
        evaluate(out='a.json')
    (tmp_path / 'file').write_text('')
    with pytest.raises((FileExistsError, NotADirectoryError), match=f'{tmp_path}/file'):
        evaluate(out='file/a.pkl')


@pytest.mark.parametrize(
    'words',
    [
        ('second_order.py', 'a.py', 'a.pth'),
        ('landscape.py', 'a.py', 'a.pth'),
        ('test_robustness.py', 'a.py', 'a.pth'),
        ('cost_table.py',),
    ],
)
def test_other_tools_try_their_file_first(call_tool, tmp_path, words):
    """They have not read their arguments yet, which name nothing."""
    (tmp_path / 'file').write_text('')
    tool, *arguments = words
    with pytest.raises((FileExistsError, NotADirectoryError), match=f'{tmp_path}/file'):
        call_tool(f'tools/{tool}', *arguments, '--out', tmp_path / 'file/out')


@pytest.mark.parametrize('out', ['out.json', 'out.pkl'])
def test_metrics_are_printed_if_they_cannot_be_written(evaluate, monkeypatch, capsys, out):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmengine.evaluator.metric.dump', full)
    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError, match='No space left'):
        evaluate(out=out)
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith('{"accuracy'))
    assert 0 <= json.loads(line)['accuracy/top1'] <= 100


def scores(found):
    return torch.stack([sample['pred_score'] for sample in found])


def test_scores_of_augmented_images_are_averaged(evaluate):
    views = [scores(evaluate(out='a.pkl', test_dataloader=flipped(prob))) for prob in (0.0, 1.0)]
    right = sum(views) / 2
    assert not torch.equal(*views)
    torch.testing.assert_close(scores(evaluate('--tta', out='b.pkl')), right)
    # As the config says: two views alike, and then one
    pipeline = f"[dict(type='LoadImageFromFile'), {tta_step(1.0, 1.0)}]"
    found = evaluate('--tta', out='c.pkl', tta_model=SCORES, tta_pipeline=pipeline)
    torch.testing.assert_close(scores(found), views[1])


def flip(prob):
    return f"dict(type='RandomFlip', prob={prob})"


def tta_step(*probs):
    flips = ', '.join(map(flip, probs))
    return f"dict(type='TestTimeAug', transforms=[[{flips}], [dict(type='PackInputs')]])"


def flipped(prob):
    steps = f"[dict(type='LoadImageFromFile'), {flip(prob)}, dict(type='PackInputs')]"
    return f'dict(dataset=dict(pipeline={steps}))'


def test_config_of_a_model_of_augmented_images(evaluate):
    """Its network is the one that is checked, and that the checkpoint is for."""
    steps = f"[dict(type='LoadImageFromFile'), {tta_step(0.0, 1.0)}]"
    loader = f'dict(dataset=dict(pipeline={steps}))'
    model = "dict(_delete_=True, type='AverageClsScoreTTA', module={{_base_.model}})"
    found = evaluate(model=model, test_dataloader=loader)
    assert found == evaluate('--tta')


def test_training_of_a_model_of_augmented_images_is_refused():
    cfg = resolve_config(CLS)
    cfg.model = dict(type='AverageClsScoreTTA', module=cfg.model)
    (found,) = check_config(cfg)
    assert found.status == 'error'
    assert "model.type='AverageClsScoreTTA' is for tests" in found.text


@pytest.mark.parametrize('given', [False, True])
def test_boxes_of_augmented_images(evaluate, scenes, tmp_path, given):
    """As many as the model of the config, or the default one, leaves of both views."""
    torch.manual_seed(0)
    weights = tmp_path / 'det.pth'
    torch.save(dict(state_dict=get_model(str(ROOT / FASTER)).state_dict()), weights)
    parts = {}
    if given:
        pack = f"[dict(type='PackDetInputs', meta_keys={META_KEYS})]"
        views = f"dict(type='TestTimeAug', transforms=[[{flip(0.0)}, {flip(1.0)}], {pack}])"
        parts = dict(
            tta_model=f"dict(type='DetTTAModel', tta_cfg=dict(nms={NMS}, max_per_img=7))",
            tta_pipeline="[dict(type='LoadImageFromFile'), dict(type='Resize', scale_factor=1.0), "
            f'{views}]',
        )
    found = evaluate(
        *('--tta',),
        out='a.pkl',
        base=FASTER,
        checkpoint=weights,
        options=[
            f'test_dataloader.dataset.data_root={scenes}',
            f'test_evaluator.ann_file={scenes}/annotations/instances_val.json',
            *('test_evaluator.metric=bbox', 'test_dataloader.num_workers=0'),
            'test_dataloader.persistent_workers=False',
            *('model.test_cfg.rcnn.score_thr=0.0', 'default_scope=mmdet'),
        ],
        **parts,
    )
    assert [len(sample['pred_instances']['scores']) for sample in found] == [
        7 if given else 100
    ] * 2


def test_masks_are_refused():
    with pytest.raises(ValueError, match=r'--tta: .*merges boxes.*mask_head'):
        set_tta(resolve_config(FASTER.replace('faster', 'mask')))
