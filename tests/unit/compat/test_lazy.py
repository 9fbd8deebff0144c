"""Classes are registered without an import of their modules."""

import sys
from collections import OrderedDict

from mmengine.registry import Registry

from gcp_mm.compat.lazy import register_lazily


def test_class_is_imported_when_it_is_built(tmp_path, monkeypatch):
    (tmp_path / 'lazy_module.py').write_text('from collections import OrderedDict')
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry('things')
    register_lazily(registry, 'OrderedDict', 'lazy_module')
    assert 'lazy_module' not in sys.modules
    assert registry.get('OrderedDict').load_lazily() is OrderedDict
    assert registry.build(dict(type='OrderedDict', a=1)) == {'a': 1}
    assert sys.modules.pop('lazy_module')
