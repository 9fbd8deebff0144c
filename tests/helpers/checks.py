"""Checks of a config, or of a dataset, made alone."""

from mmengine.config import Config

from gcp_mm.checks import check_config
from gcp_mm.checks.context import Context
from gcp_mm.checks.run import run_check


def findings(check, cfg, split='train', processes=1, **context):
    """What a check finds, in the scope of the config."""
    return list(run_check(check, Context(cfg, split, processes, **context)))


def tried(cfg, *checks, split='train'):
    """The context of some checks, made one after the other, and their findings by name."""
    context, found = Context(cfg, split), {}
    for check in checks:
        found[check.__name__.removeprefix('check_')] = list(run_check(check, context))
    return context, found


def texts(status, check, cfg, split='train', processes=1, **context):
    """Texts of the findings of a check that have a status."""
    found = findings(check, cfg, split, processes, **context)
    return [finding.text for finding in found if finding.status == status]


def inspect(dataset, scope='mmpretrain', status='ok', split='train'):
    """Text of the one error at level 'data' for a dataset, or of what is said of its list."""
    cfg = {'default_scope': scope, f'{split}_dataloader': dict(dataset=dataset)}
    found = check_config(Config(cfg), level='data')
    wanted = [each for each in found if status == 'error' or each.check == 'annotations']
    (text,) = (each.text for each in wanted if each.status == status)
    return text
