"""K-FAC in two processes, and in a training by the real config and command."""

import pytest
import torch

from tests.helpers.kfac_net import batch, make
from tests.helpers.runs import free_port, run_pair

CONFIG = 'configs/digits/resnet18_1xb64-5e-kfac_digits.py'


def train_process(rank, port, path):
    """One of two processes, each with half of every batch."""
    import torch.distributed as dist
    from mmengine.model import MMDistributedDataParallel

    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    net, wrapper = make(interval=2)
    ddp = MMDistributedDataParallel(net, device_ids=None)
    for step in range(4):
        half = {key: value[3 * rank : 3 * rank + 3] for key, value in batch(seed=step).items()}
        ddp.train_step(half, wrapper)
    torch.save((net.state_dict(), wrapper.state_dict()['kfac']), f'{path}/{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_step_as_one_with_both_halves(tmp_path):
    run_pair(train_process, int(free_port()), str(tmp_path))
    net, wrapper = make(interval=2)
    for step in range(4):
        net.train_step(batch(seed=step), wrapper)
    for rank in (0, 1):
        weights, factors = torch.load(tmp_path / f'{rank}.pth')
        for key, value in net.state_dict().items():
            torch.testing.assert_close(weights[key], value)
        for name, pair in wrapper.state_dict()['kfac'].items():
            for found, expected in zip(factors[name], pair, strict=True):
                torch.testing.assert_close(found, expected)


def test_config_trains_and_resumes(run_tool, short_cls, tmp_path):
    options = [
        *('--work-dir', tmp_path, '--cfg-options'),
        *(option for option in short_cls if 'save_optimizer' not in option),
        *('model.backbone.stem_channels=8', 'model.backbone.base_channels=8'),
        *('model.head.in_channels=64', 'default_hooks.logger.interval=1'),
    ]
    command = ('tools/train.py', CONFIG)
    done = run_tool(*command, *options)
    assert done.returncode == 0, done.stdout
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['optimizer']
    assert len(state['kfac']) == 21  # 20 convolutions and the classifier
    assert state['kfac']['head.fc'][0].shape == (65, 65)
    done = run_tool(
        *(*command, '--resume', *options, 'train_cfg.max_epochs=2', 'param_scheduler.end=2')
    )
    assert done.returncode == 0, done.stdout
    assert 'after 1 epoch, ' in done.stdout
