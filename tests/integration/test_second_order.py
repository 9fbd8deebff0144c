"""The tool that compares the gradients of GCP, GAP and GAP with K-FAC."""

import json

import pytest
import torch

from gcp_mm import get_model
from tests.helpers.runs import CLS, ROOT

TOOL = 'tools/second_order.py'


def test_tool_compares_the_gradients(call_tool, digits, tmp_path, capsys):
    config, checkpoint = tmp_path / 'narrow.py', tmp_path / 'narrow.pth'
    config.write_text(
        f"_base_ = '{ROOT / CLS}'\n"
        'model = dict(backbone=dict(stem_channels=8, base_channels=8), '
        'neck=dict(in_channels=64, reduction=(12,)), head=dict(in_channels=78))\n'
        f"data = dict(num_workers=0, batch_size=12, dataset=dict(data_root='{digits}'))\n"
        'train_dataloader = val_dataloader = test_dataloader = data\n'
    )
    torch.manual_seed(0)
    torch.save(dict(state_dict=get_model(config).state_dict()), checkpoint)
    call_tool(
        *(TOOL, config, checkpoint, '--out', tmp_path, '--split', 'test', '--images', 24),
        *('--head-images', 60, '--damping', '1e-2', '1e8'),
    )
    report = (tmp_path / 'second_order.md').read_text()
    assert report in capsys.readouterr().out
    assert '| autograd, exact square root | 24 | 1 | 1 | 1 | 1 |  |' in report
    results = json.loads((tmp_path / 'second_order.json').read_text())
    assert (results['images'], results['head_images']) == (24, 60)
    assert results['layer'] == 'neck.reduction.0.conv'
    formulas = {row['dL/dX by']: row for row in results['formulas']}
    assert formulas['autograd, exact square root']['min'] > 0.9999
    assert formulas['autograd, 5 Newton-Schulz iterations']['min'] > 0.9
    assert (results['positions'], results['channels']) == (4, 12)
    weak, strong = results['weight'][-2:]
    assert (weak['damping'], strong['damping']) == (0.01, 1e8)
    # So much damping leaves nothing of the preconditioner
    assert strong['cosine with GAP'] == pytest.approx(1, abs=1e-4)
    assert strong['condition of H^-1'] == pytest.approx(1, abs=1e-2)
    assert weak['condition of H^-1'] > 2
    assert weak['cosine with GAP'] < 0.999


def test_tool_wants_gcp(call_tool, short_cls, tmp_path):
    config, checkpoint = CLS.replace('-gcp', ''), tmp_path / 'gap.pth'
    torch.save(dict(state_dict=get_model(config).state_dict()), checkpoint)
    with pytest.raises(ValueError, match=r'neck GlobalCovariancePooling .*GlobalAverage'):
        call_tool(TOOL, config, checkpoint, '--out', tmp_path, '--cfg-options', *short_cls)
    options = (*short_cls, 'model.neck.norm=none')
    torch.save(dict(state_dict=get_model(CLS).state_dict()), checkpoint)
    with pytest.raises(ValueError, match=r"got norm='none'"):
        call_tool(TOOL, CLS, checkpoint, '--out', tmp_path, '--cfg-options', *options)
