"""What checks are given, and what they return."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from torch import nn

# Variables of the environment that hold the number of a process, and of all, by launcher
RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')
WORLD_SIZES = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        check: name of the check.
        status: 'ok', 'warning' (the run starts, but may differ from what you intend), 'error' (the
            run does not start, or fails later) or 'skipped' (the check does not apply, or cannot
            run).
        text: the result and, for a warning or an error, the remedy.
    """

    check: str
    status: str
    text: str


class Opened(NamedTuple):
    """A dataset of a config.

    Attributes:
        config: its config.
        dataset: the dataset, without its transforms, its list not serialized; None for a remote
            one, one of another package, or where something is wrong.
        findings: what is wrong with it.
    """

    config: dict
    dataset: BaseDataset | None
    findings: list[Finding]


@dataclass
class Context:
    """What a check looks at.

    Attributes:
        cfg: the final config, command-line options merged.
        split: 'train', which also validates, or 'test'.
        processes: number of processes of the run.
        trust: read checkpoints that hold Python objects, which executes what is in them.
        workers: number of processes that decode images; None for one for each CPU.
        level: of :func:`.run_checks`.
        errors: what was wrong so far, for checks that would fail by it again.
        model: the network, None until :func:`.network.check_network` has built it.
        pretrained: name, module and `init_cfg` of the parts of `model` that start from checkpoints.
        datasets: what :func:`.data.open_datasets` has opened, by dataloader.
        contents: of the annotation files read so far, by path, until they have been compared.
    """

    cfg: Config
    split: str = 'train'
    processes: int = 1
    trust: bool = False
    workers: int | None = None
    level: str = 'fast'
    errors: list[Finding] = field(default_factory=list)
    model: nn.Module | None = None
    pretrained: list[tuple[str, nn.Module, dict]] = field(default_factory=list)
    datasets: dict[str, list[Opened]] = field(default_factory=dict)
    contents: dict[str, dict] = field(default_factory=dict)

    @property
    def scope(self) -> str | None:
        """Name of the framework, 'mmpretrain' or 'mmdet'."""
        return self.cfg.get('default_scope')

    @property
    def every_image(self) -> bool:
        """Whether the data alone are checked, of all splits, and every image is looked for."""
        return self.level in ('data', 'images')

    def has_failed(self, check: str, path: str = '') -> bool:
        """Whether a check has found an error, of what is at or beneath a path in the config."""
        return any(each.check == check and each.text.startswith(path) for each in self.errors)


def splits_of(context: Context) -> tuple[str, ...]:
    """The splits whose data a run uses; all that differ at the levels of the data alone."""
    if not context.every_image:
        return ('train', 'val') if context.split == 'train' else ('test',)
    cfg = context.cfg
    same = cfg.get('test_dataloader') == cfg.get('val_dataloader')
    same &= cfg.get('test_evaluator') in (None, cfg.get('val_evaluator'))
    return ('train', 'val') if same else ('train', 'val', 'test')


def world_size(launcher: str) -> int:
    """Number of processes of a run with `launcher`, from the environment variables."""
    return int(os.environ.get(WORLD_SIZES.get(launcher, ''), 1))


def is_first_process(cfg: Config) -> bool:
    """Whether this is the first process of a config's run, as its environment says."""
    return os.environ.get(RANKS.get(cfg.get('launcher'), ''), '0') == '0'


def raise_errors(findings: Iterable[Finding]) -> None:
    """Raise ValueError if there are errors among the findings, with one line for each."""
    errors = [finding.text for finding in findings if finding.status == 'error']
    if errors:
        raise ValueError('\n'.join(errors))


def warnings_in(findings: Iterable[Finding]) -> list[str]:
    """Texts of the warnings among the findings."""
    return [finding.text for finding in findings if finding.status == 'warning']


def walk(node, path: str = '') -> Iterator[tuple[str, dict]]:
    """Every dict in `node`, itself included, with its path such as 'model.neck[0]'."""
    if isinstance(node, dict):
        yield path, node
        children = [(f'{path}.{key}' if path else str(key), value) for key, value in node.items()]
    elif isinstance(node, list | tuple):
        children = [(f'{path}[{i}]', value) for i, value in enumerate(node)]
    else:
        return
    for child_path, child in children:
        yield from walk(child, child_path)


def name_of(config: dict) -> str:
    """Name of the class that a config builds, without its scope; '' where it names none."""
    kind = config.get('type', '')
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')
