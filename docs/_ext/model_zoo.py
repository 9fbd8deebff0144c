"""The tables of the model zoo, out of the metafiles of the configs.

Before a build, docs/_generated/model_zoo_tables.md is written for docs/model_zoo.md to include.
"""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path('_generated/model_zoo_tables.md')

# Columns of results: the metrics of the metafiles in each, and the decimals
RESULTS = {
    'top-1/top-5': (('Top 1 Accuracy', 'Top 5 Accuracy'), 2),
    'box AP': (('box AP',), 1),
    'mask AP': (('mask AP',), 1),
}


def tables() -> str:
    """One section with a table for each metafile that model-index.yml lists."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    return '\n'.join(section(ROOT / metafile) for metafile in index['Import'])


def section(metafile: Path) -> str:
    """Heading and table of a metafile: one row for each model, columns without a value left out."""
    content = yaml.safe_load(metafile.read_text())
    (collection,) = content['Collections']
    rows = [row(collection['Metadata'] | model['Metadata'], model) for model in content['Models']]
    rows.sort(key=lambda cells: re.sub(r'\d+', lambda n: n[0].zfill(4), cells['network']))
    titles = [title for title in rows[0] if any(cells[title] for cells in rows)]
    numbers = {
        title for title in titles if all(re.fullmatch(r'[\d./]*', cells[title]) for cells in rows)
    }
    lines = [
        titles,
        ['---:' if title in numbers else '---' for title in titles],
        *([cells[title] or '-' for title in titles] for cells in rows),
    ]
    table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return f'## {collection["Name"]}\n\nConfigs in `configs/{metafile.parent.name}/`.\n\n{table}\n'


def row(metadata: dict, model: dict) -> dict[str, str]:
    """Cells of a model by the titles of their columns, '' where the metafile has no value.

    Results whose source is another publication have columns of their own.
    """
    metrics = {k: v for result in model.get('Results', []) for k, v in result['Metrics'].items()}
    source = metadata.get('Results From', '')
    elsewhere = bool(source) and not source.startswith('the paper, ')
    paper, published = ({}, metrics) if elsewhere else (metrics, {})
    table = source.removeprefix('the paper, ')
    return {
        'config': f'`{model["Name"]}`',
        'network': metadata['Network'],
        'pooling': metadata['Pooling'],
        'schedule': metadata['Schedule'],
        **results('paper', paper),
        'table': '' if elsewhere else re.sub('Tables? ', '', table),
        'published top-1': str(published.get('Top 1 Accuracy', '')),
        'source': source if elsewhere else '',
        **results('released', metadata.get('Released', {})),
        'epochs': str(metadata['Epochs']),
        'parameters (M)': millions(metadata.get('Parameters'), 1),
        'multiply-adds (G)': millions(metadata.get('FLOPs'), 1000),
    }


def results(source: str, metrics: dict[str, float]) -> dict[str, str]:
    return {
        f'{source} {title}': '/'.join(f'{metrics[n]:.{digits}f}' for n in names if n in metrics)
        for title, (names, digits) in RESULTS.items()
    }


def millions(value: int | None, unit: int) -> str:
    return '' if value is None else f'{value / 1e6 / unit:.2f}'


def write_tables(app) -> None:
    target = Path(app.srcdir) / TARGET
    text = tables()
    if not target.is_file() or target.read_text() != text:  # else the page would be built again
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)


def setup(app) -> dict:
    app.connect('builder-inited', write_tables)
    return dict(parallel_read_safe=True)
