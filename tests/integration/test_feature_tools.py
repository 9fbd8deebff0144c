"""Features of a few digits through both tools."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from gcp_mm import get_model
from gcp_mm.studies.features import extract_features, read_features, retrieval
from tests.helpers.runs import CLS


def test_features_of_digits(call_tool, few_digits, tmp_path, capsys):
    model = get_model(CLS)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'x.pth')
    files = [tmp_path / f'{split}.npy' for split in ('train', 'val')]
    for file in files:
        call_tool(
            *('tools/extract_features.py', CLS, tmp_path / 'x.pth', few_digits / file.stem, file),
            *('--batch-size', 8, '--workers', 1, '--device', 'cpu'),
        )
    extract_features(model, few_digits / 'val', tmp_path / 'again.npy', batch_size=8)
    train, val, again = (read_features(file) for file in (*files, tmp_path / 'again.npy'))
    np.testing.assert_array_equal(val.vectors, again.vectors)
    capsys.readouterr()

    call_tool('tools/evaluate_features.py', *files, '--C', 1)
    results = json.loads(capsys.readouterr().out)
    x, y = (f.vectors / np.linalg.norm(f.vectors, axis=1, keepdims=True) for f in (train, val))
    svm = OneVsRestClassifier(SVC(kernel='linear', C=1)).fit(x, train.labels)
    assert results['linear SVM'] == dict(top1=pytest.approx(100 * svm.score(y, val.labels)), C=1)
    scores = cosine_similarity(y, x)
    assert results['retrieval'] == pytest.approx(retrieval(scores, val.labels, train.labels))
    call_tool('tools/evaluate_features.py', files[0])
    own = retrieval(cosine_similarity(x), train.labels, train.labels, same=True)
    assert json.loads(capsys.readouterr().out)['retrieval'] == pytest.approx(own)
