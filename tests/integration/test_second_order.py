"""The tool that compares the gradients of GCP, GAP and GAP with K-FAC."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from tests.helpers.runs import ROOT


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory, digits):
    """Configs of narrow GAP and GCP networks on the digits, and a checkpoint of each."""
    folder = tmp_path_factory.mktemp('second_order')
    found = []
    for name, neck, width in (
        ('resnet18-gcp_1xb64-5e_digits', 'dict(in_channels=64, reduction=(12,))', 78),
        ('resnet18_1xb64-5e_digits', 'dict()', 64),
    ):
        path = folder / f'{name}.py'
        path.write_text(
            f"_base_ = '{ROOT}/configs/digits/{name}.py'\n"
            'model = dict(backbone=dict(stem_channels=8, base_channels=8), '
            f'neck={neck}, head=dict(in_channels={width}))\n'
            f"data = dict(num_workers=0, batch_size=12, dataset=dict(data_root='{digits}'))\n"
            'train_dataloader = val_dataloader = test_dataloader = data\n'
        )
        cfg = Config.fromfile(path)
        init_default_scope('mmpretrain')
        torch.manual_seed(0)
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict()), path.with_suffix('.pth'))
        found += [path, path.with_suffix('.pth')]
    return found


def run_second_order(call_tool, files, out, *options):
    gcp, gcp_checkpoint, gap, gap_checkpoint = files
    call_tool(
        *('tools/second_order.py', gcp, gcp_checkpoint, '--gap', gap, gap_checkpoint),
        *('--out', out, *options),
    )


def test_tool_compares_the_gradients(call_tool, checkpoints, tmp_path, capsys):
    options = ('--split', 'test', '--images', 24, '--head-images', 60, '--damping', '1e-2', '1e8')
    run_second_order(call_tool, checkpoints, tmp_path, *options)
    report = (tmp_path / 'second_order.md').read_text()
    assert report in capsys.readouterr().out
    assert '| autograd, exact square root | 24 | 1.0000 | 1.0000 | 1.0000 | 1 |  |' in report
    assert (tmp_path / 'second_order.png').stat().st_size > 10_000
    results = json.loads((tmp_path / 'second_order.json').read_text())
    assert (results['images'], results['head_images']) == (24, 60)
    assert results['layers'] == dict(GCP='neck.reduction.0.conv', GAP='backbone.layer4.1.conv2')
    formulas = {row['dL/dX by']: row for row in results['formulas']}
    assert formulas['autograd, 5 Newton-Schulz iterations']['min'] > 0.9
    _, gap, own_gap = results['features']
    assert abs(gap['cosine with GCP: mean']) < 1e-4
    assert gap['rank'] == own_gap['rank'] == 1
    for rows in (results['weight'], results['classifier'], results['gap_weight']):
        weak, strong = rows[-2:]
        assert (weak['damping'], strong['damping']) == (0.01, 1e8)
        # So much damping leaves nothing of the preconditioner
        assert strong['cosine with GAP'] == pytest.approx(1, abs=1e-4)
        assert strong['condition of H^-1'] == pytest.approx(1, abs=1e-2)
        assert weak['condition of H^-1'] > 2
        assert weak['cosine with GAP'] < 0.999


def test_tool_wants_gcp_first(call_tool, checkpoints, tmp_path):
    words = 'expected the neck GlobalCovariancePooling, got GlobalAveragePooling'
    with pytest.raises(ValueError, match=words):
        run_second_order(call_tool, [*checkpoints[2:], *checkpoints[:2]], tmp_path)
