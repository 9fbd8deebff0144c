"""Pictures and tables of the loss's landscape, from files as runs leave them."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from gcp_mm._io import append_jsonl
from tests.helpers.runs import CLS, NARROW, ROOT


def write_run(path, loss_widths, gradient_widths, etas=(0.1, 75), start=0):
    path.mkdir()
    for i, (loss, gradient) in enumerate(zip(loss_widths, gradient_widths, strict=True)):
        append_jsonl(
            path / 'landscape.jsonl',
            dict(
                iter=start + 10 * i,
                epoch=0,
                etas=etas,
                losses=[1 + loss, 1],
                gradient_distances=[0.5, 0.5 + gradient],
            ),
        )
    return path


def test_bands_and_their_ratio(call_tool, capsys, tmp_path):
    runs = [
        f'GAP={write_run(tmp_path / "gap0", (2, 4, 100), (8, 16, 100))}',
        f'GAP={write_run(tmp_path / "gap1", (4, 8), (8, 16))}',
        f'GCP={write_run(tmp_path / "gcp", (1, 3), (4, 4)) / "landscape.jsonl"}',
    ]
    call_tool('tools/plot_landscape.py', *runs, '--out', tmp_path / 'out')
    printed = capsys.readouterr().out
    text = (tmp_path / 'out/landscape.md').read_text()
    assert text in printed
    # The third measurement is that of one run alone.
    assert '2 measurements from step 0 to 10; runs: GAP 2, GCP 1.' in text
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()[2:]]
    assert rows[0][1:] == ['GAP', 'GCP', 'GAP / GCP']
    assert rows[2:] == [
        ['loss, mean', '4.5 ± 2.1', '2', '2.25 ± 1.1'],
        ['loss, maximum', '6 ± 2.8', '3', '2 ± 0.94'],
        ['gradient, mean', '12 ± 0', '4', '3 ± 0'],
        ['gradient, maximum', '16 ± 0', '4', '4 ± 0'],
    ]
    assert (tmp_path / 'out/landscape.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    ('other', 'words'),
    [
        (dict(etas=(0.1, 1)), 'another eta_range'),
        (dict(start=5), 'no step in common'),
    ],
)
def test_runs_that_cannot_be_compared(call_tool, tmp_path, other, words):
    runs = write_run(tmp_path / 'a', (1,), (1,)), write_run(tmp_path / 'b', (1,), (1,), **other)
    with pytest.raises(ValueError, match=words):
        call_tool('tools/plot_landscape.py', *runs, '--out', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_run_that_was_resumed_with_other_steps(call_tool, tmp_path):
    first = write_run(tmp_path / 'a', (1, 1), (1, 1))
    second = write_run(tmp_path / 'b', (1,), (1,))
    write_run(tmp_path / 'c', (1,), (1,), etas=(0.1, 1), start=10)
    with (second / 'landscape.jsonl').open('a') as file:
        file.write((tmp_path / 'c/landscape.jsonl').read_text())
    with pytest.raises(ValueError, match='another eta_range'):
        call_tool('tools/plot_landscape.py', first, second, '--out', tmp_path / 'out')


@pytest.mark.parametrize(
    ('key', 'bad'),
    [
        ('iter', None),
        ('iter', 'x'),
        ('etas', 3),
        ('losses', []),
        ('losses', ['x']),
        ('gradient_distances', [None]),
    ],
)
def test_damaged_measurements_are_named(call_tool, tmp_path, key, bad):
    record = dict(iter=0, etas=[1.0], losses=[1.0, 2.0], gradient_distances=[0.1, 0.2])
    append_jsonl(tmp_path / 'landscape.jsonl', record | {key: bad})
    with pytest.raises(ValueError, match=r"landscape\.jsonl'.*" + key):
        call_tool('tools/plot_landscape.py', tmp_path, '--out', tmp_path / 'out')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    cfg = Config.fromfile(ROOT / CLS)
    cfg.merge_from_dict(NARROW)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return path


def test_sharpness_of_a_checkpoint(call_tool, capsys, checkpoint, digits, monkeypatch):
    monkeypatch.chdir(ROOT)
    call_tool(
        *('tools/landscape.py', CLS, checkpoint, '--images', 6, '--batch-size', 4),
        *('--products', 2, '--tolerance', 0.5, '--grid', 3, '--cfg-options'),
        *(f'{split}_dataloader.dataset.data_root={digits}' for split in ('train', 'val')),
        *(f'{key}={value}' for key, value in NARROW.items()),
    )
    printed = capsys.readouterr().out
    out = checkpoint.parent / 'landscape'
    found = json.loads((out / 'landscape.json').read_text())
    assert found['images'] == 6
    assert found['smallest_eigenvalue'] <= found['sharpness_along_gradient']
    assert found['sharpness_along_gradient'] <= 1.5 * found['largest_eigenvalue']
    assert len(found['density']['values']) == 1024
    # Small steps change the gradient by H g, of which the sharpness is the part along g.
    assert found['smoothness'][0] >= abs(found['sharpness_along_gradient']) * 0.99
    surface = torch.tensor(found['surface'])
    assert surface.shape == (3, 3)
    assert surface[1, 1].item() == pytest.approx(found['loss'], rel=1e-5)
    assert surface.isfinite().all()
    assert (out / 'landscape.md').read_text() in printed
    assert (out / 'surface.png').stat().st_size > 10_000
