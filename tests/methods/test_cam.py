"""The CAM family over hand-made records."""

import pytest
import torch

from seewhy.engine.record import Head, LayerRecord, Record
from seewhy.errors import SeewhyError
from seewhy.methods import CAM, GradCAM, GuidedGradCAM

ACTIVATION = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # (1, 2, 1, 2)


def test_grad_cam_weights_channels_by_their_mean_gradient_and_keeps_what_is_positive():
    gradient = torch.tensor([[[[2.0, 0.0]], [[-1.0, -3.0]]]])  # means 1 and -2
    values = GradCAM().compute(LayerRecord(activation=ACTIVATION, gradient=gradient))
    assert values.tolist() == [[[0.0, 4.0]]]  # 1*1 - 2*3 < 0; 1*2 + 2*1


def test_guided_grad_cam_is_the_product_at_the_inputs_size():
    gradient = torch.tensor([[[[2.0, 0.0]], [[-1.0, -3.0]]]])
    guided = torch.ones(1, 3, 1, 2) * torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    record = LayerRecord(activation=ACTIVATION, gradient=gradient, input=guided, input_gradient=guided, sides=(1, 2))
    assert GuidedGradCAM().compute(record).tolist() == [[[[0.0, 4.0]], [[0.0, -4.0]], [[0.0, 0.0]]]]


def record(score):
    head = Head("layer", ACTIVATION, torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([0.5, -0.5]))
    outputs = torch.tensor([[3.0, 2.5]])  # 1.5 + 1 + .5, 2 * 1.5 - .5
    return Record(head=head, outputs=outputs, scores=torch.tensor([score]), output_gradient=torch.tensor([[0.0, 1.0]]))


def test_cam_is_the_weighted_sum_and_its_mean_and_bias_make_the_score():
    assert CAM().compute(record(2.5)).tolist() == [[[2.0, 4.0]]]


def test_cam_refuses_a_score_that_it_does_not_add_up_to():
    with pytest.raises(SeewhyError, match="misses the score"):
        CAM().compute(record(2.6))
