"""Import what every tool imports, once for all processes that are forked after it."""

import importlib

from tests.helpers.quick import make_quick

for _name in (
    *('gcp_mm.hub', 'mmpretrain.models', 'mmpretrain.datasets', 'mmpretrain.evaluation'),
    *('mmdet.models', 'mmdet.datasets', 'mmdet.evaluation', 'mmdet.visualization'),
):
    importlib.import_module(_name)
make_quick()
