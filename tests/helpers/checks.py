"""One check of a config, made alone."""

from mmengine.registry import DefaultScope

from gcp_mm.checks.context import Context


def findings(check, cfg, split='train', processes=1, **context):
    """What a check finds, in the scope of the config."""
    context = Context(cfg, split, processes, **context)
    with DefaultScope.overwrite_default_scope(context.scope):
        return list(check(context))


def texts(status, check, cfg, split='train', processes=1, **context):
    """Texts of the findings of a check that have a status."""
    found = findings(check, cfg, split, processes, **context)
    return [finding.text for finding in found if finding.status == status]
