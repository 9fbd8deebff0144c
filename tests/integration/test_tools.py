"""The scripts as a user runs them: real Runner, real registry, real launcher, real files."""

import json
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from gcp_mm.checkpoints import read_checkpoint
from gcp_mm.compat import operators_in_use
from tests.helpers.pickles import Creates
from tests.helpers.runs import CLS, ROOT

MASK = 'configs/digits/mask-rcnn_r18-gcp-m_fpn_4e_digits.py'


@pytest.fixture(scope='module')
def trained(run_tool, short_cls, tmp_path_factory):
    """Work dir of a GCP classifier trained for an epoch of two steps."""
    work_dir = tmp_path_factory.mktemp('cls')
    done = run_tool(
        *('tools/train.py', CLS, '--work-dir', work_dir, '--auto-scale-lr'),
        *('--cfg-options', *short_cls),
    )
    assert done.returncode == 0, done.stdout
    assert f'operators of mmcv: {operators_in_use()}\n' in done.stdout
    assert 'epoch of 2 steps, batch 8; SGD, learning rate 0.0125\n' in done.stdout
    return work_dir


def log_of(work_dir):
    """What the only run of a work dir has logged."""
    (path,) = work_dir.glob('*/*.log')
    return path.read_text()


def test_log_file_has_what_the_screen_has_not(trained):
    log = log_of(trained)
    for words in ('System environment:', 'Config:\n', 'LR is set based on batch size of 64'):
        assert words in log
    assert 'Hooks will be executed in the following order' in log
    assert 'head.fc.weight - torch.Size([10, 8256])' in log  # how each weight is initialized
    assert 'learning rate 0.0125\n' in log


@pytest.fixture(scope='module')
def detection_options(scenes, trained):
    return [
        *(f'{s}_dataloader.dataset.data_root={scenes}' for s in ('train', 'val', 'test')),
        *(f'{s}_dataloader.num_workers=0' for s in ('train', 'val', 'test')),
        *(
            f'{s}_evaluator.ann_file={scenes}/annotations/instances_val.json'
            for s in ('val', 'test')
        ),
        f'model.backbone.init_cfg.checkpoint={trained}/epoch_1.pth',
        *('train_cfg.max_epochs=1', 'train_cfg.val_interval=1'),
        'default_hooks.checkpoint.save_optimizer=False',
    ]


def test_test_reports_metrics_predictions_and_pictures(run_tool, trained, short_cls, tmp_path):
    command = ('tools/test.py', CLS, trained / 'epoch_1.pth', '--work-dir', tmp_path)
    metrics, predictions = tmp_path / 'metrics.json', tmp_path / 'predictions.pkl'
    for out in (metrics, predictions):
        done = run_tool(
            *(*command, '--out', out, '--show-dir', tmp_path / 'pictures'),
            *('--cfg-options', *short_cls),
        )
        assert done.returncode == 0, done.stdout
    assert 0 <= json.loads(metrics.read_text())['accuracy/top1'] <= 100
    assert len(pickle.loads(predictions.read_bytes())) == 16
    assert len(list((tmp_path / 'pictures').glob('*.png'))) == 16


def test_train_resumes_from_a_path(run_tool, trained, short_cls, tmp_path):
    done = run_tool(
        *('tools/train.py', CLS, '--work-dir', tmp_path, '--resume', trained / 'epoch_1.pth'),
        *('--cfg-options', *short_cls, 'train_cfg.max_epochs=2', 'param_scheduler.end=2'),
    )
    assert done.returncode == 0, done.stdout
    assert f'from {trained}/epoch_1.pth, after 1 epoch, 2 steps\n' in done.stdout
    assert 'Saving checkpoint at 2 epochs' in done.stdout
    assert 'Saving checkpoint at 1 epochs' not in done.stdout


@pytest.mark.parametrize('command', [('tools/test.py', CLS), ('tools/train.py', CLS, '--resume')])
def test_code_in_a_checkpoint_is_not_executed(run_tool, trained, short_cls, tmp_path, command):
    path, sign = tmp_path / 'a.pth', tmp_path / 'sign'
    torch.save(read_checkpoint(trained / 'epoch_1.pth') | dict(extra=Creates(sign)), path)
    done = run_tool(*command, path, '--work-dir', tmp_path / 'w', '--cfg-options', *short_cls)
    assert done.returncode != 0
    assert 'say so with trust=True (--trust)' in done.stdout
    assert 'Epoch(' not in done.stdout
    assert not sign.exists()


@pytest.mark.parametrize('tool', ['tools/train.py', 'tools/check_data.py'])
def test_what_is_in_annotations_is_not_executed(run_tool, digits, tmp_path, tool):
    """In a pickle, which the dataset reads by mmengine."""
    sign, annotations, config = tmp_path / 'sign', tmp_path / 'a.pkl', tmp_path / 'config.py'
    annotations.write_bytes(pickle.dumps(dict(a=Creates(sign))))
    dataset = f"dict(_delete_=True, type='BaseDataset', data_root='', ann_file='{annotations}')"
    config.write_text(
        f"_base_ = '{ROOT / CLS}'\n"
        f"work_dir = '{tmp_path}/w'\n"
        f'train_dataloader = dict(dataset={dataset})\n'
        f"val_dataloader = dict(dataset=dict(data_root='{digits}'))\n"
    )
    done = run_tool(tool, config)
    assert done.returncode != 0
    assert 'is a pickle, which can execute code' in done.stdout
    assert not sign.exists()


WIDTH = 'model.head.in_channels=512'
NOWHERE = 'train_dataloader.dataset.data_root=nowhere'


@pytest.mark.parametrize(
    ('tool', 'arguments', 'words'),
    [
        ('train', ['--cfg-options', WIDTH], r'set model\.head\.in_channels=8256'),
        ('test', ['--cfg-options', WIDTH], r'set model\.head\.in_channels=8256'),
        ('train', ['--cfg-options', NOWHERE], r"train_dataloader\.dataset: .*'nowhere/train'"),
        pytest.param(
            *('train', ['--amp'], '--amp needs an accelerator'),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason='of machines without a GPU'),
        ),
    ],
)
def test_refused_before_anything_is_written(call_tool, trained, tmp_path, tool, arguments, words):
    checkpoint = [trained / 'epoch_1.pth'] if tool == 'test' else []
    command = (f'tools/{tool}.py', CLS, *checkpoint, '--work-dir', tmp_path / 'w')
    with pytest.raises(ValueError, match=words):
        call_tool(*command, *arguments)
    assert not (tmp_path / 'w').exists()


@pytest.mark.slow
def test_dist_test_gives_the_metrics_of_one_process(run_tool, trained, short_cls, tmp_path):
    common = ('--work-dir', tmp_path, '--cfg-options', *short_cls)
    checkpoint, out = trained / 'epoch_1.pth', (tmp_path / 'one.json', tmp_path / 'two.json')
    one = run_tool('tools/test.py', CLS, checkpoint, '--out', out[0], *common)
    two = run_tool('tools/dist_test.sh', CLS, checkpoint, 2, '--out', out[1], *common)
    assert one.returncode == two.returncode == 0, one.stdout + two.stdout
    assert json.loads(out[0].read_text()) == json.loads(out[1].read_text())


def test_mask_rcnn_fine_tunes_from_the_classifier(run_tool, trained, detection_options, tmp_path):
    options = ('--work-dir', tmp_path, '--cfg-options', *detection_options)
    done = run_tool('tools/train.py', MASK, *options, OMP_NUM_THREADS='1')  # all is imported anew
    assert done.returncode == 0, done.stdout
    before, first, after = done.stdout.partition('Epoch(train)')
    assert first
    assert before.count('\n') <= 15, before
    assert f'weights   backbone from {trained}/epoch_1.pth, the rest random\n' in before
    assert 'GCPResNet: loaded all 120 tensors' in log_of(tmp_path)
    assert 'segm_mAP' in after
    assert 'creating index' not in after
    done = run_tool(
        *('tools/test.py', MASK, tmp_path / 'epoch_1.pth', '--out', tmp_path / 'metrics.json'),
        *('--show-dir', tmp_path / 'pictures', *options),
    )
    assert done.returncode == 0, done.stdout
    assert {'coco/bbox_mAP_50', 'coco/segm_mAP_50'} <= json.loads(
        (tmp_path / 'metrics.json').read_text()
    ).keys()
    assert len(list((tmp_path / 'pictures').glob('*.png'))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ('framework', 'config'), [('mmpretrain', CLS), ('mmdet', MASK.replace('mask', 'faster'))]
)
def test_stock_scripts(run_tool, short_cls, detection_options, tmp_path, framework, config):
    """Train, then resume or evaluate, by the frameworks' own scripts."""
    scripts = Path(find_spec(framework).origin).parent / '.mim/tools'
    settings = short_cls if framework == 'mmpretrain' else detection_options
    workers = (f'{s}_dataloader.persistent_workers=False' for s in ('train', 'val', 'test'))
    settings = ('--work-dir', tmp_path, '--cfg-options', *settings, *workers)

    def run(*command):
        done = run_tool(*command, *settings)
        assert done.returncode == 0, done.stdout
        return done.stdout

    run(sys.executable, scripts / 'train.py', config)
    # As their processes read it, without the readers that the tools here install
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_1.pth'))
    assert isinstance(content['message_hub']['log_scalars']['train/loss'], HistoryBuffer)
    if framework == 'mmpretrain':
        assert 'resumed epoch: 1' in run(scripts / 'train.py', config, '--resume')
    else:
        # It imports mmcv's operators before it reads the config: `python -m gcp_mm`, which is
        # tested in test_package.py, imports gcp_mm first, as the process of `fork` has done.
        assert 'bbox_mAP' in run(scripts / 'test.py', config, tmp_path / 'epoch_1.pth')


def test_checkpoint_of_another_network_is_not_evaluated(call_tool, short_cls, tmp_path):
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.zeros(64, 3, 7, 7)}), tmp_path / 'x')
    with pytest.raises(ValueError, match=r'missing keys: backbone\.bn1\.weight'):
        call_tool(
            *('tools/test.py', CLS, tmp_path / 'x', '--work-dir', tmp_path / 'w'),
            *('--cfg-options', *short_cls),
        )
