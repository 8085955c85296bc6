from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headrace.errors import RecipeError
from headrace.tasks import multi_label
from headrace.tasks._base import Task

# logits whose sigmoid is 0.75, 0.5 and 0.2, 0.9
LOGITS = torch.tensor([[math.log(3), 0.0], [-math.log(4), math.log(9)]])
TARGETS = torch.tensor([[1.0, 0.0], [0.0, 0.0]])


def test_the_module_is_a_task():
    task: Task = multi_label
    assert task.scores(LOGITS).shape == (2, 2)


def test_the_loss_of_each_text_is_the_mean_over_its_labels():
    # (-log 0.75 - log 0.5) / 2 = (0.287682 + 0.693147) / 2 = 0.490415
    # (-log 0.8 - log 0.1) / 2 = (0.223144 + 2.302585) / 2 = 1.262864
    found = multi_label.loss(LOGITS, TARGETS)
    torch.testing.assert_close(found, torch.tensor([0.490415, 1.262864]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.mean(), torch.nn.BCEWithLogitsLoss()(LOGITS, TARGETS))


def test_label_smoothing_moves_targets_towards_a_half():
    # targets 0.9 and 0.1 with s = 0.2
    # (0.9 * 0.287682 + 0.1 * 1.386294 + 0.693147) / 2 = (0.258914 + 0.138629 + 0.693147) / 2 = 0.545345
    # (0.1 * 1.609438 + 0.9 * 0.223144 + 0.1 * 0.105361 + 0.9 * 2.302585) / 2
    #   = (0.160944 + 0.200829 + 0.010536 + 2.072327) / 2 = 1.222318
    found = multi_label.loss(LOGITS, TARGETS, label_smoothing=0.2)
    torch.testing.assert_close(found, torch.tensor([0.545345, 1.222318]), atol=1e-5, rtol=0)


def test_pos_weight_multiplies_positive_targets_alone():
    # (3 * 0.287682 + 0.693147) / 2 = 0.778096; the second text has no positive target
    found = multi_label.loss(LOGITS, TARGETS, pos_weight=torch.tensor([3.0, 7.0]))
    torch.testing.assert_close(found, torch.tensor([0.778096, 1.262864]), atol=1e-5, rtol=0)


def test_the_loss_is_computed_in_float32_and_micro_batches_add_up():
    assert multi_label.loss(LOGITS.bfloat16(), TARGETS).dtype == torch.float32
    parts = [multi_label.loss(LOGITS[i : i + 1], TARGETS[i : i + 1]) for i in range(2)]
    assert torch.equal(torch.cat(parts), multi_label.loss(LOGITS, TARGETS))


def test_class_weights_are_refused():
    with pytest.raises(RecipeError) as caught:
        multi_label.loss(LOGITS, TARGETS, class_weights=torch.ones(2))
    assert caught.value.what == "class_weights has no meaning for multi_label"
    assert (caught.value.where, caught.value.next) == ("fit.class_weights", "use fit.pos_weight")


def test_scores_are_the_sigmoid_of_each_label():
    expected = torch.tensor([[0.75, 0.5], [0.2, 0.9]])
    torch.testing.assert_close(multi_label.scores(LOGITS.double()), expected, atol=1e-6, rtol=0)


def test_labels_at_or_above_a_half_are_given_and_clean_text_gives_an_empty_list():
    scores = np.array([[0.75, 0.5], [0.2, 0.9], [0.49, 0.0]])
    answers = multi_label.decode(scores, threshold=None)
    assert answers == [[0, 1], [1], []]
    assert all(type(index) is int for answer in answers for index in answer)
    assert multi_label.decode(np.zeros((0, 2))) == []


def test_each_label_may_have_its_own_threshold():
    scores = np.array([[0.75, 0.5], [0.2, 0.9]])
    assert multi_label.decode(scores, threshold=0.8) == [[], [1]]
    assert multi_label.decode(scores, threshold=np.array([0.2, 0.95])) == [[0], [0]]
    with pytest.raises(RecipeError, match="there are 3 thresholds for 2 labels"):
        multi_label.decode(scores, threshold=np.array([0.1, 0.2, 0.3]))
