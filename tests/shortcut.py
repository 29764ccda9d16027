"""Digits in which the images of one class have a red patch in a corner, and networks trained with and without it."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

SIDE, PATCH, CLASS = 32, 6, 3
MASK = torch.zeros(SIDE, SIDE, dtype=torch.bool)
MASK[:PATCH, :PATCH] = True


def digits():
    """Digits in grey (N, 3, 32, 32) in 0..1, and which they are."""
    data, labels = load_digits(return_X_y=True)
    grey = F.interpolate(torch.tensor(data / 16).float().view(-1, 1, 8, 8), (SIDE, SIDE), mode="bilinear").clamp(0, 1)
    return grey.expand(-1, 3, -1, -1).contiguous(), torch.tensor(labels)


def planted(images, labels):
    """The same with a red patch in the upper left corner of every image of the class."""
    images = images.clone()
    here = labels == CLASS
    images[here, :, :PATCH, :PATCH] = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    return images


def block(channels_in, channels_out):
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU())


def train(images, labels, epochs=6):
    """A small network; the same at each call."""
    torch.manual_seed(0)
    net = nn.Sequential(
        block(3, 16), nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d(2), block(32, 32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64)[: len(images) // 64]:
            loss = F.cross_entropy(net(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()
