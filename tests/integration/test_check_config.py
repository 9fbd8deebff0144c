"""tools/check_config.py says all at once, and tools/train.py what it can before it writes."""

import re
import shutil
from types import SimpleNamespace

import cv2
import pytest
import torch

from gcp_mm import get_model
from tests.helpers.runs import CLS, ROOT

TOOL = 'tools/check_config.py'
DET = 'configs/digits/mask-rcnn_r18-gcp-m_fpn_4e_digits.py'
CHECKS = ['packages', 'keys', 'head', 'checkpoints', 'data', 'annotations', 'classes']
CHECKS += ['evaluation', 'cores', 'schedule', 'batch', 'work_dir', 'collation', 'network']
CHECKS += ['weights', 'metrics', 'step', 'disk']


def table(output):
    """{name: [(status, text)]} of the lines that the tool prints."""
    rows = {}
    for line in output.splitlines():
        row = re.fullmatch(r'(\w+) +(ok|WARNING|ERROR|skipped) +(.+)', line)
        if row:
            rows.setdefault(row[1], []).append((row[2], row[3]))
    return rows


def data(root):
    names = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [f'{name}.dataset.data_root={root}' for name in names]


def test_classifier(run_tool, digits, tmp_path):
    done = run_tool(TOOL, CLS, '--work-dir', tmp_path / 'run', '--cfg-options', *data(digits))
    assert done.returncode == 0, done.stdout
    rows = table(done.stdout)
    assert list(rows) == CHECKS
    assert {status for found in rows.values() for status, _ in found} == {'ok', 'skipped'}
    assert re.match(r'loss \d\.\d+; OptimWrapper trains ', rows['step'][0][1])
    assert not list(tmp_path.iterdir())


def test_everything_that_is_wrong_is_said(call_tool, capsys, tmp_path):
    torch.save({'conv.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    options = [
        *('model.neck.reducton=256', 'model.head.in_channels=512', 'train_cfg.max_epochs=10'),
        *('train_dataloader.batch_size=32', f'load_from={tmp_path}/other.pth'),
        *data(tmp_path / 'nowhere'),
    ]
    with pytest.raises(SystemExit) as end:
        call_tool(
            TOOL, CLS, *('--gpus', 4, '--work-dir', tmp_path / 'run'), '--cfg-options', *options
        )
    assert end.value.code == 1
    rows = table(capsys.readouterr().out)
    assert list(rows) == CHECKS
    errors = {name: found[0][1] for name, found in rows.items() if found[0][0] == 'ERROR'}
    assert list(errors) == ['head', 'data']  # those that would fail by the head say nothing
    assert "'reducton'" in errors['head']
    assert rows['network'][0][0] == 'skipped'
    warnings = {name: found[0][1] for name, found in rows.items() if found[0][0] == 'WARNING'}
    assert list(warnings) == ['schedule', 'batch']
    assert '4 processes are 128' in warnings['batch']


def test_rate_that_will_be_scaled_and_weights_of_another_network(call_tool, capsys, tmp_path):
    torch.save({'conv.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(SystemExit):
        call_tool(
            *(TOOL, CLS, '--gpus', '4', '--auto-scale-lr'),
            *('--cfg-options', f'load_from={tmp_path}/other.pth', *data(tmp_path / 'nowhere')),
        )
    rows = table(capsys.readouterr().out)
    assert rows['batch'][0][1].startswith('lr=0.1 for a batch of 64 is scaled to 0.4: ')
    assert rows['weights'][0][0] == 'ERROR'
    assert rows['step'][0][0] == 'skipped'  # there are no data


def test_detector(call_tool, capsys, scenes, tmp_path):
    backbone = tmp_path / 'backbone.pth'
    torch.save(dict(state_dict=get_model(CLS).state_dict()), backbone)
    annotations = scenes / 'annotations/instances_val.json'
    with pytest.raises(SystemExit) as end:
        call_tool(
            *(TOOL, DET, '--work-dir', tmp_path, '--cfg-options', *data(scenes)),
            *(f'{split}_evaluator.ann_file={annotations}' for split in ('val', 'test')),
            *(f'model.backbone.init_cfg.checkpoint={backbone}', 'param_scheduler.0.end=1'),
        )
    rows = table(capsys.readouterr().out)
    assert end.value.code == 0, rows
    assert list(rows) == CHECKS
    assert {status for found in rows.values() for status, _ in found} == {'ok', 'skipped'}
    assert rows['weights'][0][1].startswith('backbone: all 120 tensors come from ')
    assert [text for _, text in rows['classes']] == [
        f'model.roi_head.{head}.num_classes=10, and the data have 10 classes'
        for head in ('bbox_head', 'mask_head')
    ]
    assert 'loss_mask' in rows['step'][0][1]


def test_validation_that_makes_no_batch_stops_a_training_before_it_writes(
    call_tool, few_digits, tmp_path
):
    """Not after its first epoch."""
    file = next((few_digits / 'val/3').iterdir())
    cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (40, 48)))
    with pytest.raises(ValueError, match=r"val_dataloader: 64 images .*dict\(type='Resize'"):
        call_tool(
            *('tools/train.py', CLS, '--work-dir', tmp_path / 'run'),
            *('--cfg-options', *data(few_digits)),
        )
    assert not (tmp_path / 'run').exists()


def test_training_logs_warnings(call_tool, short_cls, tmp_path):
    call_tool(
        *('tools/train.py', CLS, '--work-dir', tmp_path),
        *('--cfg-options', *short_cls, 'train_cfg.val_begin=2'),
    )
    (log,) = tmp_path.glob('*/*.log')
    text = log.read_text()
    assert 'WARNING - train_cfg.val_begin=2, and the training has 1 epochs' in text
    assert 'WARNING - auto_scale_lr.base_batch_size says 64, and 8 images x 1 process are 8' in text


def test_training_stops_on_a_full_disk(call_tool, monkeypatch, short_cls, tmp_path):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=0))
    with pytest.raises(ValueError, match=r'0\.00 GiB are free on the disk of .*make room'):
        call_tool('tools/train.py', CLS, '--work-dir', tmp_path, '--cfg-options', *short_cls)
    assert not list(tmp_path.glob('*.pth'))


def test_page_has_every_check():
    page = (ROOT / 'docs/guides/check_config.md').read_text()
    assert list(table(page)) == CHECKS
    rows = re.findall(r'^\| `(\w+)` \|', page, re.M)
    assert rows == CHECKS
