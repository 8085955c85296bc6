from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headrace.errors import RecipeError
from headrace.tasks import single_label
from headrace.tasks._base import Task

# logits whose softmax is 0.5, 0.25, 0.25 and 0.1, 0.1, 0.8
LOGITS = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(8)]])
TARGETS = torch.tensor([0, 1])


def test_the_module_is_a_task():
    task: Task = single_label
    assert task.scores(LOGITS).shape == (2, 3)


def test_the_loss_of_each_text_is_minus_the_log_of_its_labels_probability():
    # -log 0.5 and -log 0.1
    expected = torch.tensor([0.693147, 2.302585])
    torch.testing.assert_close(single_label.loss(LOGITS, TARGETS), expected, atol=1e-5, rtol=0)


def test_label_smoothing_spreads_its_share_over_all_labels():
    # 0.7 * 0.693147 + 0.3 * mean(0.693147, 1.386294, 1.386294) = 0.485203 + 0.3 * 1.155245 = 0.831777
    # 0.7 * 2.302585 + 0.3 * mean(2.302585, 2.302585, 0.223144) = 1.611810 + 0.3 * 1.609438 = 2.094641
    expected = torch.tensor([0.831777, 2.094641])
    found = single_label.loss(LOGITS, TARGETS, label_smoothing=0.3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    mean = torch.nn.CrossEntropyLoss(label_smoothing=0.3)(LOGITS, TARGETS)
    torch.testing.assert_close(found.mean(), mean)


def test_class_weights_multiply_each_texts_loss():
    # 2 * 0.693147 and 0.5 * 2.302585
    found = single_label.loss(LOGITS, TARGETS, class_weights=torch.tensor([2.0, 0.5, 1.0]))
    torch.testing.assert_close(found, torch.tensor([1.386294, 1.151293]), atol=1e-5, rtol=0)


def test_the_loss_is_computed_in_float32_and_micro_batches_add_up():
    half = single_label.loss(LOGITS.bfloat16(), TARGETS)
    assert half.dtype == torch.float32
    parts = [single_label.loss(LOGITS[i : i + 1], TARGETS[i : i + 1]) for i in range(2)]
    assert torch.equal(torch.cat(parts), single_label.loss(LOGITS, TARGETS))


def test_pos_weight_is_refused():
    with pytest.raises(RecipeError) as caught:
        single_label.loss(LOGITS, TARGETS, pos_weight=torch.ones(3))
    assert caught.value.what == "pos_weight has no meaning for single_label"
    assert (caught.value.where, caught.value.next) == ("fit.pos_weight", "use fit.class_weights")


def test_scores_are_the_softmax():
    expected = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    torch.testing.assert_close(single_label.scores(LOGITS.double()), expected, atol=1e-6, rtol=0)


def test_the_answer_is_the_highest_score_and_the_first_of_equal_ones():
    scores = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
    answers = single_label.decode(scores, threshold=None)
    assert answers == [0, 2, 0]
    assert all(type(answer) is int for answer in answers)
    assert single_label.decode(np.zeros((0, 3))) == []


def test_a_threshold_moves_the_border_between_two_labels():
    scores = np.array([[0.7, 0.3], [0.69, 0.31], [0.1, 0.9]])
    assert single_label.decode(scores, threshold=np.array([np.nan, 0.31])) == [0, 1, 1]
    with pytest.raises(RecipeError) as caught:
        single_label.decode(np.ones((1, 3)), threshold=0.5)
    assert caught.value.what == "one of 3 labels is the answer: a threshold suits two labels"
